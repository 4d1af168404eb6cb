"""What the http source decides without a server: settings, addresses, links, pauses."""

import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import ValidationError

from spoold.connections import Connections
from spoold.connections.apis import ApiSettings, EndpointSettings
from spoold.errors import SpooldError
from spoold.sources.http import HttpSource, HttpSpec
from spoold.sources.http.addresses import Origin, followed, next_link, path_of
from spoold.sources.http.credentials import scrubbed
from spoold.sources.http.pages import line_of
from spoold.sources.http.retrying import Backoff, content_range, retry_after, validator
from spoold.sources.source import Gathering

ENDPOINT: dict[str, Any] = {"api": "a", "path": "/x/{id}", "parameters": {"id": "text"}}
DOWNLOAD = {"path": "/f/{item.id}", "name": "{item.name}"}
NOW = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "keys",
    [
        {"base": "https://soc.example"},
        {"base": "https://soc.example:8443/api/v2/"},
        {"base": "https://[2001:db8::1]/x"},
        {"base": "http://localhost:8080"},
        {"base": "http://127.3.4.5"},
        {"base": "http://[::1]:80"},
        {"base": "http://soc.example", "insecure": True},
        {"base": "https://a", "headers": {"X-Site": "site a"}, "requests_per_second": 0.5},
        {"base": "https://a", "client_certificate": "c", "client_key": "k", "ca": "a"},
    ],
)
def test_apis_that_can_be(keys: dict[str, Any]) -> None:
    assert not ApiSettings.model_validate(keys).base.endswith("/")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"base": "http://soc.example"}, "another machine"),
        ({"base": "http://127.0.0.1.example"}, "another machine"),
        ({"base": "ftp://soc.example"}, "https://host/path"),
        ({"base": "soc.example"}, "https://host/path"),
        ({"base": "https:///x"}, "https://host/path"),
        ({"base": "https://user:secret@soc.example"}, "secret_headers"),
        ({"base": "https://soc.example/?x=1"}, "query"),
        ({"base": "https://soc.example/#x"}, "query"),
        ({"base": "https://soc.example/a b"}, "character"),
        ({"base": "https://söc.example"}, "character"),
        ({"base": "https://a:99999"}, "range"),
        ({"base": "https://a", "headers": {"Authorization": "x"}}, "secret_headers"),
        ({"base": "https://a", "headers": {"Host": "x"}}, "not to be chosen"),
        ({"base": "https://a", "secret_headers": {"Range": "x"}}, "not to be chosen"),
        ({"base": "https://a", "headers": {"a": "1", "A": "2"}}, "twice"),
        ({"base": "https://a", "headers": {"a": "1\r\nb: 2"}}, "pattern"),
        ({"base": "https://a", "headers": {"a b": "1"}}, "pattern"),
        ({"base": "https://a", "client_key": "x"}, "belong together"),
        ({"base": "http://localhost", "ca": "x"}, "https://"),
        ({"base": "https://a", "attempts": 0}, "greater"),
        ({"base": "https://a", "read_timeout_seconds": 0}, "greater"),
    ],
)
def test_apis_that_cannot_be(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ApiSettings.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"path": "x"}, "begins with /"),
        ({"path": "/a/../b"}, "no empty segment"),
        ({"path": "/a//b"}, "no empty segment"),
        ({"path": "/./b"}, "no empty segment"),
        ({"path": "/a?b=c"}, "see query"),
        ({"path": "/a#b"}, "see query"),
        ({"path": "/a b"}, "see query"),
        ({"path": "/{other}"}, "not declared"),
        ({"path": "/{item.id}"}, "braces"),
        ({"path": "/{id"}, "braces"),
        ({"query": {"q": "{other}"}}, "query.q"),
        ({"query": {"q": "{}"}}, "braces"),
        ({"file": "{other}"}, "not declared"),
        ({"file": "x", "pages": "link"}, "no pages"),
        ({"file": "x", "download": DOWNLOAD}, "no items"),
        ({"pages": "cursor"}, "belong together"),
        ({"cursor": "next"}, "belong together"),
        ({"pages": "cursor", "cursor": "a", "items": "a"}, "same field"),
        ({"pages": "offset", "query": {"offset": "1"}}, "which the pages need"),
        ({"limit": 5, "query": {"limit": "1"}}, "which the pages need"),
        ({"items": "a..b"}, "pattern"),
        ({"download": {**DOWNLOAD, "path": "f"}}, "begins with /"),
        ({"download": {**DOWNLOAD, "name": "x"}}, "one name"),
        ({"download": {**DOWNLOAD, "size": "{size}"}}, "not declared"),
        ({"method": "POST"}, "method"),
    ],
)
def test_endpoints_that_cannot_be(keys: dict[str, Any], said: str) -> None:
    EndpointSettings.model_validate({**ENDPOINT, "download": {**DOWNLOAD, "path": "/{id}/x/"}})
    EndpointSettings.model_validate({"api": "a", "path": "/"})
    with pytest.raises(ValidationError, match=said):
        EndpointSettings.model_validate({**ENDPOINT, **keys})


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_value_that_makes_no_address_is_refused_before_anything_is_asked(value: str) -> None:
    connections = Connections(
        apis={"a": ApiSettings(base="https://a")},
        endpoints={"e": EndpointSettings.model_validate(ENDPOINT)},
    )
    spec = HttpSpec.model_validate({"kind": "http", "endpoint": "e", "parameters": {"id": value}})
    with Gathering(connections) as gathering, pytest.raises(SpooldError) as caught:
        HttpSource.open(spec, gathering, "label")
    assert caught.value.code.name == "parameters-invalid"
    assert caught.value.at == "parameters"


def test_a_value_stays_in_its_segment() -> None:
    assert path_of("https://a/b", "/x.{v}/{v}", {"v": "../é?#%2f"}) == (
        "/b/x...%2F%C3%A9%3F%23%252f/..%2F%C3%A9%3F%23%252f"
    )
    assert path_of("https://a", "/{item.v}{v}", {"item.v": "{v}", "v": 1}) == "/%7Bv%7D1"


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("?p=2", "/a/b?p=2"),
        ("c", "/a/c"),
        ("/d?x=%2F+y", "/d?x=%2F+y"),
        ("../../../e", "/e"),
        ("https://soc.example/f#g", "/f"),
        ("HTTPS://SOC.example:443/h i\u00e9", "/h%20i%C3%A9"),
        ("/j\r\nHost: evil", "/jHost:%20evil"),
        ("", "/a/b?q"),
    ],
)
def test_links_on_the_host(link: str, target: str) -> None:
    assert followed(Origin.of("https://soc.example/api"), "/a/b?q", link) == target


@pytest.mark.parametrize(
    "link",
    [
        "http://soc.example/",
        "https://soc.example:444/",
        "https://soc.example.evil/",
        "https://soc.example@evil/",
        "https://evil\\@soc.example/",
        "//evil/x",
        "\\\\evil/x",
        "javascript:x",
        "https://",
        "https://[",
        "https://soc.example:x/",
    ],
)
def test_links_that_leave_the_host(link: str) -> None:
    try:
        target = followed(Origin.of("https://soc.example"), "/a", link)
    except SpooldError as error:
        assert error.code.name == "api-redirect"  # noqa: PT017 - a path is as good
    else:
        assert target.startswith("/")
        assert "evil" not in target.partition("/x")[0].partition("%5C")[0]


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ('<https://a/2>; rel="next"', "https://a/2"),
        ("<2>;rel=next", "2"),
        ('<1>; rel="prev", <2>; rel="last next"; title="x"', "2"),
        ('<1>; title="rel=next, <9>; rel=next"; rel=prev, <2>; REL=NEXT', "2"),
        ("<,;2>; rel=next", ",;2"),
        ("<1>; rel=nextish, <2>; rev=next", None),
        ("<1; rel=next", None),
        ("", None),
    ],
)
def test_the_next_link(header: str, address: str | None) -> None:
    assert next_link(header) == address


def test_pauses_double_up_to_a_cap_and_differ() -> None:
    backoff = Backoff(attempts=4, base_seconds=1, cap_seconds=3)
    assert [backoff.pause(failed, None, 0) for failed in (1, 2, 3, 4)] == [1, 2, 3, None]
    assert backoff.pause(3, None, 1) == 1.5
    assert [backoff.pause(1, asked, 0.5) for asked in (0, 2.5, 99)] == [0, 2.5, 3]
    assert Backoff(2000, 1, 5).pause(1999, None, 0) == 5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        (" 7 ", 7),
        ("-7", None),
        ("7.5", None),
        ("soon", None),
        (format_datetime(NOW.replace(minute=1), usegmt=True), 60),
        (format_datetime(NOW.replace(hour=3), usegmt=True), 0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_only_strong_validators_ask_for_a_rest() -> None:
    assert validator({"etag": '"a"'}) == '"a"'
    for weak in ('W/"a"', "a", '"a\n"', ""):
        assert validator({"etag": weak}) is None
    assert validator({}) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("bytes 5-9/10", (5, 9, 10)),
        ("bytes 5-5/6", (5, 5, 6)),
        ("bytes 5-9/*", (5, 9, None)),
        ("bytes */10", (None, None, 10)),
        ("bytes 5-9", (None, None, None)),
        ("bytes 5-4/10", (None, None, None)),
        ("bytes 5-9/9", (None, None, None)),
        ("items 5-9/10", (None, None, None)),
        (None, (None, None, None)),
    ],
)
def test_content_range(value: str | None, found: tuple[int | None, ...]) -> None:
    assert content_range(value) == found


def test_a_secret_and_its_parts_are_not_repeated() -> None:
    assert (
        scrubbed("a Bearer s3cret-token b s3cret-token", ["Bearer s3cret-token"]) == "a *** b ***"
    )


def test_line_breaks_go_from_a_text_of_spaces_in_no_time() -> None:
    spaces = " " * 200_000
    expected = f'{{"a": "{spaces}","b": 1}}\n'.encode()
    begun = time.process_time()
    assert line_of(f'{{"a": "{spaces}", \n "b": 1}}') == expected
    assert time.process_time() - begun < 2  # a minute where each space is tried
