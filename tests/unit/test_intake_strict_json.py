import json
import time

import pytest

from spoold import errors
from spoold.errors import Code, SpooldError
from spoold.intake import strict_json


def refusal(content: bytes) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        strict_json.parse(content)
    return caught.value


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":1}',
        b' {"a" : [1, -2, 0, true, false, null, "x"], "b": {}, "c": []}\n',
        b'"\\u00fc \\ud83d\\ude00 \\n \\" \\\\ \\/"',
        '{"größe":"\U0001f600"}'.encode(),
        b"[]",
        b"17",
        b'{"a":9007199254740991}',
        b'{"\\u0061":1,"b":2}',
    ],
)
def test_plain_json_is_what_the_standard_library_reads(content: bytes) -> None:
    assert strict_json.parse(content) == json.loads(content)


@pytest.mark.parametrize(
    ("content", "code", "place", "what"),
    [
        (b'{"a":1,"a":2}', errors.REQUEST_INVALID, (1, 8), "duplicate key"),
        (b'{"b":{"a":1,\n "\\u0061":2}}', errors.REQUEST_INVALID, (2, 2), "duplicate key"),
        (b'{"a":NaN}', errors.REQUEST_INVALID, (1, 6), "NaN"),
        (b'{"a":-Infinity}', errors.REQUEST_INVALID, (1, 6), "-Infinity"),
        (b'{"a":1.5}', errors.REQUEST_INVALID, (1, 6), "not a plain integer"),
        (b'{"a":1e9}', errors.REQUEST_INVALID, (1, 6), "not a plain integer"),
        (b'{"a":9007199254740992}', errors.REQUEST_INVALID, (1, 6), "integer beyond"),
        (b'{"a":' + b"9" * 5000 + b"}", errors.REQUEST_INVALID, (1, 6), "integer beyond"),
        (b'\xef\xbb\xbf{"a":1}', errors.REQUEST_INVALID, (1, 1), "byte order mark"),
        (b'{\n "a": "\\ud800"}', errors.REQUEST_INVALID, (2, 7), "lone surrogate"),
        (b'{\n "a": "\\udc00\\ud800"}', errors.REQUEST_INVALID, (2, 7), "lone surrogate"),
        (b'{"\\udfff":1}', errors.REQUEST_INVALID, (1, 2), "lone surrogate"),
        (b'{"a":"x\\u0000y"}', errors.REQUEST_INVALID, (1, 6), "NUL"),
        (b"[" * 9 + b"]" * 9, errors.REQUEST_INVALID, (1, 9), "nested deeper"),
        (b"[" * 99_000 + b"]" * 99_000, errors.REQUEST_INVALID, (1, 9), "nested deeper"),
        (b'{"a":"\xff"}', errors.REQUEST_NOT_JSON, (1, 7), "not UTF-8"),
        (b'{"a":\n"x\ny"}', errors.REQUEST_NOT_JSON, (2, 3), "control character"),
        (b'{"a":"\\x41"}', errors.REQUEST_NOT_JSON, (1, 7), "unknown escape"),
        (b'{"a":"\\u00g0"}', errors.REQUEST_NOT_JSON, (1, 7), "unknown escape"),
        (b"{'a':1}", errors.REQUEST_NOT_JSON, (1, 2), "where a key"),
        (b'{"a":1,}', errors.REQUEST_NOT_JSON, (1, 8), "where a key"),
        (b"[1,]", errors.REQUEST_NOT_JSON, (1, 4), "where a value"),
        (b'{"a" 1}', errors.REQUEST_NOT_JSON, (1, 6), "where `:` should be"),
        (b'{"a":1 "b":2}', errors.REQUEST_NOT_JSON, (1, 8), "`,` or the end"),
        (b'{"a":01}', errors.REQUEST_NOT_JSON, (1, 6), "'0' where a value"),
        (b'{"a":1}}', errors.REQUEST_NOT_JSON, (1, 8), "more text"),
        (b'{"a":1}\n{"a":1}', errors.REQUEST_NOT_JSON, (2, 1), "more text"),
        (b"{]", errors.REQUEST_NOT_JSON, (1, 2), "where a key"),
        (b"hello", errors.REQUEST_NOT_JSON, (1, 1), "'h'"),
        (b"{1:2}", errors.REQUEST_NOT_JSON, (1, 2), "where a key"),
        (b'{"a":tru}', errors.REQUEST_NOT_JSON, (1, 6), "'t'"),
    ],
)
def test_e22_a_fault_has_its_code_line_and_column(
    content: bytes, code: Code, place: tuple[int, int], what: str
) -> None:
    error = refusal(content)
    assert error.code is code
    assert error.at == f"line {place[0]}, column {place[1]}"
    assert what in error.message


def test_e04_every_beginning_of_an_object_is_truncated() -> None:
    whole = '{"a": [1, -25, true, null, "x\\u00e4\\n", {}], "größe": {"b": false}}'.encode()
    for length in range(len(whole)):
        error = refusal(whole[:length])
        assert error.code is errors.REQUEST_TRUNCATED, whole[:length]
    strict_json.parse(whole)


def test_e22_too_many_values_are_refused_before_parsing() -> None:
    content = b"[" + b"{}," * 100_000 + b"{}]"
    started = time.monotonic()
    error = refusal(content)
    assert time.monotonic() - started < 0.1
    assert error.code is errors.REQUEST_INVALID
    assert "200,002" in error.message


def test_e22_the_slow_reader_is_bounded_on_a_full_size_request() -> None:
    content = b'{"a":"' + b"x" * 900_000 + b'","b":[' + b"1," * 49_000 + b"1.5]}"
    started = time.monotonic()
    assert refusal(content).code is errors.REQUEST_INVALID
    assert time.monotonic() - started < 2
