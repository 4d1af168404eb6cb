"""The postgres source: what it asks, what it yields, and what it refuses."""

from collections.abc import Iterator

import pytest

from spoold.connections.row_types import Column, Encoding, RowSchema
from spoold.errors import SpooldError
from tests.integration.rows import Rows, documents, rows_in


@pytest.fixture
def rows(shared_conninfo: str) -> Iterator[Rows]:
    with rows_in(shared_conninfo) as rows:
        yield rows


def test_rows_are_lines_with_a_schema_beside_them(rows: Rows) -> None:
    lines, schema = rows.export(
        {
            "sql": "select * from (values (1, 'a', '{x}'::text[]), (2, null, null)) v(id, t, list)"
            " order by id desc -- the newest first",
            "key": ["id"],
        }
    )
    assert lines == b'{"id":2,"t":null,"list":null}\n{"id":1,"t":"a","list":"{x}"}\n'
    assert schema == RowSchema(
        "rows",
        (
            Column("id", "integer", Encoding.JSON),
            Column("t", "text", Encoding.JSON),
            Column("list", "text[]", Encoding.TEXT),
        ),
        ("id",),
        2,
    )


def test_no_rows_are_an_empty_file(rows: Rows) -> None:
    lines, schema = rows.export("select 1 as id where false")
    assert lines == b""
    assert schema.rows == 0


def test_a_table_comes_in_the_order_of_its_key(rows: Rows) -> None:
    rows.execute('create table "Odd ""name" (b int, a text collate "C", primary key (a, b))')
    rows.execute("""insert into "Odd ""name" values (2, 'x'), (1, 'x'), (1, 'X')""")
    table = f'{rows.schema}.Odd "name'
    lines, schema = rows.export({"table": table})
    found = [(line["a"], line["b"]) for line in documents(lines)]
    assert found == [("X", 1), ("x", 1), ("x", 2)]
    assert schema.key == ("a", "b")
    lines, schema = rows.export({"table": table, "key": ["b", "a"]})
    assert [(line["b"], line["a"]) for line in documents(lines)] == [(1, "X"), (1, "x"), (2, "x")]
    assert schema.key == ("b", "a")


@pytest.mark.parametrize(
    "statement",
    [
        "delete from t",
        "delete from t returning *",
        "with gone as (delete from t returning *) select * from gone",
        "select * from t for update",
        "select nextval('s')",
        "select * into u from t",
        "select 1; select 2",
        "select 1) as selected; delete from t; select * from (select 1",
        "select 1) as selected) to stdout; delete from t; --",
        "commit; delete from t; select 1",
        "copy t to stdout",
        "select 1 /* ",
    ],
)
def test_what_is_not_one_reading_statement_the_server_refuses(rows: Rows, statement: str) -> None:
    rows.execute("create table t as select 1 as id; create sequence s")
    with pytest.raises(SpooldError) as caught:
        rows.export(statement)
    assert caught.value.code.name == "query-failed"
    assert not caught.value.transient
    assert rows.execute("select count(*), (select last_value from s) from t").fetchone() == (1, 1)


@pytest.mark.parametrize(
    "statement", ["values (1, 2)", "table t", "with x as (table t) select * from x;", "(table t)"]
)
def test_any_one_reading_statement_is_taken(rows: Rows, statement: str) -> None:
    rows.execute("create table t as select 1 as id")
    assert rows.export(statement)[1].rows == 1
