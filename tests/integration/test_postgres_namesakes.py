"""Functions and operators that somebody has put where names are looked up are not run by us."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.row_merges import ALERTS, Place, alert, alerts, lines, own_schema
from tests.integration.rows import Rows, documents

# Each would suit a call better than the built-in one, which is for any type or takes a cast.
_FUNCTIONS = ("text", "name", "oid", "int2", "int4", "int2vector", "oidvector")
_OPERATORS = (
    ("=", "oid", "int2"),
    ("=", "oid", "int4"),
    ("=", "oid", "int8"),
    ("=", "oid", "regclass"),
    ("=", "name", "text"),
    ("=", "text", "name"),
    ("*", "numeric", "int4"),
    ("<>", "text", "name"),
)


@pytest.fixture
def place(tmp_path: Path, shared_conninfo: str) -> Iterator[Place]:
    with own_schema(tmp_path, shared_conninfo) as place:
        place.run(f"create table alert {ALERTS}")
        for kind in _FUNCTIONS:
            array = kind if kind.endswith("vector") else f"{kind}[]"
            element = {"int2vector": "int2", "oidvector": "oid"}.get(kind, kind)
            place.run(
                f"create function {place.schema}.unnest({array}) returns setof {element}"
                " language plpgsql as $$ begin raise 'a namesake is run'; end $$"
            )
        for number, (name, left, right) in enumerate(_OPERATORS):
            place.run(
                f"create function {place.schema}.own_{number}({left}, {right}) returns boolean"
                " language plpgsql as $$ begin raise 'a namesake is run'; end $$"
            )
            place.run(
                f"create operator {place.schema}.{name}"
                f" (function = own_{number}, leftarg = {left}, rightarg = {right})"
            )
        yield place


@pytest.fixture
def conninfo(place: Place) -> str:
    return make_conninfo(place.conninfo, options=f"-csearch_path={place.schema},public")


def test_not_by_the_sink(place: Place, conninfo: str) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    assert place.counts(conninfo=conninfo) == (3, 0, 0)
    place.write("alerts/a.jsonl", lines(alert(2, severity=1), alert(4)))
    assert place.counts(conninfo=conninfo, on_conflict="update") == (1, 0, 0)
    assert place.counts(conninfo=conninfo) == (0, 2, 0)


def test_not_by_the_source(place: Place, conninfo: str) -> None:
    place.run("insert into alert values (1, 'a', 2, null)")
    with place.connect() as owner:
        rows = Rows(conninfo, owner, place.schema)
        for query in ({"table": f"{place.schema}.alert"}, {"sql": "select * from alert"}):
            found, schema = rows.export(query)
            assert documents(found) == [{"id": 1, "host": "a", "severity": 2, "seen": None}]
            assert len(schema.columns) == 4
