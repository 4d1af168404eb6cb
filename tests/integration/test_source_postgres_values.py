"""Values of every type leave the database and come back as they were, whatever it is set to."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoold.connections.row_types import Encoding, RowSchema
from tests.integration.rows import Rows, documents, rows_in

# Everything that has been mistaken for an end, a quote or an escape somewhere.
ODD_TEXT = (
    "\\ \\\\ \\n \\. \\N \" \\\" ' '' $$ \t \n \r\n \b \f \v \x01 \x02 \x1f \x7f \x80 \x9f "
    "\u2028 \u2029 \ufeff \ufffe \U0001f600 \U0010ffff é e\u0301 {} , ; % %s {x}"
)

VALUES: dict[str, Sequence[str]] = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["9007199254740993", "-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "real": ["0.1", "-0", "1e-45", "3.4028235e38", "NaN", "Infinity", "-Infinity", "16777217"],
    "double precision": [
        *("0.1", "-0", "5e-324", "1.7976931348623157e308", "NaN", "Infinity", "-Infinity"),
        *("0.30000000000000004", "9007199254740993"),
    ],
    "numeric": [
        *("0", "0.00", "-1.500", "1e-300", "1e400", "NaN", "Infinity", "-Infinity"),
        "12345678901234567890123456789012345678901234567890.09876543210987654321",
    ],
    "numeric(12,2)": ["1.5", "-9999999999.99"],
    "money": ["-12345.67", "92233720368547758.07"],
    "text": ["", ODD_TEXT, "null", " x ", "\\x00", '{"a":1}', "x" * 3_000_000],
    "varchar(4)": ["a  ", "\\\\\\\\"],
    "char(5)": ["", "a", "a b"],
    "bpchar": ["a  "],
    '"char"': ["a", "", "\\303"],
    "name": ["select", "Aé"],
    "bytea": ["\\x", "\\x00ff5c22270a", "\\x" + "5c" * 5000],
    "date": ["2026-11-20", "0044-03-15 BC", "5874897-12-31", "infinity", "-infinity"],
    "time": ["24:00:00", "00:00:00.000001"],
    "timetz": ["01:02:03.000001+05:45:30", "24:00:00-15:59:59"],
    "timestamp": [
        *("2026-11-20 01:02:03.000001", "0044-03-15 01:02:03 BC", "4713-01-01 00:00:00 BC"),
        *("294276-12-31 23:59:59.999999", "infinity", "-infinity"),
    ],
    "timestamptz": [
        *("2026-11-20 01:02:03.000001+05:45", "0044-03-15 01:02:03+00 BC", "infinity"),
        *("294276-12-31 23:59:59.999999+00", "-infinity", "1883-11-18 12:00:00 America/New_York"),
    ],
    "timestamptz(0)": ["2026-11-20 01:02:03+00"],
    "interval": ["-1 year 2 mons -3 days 04:05:06.000001", "0", "178000000 years", "-00:00:01"],
    "uuid": ["00000000-0000-0000-0000-000000000001"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1", "::ffff:1.2.3.4/96"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "bit(3)": ["101"],
    "varbit": ["", "1", "0" * 100],
    "json": ["null", "1.10", '{"b" : 1,\n\t"a":1e400, "a":2}', ' "\\u0041\\ud83d\\ude00" ', "[ ]"],
    "jsonb": ["null", "1.10", '{"b": [1, null], "a": "\\u2028\\\\"}', '"x"', "1e400"],
    "jsonpath": ['$."a" ? (@ > 1)'],
    "int4range": ["empty", "(,5)", "[1,)"],
    "numrange": ["[1.50,2.0]"],
    "tstzrange": ['["2026-11-20 00:00:00+00",infinity]'],
    "int4multirange": ["{}", "{[1,2),[5,6)}"],
    "tsvector": ["'a':1 'b c':2A,3", ""],
    "tsquery": ["'a' & !'b'"],
    "point": ["(0.1,-1e-300)"],
    "box": ["(1,1),(0.1,0)"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(0.1,2))"],
    "circle": ["<(0,0),0.1>"],
    "pg_lsn": ["16/B374D848"],
    "xid8": ["18446744073709551615"],
    "int2vector": ["1 2"],
    "integer[]": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={1,2}", "[-1:0][2:3]={{1,2},{3,4}}"],
    "text[]": ['{"",NULL,"NULL","a,b","{","\\"","\\\\","\n"," "}'],
    "numeric[]": ["{NaN,1.50}"],
    "bytea[]": ['{"\\\\x00"}'],
    "jsonb[]": ['{"null",NULL,"{\\"a\\": 1}"}'],
    "timestamptz[]": ["{infinity,2026-11-20 01:02:03.000001+00}"],
    "char(3)[]": ["{a,b}"],
    "mood": ["fine", 'it\'s "odd", \\'],
    "mood[]": ["{fine}"],
    "amount": ["1.50"],
    "amounts": ["{1.50,NULL}"],
    "document": ["null", '{"a": 1}'],
    "pair": ["(,)", '(1,"a,\\"\\\\b")', '(,"")'],
    "pair[]": ['{"(1,a)",NULL}'],
    "span": ["[0.1,2)"],
}


@pytest.fixture(scope="module")
def rows(shared_conninfo: str) -> Iterator[Rows]:
    with rows_in(shared_conninfo) as rows:
        rows.execute("create type mood as enum ('fine', 'it''s \"odd\", \\')")
        rows.execute(
            "create domain amount_beneath as numeric; create domain amount as amount_beneath"
        )
        rows.execute("create domain amounts as numeric[]; create domain document as jsonb")
        rows.execute("create type pair as (a int, b text)")
        rows.execute("create type span as range (subtype = float8)")
        yield rows


def returned(rows: Rows, table: str, lines: bytes, schema: RowSchema) -> int:
    """How many rows of a table with the columns n, v, … are what their lines say."""
    columns = [(each.name, each.encoding) for each in schema.columns]
    types = dict(
        rows.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0",
            table,
        ).fetchall()
    )
    read = ", ".join(
        f'"{name}" {types[name] if encoding is Encoding.JSON else "text"}'
        for name, encoding in columns
    )
    made = ", ".join(f'line."{name}"::{types[name]}' for name, _ in columns)
    kept = ", ".join(f'original."{name}"' for name, _ in columns)
    # A row's text holds each value's own text, and tells NULL and spaces at an end.
    row = rows.execute(
        f"select count(*) from unnest(%s::text[]) given(doc)"
        f" cross join lateral json_to_record(doc::json) line({read})"
        f" join {table} original on original.n = line.n::int"
        f' where row({made})::text collate "C" = row({kept})::text',
        [line.decode() for line in lines.split(b"\n")[:-1]],
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_comes_back_as_it_was(rows: Rows, kind: str) -> None:
    rows.execute("drop table if exists t")
    rows.execute(f"create table t (n serial primary key, v {kind})")
    values = list(VALUES[kind])
    if kind == "interval" and rows.owner.info.server_version >= 170000:
        values += ["infinity", "-infinity"]
    for value in (None, *values):
        rows.execute(f"insert into t (v) values (%s::text::{kind})", value)
    rows.execute("set timezone = 'UTC'; set lc_monetary = 'C'")
    lines, schema = rows.export({"table": "t"})
    assert [json.loads(line)["n"] for line in lines.split(b"\n")[:-1]] == [
        *range(1, len(values) + 2)
    ]
    assert b'"v":null' in lines.split(b"\n")[0]
    assert returned(rows, "t", lines, schema) == schema.rows == len(values) + 1


@pytest.mark.parametrize(
    ("extension", "kind", "value"),
    [("hstore", "hstore", '"a"=>NULL, "b\\""=>"1"'), ("citext", "citext", "Ab")],
)
def test_a_type_of_an_extension_stands_as_text(
    rows: Rows, extension: str, kind: str, value: str
) -> None:
    try:
        rows.execute(f"create extension if not exists {extension} with schema public")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip(f"the server comes without {extension}")
    rows.execute("drop table if exists t")
    rows.execute(f"create table t (n serial primary key, v {kind})")
    rows.execute(f"insert into t (v) values (null), (%s::{kind})", value)
    lines, schema = rows.export({"table": "t"})
    assert schema.columns[1].encoding is Encoding.TEXT
    assert documents(lines)[1]["v"] == value
    assert returned(rows, "t", lines, schema) == 2


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
DOCUMENT = st.recursive(
    st.none() | st.booleans() | TEXT,
    lambda each: st.lists(each) | st.dictionaries(TEXT, each),
    max_leaves=5,
)
NUMBER = st.decimals(allow_nan=False).filter(lambda n: n.is_infinite() or abs(n.adjusted()) < 1000)
ROW = st.tuples(
    st.none() | TEXT,
    st.none() | NUMBER | st.decimals(allow_nan=False, allow_infinity=False, places=7),
    st.none() | st.binary(max_size=40),
    st.none() | st.lists(st.none() | TEXT, max_size=4),
    st.none() | st.floats(),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | DOCUMENT,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROW, min_size=1, max_size=30))
def test_whatever_the_values_are_they_come_back(rows: Rows, made: list[tuple[Any, ...]]) -> None:
    rows.execute("drop table if exists t")
    rows.execute(
        "create table t (n serial primary key, t text, d numeric, b bytea, a text[],"
        " f float8, i int8, j json, jb jsonb)"
    )
    for *values, document in made:
        text = None if document is None else json.dumps(document)
        rows.execute(
            "insert into t (t, d, b, a, f, i, j, jb) values (%s, %s, %s, %s, %s, %s, %s, %s)",
            *values,
            text,
            text,
        )
    lines, schema = rows.export({"table": "t"})
    assert returned(rows, "t", lines, schema) == schema.rows == len(made)
    found = [(line["t"], line["i"]) for line in documents(lines)]
    assert found == [(values[0], values[5]) for values in made]


def test_settings_of_the_database_change_no_line(rows: Rows) -> None:
    rows.execute("drop table if exists t")
    rows.execute(
        "create table t (n serial primary key, a timestamptz, b interval, c bytea, d float8,"
        " e money, f date[], g bytea[], h float8[])"
    )
    rows.execute(
        "insert into t (a, b, c, d, e, f, g, h) values ('2026-11-20 01:02:03+00', '1 day 02:03',"
        " '\\x00ff', 0.1, 1, '{2026-11-20}', '{\"\\\\x00\"}', '{0.30000000000000004}')"
    )
    plain = rows.export({"table": "t"})
    odd = {
        "timezone": "Asia/Kathmandu",
        "datestyle": "German, DMY",
        "intervalstyle": "sql_standard",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
        "quote_all_identifiers": "on",
    }
    database = f"alter database {rows.owner.info.dbname}"
    try:
        for name, value in odd.items():
            rows.execute(f"{database} set {name} = '{value}'")
        assert rows.export({"table": "t"}) == plain
    finally:
        rows.execute(f"{database} reset all")


def test_column_names_are_any_text(rows: Rows) -> None:
    names = [
        "line",
        "selected",
        "select",
        "A b",
        'q"',
        "b\\",
        "é",
        "{}",
        "%s",
        "%",
        "'",
        ";--",
        "x",
    ]
    rows.execute("drop table if exists t")
    columns = ", ".join(
        f"""{number}::int4 as "{name.replace('"', '""')}\"""" for number, name in enumerate(names)
    )
    lines, schema = rows.export(f"select {columns}, '{{1}}'::int[] as row_to_json")
    assert [each.name for each in schema.columns] == [*names, "row_to_json"]
    (line,) = documents(lines)
    assert line == {**{name: number for number, name in enumerate(names)}, "row_to_json": "{1}"}
    assert list(line) == [*names, "row_to_json"]


def test_rows_of_all_lengths_come_whole(rows: Rows) -> None:
    """Batches end anywhere, and backslashes stand at their ends."""
    statement = (
        "select n, repeat(chr(92), n %% 7 + n * n / 3000) as v from generate_series(1, 5000) n"
    )
    lines, schema = rows.export(statement.replace("%%", "%"))
    assert len(lines) > 6 * 1024 * 1024
    found = documents(lines)
    assert [line["n"] for line in found] == list(range(1, 5001))
    assert all(line["v"] == "\\" * (line["n"] % 7 + line["n"] ** 2 // 3000) for line in found)
    assert schema.rows == 5000
