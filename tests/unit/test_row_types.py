"""The schema entry of rows: what is written is read again; what is wrong in one is told."""

import json
from typing import Any

import pytest

from spoold import canonical
from spoold.connections.row_types import Column, Encoding, RowSchema, encoding_of

SCHEMA = RowSchema(
    "alerts",
    (Column("id", "bigint", Encoding.JSON), Column("größe \"'", "text[]", Encoding.TEXT)),
    ("id",),
    7,
)


def document(**changes: Any) -> bytes:
    return canonical.encode({**json.loads(SCHEMA.encode()), **changes})


def test_what_is_written_is_read_again() -> None:
    assert RowSchema.decode(SCHEMA.encode()) == SCHEMA
    without = RowSchema("q", SCHEMA.columns)
    assert RowSchema.decode(without.encode()) == without


def test_types_whose_json_is_not_exact_stand_as_text() -> None:
    json_, jsonb, integer_array, record, first_user_type = 114, 3802, 1007, 2249, 16384
    for oid in (json_, jsonb, integer_array, record, first_user_type):
        assert encoding_of(oid) is Encoding.TEXT
    numeric, bytea, timestamptz = 1700, 17, 1184
    for oid in (numeric, bytea, timestamptz):
        assert encoding_of(oid) is Encoding.JSON


COLUMN = {"name": "id", "type": "bigint", "encoding": "json"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "spoold.rows/2"}, "its type"),
        ({"more": 1}, "more"),
        ({"columns": []}, "columns are none"),
        ({"columns": [COLUMN, COLUMN]}, "twice"),
        ({"columns": {}}, "no list"),
        ({"columns": [COLUMN] * 2000}, "no list"),
        ({"columns": [{**COLUMN, "encoding": "binary"}]}, "no encoding binary"),
        ({"columns": [{**COLUMN, "name": ""}]}, "a column's name"),
        ({"columns": [{**COLUMN, "name": 1}]}, "a column's name"),
        ({"columns": [{"name": "id"}]}, "encoding, type"),
        ({"columns": ["id"]}, "no object"),
        ({"key": ["other"]}, "its key"),
        ({"key": ["id", "id"]}, "its key"),
        ({"key": "id"}, "no list"),
        ({"rows": -1}, "no count"),
        ({"rows": True}, "no count"),
        ({"query": ""}, "query"),
    ],
)
def test_a_wrong_schema_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RowSchema.decode(document(**changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]\n",
        b"null\n",
        SCHEMA.encode().rstrip(),
        SCHEMA.encode().replace(b'"key"', b' "key"'),
        b'{"a":' * 100_000,
        b" " * 2_000_000,
        b"\xff\n",
    ],
)
def test_what_is_no_schema_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the sentences are those of canonical JSON
        RowSchema.decode(data)
