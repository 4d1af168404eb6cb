"""The statements that the postgres source sends: the operator's text, and ours around it. Pure.

Values are quoted by the driver, identifiers too; the operator's text stands in parentheses, so that
only what may stand there is taken: one SELECT, VALUES, TABLE, or WITH that changes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import psycopg
from psycopg.abc import AdaptContext
from psycopg.sql import SQL, Composed, Identifier

from spoold import errors
from spoold.connections.databases import QuerySettings, table_path
from spoold.connections.parameters import Value
from spoold.connections.row_types import Column, Encoding
from spoold.connections.sessions import Connection
from spoold.errors import SpooldError

# For columns by type and modifier: the type's name, and the type beneath all domains.
TYPES: Final = """
select pg_catalog.format_type(given.id, given.modifier),
  (with recursive beneath as (
      select oid, typtype, typbasetype from pg_catalog.pg_type where oid = given.id
    union all
      select base.oid, base.typtype, base.typbasetype
      from beneath join pg_catalog.pg_type base on base.oid = beneath.typbasetype
      where beneath.typtype = 'd'
  ) select oid::int8 from beneath where typtype <> 'd')
from rows from (
  pg_catalog.unnest(%s::pg_catalog.oid[]), pg_catalog.unnest(%s::pg_catalog.int4[])
) with ordinality as given(id, modifier, number)
order by number
"""

# A table's primary key.
KEY: Final = """
select attribute.attname
from pg_catalog.pg_index
cross join lateral pg_catalog.unnest(indkey) with ordinality as part(number, place)
join pg_catalog.pg_attribute attribute
  on attribute.attrelid = indrelid and attribute.attnum = part.number
where indrelid = %s::pg_catalog.regclass::pg_catalog.oid and indisprimary
order by place
"""


def table(query: QuerySettings) -> str:
    """The table's name, quoted."""
    return Identifier(*table_path(query.table)).as_string()


def whole(query: QuerySettings, key: Sequence[str]) -> str:
    """All of a table, in the order of its key."""
    statement = SQL("select * from {}").format(Identifier(*table_path(query.table)))
    if key:
        statement += SQL(" order by {}").format(SQL(", ").join(map(Identifier, key)))
    return statement.as_string()


def selection(
    name: str, query: QuerySettings, values: Mapping[str, Value], connection: Connection
) -> str:
    """The operator's statement with the request's values in it. Raises config-invalid."""
    text = query.sql.strip().removesuffix(";")
    if not query.parameters:
        return text
    try:
        return psycopg.ClientCursor(connection).mogrify(text, values)
    except psycopg.ProgrammingError as error:
        raise SpooldError(
            errors.CONFIG_INVALID,
            str(error),
            hint="beside %(name)s, write %% for a percent sign",
            at=f"queries.{name}.sql",
        ) from error


def description(selected: str) -> str:
    """A statement that is never run: its columns are those of the selection."""
    return SQL("select * from (\n{}\n) as selected").format(SQL(selected)).as_string()


def export(selected: str, columns: Sequence[Column], context: AdaptContext) -> str:
    """The rows as JSON, one a line."""
    inner: SQL | Composed = SQL(selected)
    if any(column.encoding is Encoding.TEXT for column in columns):
        inner = SQL("select {} from (\n{}\n) as selected").format(
            SQL(", ").join(
                SQL("selected.{0}::pg_catalog.text as {0}").format(Identifier(column.name))
                if column.encoding is Encoding.TEXT
                else SQL("selected.{}").format(Identifier(column.name))
                for column in columns
            ),
            inner,
        )
    # `line.*`, for a column may itself be called `line`. In CSV a value is written as it is unless
    # delimiter, quote or a line's end stand in it: control characters, which JSON escapes. COPY's
    # text format would double every backslash.
    return (
        SQL(
            "copy (select pg_catalog.row_to_json(line.*) from (\n{}\n) as line)"
            r" to stdout (format csv, delimiter e'\x01', quote e'\x02')"
        )
        .format(inner)
        .as_string(context)
    )
