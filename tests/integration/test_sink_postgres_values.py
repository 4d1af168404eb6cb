"""Values of every type, out of one table through a bundle into another, are what they were."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.row_merges import Place, own_schema
from tests.integration.rows import Rows, rows_in
from tests.integration.test_source_postgres_values import VALUES


@dataclass
class Both:
    """The schema that rows come from and go back to."""

    rows: Rows
    place: Place


@pytest.fixture
def both(tmp_path: Path, shared_conninfo: str) -> Iterator[Both]:
    with rows_in(shared_conninfo) as rows, own_schema(tmp_path, shared_conninfo) as place:
        rows.execute("create type mood as enum ('fine', 'it''s \"odd\", \\')")
        rows.execute("create domain amount_beneath as numeric")
        rows.execute("create domain amount as amount_beneath")
        rows.execute("create domain amounts as numeric[]; create domain document as jsonb")
        rows.execute("create type pair as (a int, b text)")
        rows.execute("create type span as range (subtype = float8)")
        yield Both(rows, place)


def test_values_of_every_type_come_back(both: Both) -> None:
    rows, place = both.rows, both.place
    kinds = list(VALUES)
    columns = ", ".join(f"v{number} {kind}" for number, kind in enumerate(kinds))
    rows.execute(f"create table t (n int primary key, {columns})")
    count = 1 + max(map(len, VALUES.values()))
    for n in range(count):
        rows.execute(
            f"insert into t values (%s, {', '.join(f'%s::text::{kind}' for kind in kinds)})",
            n,
            *(VALUES[kind][n] if n < len(VALUES[kind]) else None for kind in kinds),
        )
    lines, schema = rows.export({"table": "t"})
    place.files = {"t.jsonl": lines, "t.schema.json": schema.encode()}
    place.run(f"create table t (like {rows.schema}.t including indexes)")
    assert place.counts(table="t") == (count, 0, 0)
    for number, kind in enumerate(kinds):
        differing = rows.execute(
            f"select a.v{number}::text, b.v{number}::text"
            f" from {rows.schema}.t a full join {place.schema}.t b using (n)"
            f" where row(a.v{number})::record *<> row(b.v{number})::record"
            f" or row(a.v{number})::text <> row(b.v{number})::text"
        ).fetchall()
        assert differing == [], kind
    assert place.counts(table="t") == (0, count, 0)


def test_columns_of_any_name_come_back(both: Both) -> None:
    names = ['a"b', "c\\d", "e f", "select", "é", "{x}", "%s", "l'm", "n" * 63]
    columns = ", ".join('"' + name.replace('"', '""') + '" text' for name in names)
    both.rows.execute(f"create table t (n int primary key, {columns})")
    both.rows.execute(
        f"insert into t values (1, {', '.join(['%s'] * len(names))})", *reversed(names)
    )
    lines, _ = both.rows.export({"table": "t"})
    both.place.files = {"t.jsonl": lines}
    both.place.run(f"create table t (like {both.rows.schema}.t including indexes)")
    assert both.place.counts(table="t") == (1, 0, 0)
    assert both.place.run("select * from t") == [(1, *reversed(names))]
