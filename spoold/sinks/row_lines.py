"""JSON lines to the text form of COPY, strictly, in bulk. Pure.

A line is one object with the same keys as all others of its entry, each once. Blocks of lines that
look like those of `row_to_json` are taken apart by one pattern, without a step of Python for each
row; lines that look otherwise (spaces, another order, escapes by number, lists and objects as
values) are read one by one, and there a fault gets its place.

In COPY's text form the escapes of a JSON string mean the same, but for those by number.

Source: https://www.postgresql.org/docs/current/sql-copy.html, "Text Format"
"""

import enum
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple, NoReturn

BLOCK_BYTES: Final = 64 * 1024  # small, so that the server works on one while the next is read
MAX_LINE_BYTES: Final = 16 * 1024**2  # such a line is held several times over
MAX_COLUMNS: Final = 1600  # MaxHeapAttributeNumber
_SHOWN: Final = 10  # of columns that are missing or too many


class Form(enum.Enum):
    """What a column's values are in JSON, besides `null`."""

    TEXT = "a string"
    NUMBER = "a number"  # or a string that says NaN or an infinity, for which JSON has no numbers
    BOOLEAN = "true or false"
    ANY = "any value"


class RowFaultError(Exception):
    """A line that is no row: `line` is counted from 1, in its entry."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class Block(NamedTuple):
    """Whole lines: the number of the first one, and their bytes, which end in a line feed."""

    first_line: int
    data: bytes


def blocks(file: BinaryIO) -> Iterator[Block]:
    """The lines of an entry. Raises RowFaultError for one that is too long."""
    line, rest = 1, b""
    while data := file.read(max(BLOCK_BYTES, len(rest))):  # for a long line, more each time
        end = data.rfind(b"\n") + 1
        if len(rest) + (data.index(b"\n") if end else len(data)) > MAX_LINE_BYTES:
            raise RowFaultError(line, f"it is longer than {MAX_LINE_BYTES:,} bytes")
        if end:
            block = Block(line, rest + data[:end])
            yield block
            line += block.data.count(b"\n")
            rest = data[end:]
        else:
            rest += data
    if rest:
        yield Block(line, rest + b"\n")


def names_in(block: Block) -> list[str]:
    """The keys of a block's first line, in their order. Raises RowFaultError."""
    first = block.data[: block.data.index(b"\n")]
    return list(_read(_decoded(first, block.first_line), block.first_line))


_SAID: Final = rb'[^"\\\x00-\x1f]*(?:\\["\\/bfnrt][^"\\\x00-\x1f]*)*'
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
# What stands between the quotes, nothing for null: no string may be empty then.
_BARE: Final[Mapping[Form, bytes]] = {
    Form.TEXT: rb'(?:"(?!")(%s)"|null)' % _SAID,
    Form.NUMBER: rb"(?:(%s)|null)" % _NUMBER,
    Form.BOOLEAN: rb"(?:(true|false)|null)",
}
_QUOTED: Final[Mapping[Form, bytes]] = {
    Form.TEXT: rb'("%s"|null)' % _SAID,
    Form.NUMBER: rb'(%s|null|"NaN"|"-?Infinity")' % _NUMBER,
    Form.BOOLEAN: rb"(true|false|null)",
}
# The pattern's own memory grows with what it matches.
_MAX_FAST_BYTES: Final = 4 * BLOCK_BYTES


class Rows:
    """Reads the lines of one entry, which have these columns, in the order of its first line."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self._forms = dict(forms)
        self._patterns: list[tuple[re.Pattern[bytes], Callable[[bytes], bytes]]] = []
        # With one group only, what `findall` finds are no tuples.
        if len(self._forms) > 1 and Form.ANY not in self._forms.values():
            self._patterns = [
                (_pattern(self._forms, _BARE), _with_nulls),
                (_pattern(self._forms, _QUOTED), _unquoted),
            ]

    def copied(self, block: Block) -> bytes:
        """The block as COPY reads it, row by row. Raises RowFaultError."""
        first_line, data = block
        text = _decoded(data, first_line)
        if len(data) <= _MAX_FAST_BYTES:
            for number, (pattern, finish) in enumerate(self._patterns):
                found = pattern.findall(data)
                if len(found) == data.count(b"\n"):
                    # Where one has not done, it will hardly do for the blocks to come.
                    del self._patterns[:number]
                    return finish(b"\n%s\n" % b"\n".join(map(b"\t".join, found)))[1:]
        lines = enumerate(text[:-1].split("\n"), first_line)
        return "".join(self._copied(line, number) for number, line in lines).encode()

    def _copied(self, line: str, number: int) -> str:
        values = _read(line, number)
        if values.keys() != self._forms.keys():
            raise RowFaultError(number, _difference(values.keys(), self._forms.keys()))
        fields = []
        for name, form in self._forms.items():
            value = values[name]
            try:
                fields.append(_field(value, form))
            except ValueError as error:
                place = f"column {name}, at character {value.position + 1}"
                raise RowFaultError(number, f"{place}: {error}") from error
        return "\t".join(fields) + "\n"


class _Value(NamedTuple):
    """A value of a line: at which character, its own text, and what it says if it is a string."""

    position: int
    token: str
    said: object


def _pattern(forms: Mapping[str, Form], fields: Mapping[Form, bytes]) -> re.Pattern[bytes]:
    """A line with these columns; a group for each value."""
    members = (
        re.escape(json.dumps(name, ensure_ascii=False).encode()) + b":" + fields[form]
        for name, form in forms.items()
    )
    return re.compile(rb"^\{%s\}\n" % b",".join(members), re.MULTILINE)


# No value holds a tab or a line feed as such: what stands beside one begins or ends a value. The
# rows have a line feed before the first one, too.


def _with_nulls(rows: bytes) -> bytes:
    if b"\t\t" in rows:
        rows = rows.replace(b"\t\t", b"\t\\N\t").replace(b"\t\t", b"\t\\N\t")
    if b"\t\n" in rows:
        rows = rows.replace(b"\t\n", b"\t\\N\n")
    return rows.replace(b"\n\t", b"\n\\N\t") if b"\n\t" in rows else rows


def _unquoted(rows: bytes) -> bytes:
    if b"null" in rows:
        rows = rows.replace(b"\tnull", b"\t\\N").replace(b"\nnull", b"\n\\N")
    rows = rows.replace(b'\t"', b"\t").replace(b'"\t', b"\t")
    return rows.replace(b'\n"', b"\n").replace(b'"\n', b"\n")


_NUMBERS_IN_TEXT: Final = frozenset({"NaN", "Infinity", "-Infinity"})
_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def _field(value: _Value, form: Form) -> str:
    """A value as COPY reads it; ValueError says what is wrong with it."""
    token = value.token
    if token == "null":  # noqa: S105  # JSON's
        return r"\N"
    if form is Form.ANY:
        return token.translate(_ESCAPES)
    if isinstance(value.said, str) and token.startswith('"'):
        if unfit := _UNFIT.search(value.said):
            raise ValueError("a NUL" if unfit[0] == "\0" else "half a character (a surrogate)")
        if form is not Form.TEXT and not (form is Form.NUMBER and value.said in _NUMBERS_IN_TEXT):
            raise ValueError(f"a string where {form.value} belongs")
        return value.said.translate(_ESCAPES)
    match token[0]:
        case "t" | "f":
            kind, found = Form.BOOLEAN, token
        case "{" | "[":
            kind, found = Form.ANY, "a list or an object"
        case _:
            kind, found = Form.NUMBER, "a number"
    if kind is not form:
        raise ValueError(f"{found} where {form.value} belongs")
    return token


def _difference(found: Collection[str], expected: Collection[str]) -> str:
    said = []
    for what, names in (
        ("missing", [name for name in expected if name not in found]),
        ("too many", [name for name in found if name not in expected]),
    ):
        if names:
            more = ", …" if len(names) > _SHOWN else ""
            said.append(f"{what}: {', '.join(name[:100] for name in names[:_SHOWN])}{more}")
    return "other columns than the first line: " + "; ".join(said)


def _decoded(data: bytes, first_line: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        place = error.start - data.rfind(b"\n", 0, error.start)
        raise RowFaultError(line, f"at byte {place}: it is not UTF-8") from error


def _object(pairs: Sequence[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("an object in which a key stands twice")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# Numbers stay text: int() is quadratic in their digits, float() loses some.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=_no_constant
)
_SPACE: Final = re.compile(r"[ \t\r]*")


def _read(text: str, line: int) -> dict[str, _Value]:
    """The object that a line is. The decoder reads its parts: it does not tell where they stand."""
    values: dict[str, _Value] = {}
    position = _skip(text, 0)
    if not text.startswith("{", position):
        raise RowFaultError(line, "it is no JSON object" if text.strip() else "it is empty")
    position = _skip(text, position + 1)
    closed = text.startswith("}", position)
    while not closed:
        if not text.startswith('"', position):
            _refuse(line, position, "no key in quotes")
        key, end = _decode(text, position, line)
        name = str(key)
        if len(values) == MAX_COLUMNS:
            _refuse(line, position, f"more than {MAX_COLUMNS:,} columns, which no table has")
        if name in values:
            _refuse(line, position, f"{text[position:end][:100]} stands there twice")
        position = _skip(text, end)
        if not text.startswith(":", position):
            _refuse(line, position, "no `:`")
        position = _skip(text, position + 1)
        value, end = _decode(text, position, line)
        values[name] = _Value(position, text[position:end], value)
        position = _skip(text, end)
        closed = text.startswith("}", position)
        if not closed:
            if not text.startswith(",", position):
                _refuse(line, position, "neither `,` nor `}`")
            position = _skip(text, position + 1)
    position = _skip(text, position + 1)
    if position != len(text):
        _refuse(line, position, "more after the object")
    return values


def _decode(text: str, position: int, line: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError:
        _refuse(line, position, "nested too deep")
    except json.JSONDecodeError as error:
        _refuse(line, error.pos, error.msg)
    except ValueError as error:
        _refuse(line, position, str(error))


def _skip(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space is not None
    return space.end()


def _refuse(line: int, position: int, what: str) -> NoReturn:
    raise RowFaultError(line, f"at character {position + 1}: {what}")
