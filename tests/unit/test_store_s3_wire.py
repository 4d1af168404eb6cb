"""What is said to an object store and read of its answers, without one."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from spoold import errors
from spoold.connections.stores import StoreSettings
from spoold.errors import SpooldError
from spoold.stores import answers
from spoold.stores.answers import Part
from spoold.stores.credentials import Keys
from spoold.stores.signing import Credentials, Scope, encoded_path, encoded_query, sign
from spoold.stores.upload import part_bytes

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
# The keys and signatures of the examples in Amazon's S3 API Reference.
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
SCOPE = Scope("us-east-1", datetime(2013, 5, 24, tzinfo=UTC))
HOST = "examplebucket.s3.amazonaws.com"
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        (
            "/test.txt",
            {},
            {"host": HOST, "range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "/",
            {"prefix": "J", "max-keys": "2"},
            {"host": HOST},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_requests_are_signed_as_amazons_examples_are(
    path: str, query: dict[str, str], headers: dict[str, str], signature: str
) -> None:
    sent = sign(
        EXAMPLE,
        SCOPE,
        method="GET",
        path=path,
        query=encoded_query(query),
        headers=headers,
        payload_sha256=EMPTY,
    )
    assert sent["authorization"].endswith(f"Signature={signature}")
    assert EXAMPLE.secret_access_key not in str(sent)
    assert EXAMPLE.secret_access_key not in repr(EXAMPLE)


def test_keys_of_any_bytes_become_a_path() -> None:
    assert encoded_path("/a b+c%/~é\n".encode()) == "/a%20b%2Bc%25/~%C3%A9%0A"
    assert encoded_query({"b": "/ +", "a": ""}) == "a=&b=%2F%20%2B"


def listing(contents: str = "", rest: str = "") -> bytes:
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{contents}{rest}</ListBucketResult>"
    ).encode()


def contents(key: str) -> str:
    return (
        f"<Contents><Key>{key}</Key><Size>5</Size><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-11-20T10:00:00.000Z</LastModified></Contents>"
    )


def test_keys_in_a_listing_are_decoded_as_the_store_says() -> None:
    plain = answers.page(listing(contents("a%20b+c")))
    assert [item.key for item in plain.objects] == [b"a%20b+c"]
    encoded = answers.page(listing(contents("a%20b+c%2B%0A"), "<EncodingType>url</EncodingType>"))
    (item,) = encoded.objects
    assert item == (b"a b c+\n", 5, '"e"', datetime(2026, 11, 20, 10, tzinfo=UTC))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html><body>hello</body></html>",
        listing(contents("a"))[:-5],
        listing(contents("a").replace("<Size>5</Size>", "")),
        listing(contents("a").replace("5", "five")),
        listing(contents("a").replace("2026-11-20", "yesterday")),
        listing(rest="<IsTruncated>true</IsTruncated>"),
        b'<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult/>',
        '<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult/>'.encode("utf-16"),
        '<?xml version="1.0" encoding="utf-16-le"?><!DOCTYPE a><ListBucketResult/>'.encode(
            "utf-16-le"
        ),
        listing(contents("a").replace("5", "-5", 1)),
        listing(contents("a").replace("5", "1_0", 1)),
        listing(contents("a").replace("5", "9" * 19, 1)),
    ],
)
def test_an_answer_that_is_no_listing_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it |^Contents |^the listing |^Invalid |^invalid "):
        answers.page(data)


def test_an_error_that_cannot_be_read_is_none() -> None:
    assert answers.refusal(b"<html>") == answers.Refusal("", "")
    assert answers.refusal(b"<Error><Code>SlowDown</Code></Error>").code == "SlowDown"


def test_a_completion_names_each_part() -> None:
    assert answers.completion([Part(1, '"a&b"', None), Part(2, "c", bytes(32))]) == (
        b'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b'<Part><PartNumber>1</PartNumber><ETag>"a&amp;b"</ETag></Part>'
        b"<Part><PartNumber>2</PartNumber><ETag>c</ETag>"
        b"<ChecksumSHA256>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=</ChecksumSHA256></Part>"
        b"</CompleteMultipartUpload>"
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [(17 * MIB, 16 * MIB), (160_000 * MIB, 16 * MIB), (1024**4, 105 * MIB)],
)
def test_parts_grow_where_there_would_be_too_many(size: int, expected: int) -> None:
    assert part_bytes(size, 16 * MIB) == expected
    assert -(-size // expected) <= 10_000


# --- credentials --------------------------------------------------------------------------------


class Metadata(BaseHTTPRequestHandler):
    """The metadata service of an instance, and the credential endpoint of a container."""

    lives_seconds = 3600.0
    zone = "Z"
    asked: list[str] = []  # noqa: RUF012  # of one test

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_PUT(self) -> None:
        self._answer(b"token" if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else b"")

    def do_GET(self) -> None:
        self.asked.append(self.path)
        token = self.headers["X-aws-ec2-metadata-token"]
        pod = self.path == "/container" and self.headers["Authorization"] == "pod"
        if not pod and token != "token":
            self.send_error(401)
        elif self.path.endswith("/security-credentials/"):
            self._answer(b"the-role\n")
        else:
            expires = datetime.now(UTC) + timedelta(seconds=self.lives_seconds)
            self._answer(
                json.dumps(
                    {
                        "AccessKeyId": f"id-{len(self.asked)}",
                        "SecretAccessKey": "secret",
                        "Token": "session",
                        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%S") + self.zone,
                    }
                ).encode()
            )

    def _answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def metadata() -> Iterator[str]:
    Metadata.asked, Metadata.lives_seconds = [], 3600.0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


AMBIENT = StoreSettings(kind="s3", bucket="vault", allow_ambient=True)


def test_the_role_of_an_instance_is_taken_until_it_expires(
    metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)
    keys = Keys("vault", AMBIENT)
    now = datetime.now(UTC)
    first = keys.get(now)
    assert (first.access_key_id, first.session_token) == ("id-2", "session")
    assert keys.get(now + timedelta(minutes=50)) is first
    assert keys.get(now + timedelta(minutes=59)).access_key_id == "id-4"
    assert Metadata.asked[1] == "/latest/meta-data/iam/security-credentials/the-role"


def test_the_role_of_a_container_is_taken_first(
    metadata: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("pod\n")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    assert Keys("vault", AMBIENT).get(datetime.now(UTC)).access_key_id == "id-1"
    assert Metadata.asked == ["/container"]


def test_a_token_that_http_cannot_send_is_told_without_it(
    metadata: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\ntoken\n")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata}/container")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(SpooldError, match="what HTTP cannot send") as caught:
        Keys("vault", AMBIENT).get(datetime.now(UTC))
    assert "s3cret" not in caught.value.message


def test_an_expiration_without_a_zone_is_told(
    metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata)
    monkeypatch.setattr(Metadata, "zone", "")
    with pytest.raises(SpooldError, match="holds no credentials") as caught:
        Keys("vault", AMBIENT).get(datetime.now(UTC))
    assert caught.value.code is errors.STORE_AWAY


def test_where_there_is_no_role_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SpooldError, match="gives no credentials") as caught:
        Keys("vault", AMBIENT).get(datetime.now(UTC))
    assert caught.value.code is errors.STORE_AWAY


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "does not hold one word"), ("two words", "does not hold one word"), (None, "No such")],
)
def test_key_files_that_hold_no_key_are_told(tmp_path: Path, text: str | None, said: str) -> None:
    (tmp_path / "id").write_text("AKIA\n")
    if text is not None:
        (tmp_path / "secret").write_text(text)
        (tmp_path / "secret").chmod(0o640)
    settings = StoreSettings(
        kind="s3",
        bucket="vault",
        access_key_id_file=str(tmp_path / "id"),
        secret_access_key_file=str(tmp_path / "secret"),
    )
    with pytest.raises(SpooldError, match=said) as caught:
        Keys("vault", settings).get(datetime.now(UTC))
    assert caught.value.at == "stores.vault.secret_access_key_file"


def test_key_files_are_read_again_by_the_next_attempt(tmp_path: Path) -> None:
    for name in ("id", "secret"):
        (tmp_path / name).write_text("first\n")
        (tmp_path / name).chmod(0o600)
    settings = StoreSettings(
        kind="s3",
        bucket="vault",
        access_key_id_file=str(tmp_path / "id"),
        secret_access_key_file=str(tmp_path / "secret"),
    )
    keys = Keys("vault", settings)
    assert keys.get(datetime.now(UTC)).secret_access_key == "first"
    (tmp_path / "secret").write_text("second\n")
    assert keys.get(datetime.now(UTC)).secret_access_key == "first"
    assert Keys("vault", settings).get(datetime.now(UTC)).secret_access_key == "second"
