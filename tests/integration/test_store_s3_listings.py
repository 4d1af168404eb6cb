"""A store whose listing never ends, though it lists nothing more; whose objects have no size; or
which does not know `If-Match`.
"""

import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spoold import errors
from spoold.connections.stores import StoreSettings
from spoold.errors import SpooldError
from spoold.stores.store import Store


class Endless(ThreadingHTTPServer):
    tokens: Iterator[str]


class Handler(BaseHTTPRequestHandler):
    server: Endless
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body at once: else the client waits for an acknowledgement

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", next(self.server.tokens))
        self.send_header("Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT")
        self.end_headers()

    def do_GET(self) -> None:
        token = next(self.server.tokens)
        if "Range" in self.headers:
            self.send_response(206)
            self.send_header("Content-Range", f"{self.headers['Range'].replace('=', ' ')}/2")
            self.send_header("Content-Length", "1")
            if token:
                self.send_header("ETag", token)
            self.end_headers()
            self.wfile.write(b"x")
            return
        body = (
            "<ListBucketResult><IsTruncated>true</IsTruncated>"
            f"<NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Endless]:
    with Endless(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("tokens", [itertools.repeat("same"), map(str, itertools.count())])
def test_a_listing_without_an_end_is_refused(
    server: Endless, tmp_path: Path, tokens: Iterator[str]
) -> None:
    server.tokens = tokens
    with store(server, tmp_path) as found, pytest.raises(SpooldError, match="for ever") as caught:
        list(found.list(b""))
    assert caught.value.code is errors.STORE_ANSWER


@pytest.mark.parametrize("size", ["-5", "9" * 30, "1_0"])
def test_an_object_without_a_size_is_refused(server: Endless, tmp_path: Path, size: str) -> None:
    server.tokens = itertools.repeat(size)
    with store(server, tmp_path) as found, pytest.raises(SpooldError) as caught:
        found.look(b"a")
    assert caught.value.code is errors.STORE_ANSWER


def test_a_store_that_ignores_if_match_mixes_no_versions(server: Endless, tmp_path: Path) -> None:
    server.tokens = iter(['"one"', "one", "", '"two"'])
    with store(server, tmp_path) as found:
        for begin in (0, 1, 1):
            found.open(b"a", '"one"', begin, begin + 1).close()
        with pytest.raises(SpooldError) as caught:
            found.open(b"a", '"one"', 1, 2)
    assert caught.value.code is errors.SOURCE_CHANGED


def store(server: Endless, tmp_path: Path) -> Store:
    for name in ("id", "key"):
        (tmp_path / name).write_text("abcdefgh")
        (tmp_path / name).chmod(0o600)
    settings = StoreSettings(
        kind="s3",
        bucket="vault",
        endpoint=f"http://127.0.0.1:{server.server_port}",
        access_key_id_file=str(tmp_path / "id"),
        secret_access_key_file=str(tmp_path / "key"),
    )
    return Store("vault", settings)
