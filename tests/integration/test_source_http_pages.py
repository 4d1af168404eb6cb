"""The http source: lists of items, page after page, against a real server."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from spoold.connections import NO_CONNECTIONS, Connections
from spoold.connections.apis import EndpointSettings
from spoold.errors import SpooldError
from spoold.sources.http import HttpSource, HttpSpec
from spoold.sources.source import Gathering
from tests.apis import Api, Exchange, gather, serving, settings

ITEMS = [f'{{"n":{number},"x":1.10}}' for number in range(7)]


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as api:
        yield api


def lines(api: Api, endpoint: dict[str, Any], *arguments: Any, **keys: Any) -> list[str]:
    got = gather(settings(api.base), {"path": "/events", **endpoint}, *arguments, **keys)
    return got.files["events.jsonl"].decode().splitlines()


def refused(api: Api, endpoint: dict[str, Any], **keys: Any) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base, **keys), {"path": "/events", **endpoint})
    return caught.value


def some(first: int, count: int) -> str:
    return ",".join(ITEMS[first : first + count])


def test_an_array_is_one_line_for_each_item_in_its_own_words(api: Api) -> None:
    items = [
        '{"b":1.10,"a":1e400, "deep":{"z":[12345678901234567890]},"b":2}',
        '"\\u00e9\\ud800 é"',
        "-0.0",
        "null",
        "[]",
        "9" * 5000,
    ]
    api.answer = lambda exchange: exchange.send(f"[{','.join(items)}]")
    assert lines(api, {}) == items


def test_line_breaks_between_parts_go_and_nothing_else(api: Api) -> None:
    api.answer = lambda exchange: exchange.send(
        '\ufeff{"data": [\n  {\n    "a": 1.50,\r\n\t"b c": "x  y\\n"\n  }\n , 2\n]}\n'
    )
    assert lines(api, {"items": "data"}) == ['{"a": 1.50,"b c": "x  y\\n"}', "2"]


def test_no_items_are_an_empty_file(api: Api) -> None:
    got = gather(settings(api.base), {"path": "/events"}, into="logs/api")
    assert got.files == {"logs/api/events.jsonl": b""}


@pytest.mark.parametrize("separator", ["", " "])
def test_links_lead_from_page_to_page(api: Api, separator: str) -> None:
    def answer(exchange: Exchange) -> None:
        page = int(exchange.query.get("p", "0"))
        links = ['<https://elsewhere.example/>; rel="prev first"']
        if page < 2:
            links.append(f'</events?p={page + 1}&q=%2F>; title="a, b";{separator}rel="x next"')
        exchange.send(f"[{some(page * 3, 3)}]", Link=", ".join(links))

    api.answer = answer
    assert lines(api, {"pages": "link"}) == ITEMS
    assert api.targets == ["/events", "/events?p=1&q=%2F", "/events?p=2&q=%2F"]


@pytest.mark.parametrize("cursor", [r'"\ud800"', f'"{"x" * 9000}"', "9" * 9000])
def test_a_cursor_that_cannot_be_sent_is_refused(api: Api, cursor: str) -> None:
    api.answer = lambda exchange: exchange.send(f'{{"data":[],"next":{cursor}}}')
    error = refused(api, {"pages": "cursor", "cursor": "next", "items": "data"})
    assert error.code.name == "api-answer-invalid"


@pytest.mark.parametrize("cursor", ['"c d&{}"', "{}.50"])
def test_a_cursor_of_the_answer_is_sent_back_as_it_was(api: Api, cursor: str) -> None:
    def answer(exchange: Exchange) -> None:
        at = len(api.asked) - 1
        following = cursor.format(at + 1) if at < 2 else ("null", '""')[at % 2]
        exchange.send(f'{{"meta":{{"next":{following}}},"d":{{"e":[{some(at * 3, 3)}]}}}}')

    api.answer = answer
    endpoint = {"pages": "cursor", "items": "d.e", "cursor": "meta.next", "query": {"k": "v w"}}
    assert lines(api, endpoint) == ITEMS
    sent = [exchange.query.get("cursor") for exchange in api.asked]
    assert sent == [None, *(cursor.format(at).strip('"') for at in (1, 2))]
    assert {exchange.query["k"] for exchange in api.asked} == {"v w"}


def test_offsets_go_on_until_a_page_is_empty(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        assert exchange.query["limit"] == "5"
        # It gives fewer at once than it is asked for.
        exchange.send(f"[{some(int(exchange.query['offset']), 3)}]")

    api.answer = answer
    assert lines(api, {"pages": "offset", "limit": 5}) == ITEMS
    assert [exchange.query["offset"] for exchange in api.asked] == ["0", "3", "6", "7"]


def test_page_numbers_begin_at_1(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(f'{{"rows":[{some((int(exchange.query["nr"]) - 1) * 4, 4)}],"total":7}}')

    api.answer = answer
    assert lines(api, {"pages": "page", "page_parameter": "nr", "items": "rows"}) == ITEMS
    assert api.targets == ["/events?nr=1", "/events?nr=2", "/events?nr=3"]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ({"pages": "offset"}, '[{"n":1}]'),
        ({"pages": "page"}, '[{"n":1}]'),
        ({"pages": "cursor", "cursor": "next", "items": "i"}, '{"i":[1],"next":"again"}'),
        ({"pages": "link"}, "[1]"),
    ],
)
def test_pages_that_come_round_again_are_an_error(
    api: Api, endpoint: dict[str, Any], body: str
) -> None:
    api.answer = lambda exchange: exchange.send(body, Link="</events>; rel=next")
    error = refused(api, endpoint)
    assert error.code.name == "api-answer-invalid"
    assert "come round again" in error.message
    assert not error.transient
    assert len(api.asked) <= 3


@pytest.mark.parametrize(("lead", "circle"), [(0, 1), (0, 7), (1, 2), (5, 3), (40, 30)])
def test_a_circle_of_any_length_is_found_though_one_page_of_it_is_remembered(
    api: Api, lead: int, circle: int
) -> None:
    def answer(exchange: Exchange) -> None:
        number = int(exchange.query.get("at", "0"))
        following = number + 1 if number + 1 < lead + circle else lead
        exchange.send("[1]", Link=f"</events?at={following}>; rel=next")

    api.answer = answer
    assert "come round again" in refused(api, {"pages": "link"}).message
    assert len(api.asked) <= 3 * (lead + circle) + 1


def test_a_file_has_no_owner_of_this_machine(api: Api) -> None:
    api.answer = lambda exchange: exchange.send("[1]")
    section = EndpointSettings.model_validate({"api": "a", "path": "/events"})
    connections = Connections(apis={"a": settings(api.base)}, endpoints={"events": section})
    spec = HttpSpec(kind="http", endpoint="events")
    if as_root := os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        with Gathering(connections) as gathering:
            [entry] = HttpSource.open(spec, gathering, "http:events").entries()
    finally:
        if as_root:
            os.seteuid(0)
            os.setegid(0)
    assert (entry.uid, entry.gid) == (0, 0)


@pytest.mark.parametrize(
    ("endpoint", "body", "said"),
    [
        ({}, b"<html>", "no JSON"),
        ({}, b"", "no JSON"),
        ({}, b"[1,]", "no JSON"),
        ({}, b"[1 2]", "no JSON"),
        ({}, b"[NaN]", "NaN is no JSON"),
        ({}, b"[1] 2", "follows"),
        ({}, b'["\xff"]', "not UTF-8"),
        ({}, b'{"items":[]}', "no JSON array"),
        ({}, b"[" * 100_000, "nested too deeply"),
        ({"items": "a.b"}, b'{"a":[1]}', "has no a.b"),
        ({"items": "a.b"}, b'{"a":{"b":{}}}', "no JSON array"),
        ({"items": "a"}, b'{"a":[1],"a":[2]}', "twice"),
        ({"items": "a"}, b'{"a":[1],}', "no JSON"),
        ({"items": "a"}, b'{"a" [1]}', "no JSON"),
        ({"pages": "cursor", "cursor": "c", "items": "a"}, b'{"a":[],"c":{}}', "cursor"),
    ],
)
def test_an_answer_that_is_not_as_described_is_refused(
    api: Api, endpoint: dict[str, Any], body: bytes, said: str
) -> None:
    api.answer = lambda exchange: exchange.send(body)
    error = refused(api, endpoint)
    assert error.code.name == "api-answer-invalid"
    assert said in error.message
    assert not error.transient
    assert len(api.asked) == 1


def test_values_cannot_leave_their_place_in_the_address(api: Api) -> None:
    endpoint = {
        "path": "/x/{id}/y",
        "query": {"q": "a={id}&b"},
        "parameters": {"id": "text"},
    }
    for value in ["a/../../b", "?c#d", "%2e%2e", "\r\nHost: evil", "a b&c=d", "é", "{id}", "...;"]:
        gather(settings(f"{api.base}/base/"), endpoint, {"id": value})
        exchange = api.asked[-1]
        assert exchange.path.startswith("/base/x/")
        assert exchange.path.count("/") == 4
        assert exchange.path.endswith("/y")
        assert exchange.query == {"q": f"a={value}&b"}
        assert "evil" not in exchange.headers["host"]


@pytest.mark.parametrize("value", ["", ".", "..", "\ud800", "x" * 4096])
def test_values_that_would_change_the_path_are_refused(api: Api, value: str) -> None:
    endpoint = {"path": "/x/{id}/{id}/{id}", "parameters": {"id": "text"}}
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), endpoint, {"id": value})
    assert caught.value.code.name == "parameters-invalid"
    assert not api.asked


def test_values_are_shown_as_json_shows_them(api: Api) -> None:
    endpoint = {
        "path": "/x",
        "query": {key: f"{{{key}}}" for key in ("b", "d", "t")},
        "parameters": {"b": "boolean", "d": "date", "t": "timestamp"},
    }
    given = {"b": True, "d": "2026-11-20", "t": "2026-11-20T10:00:00Z"}
    gather(settings(api.base), endpoint, given)
    assert api.asked[0].query == {**given, "b": "true", "t": "2026-11-20T10:00:00+00:00"}


def test_no_redirect_and_no_link_leaves_the_host(api: Api) -> None:
    with serving() as other:
        for place in [
            f"{other.base}/x",
            f"//127.0.0.1:{other.port}/x",
            f"https://127.0.0.1:{api.port}/x",
            f"http://localhost:{api.port}/x",
            f"http://user:secret@127.0.0.1:{api.port}/x",
            f"http://127.0.0.1:{api.port}@127.0.0.1:{other.port}/x",
            "file:///etc/passwd",
            "http://[::1",
        ]:
            api.answer = lambda exchange, place=place: exchange.send(  # type: ignore[misc]
                status=302, Location=place
            )
            error = refused(api, {})
            assert error.code.name == "api-redirect", place
            assert not error.transient
            api.answer = lambda exchange, place=place: exchange.send(  # type: ignore[misc]
                "[1]", Link=f"<{place}>; rel=next"
            )
            assert refused(api, {"pages": "link"}).code.name == "api-redirect", place
        assert not other.asked


def test_a_redirect_on_the_host_is_followed_five_times(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        hops = int(exchange.query.get("hops", "0"))
        if hops < most:
            exchange.send(status=307, Location=f"other?hops={hops + 1}")
        else:
            exchange.send("[7]")

    api.answer = answer
    most = 5
    assert lines(api, {}) == ["7"]
    assert api.targets[-1] == "/other?hops=5"
    most = 6
    assert refused(api, {}).code.name == "api-redirect"


def test_nothing_of_the_environment_and_no_cookie_is_used(
    api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    api.answer = lambda exchange: exchange.send(
        "[1]", Set_Cookie="a=b", Link="</2>; rel=next" if exchange.path == "/events" else ""
    )
    assert lines(api, {"pages": "link"}) == ["1", "1"]
    for exchange in api.asked:
        assert set(exchange.headers) == {"host", "user-agent", "accept", "accept-encoding"}
        assert exchange.headers["accept-encoding"] == "identity"


def test_a_page_is_counted_and_has_a_limit(api: Api) -> None:
    body = json.dumps(list(range(1000)))
    api.answer = lambda exchange: exchange.send(body)
    got = gather(settings(api.base), {"path": "/events"})
    assert (got.bytes, got.rows) == (len(body), 1000)
    assert got.types == {"events.jsonl": "application/x-ndjson"}
    error = refused(api, {"max_page_bytes": 2000})
    assert error.code.name == "api-too-large"
    error = refused(api, {}, max_bytes=3000)
    assert error.code.name == "api-too-large"


def test_an_endpoint_that_is_not_configured_is_refused() -> None:
    spec = HttpSpec(kind="http", endpoint="other")
    with Gathering(NO_CONNECTIONS) as gathering, pytest.raises(SpooldError) as caught:
        HttpSource.open(spec, gathering, "label")
    assert caught.value.code.name == "endpoint-unknown"
    assert caught.value.at == "endpoint"
