"""Rows as JSON lines: how a value of each PostgreSQL type stands in them, and their schema entry.

Pure. `<name>.jsonl` holds one object a row, as `row_to_json` makes it; `<name>.schema.json` beside
it says which columns there are. The encoding `json` is for types of which the server's own JSON is
exact: read as a value of its type it is the same value again. Of any other type (JSON itself, whose
`null` would become NULL; arrays, whose bounds would be lost; composites; whatever an extension or
a user has made) the text form stands there as a string, `text`.

Source: https://www.postgresql.org/docs/current/functions-json.html
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spoold import canonical
from spoold.canonical import Json

ROWS_TYPE: Final = "spoold.rows/1"
ROWS_SUFFIX: Final = ".jsonl"
SCHEMA_SUFFIX: Final = ".schema.json"
ROWS_MEDIA_TYPE: Final = "application/x-ndjson"
SCHEMA_MEDIA_TYPE: Final = "application/json"
MAX_SCHEMA_BYTES: Final = 1024 * 1024
_MAX_COLUMNS: Final = 1664  # MaxTupleAttributeNumber: more than any table or query can have
_MAX_NAME: Final = 1024


class Encoding(enum.StrEnum):
    """How the values of a column stand in the lines; NULL is `null` in both."""

    JSON = "json"
    TEXT = "text"


# Object ids of built-in types never change.
_EXACT: Final[Mapping[int, str]] = {
    16: "boolean",
    17: "bytea",
    19: "name",
    20: "bigint",
    21: "smallint",
    23: "integer",
    25: "text",
    26: "oid",
    650: "cidr",
    700: "real",
    701: "double precision",
    774: "macaddr8",
    829: "macaddr",
    869: "inet",
    1042: "character",  # its text form would lose the spaces at the end
    1043: "character varying",
    1082: "date",
    1083: "time without time zone",
    1114: "timestamp without time zone",
    1184: "timestamp with time zone",
    1186: "interval",
    1266: "time with time zone",
    1560: "bit",
    1562: "bit varying",
    1700: "numeric",
    2950: "uuid",
}


def encoding_of(base_type: int) -> Encoding:
    """The encoding of a type by its object id; of a domain, by that of the type beneath it."""
    return Encoding.JSON if base_type in _EXACT else Encoding.TEXT


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the rows."""

    name: str
    type: str
    """As the server names it, for people: `numeric(12,2)`."""
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class RowSchema:
    """What stands in a schema entry."""

    query: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    """Columns that identify a row; empty: not known."""
    rows: int | None = None

    def encode(self) -> bytes:
        """Canonical JSON. Raises NotCanonicalError for names with control characters."""
        return canonical.encode(
            {
                "type": ROWS_TYPE,
                "query": self.query,
                "columns": [
                    {"name": each.name, "type": each.type, "encoding": each.encoding.value}
                    for each in self.columns
                ],
                "key": list(self.key),
                **({} if self.rows is None else {"rows": self.rows}),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "RowSchema":
        """Read a schema entry, whoever wrote it. Raises ValueError, which says what is wrong."""
        if len(data) > MAX_SCHEMA_BYTES:
            raise ValueError(f"it is larger than {MAX_SCHEMA_BYTES} bytes")
        document = canonical.decode(data)
        fields = _fields(document, {"type", "query", "columns", "key"}, {"rows"})
        if fields["type"] != ROWS_TYPE:
            raise ValueError(f"its type is not {ROWS_TYPE}")
        columns = tuple(_column(each) for each in _list(fields["columns"], "columns"))
        names = [each.name for each in columns]
        if not names or len(set(names)) != len(names):
            raise ValueError("its columns are none, or one stands there twice")
        key = tuple(_text(each, "a key column") for each in _list(fields["key"], "key"))
        if len(set(key)) != len(key) or not set(key) <= set(names):
            raise ValueError("its key names a column twice, or one that is not there")
        rows = fields.get("rows")
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 0):
            raise ValueError("its rows are no count")
        return cls(_text(fields["query"], "query"), columns, key, rows)


def _column(value: Json) -> Column:
    fields = _fields(value, {"name", "type", "encoding"}, set())
    encoding = _text(fields["encoding"], "encoding")
    if encoding not in set(Encoding):
        raise ValueError(f"there is no encoding {encoding[:20]}")
    return Column(
        _text(fields["name"], "a column's name"),
        _text(fields["type"], "a column's type"),
        Encoding(encoding),
    )


def _fields(value: Json, required: set[str], optional: set[str]) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise ValueError("it is no object")  # noqa: TRY004  # all mistakes are of one kind
    if not required <= set(value) <= required | optional:
        differing = sorted((required ^ set(value)) - (optional & set(value)))
        raise ValueError(f"keys are missing or too many: {', '.join(differing)}")
    return value


def _list(value: Json, what: str) -> list[Json]:
    if not isinstance(value, list) or len(value) > _MAX_COLUMNS:
        raise ValueError(f"{what} is no list of up to {_MAX_COLUMNS}")
    return value


def _text(value: Json, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        raise ValueError(f"{what} is no text of 1 to {_MAX_NAME} characters")
    return value
