"""JSON lines as COPY reads them: what is taken, in bulk or one by one, and what is no row."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoold.sinks import ledger, row_lines
from spoold.sinks.row_lines import Block, Form, RowFaultError, Rows, blocks, names_in

FORMS = {"id": Form.NUMBER, "text": Form.TEXT, "flag": Form.BOOLEAN}
PAGE = Path(__file__).parents[2] / "spool-layout" / "SOURCES.md"


def copied(data: bytes, forms: dict[str, Form] | None = None) -> bytes:
    rows = Rows(forms or FORMS)
    return b"".join(rows.copied(block) for block in blocks(io.BytesIO(data)))


def uncopied(data: bytes) -> list[list[str | None]]:
    """COPY's text form read as the server reads it."""
    escapes = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

    def field(text: str) -> str | None:
        if text == r"\N":
            return None
        parts = iter(text)
        return "".join(
            escapes.get(follows := next(parts), follows) if part == "\\" else part for part in parts
        )

    return [[field(text) for text in line.split("\t")] for line in data.decode().split("\n")[:-1]]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('{"id":1,"text":"a","flag":true}', ["1", "a", "true"]),
        ('{"id":null,"text":null,"flag":null}', [None, None, None]),
        ('{"id":-1.50e+3,"text":"null","flag":false}', ["-1.50e+3", "null", "false"]),
        ('{"id":"-Infinity","text":"","flag":null}', ["-Infinity", "", None]),
        ('{"id":"NaN","text":"\\\\N","flag":null}', ["NaN", "\\N", None]),
        (r'{"id":1,"text":"\"\\\/\b\f\n\r\t","flag":null}', ["1", '"\\/\b\f\n\r\t', None]),
        (r'{"id":1,"text":"A\u001f\ud83d\ude00","flag":null}', ["1", "A\x1f😀", None]),
        (' { "flag" : true , "text" : "a,\\"id\\":2" ,"id": 1 } \r', ["1", 'a,"id":2', "true"]),
        ('{"\\u0069d":1,"text":"é\u2028","flag":null}', ["1", "é\u2028", None]),
        ('{"id":1,"text":"\\\\.","flag":null}', ["1", "\\.", None]),
    ],
)
def test_a_row_is_what_json_says(line: str, fields: list[str | None]) -> None:
    assert uncopied(copied(line.encode())) == [fields]
    # Among others of either kind.
    plain = b'{"id":1,"text":"a","flag":true}\n'
    odd = b'{"text":"a","id":1,"flag":true}\n'
    for others in (plain, odd):
        assert uncopied(copied(others + line.encode() + b"\n" + others))[1] == fields


def _said(value: int | str | None) -> str | None:
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "id": st.none() | st.integers(),
                "text": st.none() | _TEXT,
                "flag": st.none() | st.booleans(),
            }
        ),
        min_size=1,
    ),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_any_values_come_through(
    rows: list[dict[str, int | str | None]], ascii_: bool, separators: tuple[str, str]
) -> None:
    data = "".join(
        json.dumps(row, ensure_ascii=ascii_, separators=separators) + "\n" for row in rows
    ).encode()
    said = [[_said(row[name]) for name in FORMS] for row in rows]
    assert uncopied(copied(data)) == said


@given(st.binary(max_size=40))
def test_nothing_but_rows_comes_out_of_any_bytes(data: bytes) -> None:
    try:
        taken = copied(b'{"id":1,"text":"a","flag":true}\n{"id":1,"text":"' + data)
    except RowFaultError:
        return
    assert all(len(line) == 3 for line in uncopied(taken))


@pytest.mark.parametrize("size", [1, 7, 65_536, 200_000])
def test_lines_of_any_length_come_whole(size: int) -> None:
    data = (b"x" * size + b"\n") * 5 + b"y" * size
    found = list(blocks(io.BytesIO(data)))
    assert b"".join(block.data for block in found) == data + b"\n"
    line = 1
    for block in found:
        assert block.first_line == line
        line += block.data.count(b"\n")


@pytest.mark.parametrize("before", [b"", b"x\n", b"x\n" * 100_000])
def test_a_line_that_is_too_long_is_named(before: bytes) -> None:
    for extra in (b"", b"\n", b"\nx"):
        list(blocks(io.BytesIO(before + b"x" * row_lines.MAX_LINE_BYTES + extra)))
        with pytest.raises(RowFaultError) as caught:
            list(blocks(io.BytesIO(before + b"x" * (row_lines.MAX_LINE_BYTES + 1) + extra)))
        assert caught.value.line == before.count(b"\n") + 1


@pytest.mark.parametrize("key", ["a", 'a"b', "a\\b", "é", "a\tb", "a%(x)s", "a.*", ""])
def test_a_key_may_be_any_text(key: str) -> None:
    line = json.dumps({key: 1, "other": "x"}, separators=(",", ":"), ensure_ascii=False).encode()
    assert names_in(Block(1, line + b"\n")) == [key, "other"]
    assert copied(line, {key: Form.NUMBER, "other": Form.TEXT}) == b"1\tx\n"


def test_deep_and_long_values_end_in_a_fault_or_a_row() -> None:
    forms = {"id": Form.NUMBER, "doc": Form.ANY}
    with pytest.raises(RowFaultError, match="nested too deep"):
        copied(b'{"id":1,"doc":' + b"[" * 1_000_000, forms)
    with pytest.raises(RowFaultError, match="stands twice"):
        copied(b'{"id":1,"doc":{"a":{"b":1,"b":2}}}', forms)
    digits = b"9" * 100_000
    assert copied(b'{"id":1,"doc":[%s]}' % digits, forms) == b"1\t[%s]\n" % digits


def test_the_page_has_the_tables_of_the_ledger() -> None:
    assert f"```sql\n{ledger.TABLES_SQL}```\n" in PAGE.read_text()
