"""A store whose listing never ends, though it lists nothing more."""

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

    def do_GET(self) -> None:
        token = next(self.server.tokens)
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
    with Store("vault", settings) as store, pytest.raises(SpooldError, match="for ever") as caught:
        list(store.list(b""))
    assert caught.value.code is errors.STORE_ANSWER
