"""A database for the tests of rows: a schema of its own, and sources that read from it."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from spoold.bundle.entry import SourceEntry
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.connections.row_types import RowSchema
from spoold.sources.postgres import PostgresSource, PostgresSpec
from spoold.sources.source import Gathering


@dataclass
class Rows:
    """A schema in a database, with its owner's connection."""

    conninfo: str
    owner: psycopg.Connection[TupleRow]
    schema: str

    def execute(self, statement: str, *values: Any) -> psycopg.Cursor[TupleRow]:
        """Run a statement as the schema's owner."""
        return self.owner.execute(statement.encode(), values or None)

    def connections(
        self, queries: dict[str, Any], url: str | None = None, **database: Any
    ) -> Connections:
        """What a request may use: queries of this database, each by its SQL or its section."""
        return Connections(
            databases={"soc": DatabaseSettings(url=url or self.conninfo, **database)},
            queries={
                name: QuerySettings.model_validate(
                    {"database": "soc", **({"sql": each} if isinstance(each, str) else each)}
                )
                for name, each in queries.items()
            },
        )

    def export(self, query: str | dict[str, Any], **parameters: Any) -> tuple[bytes, RowSchema]:
        """The lines and the schema of one query."""
        with Gathering(self.connections({"rows": query})) as gathering:
            return read(gathering, "rows", parameters)


def opened(gathering: Gathering, query: str, parameters: dict[str, Any]) -> PostgresSource:
    """A source as a request would have it."""
    spec = PostgresSpec.model_validate(
        {"kind": "postgres", "query": query, "parameters": parameters}
    )
    return PostgresSource.open(spec, gathering, spec.title())


def read(
    gathering: Gathering, query: str, parameters: dict[str, Any] | None = None
) -> tuple[bytes, RowSchema]:
    """The content of both entries of a source."""
    rows, schema = (
        content(entry) for entry in opened(gathering, query, parameters or {}).entries()
    )
    return rows, RowSchema.decode(schema)


def content(entry: SourceEntry, size: int = 1024 * 1024) -> bytes:
    """All of an entry's content, read as a bundle's writer does."""
    stream = entry.content
    assert stream is not None
    assert not isinstance(stream, int)
    pieces = list(iter(lambda: stream.read(size), b""))
    stream.close()
    return b"".join(pieces)


def documents(lines: bytes) -> list[Any]:
    """Lines as JSON."""
    assert lines.endswith(b"\n") or not lines
    return [json.loads(line) for line in lines.split(b"\n")[:-1]]


@contextmanager
def rows_in(conninfo: str) -> Iterator[Rows]:
    """A fresh schema, in which unqualified names are looked up."""
    schema = f"rows_{uuid.uuid4().hex}"
    mine = make_conninfo(conninfo, options=f"-csearch_path={schema},public")
    with psycopg.connect(mine, autocommit=True) as owner:
        owner.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        yield Rows(mine, owner, schema)
        owner.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
