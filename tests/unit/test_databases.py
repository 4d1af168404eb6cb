"""`[databases]` and `[queries]`: what may stand in them."""

from typing import Any

import pytest
from pydantic import ValidationError

from spoold.connections.databases import DatabaseSettings, QuerySettings, table_path


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "sql or table"),
        ({"sql": "select 1", "table": "t"}, "sql or table"),
        ({"table": "t", "parameters": {"n": "integer"}}, "parameters are those of sql"),
        ({"table": "a.b.c"}, "schema.name"),
        ({"table": "a."}, "schema.name"),
        ({"table": ".b"}, "schema.name"),
        ({"table": "a\0b"}, "schema.name"),
        ({"sql": "select %(n)s"}, "do not name the same: n"),
        ({"sql": "select 1", "parameters": {"n": "integer"}}, "do not name the same: n"),
        ({"sql": "select %(m)s", "parameters": {"n": "integer"}}, "do not name the same: m, n"),
        ({"sql": "select '%%(n)s'", "parameters": {"n": "integer"}}, "do not name the same: n"),
        ({"sql": "select %(n)s", "parameters": {"n": "int"}}, "parameters.n"),
        ({"sql": "select 1", "max_rows": -1}, "max_rows"),
        ({"sql": "select 1", "keys": ["id"]}, "keys"),
    ],
)
def test_a_query_that_cannot_be_asked_is_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        QuerySettings.model_validate({"database": "soc", **section})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "section",
    [
        {"sql": "select 5 % (2), '%'"},
        {"sql": "select %(n)s, %(n)s::text, '%%'", "parameters": {"n": "integer"}},
        {"table": "t"},
        {"table": 'Odd "schema.na me', "key": ["id"]},
    ],
)
def test_a_query_that_can_be_asked(section: dict[str, Any]) -> None:
    QuerySettings.model_validate({"database": "soc", **section})


def test_a_table_has_one_or_two_names() -> None:
    assert table_path("t") == ("t",)
    assert table_path('s."t"') == ("s", '"t"')


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"url": "postgresql:///a", "url_file": "b"},
        {"url": "postgresql:///a", "statement_timeout_seconds": -1},
        {"url": "postgresql:///a", "lock_timeout_seconds": "30s"},
    ],
)
def test_a_database_has_one_address_and_sensible_limits(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatabaseSettings.model_validate(section)
