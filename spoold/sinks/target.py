"""The table that rows go into, as the catalogue of its database has it.

Every identifier in a statement of the sink comes from here or from the operator's configuration,
never from a bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from spoold import errors
from spoold.connections.databases import table_path
from spoold.connections.row_types import Encoding
from spoold.connections.sessions import Connection
from spoold.errors import SpooldError
from spoold.sinks.row_lines import Form

_KINDS: Final = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "c": "a composite type",
}
# smallint, integer, bigint, real, double precision, numeric: what is a number in JSON, too.
_NUMBERS: Final = frozenset({20, 21, 23, 700, 701, 1700})
_BOOLEAN: Final = 16
_JSON: Final = frozenset({114, 3802})


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column of the table."""

    name: str
    base_type: int
    """The object id of its type, of a domain that of the type beneath it."""
    not_null: bool
    has_default: bool
    unfit: str
    """Why no value can be given for it; empty: one can."""

    def form(self, encoding: Encoding | None) -> Form:
        """What its values are in JSON, as encoded; None: nobody says."""
        if encoding is Encoding.TEXT:
            return Form.TEXT
        if self.base_type in _NUMBERS:
            return Form.NUMBER
        if self.base_type == _BOOLEAN:
            return Form.BOOLEAN
        return Form.ANY if self.base_type in _JSON else Form.TEXT


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of the key, and the operator by which its unique index calls values equal."""

    name: str
    equal: sql.Composable


@dataclass(frozen=True, slots=True)
class Target:
    """The table."""

    title: str
    relation: sql.Composable
    """Its quoted name."""
    itself: sql.Composable
    """The same where it is read: without tables that inherit from it."""
    columns: Mapping[str, TargetColumn]
    key: tuple[KeyColumn, ...]
    refers_to_itself: bool
    """By a foreign key."""


_FIND: Final = """
select c.oid, c.relkind::text,
  exists (select from pg_catalog.pg_constraint f
          where f.contype = 'f' and f.conrelid = c.oid and f.confrelid = c.oid)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = %s
"""

_COLUMNS: Final = """
select a.attname,
  (with recursive beneath (type, base) as (
     select t.oid, t.typbasetype from pg_catalog.pg_type t where t.oid = a.atttypid
     union all
     select t.oid, t.typbasetype
     from beneath b join pg_catalog.pg_type t on t.oid = b.base
   ) select type from beneath where base = 0::pg_catalog.oid)::bigint,
  a.attnotnull, a.atthasdef or a.attidentity <> '', a.attgenerated <> '', a.attidentity = 'a'
from pg_catalog.pg_attribute a
where a.attrelid = %s::pg_catalog.oid and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""

# Unique indexes by which ON CONFLICT can tell that a row is there, the primary key first; of each
# column, the equality of the index's own operator class (btree's strategy 3).
_KEYS: Final = """
select i.indisprimary,
  pg_catalog.array_agg(a.attname::text order by k.position),
  pg_catalog.array_agg(n.nspname::text order by k.position),
  pg_catalog.array_agg(o.oprname::text order by k.position)
from pg_catalog.pg_index i
join pg_catalog.pg_class x on x.oid = i.indexrelid
join pg_catalog.pg_am m on m.oid = x.relam and m.amname = 'btree'
cross join lateral rows from (
  pg_catalog.unnest(i.indkey::pg_catalog.int2[]), pg_catalog.unnest(i.indclass::pg_catalog.oid[])
) with ordinality as k (attnum, class, position)
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
join pg_catalog.pg_opclass c on c.oid = k.class
join pg_catalog.pg_amop p on p.amopfamily = c.opcfamily and p.amopstrategy = 3
  and p.amoplefttype = c.opcintype and p.amoprighttype = c.opcintype
join pg_catalog.pg_operator o on o.oid = p.amopopr
join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
where i.indrelid = %s::pg_catalog.oid and i.indisunique and i.indisvalid and i.indimmediate
  and i.indpred is null and i.indexprs is null and k.position <= i.indnkeyatts
group by i.indexrelid, i.indisprimary
order by i.indisprimary desc, i.indexrelid
"""


def find_target(connection: Connection, table: str, key: Sequence[str]) -> Target:
    """The table "schema.name" with its key, by default the primary key.

    Raises sink-refused where rows cannot be merged into it.
    """
    schema, name = table_path(table)
    found = connection.execute(_FIND, (schema, name)).fetchone()
    if found is None:
        raise _unfit(table, "there is no such table", f"CREATE TABLE {table} …, or correct `table`")
    oid, kind, refers_to_itself = found
    if kind not in {"r", "p"}:
        raise _unfit(table, f"it is {_KINDS.get(kind, 'no table')}", "name an ordinary table")
    columns = {
        name: TargetColumn(name, base, not_null, default, _unfitness(generated, identity))
        for name, base, not_null, default, generated, identity in connection.execute(
            _COLUMNS, (oid,)
        )
    }
    if missing := [each for each in key if each not in columns]:
        raise _unfit(table, f"it has no column {', '.join(missing)}", "correct `key`")
    relation = sql.Identifier(schema, name)
    return Target(
        table,
        relation,
        relation if kind == "p" else sql.SQL("only {}").format(relation),
        columns,
        _key(connection, oid, table, key),
        refers_to_itself,
    )


def _key(
    connection: Connection, oid: int, table: str, wanted: Sequence[str]
) -> tuple[KeyColumn, ...]:
    for primary, names, schemas, operators in connection.execute(_KEYS, (oid,)):
        if set(names) == set(wanted) if wanted else primary:
            return tuple(
                KeyColumn(
                    name,
                    sql.SQL("operator({}.{})").format(
                        sql.Identifier(schema),
                        sql.SQL(operator),
                    ),
                )
                for name, schema, operator in zip(names, schemas, operators, strict=True)
            )
    if wanted:
        names_ = ", ".join(wanted)
        raise _unfit(
            table,
            f"no unique index has the key {names_}, in all rows and checked at once",
            f"CREATE UNIQUE INDEX ON {table} ({names_})",
        )
    raise _unfit(
        table, "it has no primary key", "add one, or name the columns of a unique index in `key`"
    )


def _unfitness(generated: bool, identity: bool) -> str:
    if generated:
        return "the table computes it: leave it out of the query that the rows come from"
    if identity:
        return "it is GENERATED ALWAYS: ALTER TABLE … ALTER COLUMN … SET GENERATED BY DEFAULT"
    return ""


def _unfit(table: str, what: str, hint: str) -> SpooldError:
    return SpooldError(errors.SINK_REFUSED, f"table {table}: {what}", hint=hint)
