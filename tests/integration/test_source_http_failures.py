"""The http source: a server that dies, stalls, refuses or asks for patience, and secrets."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from spoold.connections import Connections
from spoold.connections.apis import EndpointSettings
from spoold.errors import SpooldError
from spoold.sources.http import HttpSource, HttpSpec
from spoold.sources.source import Gathering
from tests.apis import Api, Exchange, gather, serving, settings

LIST = {"path": "/events"}
FILE = {"path": "/events", "file": "f"}


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as api:
        yield api


def refused(base: str, endpoint: dict[str, Any] = LIST, **keys: Any) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        gather(settings(base, **keys), endpoint)
    return caught.value


def dies_unasked(exchange: Exchange) -> None:
    exchange.die()


def dies_in_the_head(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Le")
    exchange.close()


def dies_in_the_body(exchange: Exchange) -> None:
    exchange.head(200, {"Content-Length": "1000"})
    exchange.raw(b"[1,")
    exchange.close()


def dies_in_a_chunk(exchange: Exchange) -> None:
    exchange.head(200, {"Transfer-Encoding": "chunked"})
    exchange.raw(b"100\r\n[1,")
    exchange.die()


def speaks_no_http(exchange: Exchange) -> None:
    exchange.raw(b"SSH-2.0-OpenSSH_9.9\r\n")
    exchange.close()


def sends_an_endless_head(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\n")
    for _ in range(10_000):
        exchange.raw(b"X-Header: " + bytes(100).replace(b"\0", b"x") + b"\r\n")
    exchange.close()


def lies_twice(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n[]   ")


BROKEN = [
    dies_unasked,
    dies_in_the_head,
    dies_in_the_body,
    dies_in_a_chunk,
    speaks_no_http,
    sends_an_endless_head,
    lies_twice,
]


@pytest.mark.parametrize("endpoint", [LIST, FILE], ids=["list", "file"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_server_that_dies_is_asked_again_and_then_left_to_a_later_attempt(
    api: Api, broken: Callable[[Exchange], None], endpoint: dict[str, Any]
) -> None:
    api.answer = broken
    error = refused(api.base, endpoint)
    assert error.code.name == "api-away"
    assert error.transient
    assert "3 times in a row" in error.message
    assert len(api.asked) == 3


@pytest.mark.parametrize("endpoint", [LIST, FILE], ids=["list", "file"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_server_that_comes_back_is_no_failure(
    api: Api, broken: Callable[[Exchange], None], endpoint: dict[str, Any]
) -> None:
    whole = b"[1,2]".ljust(1000)
    api.answer = lambda exchange: broken(exchange) if exchange.number < 2 else exchange.send(whole)
    got = gather(settings(api.base), endpoint)
    assert got.files in ({"f": whole}, {"events.jsonl": b"1\n2\n"})


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = refused(f"http://127.0.0.1:{port}")
    assert error.code.name == "api-away"
    assert "Connection refused" in error.message


@pytest.mark.parametrize("endpoint", [LIST, FILE], ids=["list", "file"])
@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n["]
)
def test_a_stall_is_noticed(api: Api, sent: bytes, endpoint: dict[str, Any]) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(sent)
        api.ended.wait()

    api.answer = answer
    error = refused(api.base, endpoint, read_timeout_seconds=0.1, attempts=2)
    assert error.code.name == "api-away"
    assert "stalled" in error.message
    assert len(api.asked) == 2


@pytest.mark.parametrize("part", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_a_server_that_drips_is_ended_by_the_time_limit(api: Api, part: bytes) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(part)
        while not api.ended.wait(0.02):
            exchange.raw(b" ")

    api.answer = answer
    begin = time.monotonic()
    error = refused(api.base, time_limit_seconds=0.4, read_timeout_seconds=0.2)
    assert error.code.name == "api-slow"
    assert error.transient
    assert time.monotonic() - begin < 5


def test_a_lost_lease_is_noticed_while_a_server_is_silent(api: Api) -> None:
    class LeaseLostError(Exception):
        pass

    def check() -> None:
        raise LeaseLostError

    def answer(exchange: Exchange) -> None:
        api.ended.wait()

    api.answer = answer
    with pytest.raises(LeaseLostError):
        gather(settings(api.base), LIST, check=check)
    api.answer = lambda exchange: exchange.send(status=503, Retry_After="30")
    with pytest.raises(LeaseLostError):
        gather(settings(api.base, max_pause_seconds=60), LIST, check=check)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_trouble_that_passes_is_asked_again(api: Api, status: int) -> None:
    api.answer = lambda exchange: (
        exchange.send("[1]") if exchange.number == 2 else exchange.send("later", status)
    )
    assert gather(settings(api.base), LIST).files == {"events.jsonl": b"1\n"}
    assert len(api.asked) == 3
    api.answer = lambda exchange: exchange.send("later", status)
    error = refused(api.base)
    assert error.code.name == "api-away"
    assert error.transient
    assert f"/events: {status}" in error.message


@pytest.mark.parametrize("status", [400, 404, 405, 409, 410, 413, 422, 451, 501])
def test_a_refusal_is_told_with_what_the_api_says(api: Api, status: int) -> None:
    api.answer = lambda exchange: exchange.send("no\x1b[31m\r\n\tsuch thing" + "!" * 9999, status)
    error = refused(api.base)
    assert error.code.name == "api-refused"
    assert not error.transient
    assert f"{status}" in error.message
    assert "no\\x1b[31m such thing!!!" in error.message
    assert len(error.message) < 400
    assert len(api.asked) == 1


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 305])
def test_other_answers_are_none(api: Api, status: int) -> None:
    api.answer = lambda exchange: exchange.send("", status)
    assert refused(api.base).code.name == "api-answer-invalid"


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept_up_to_the_cap(api: Api, as_date: bool) -> None:
    asked: list[float] = []

    def answer(exchange: Exchange) -> None:
        asked.append(time.monotonic())
        if exchange.number == 0:
            later = format_datetime(datetime.fromtimestamp(time.time() + 100, UTC), usegmt=True)
            exchange.send(status=429, Retry_After=later if as_date else "100")
        elif exchange.number == 1:
            exchange.send(status=429, Retry_After="0")
        else:
            exchange.send("[]")

    api.answer = answer
    gather(settings(api.base, max_pause_seconds=0.3, pause_seconds=0.3), LIST)
    assert asked[1] - asked[0] >= 0.3
    assert asked[2] - asked[1] < 0.15


def test_requests_keep_their_rate_across_pages_and_sources(api: Api) -> None:
    asked: list[float] = []

    def answer(exchange: Exchange) -> None:
        asked.append(time.monotonic())
        exchange.send("[]" if exchange.query["offset"] != "0" else "[1]")

    api.answer = answer
    endpoint = EndpointSettings(api="a", path="/events", pages="offset")
    connections = Connections(
        apis={"a": settings(api.base, requests_per_second=20)}, endpoints={"e": endpoint}
    )
    began = time.monotonic()
    with Gathering(connections) as gathering:
        for _ in range(2):
            source = HttpSource.open(HttpSpec(kind="http", endpoint="e"), gathering, "label")
            for entry in source.entries():
                assert entry.content is not None
                assert not isinstance(entry.content, int)
                assert entry.content.read(1000) == b"1\n"
    assert len(asked) == 4
    assert asked[3] - began >= 0.15


def secret(folder: Path, content: bytes, mode: int = 0o600) -> str:
    path = folder / "token"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_secrets_come_from_files_at_each_attempt(api: Api, tmp_path: Path) -> None:
    path = secret(tmp_path, b"Bearer first\n")
    keys = {"secret_headers": {"authorization": path}, "headers": {"X-Site": "a", "accept": "x/y"}}
    gather(settings(api.base, **keys), FILE)
    secret(tmp_path, b"Bearer second")
    gather(settings(api.base, **keys), LIST)
    assert [each.headers["authorization"] for each in api.asked] == [
        "Bearer first",
        "Bearer second",
    ]
    assert {each.headers["x-site"] for each in api.asked} == {"a"}
    assert {each.headers["accept"] for each in api.asked} == {"x/y"}


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"Bearer s3cret", 0o604, "mode 604"),
        (b"Bearer s3cret", 0o602, "mode 602"),
        (b"Bearer s3cret\r\nX-Evil: 1\n", 0o600, "single line"),
        (b"Bearer s3cret\xff", 0o600, "single line"),
        (b"", 0o600, "single line"),
        (b"x" * 20_000, 0o600, "more than"),
    ],
)
def test_a_secret_that_cannot_be_one_is_refused_and_not_shown(
    api: Api, tmp_path: Path, content: bytes, mode: int, said: str
) -> None:
    path = secret(tmp_path, content, mode)
    error = refused(api.base, secret_headers={"Authorization": path})
    assert error.code.name == "secret-unusable"
    assert said in error.message
    assert path in error.message
    assert "s3cret" not in f"{error} {error.hint} {error.at}"
    assert not api.asked


def test_a_secret_that_is_not_there(api: Api, tmp_path: Path) -> None:
    error = refused(api.base, secret_headers={"X-Key": str(tmp_path / "none")})
    assert error.code.name == "secret-unusable"
    assert refused(api.base, secret_headers={"X-Key": str(tmp_path)}).code is error.code


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_without_it(api: Api, tmp_path: Path, status: int) -> None:
    path = secret(tmp_path, b"Bearer s3cret-token\n")
    api.answer = lambda exchange: exchange.send(
        f"not with {exchange.headers['authorization']}, nor s3cret-token", status
    )
    error = refused(api.base, secret_headers={"Authorization": path})
    assert error.code.name == "api-refused"
    assert "secret_headers" in error.hint
    assert error.message.endswith("not with ***, nor ***")


def test_a_long_key_is_not_told_by_half(api: Api, tmp_path: Path) -> None:
    path = secret(tmp_path, b"Bearer s3cret" + b"-token" * 400)
    api.answer = lambda exchange: exchange.send(
        f"not with {exchange.headers['authorization']}, nor <{'x' * 9999}>", 401
    )
    error = refused(api.base, secret_headers={"Authorization": path})
    assert "not with ***, nor <xxx" in error.message
    assert len(error.message) < 400


KEY = "Bearer-s3cret" + "-token" * 400


def encodes_with_the_key(exchange: Exchange) -> None:
    exchange.send("[]", Content_Encoding=KEY)


def breaks_http_with_the_key(exchange: Exchange) -> None:
    exchange.raw(f"{KEY} 200 OK\r\n\r\n".encode())


def names_a_file_after_the_key(exchange: Exchange) -> None:
    exchange.send(json.dumps([{"id": 1, "name": KEY, "size": "1"}]))


def measures_with_the_key(exchange: Exchange) -> None:
    exchange.send(json.dumps([{"id": 1, "name": "n", "size": KEY}]))


@pytest.mark.parametrize(
    "answer",
    [
        encodes_with_the_key,
        breaks_http_with_the_key,
        names_a_file_after_the_key,
        measures_with_the_key,
    ],
)
def test_a_long_key_is_not_told_by_half_wherever_it_stands(
    api: Api, tmp_path: Path, answer: Callable[[Exchange], None]
) -> None:
    api.answer = answer
    download = {"path": "/{item.id}", "name": "{item.name}", "size": "{item.size}"}
    endpoint = {"path": "/events", "download": download}
    path = secret(tmp_path, KEY.encode())
    error = refused(api.base, endpoint, secret_headers={"Authorization": path})
    assert "s3cret" not in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize("location", ["http://elsewhere.example/s3cret-token", "/s3cret-token/"])
def test_a_key_in_a_redirect_is_not_shown(api: Api, tmp_path: Path, location: str) -> None:
    path = secret(tmp_path, b"Bearer s3cret-token\n")
    api.answer = lambda exchange: (
        exchange.send("", 302, Location=location)
        if exchange.path == "/events"
        else exchange.send("no", 404)
    )
    error = refused(api.base, secret_headers={"Authorization": path})
    assert error.code.name in {"api-redirect", "api-refused"}
    assert "***" in error.message
    assert "s3cret" not in error.message


@pytest.mark.parametrize(
    "location",
    [
        "https://storage.example/key?X-Amz-Signature=s3cret",
        "https://storage.example/key#access_token=s3cret",
        "https://user:s3cret@storage.example/key",
        "//s3cret@storage.example/key?to=a@b",
    ],
)
def test_what_another_place_should_know_alone_is_not_shown(api: Api, location: str) -> None:
    api.answer = lambda exchange: exchange.send("", 302, Location=location)
    error = refused(api.base)
    assert error.code.name == "api-redirect"
    assert "//storage.example/key, which is not on" in error.message


def test_a_refused_key_is_no_matter_of_one_file(api: Api) -> None:
    api.answer = lambda exchange: (
        exchange.send('[{"id":1}]') if exchange.path == "/events" else exchange.send("no", 403)
    )
    with pytest.raises(SpooldError) as caught:
        gather(
            settings(api.base),
            {**LIST, "download": {"path": "/f/{item.id}", "name": "{item.id}"}},
            on_problem=lambda path, error: None,
        )
    assert caught.value.code.name == "api-refused"
