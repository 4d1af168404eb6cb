"""`[queries]`: where in a statement a parameter may stand."""

import pytest
from pydantic import ValidationError

from spoold.connections.databases import QuerySettings


def settings(sql: str) -> QuerySettings:
    return QuerySettings.model_validate({"database": "d", "sql": sql, "parameters": {"x": "text"}})


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 -- of %(x)s\nwhere true",
        "select 1 -- of %(x)s",
        "select /* of %(x)s */ 1",
        "select /* of /* one */ %(x)s */ 1",
        "select /* it's '*/ 1 /* %(x)s",
        "select '%(x)s'",
        "select 'it''s %(x)s'",
        "select 1 where host like '%%%(x)s%%'",
        r"select E'it\'s %(x)s'",
        r"select e'\\', '%(x)s'",
        'select 1 as "%(x)s"',
        "select $$%(x)s$$",
        "select $of$ $$ %(x)s $of$",
        "select '--', %(x)s, '%(x)s'",
    ],
)
def test_a_parameter_in_quotes_or_a_comment_is_a_mistake(sql: str) -> None:
    with pytest.raises(ValidationError, match=r"%\(x\)s stands in quotes or a comment of sql"):
        settings(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "select 1 -- it's\nwhere %(x)s = 'a'",
        "select 1 /* it's /* \" */ */ where %(x)s = 'a'",
        "select 'a''', \"--\", '/*' where %(x)s = '*/'",
        r"select E'it\'s', %(x)s, E'\\', %(x)s",
        r"select '\', %(x)s",
        "select a$b$c, %(x)s, d$b$e",
        "select $$ ' $$, %(x)s, $o$ -- $o$",
        "select 5 - -%(x)s / 2 * 3",
        "select 1 where host like '%%' || %(x)s || '%%'",
        "select type'a' where %(x)s = 'b'",
    ],
)
def test_a_parameter_beside_them_is_none(sql: str) -> None:
    assert settings(sql).sql == sql


@pytest.mark.parametrize("sql", ["select %(x)s % 3", "select %(x)s like 'a%'", "select %(x)s, %s"])
def test_a_percent_sign_beside_parameters_stands_twice(sql: str) -> None:
    with pytest.raises(ValidationError, match="write %% for a percent sign"):
        settings(sql)
    assert settings(sql.replace("%", "%%").replace("%%(x)", "%(x)"))
    without = {"database": "d", "sql": sql.replace("%(x)s", "5")}
    assert QuerySettings.model_validate(without)
