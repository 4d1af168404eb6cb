"""A database at one instant, and the rows of its queries as streams of JSON lines.

Guarantees: what is read through one Snapshot is the state of one instant, and is not changed by
reading. A stream has ended well, or it has raised: half of the rows are never taken for all.
Memory: a batch of rows, or the largest row a few times.
Crash: nothing of it is on disk; the server ends the transaction (see `connections.sessions`).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg

from spoold import canonical, errors
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.connections.parameters import Value
from spoold.connections.row_types import Column, RowSchema, encoding_of
from spoold.connections.sessions import (
    Codes,
    Connection,
    answer,
    cancel,
    connect,
    database_errors,
    end,
    run,
    wait,
)
from spoold.errors import SpooldError
from spoold.sources import statements
from spoold.sources.source import Gathering

CODES: Final = Codes(errors.SOURCE_AWAY, errors.SOURCE_REFUSED, errors.QUERY_FAILED)
_BATCH_BYTES: Final = 512 * 1024
_NAP_SECONDS: Final = 0.0005
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Snapshot:
    """One transaction, repeatable read and read only."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name, self._connection = name, connection
        with database_errors(name, CODES):
            row = connection.execute("select pg_catalog.transaction_timestamp()").fetchone()
        assert row is not None
        self.taken_ns: int = (row[0] - _EPOCH) // timedelta(microseconds=1) * 1000
        """When it was taken, by the server's clock."""

    @classmethod
    @contextmanager
    def open(cls, name: str, settings: DatabaseSettings) -> Iterator["Snapshot"]:
        """Connect to a database and take it. Raises source-away, source-refused, config-invalid."""
        connection = connect(
            name,
            settings,
            CODES,
            isolation=psycopg.IsolationLevel.REPEATABLE_READ,
            read_only=True,
        )
        try:
            yield cls(name, connection)
        finally:
            end(connection)

    def rows(
        self, name: str, query: QuerySettings, values: Mapping[str, Value], gathering: Gathering
    ) -> "Rows":
        """The rows that a query selects. Raises source-away, query-failed, config-invalid, …"""
        connection = self._connection
        with database_errors(self._name, CODES, at="query"):
            key = tuple(query.key)
            if query.table:
                if not key:
                    found = connection.execute(statements.KEY, (statements.table(query),))
                    key = tuple(row[0] for row in found)
                selected = statements.whole(query, key)
            else:
                selected = statements.selection(name, query, values, connection)
            columns = _columns(connection, selected, gathering)
        _check(name, columns, key)
        statement = statements.export(selected, columns, connection)
        schema = RowSchema(name, columns, key)
        return Rows(connection, self._name, statement, schema, query.max_rows, gathering)


class Rows:
    """A stream of JSON lines, to be read once."""

    def __init__(
        self,
        connection: Connection,
        database: str,
        statement: str,
        schema: RowSchema,
        max_rows: int,
        gathering: Gathering,
    ) -> None:
        self._connection, self._database = connection, database
        self._statement, self._schema = statement, schema
        self._max_rows = max_rows
        self._gathering = gathering
        self._begun = self._ended = False
        self._batch, self._taken = bytearray(), 0
        self._count = 0

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; none at the end. Raises source-away, query-failed, …"""
        if self._taken == len(self._batch) and not self._ended:
            with database_errors(self._database, CODES, at="query"):
                self._batch, self._taken = self._next(), 0
        data = bytes(memoryview(self._batch)[self._taken : self._taken + size])
        self._taken += len(data)
        return data

    def close(self) -> None:
        """Read no more; a statement that still runs is cancelled."""
        if self._begun and not self._ended:
            cancel(self._connection)

    def schema(self) -> RowSchema:
        """What the rows were, with their number. Raises entry-too-large where not all were read."""
        name = self._schema.query
        if not self._ended:
            raise SpooldError(
                errors.ENTRY_TOO_LARGE, f"{name}: its rows were not read to their end", at="query"
            )
        return RowSchema(name, self._schema.columns, self._schema.key, self._count)

    def _next(self) -> bytearray:
        """The next rows, whole ones."""
        pgconn, check = self._connection.pgconn, self._gathering.check
        if not self._begun:
            self._begun = True
            run(self._connection, self._statement, check)
        check()
        # A row is copied at once: as many views as rows would be work for the garbage collector.
        batch, rows, take = bytearray(), 0, pgconn.get_copy_data
        dry = False
        while len(batch) < _BATCH_BYTES:
            count, row = take(1)
            if count > 0:
                batch += row
                rows += 1
                dry = False
            elif count < 0:
                answer(self._connection, check)
                self._ended = True
                break
            elif dry:
                wait(pgconn, check)
                # The server sends 8 KiB at a time: who is woken by each one wakes all the time.
                time.sleep(_NAP_SECONDS)
            else:
                pgconn.consume_input()
                dry = True
        self._count += rows
        if 0 < self._max_rows < self._count:
            raise SpooldError(
                errors.ROWS_TOO_MANY,
                f"{self._schema.query}: more than {self._max_rows} rows",
                at="query",
            )
        self._gathering.count(len(batch), rows)
        return batch


def _columns(connection: Connection, selected: str, gathering: Gathering) -> tuple[Column, ...]:
    pgconn = connection.pgconn
    pgconn.send_prepare(b"", statements.description(selected).encode())
    answer(connection, gathering.check)
    pgconn.send_describe_prepared(b"")
    found = answer(connection, gathering.check)
    fields = range(found.nfields)
    types = connection.execute(
        statements.TYPES,
        ([found.ftype(field) for field in fields], [found.fmod(field) for field in fields]),
    ).fetchall()
    return tuple(
        Column((found.fname(field) or b"").decode(), canonical.text(said), encoding_of(base))
        for field, (said, base) in zip(fields, types, strict=True)
    )


def _check(query: str, columns: Sequence[Column], key: Sequence[str]) -> None:
    names = [column.name for column in columns]
    wrong = ""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        wrong = f"it has the column {', '.join(twice)} twice"
    elif strange := [name for name in names if canonical.text(name) != name]:
        wrong = f"a column's name holds a control character: {', '.join(strange)}"
    elif missing := [name for name in key if name not in names]:
        wrong = f"it has no column {', '.join(missing)}, which its key names"
    elif not names:
        wrong = "it has no columns"
    if wrong:
        raise SpooldError(
            errors.CONFIG_INVALID,
            f"[queries.{query}]: {canonical.text(wrong)}",
            hint="name each column in sql, with AS where needed",
            at="query",
        )
