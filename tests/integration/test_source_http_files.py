"""The http source: files, streamed and resumed, against a real and often nasty server."""

import hashlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from spoold.errors import SpooldError
from tests.apis import Api, Exchange, Got, gather, serving, settings

CONTENT = random.Random(7).randbytes(300_000)
FILE = {"path": "/report/{id}", "file": "report-{id}.bin", "parameters": {"id": "text"}}
DOWNLOAD = {
    "path": "/files/{item.id}/content",
    "name": "{item.name}",
    "size": "{item.meta.size}",
    "sha256": "{item.sha256}",
}
EACH = {"path": "/files", "download": DOWNLOAD}
LONG_AGO = {
    "Last-Modified": formatdate(1_600_000_000, usegmt=True),
    "Date": formatdate(1_600_000_060, usegmt=True),
}


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as api:
        yield api


def fetch(api: Api, **keys: Any) -> Got:
    return gather(settings(api.base, **keys), FILE, {"id": "7"})


def refused(api: Api, **keys: Any) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        fetch(api, **keys)
    return caught.value


class Broken:
    """A file whose connection is lost after each `pieces` bytes."""

    def __init__(self, content: bytes, pieces: int, **headers: str) -> None:
        self.content, self.pieces = content, pieces
        self.headers = {"ETag": '"one"', **headers}
        self.ranges = True

    def __call__(self, exchange: Exchange) -> None:
        first, status = 0, 200
        whole = len(self.content)
        headers = {"Content-Length": str(whole), **self.headers}
        if self.ranges and exchange.headers.get("if-range") == self.headers.get("ETag"):
            first, status = int(exchange.headers["range"][6:-1]), 206
            headers["Content-Length"] = str(whole - first)
            headers["Content-Range"] = f"bytes {first}-{whole - 1}/{whole}"
        exchange.head(status, headers)
        exchange.raw(self.content[first : first + self.pieces])
        if first + self.pieces < whole:
            exchange.die() if len(self.content) % 2 else exchange.close()


def test_a_file_has_the_name_that_the_configuration_gives_it(api: Api) -> None:
    api.answer = lambda exchange: exchange.send(
        CONTENT,
        Content_Type="Application/PDF; charset=x",
        Content_Disposition='attachment; filename="../../evil"',
        Last_Modified=formatdate(1_600_000_000, usegmt=True),
    )
    got = gather(settings(api.base), FILE, {"id": "7"}, into="a/b")
    assert got.files == {"a/b/report-7.bin": CONTENT}
    assert got.sizes == {"a/b/report-7.bin": len(CONTENT)}
    assert got.types == {"a/b/report-7.bin": "application/pdf"}
    assert got.times == {"a/b/report-7.bin": 1_600_000_000 * 10**9}
    assert got.bytes == len(CONTENT)


@pytest.mark.parametrize("value", ["a/b", "x\n", "x" * 300, "\u2028"])
def test_a_value_that_would_make_no_name_is_refused(api: Api, value: str) -> None:
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), FILE, {"id": value})
    assert caught.value.code.name == "parameters-invalid"
    assert not api.asked


def test_a_chunked_answer_has_no_size_beforehand(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head(200, {"Transfer-Encoding": "chunked", "ETag": '"t"'})
        for at in range(0, len(CONTENT), 70_000):
            part = CONTENT[at : at + 70_000]
            exchange.raw(b"%x\r\n%b\r\n" % (len(part), part))
        exchange.raw(b"0\r\n\r\n")

    api.answer = answer
    got = fetch(api)
    assert got.files == {"report-7.bin": CONTENT}
    assert got.sizes == {"report-7.bin": None}


@pytest.mark.parametrize("odd", [0, 1])
def test_a_lost_connection_is_resumed_where_it_broke(api: Api, odd: int) -> None:
    content = CONTENT + b"x" * odd
    api.answer = Broken(content, 110_000)
    assert fetch(api).files == {"report-7.bin": content}
    ranges = [exchange.headers.get("range") for exchange in api.asked]
    assert len(ranges) == 3
    if not odd:  # a reset may take along what was sent and not yet read
        assert ranges == [None, "bytes=110000-", "bytes=220000-"]
    assert {exchange.headers.get("if-range") for exchange in api.asked[1:]} == {'"one"'}


def test_a_server_without_ranges_is_read_again_and_compared(api: Api) -> None:
    broken = Broken(CONTENT, 110_000)

    def answer(exchange: Exchange) -> None:
        broken.ranges = False
        broken.pieces = 110_000 + 190_000 * exchange.number
        broken(exchange)

    api.answer = answer
    assert fetch(api).files == {"report-7.bin": CONTENT}
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    "other",
    [b"X" + CONTENT[1:], CONTENT + b"X", CONTENT[:200_000]],
    ids=["other", "longer", "shorter"],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_changed_meanwhile_is_never_mixed(
    api: Api, other: bytes, chunked: bool
) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            Broken(CONTENT, 210_000)(exchange)
        elif chunked:
            exchange.head(200, {"Transfer-Encoding": "chunked"})
            exchange.raw(b"%x\r\n%b\r\n0\r\n\r\n" % (len(other), other))
        else:
            exchange.send(other, ETag='"two"')

    api.answer = answer
    error = refused(api)
    assert error.code.name == "source-changed"
    assert error.transient
    assert error.at == "report-7.bin"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ({"ETag": '"one"'}, {"ETag": '"two"'}, "source-changed"),
        ({"ETag": '"one"'}, {"ETag": 'W/"one"'}, "source-changed"),
        ({"ETag": '"one"'}, {"ETag": '"one"'}, None),
        ({"ETag": "", **LONG_AGO}, {"Last-Modified": formatdate(1, usegmt=True)}, "source-changed"),
        ({"ETag": "", **LONG_AGO}, LONG_AGO, None),
        ({"ETag": "", **LONG_AGO}, {}, None),
    ],
)
def test_a_rest_of_another_content_is_known_from_a_server_without_if_range(
    api: Api, old: dict[str, str], new: dict[str, str], code: str | None
) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            Broken(CONTENT, 110_000, **old)(exchange)
        else:
            about = {"Content-Range": "bytes 110000-299999/300000", "Content-Length": "190000"}
            exchange.head(206, {**about, **new})
            exchange.raw(CONTENT[110_000:])

    api.answer = answer
    if code is None:
        assert fetch(api).files == {"report-7.bin": CONTENT}
    else:
        assert refused(api).code.name == code
    assert [exchange.headers.get("range") for exchange in api.asked] == [None, "bytes=110000-"]


def test_a_rest_that_does_not_say_of_what_is_not_taken(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            Broken(CONTENT, 110_000)(exchange)
        elif "range" in exchange.headers:
            exchange.send(b"x" * 190_000, 206, Content_Range="bytes 110000-299999/300000")
        else:
            exchange.send(CONTENT)

    api.answer = answer
    assert fetch(api).files == {"report-7.bin": CONTENT}
    assert len(api.asked) == 3


@pytest.mark.parametrize(
    ("date", "asked"), [(1_600_000_059, None), (1_600_000_060, "bytes=200000-"), (None, None)]
)
def test_a_time_of_change_must_be_old_enough_to_tell_contents_apart(
    api: Api, date: int | None, asked: str | None
) -> None:
    headers = {"ETag": 'W/"weak"', "Last-Modified": formatdate(1_600_000_000, usegmt=True)}
    if date is not None:
        headers["Date"] = formatdate(date, usegmt=True)

    def answer(exchange: Exchange) -> None:
        broken = Broken(CONTENT, 200_000 if exchange.number == 0 else 300_000)
        broken.headers, broken.ranges = headers, False
        broken(exchange)

    api.answer = answer
    assert fetch(api).files == {"report-7.bin": CONTENT}
    assert api.asked[1].headers.get("range") == asked


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (206, {"Content-Range": "bytes 0-299999/300000"}, "api-answer-invalid"),
        (206, {}, "api-answer-invalid"),
        (206, {"Content-Range": "bytes 110000-300000/300001"}, "source-changed"),
        (416, {"Content-Range": "bytes */110000"}, "api-answer-invalid"),
        (416, {}, "api-answer-invalid"),
    ],
)
def test_a_wrong_rest_is_refused(api: Api, status: int, headers: dict[str, str], code: str) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            Broken(CONTENT, 110_000)(exchange)
        else:
            exchange.head(status, {"Content-Length": "190000", **headers})
            exchange.raw(CONTENT[110_000:])

    api.answer = answer
    assert refused(api).code.name == code


class Capped:
    """A file whose connection is lost once; its server gives 40,000 bytes of it at a time."""

    def __init__(self, *, chunked: bool, whole: str = str(len(CONTENT))) -> None:
        self.chunked, self.whole = chunked, whole

    def __call__(self, exchange: Exchange) -> None:
        if exchange.number == 0:
            self.lose(exchange)
        elif (first := int(exchange.headers["range"][6:-1])) == len(CONTENT):
            exchange.send(status=416, Content_Range=f"bytes */{len(CONTENT)}")
        else:
            self.part(exchange, CONTENT[first : first + 40_000])

    def lose(self, exchange: Exchange) -> None:
        if self.chunked:
            exchange.head(200, {"Transfer-Encoding": "chunked", "ETag": '"one"'})
            exchange.raw(b"%x\r\n%b\r\n" % (110_000, CONTENT[:110_000]))
            exchange.close()
        else:
            Broken(CONTENT, 110_000)(exchange)

    def part(self, exchange: Exchange, body: bytes, told: int | None = None) -> None:
        first = int(exchange.headers["range"][6:-1])
        last = first + (len(body) if told is None else told) - 1
        about = f"bytes {first}-{last}/{self.whole}"
        exchange.send(body, 206, ETag='"one"', Content_Range=about)


@pytest.mark.parametrize("whole", ["300000", "*"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_rest_that_comes_in_parts_is_asked_for_to_its_end(
    api: Api, chunked: bool, whole: str
) -> None:
    api.answer = Capped(chunked=chunked, whole=whole)
    assert fetch(api).files == {"report-7.bin": CONTENT}
    firsts = list(range(110_000, 300_000, 40_000))
    if chunked and whole == "*":  # nobody has said yet that this is the end
        firsts.append(300_000)
    ranges = [exchange.headers.get("range") for exchange in api.asked]
    assert ranges == [None, *(f"bytes={first}-" for first in firsts)]
    assert {exchange.headers.get("if-range") for exchange in api.asked[1:]} == {'"one"'}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 10])
def test_parts_that_bring_less_than_they_say_are_not_asked_for_without_end(
    api: Api, size: int, chunked: bool
) -> None:
    capped = Capped(chunked=chunked)

    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            capped.lose(exchange)
        else:
            capped.part(exchange, CONTENT[:size], told=40_000)

    api.answer = answer
    error = refused(api)
    assert error.code.name == "api-away"
    assert error.transient
    assert len(api.asked) == 3


def test_a_part_longer_than_it_says_is_refused(api: Api) -> None:
    capped = Capped(chunked=True)

    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            capped.lose(exchange)
        else:
            capped.part(exchange, CONTENT[110_000:], told=40_000)

    api.answer = answer
    error = refused(api)
    assert error.code.name == "api-answer-invalid"
    assert "more than its Content-Range says" in error.message


@pytest.mark.parametrize(
    ("second", "code"),
    [
        ({"Content-Range": "bytes 150000-199999/200000"}, "source-changed"),
        ({"Content-Range": "bytes 150000-149999/300000"}, "api-answer-invalid"),
        ({"Content-Range": "bytes 150000-199999/150000"}, "api-answer-invalid"),
        ({"Content-Range": "bytes 150000-199999/300000", "ETag": '"two"'}, "source-changed"),
    ],
)
def test_a_wrong_second_part_is_refused(api: Api, second: dict[str, str], code: str) -> None:
    capped = Capped(chunked=True)

    def answer(exchange: Exchange) -> None:
        if exchange.number < 2:
            capped(exchange)
        else:
            exchange.head(206, {"Content-Length": "50000", "ETag": '"one"', **second})
            exchange.raw(CONTENT[150_000:200_000])

    api.answer = answer
    assert refused(api).code.name == code


def test_a_rest_of_unknown_length_is_not_the_whole_until_its_end_is_told(api: Api) -> None:
    capped = Capped(chunked=True, whole="*")

    def answer(exchange: Exchange) -> None:
        capped(exchange) if exchange.number < 2 else exchange.send(status=416)

    api.answer = answer
    assert refused(api).code.name == "api-answer-invalid"


def test_a_whole_sent_again_without_a_length_could_be_cut_off_anywhere(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            Capped(chunked=True).lose(exchange)
        else:
            exchange.raw(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT[:200_000])
            exchange.close()

    api.answer = answer
    error = refused(api)
    assert error.code.name == "api-answer-invalid"
    assert "no length" in error.message


def test_a_lost_end_mark_is_found_to_be_the_end(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.number == 0:
            exchange.head(200, {"Transfer-Encoding": "chunked", "ETag": '"t"'})
            exchange.raw(b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT))
            exchange.close()
        else:
            assert exchange.headers["range"] == f"bytes={len(CONTENT)}-"
            exchange.send(status=416, Content_Range=f"bytes */{len(CONTENT)}")

    api.answer = answer
    assert fetch(api).files == {"report-7.bin": CONTENT}


def test_a_length_that_promises_too_much_ends_the_attempt(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": "300001"})
        exchange.raw(CONTENT)
        exchange.close()

    api.answer = answer
    error = refused(api)
    assert error.code.name == "api-away"
    assert error.transient
    assert "3 times in a row" in error.message
    assert len(api.asked) == 3


def test_bytes_beyond_the_length_are_refused(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n0123456789")

    api.answer = answer
    error = refused(api)
    assert error.code.name == "api-answer-invalid"
    assert "5 bytes follow the 5 of its Content-Length" in error.message


def test_an_early_hint_is_no_part_of_the_answer(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        exchange.send(b"01234")

    api.answer = answer
    assert fetch(api).files == {"report-7.bin": b"01234"}


def test_an_answer_without_a_length_could_be_cut_off_anywhere(api: Api) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT)
        exchange.close()

    api.answer = answer
    error = refused(api)
    assert error.code.name == "api-answer-invalid"
    assert "no length" in error.message


def test_a_compressed_answer_is_refused_unread(api: Api) -> None:
    api.answer = lambda exchange: exchange.send(b"\x1f\x8b" + bytes(1000), Content_Encoding="gzip")
    error = refused(api)
    assert error.code.name == "api-answer-invalid"
    assert "gzip" in error.message


def test_ten_gigabytes_are_not_read_beyond_the_limit(api: Api) -> None:
    sent = 0

    def answer(exchange: Exchange) -> None:
        nonlocal sent
        exchange.head(200, {"Transfer-Encoding": "chunked"})
        block = b"100000\r\n" + bytes(2**20) + b"\r\n"
        for _ in range(10 * 1024):
            exchange.raw(block)
            sent += len(block)

    api.answer = answer
    error = refused(api, max_bytes="5MiB")
    assert error.code.name == "api-too-large"
    assert not error.transient
    assert sent < 100 * 2**20
    api.answer = lambda exchange: exchange.head(200, {"Content-Length": str(10**10)})
    assert refused(api, max_bytes="5MiB").code.name == "api-too-large"


def item(name: str | None, content: bytes, number: int, **fields: Any) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"id": number, "name": name, "sha256": digest, "meta": {"size": len(content)}, **fields}


def shelf(api: Api, items: list[dict[str, Any]], contents: dict[int, bytes]) -> None:
    """An API with a list and contents."""

    def answer(exchange: Exchange) -> None:
        if exchange.path == "/files":
            exchange.send(json.dumps(items))
            return
        number = int(exchange.path.split("/")[2])
        if number in contents:
            exchange.send(contents[number])
        else:
            exchange.send(b"gone", status=404)

    api.answer = answer


def test_each_item_has_a_file_and_all_are_in_order(api: Api, tmp_path: Path) -> None:
    names = ["z.bin", "a b.txt", "\u00e9", "a", "events.json", "events.jsonx", "-x", "é" * 127]
    contents = {number: os.urandom(number * 1000) for number in range(len(names))}
    items = [item(name, contents[number], number) for number, name in enumerate(names)]
    items[0]["sha256"] = None
    items[1]["sha256"] = f"sha256:{items[1]['sha256'].upper()}"
    del items[2]["meta"]
    shelf(api, items, contents)
    got = gather(settings(api.base), EACH, into="files", scratch=tmp_path)
    lines = got.files.pop("files/events.jsonl").decode().splitlines()
    assert [json.loads(line) for line in lines] == items
    assert got.files == {f"files/{name}": contents[at] for at, name in enumerate(names)}
    assert got.rows == len(items)
    assert got.warnings == [
        "http:events: 1 of 8 items give no SHA-256: their files were compared with nothing"
    ]
    assert not list(tmp_path.iterdir())


def test_a_list_too_long_for_memory_is_sorted_on_disk(api: Api, tmp_path: Path) -> None:
    items = [item(f"{number:0200d}", b"", number) for number in range(16_000)]
    random.Random(1).shuffle(items)
    shelf(api, items, {0: b"", 1: b"", 2: b"", 3: b"x"})
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), {**EACH, "max_page_bytes": "8MiB"}, scratch=tmp_path)
    assert caught.value.at == f"{3:0200d}"
    assert [exchange.path.split("/")[2:] for exchange in api.asked[1:]] == [
        [str(number), "content"] for number in range(4)
    ]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/etc/passwd", "a\nb", "a\0", "\x7f", "\u2028", "é" * 128, "\ud800"],
)
def test_a_name_that_is_none_is_refused_before_anything_is_fetched(api: Api, name: str) -> None:
    shelf(api, [item("good", b"", 0), item(name, b"", 1)], {})
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), EACH)
    assert caught.value.code.name == "api-answer-invalid"
    assert api.targets == ["/files"]


def test_twins_are_an_error_that_names_both(api: Api) -> None:
    items = [item("first", b"", 1), *(item("same", b"", number) for number in (3, 5))]
    shelf(api, items, {1: b"", 3: b"", 5: b""})
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), EACH)
    assert caught.value.code.name == "api-answer-invalid"
    assert api.targets == ["/files"]
    assert "/files/3/content and /files/5/content" in caught.value.message


def test_a_file_that_is_called_as_the_lines_is_refused(api: Api) -> None:
    shelf(api, [item("a", b"", 0), item("events.jsonl", b"", 1)], {0: b"", 1: b""})
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), EACH)
    assert api.targets == ["/files"]
    assert "events.jsonl" in caught.value.message


@pytest.mark.parametrize("number", ["../..", "..", "", "a/b?c#d", None, True, [1], {"x": 1}])
def test_an_item_leads_nowhere_but_to_its_own_place(api: Api, number: Any) -> None:
    api.answer = lambda exchange: exchange.send(
        json.dumps([{"id": number, "name": "n"}]) if exchange.path == "/files" else b"x"
    )
    with suppress(SpooldError):
        gather(settings(api.base), EACH)
    for exchange in api.asked[1:]:
        assert exchange.path.startswith("/files/")
        assert exchange.path.endswith("/content")
        assert exchange.target.count("/") == 3
        assert "?" not in exchange.target


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"meta": {"size": 4}}, {"meta": {"size": 6}}]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_what_an_item_says_of_its_file_is_checked(
    api: Api, wrong: dict[str, Any], chunked: bool
) -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.path == "/files":
            exchange.send(json.dumps([item("n", b"01234", 1, **wrong)]))
        elif chunked:
            exchange.head(200, {"Transfer-Encoding": "chunked"})
            exchange.raw(b"5\r\n01234\r\n0\r\n\r\n")
        else:
            exchange.send(b"01234")

    api.answer = answer
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), EACH)
    assert caught.value.code.name == "source-changed"
    assert caught.value.at == "n"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("n", {"sha256": "xyz"}), ("n", {"meta": {"size": "5 bytes"}}), (None, {}), (True, {})],
)
def test_an_item_that_cannot_be_understood_is_refused(
    api: Api, name: str | None, wrong: dict[str, Any]
) -> None:
    shelf(api, [item(name, b"", 1, **wrong)], {1: b""})
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), EACH)
    assert caught.value.code.name == "api-answer-invalid"


def test_a_file_that_is_listed_and_gone_may_be_left_out(api: Api) -> None:
    shelf(api, [item("a", b"", 1), item("b", b"here", 2)], {2: b"here"})
    with pytest.raises(SpooldError) as caught:
        gather(settings(api.base), EACH)
    assert caught.value.code.name == "source-unreadable"
    problems = []
    got = gather(
        settings(api.base), EACH, on_problem=lambda path, error: problems.append((path, error))
    )
    assert list(got.files) == ["b", "events.jsonl"]
    assert [path for path, _ in problems] == [b"a"]
    assert "404 Not Found: gone" in problems[0][1].message
