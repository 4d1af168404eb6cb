"""The queue's connection: named statements, transactions, and a new connection after a lost one.

One `Database` belongs to one thread. A call that loses the connection raises database-away; the
next one connects again, so that its owner needs no more than to call again later.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from typing import Final, TypeVar

import psycopg
from psycopg.rows import TupleRow

from spoold import errors
from spoold.errors import SpooldError
from spoold.postgres import connect, database_errors
from spoold.postgres.connection import LimitedConnection
from spoold.queue.rows import JOB_COLUMNS
from spoold.queue.tree_rows import BUNDLE_COLUMNS, PLACED_COLUMNS

Parameters = Mapping[str, object]
T = TypeVar("T")

_DEADLOCK_TRIES: Final = 5


def _load() -> dict[str, bytes]:
    text = files("spoold.queue").joinpath("queries.sql").read_text(encoding="utf-8")
    columns = {
        "{job}": ", ".join(f"job.{name}" for name in JOB_COLUMNS),
        "{bundle}": ", ".join(BUNDLE_COLUMNS),
        "{placed}": ", ".join(PLACED_COLUMNS),
    }
    statements = {}
    for part in re.split(r"^-- name: ", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        lines = [line for line in body.splitlines() if not line.startswith("--")]
        statement = "\n".join(lines).strip().removesuffix(";")
        for placeholder, listed in columns.items():
            statement = statement.replace(placeholder, listed)
        assert name not in statements, name
        statements[name] = statement.encode()
    return statements


QUERIES: Final = _load()


class Database:
    """A connection that is opened when first needed, and again after it was lost."""

    def __init__(self, conninfo: str, application: str) -> None:
        self._conninfo = conninfo
        self._application = application
        self._connection: LimitedConnection | None = None
        self._depth = 0
        self._connected_at = 0.0

    @property
    def connection(self) -> LimitedConnection:
        """The open connection. Raises database-away."""
        if self._connection is not None and self._depth == 0 and self._connection.closed:
            self._connection = None
        if self._connection is None:
            self._connection = connect(self._conninfo, self._application)
            self._connected_at = time.monotonic()
        # Within a transaction a lost connection stays lost, else its rest would run alone.
        return self._connection

    def connected_seconds(self) -> float:
        """For how long the connection has been open. Raises database-away."""
        lost = self.connection.closed
        return 0.0 if lost else time.monotonic() - self._connected_at

    def close(self) -> None:
        """Close the connection; the next call opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def rows(self, name: str, parameters: Parameters | None = None) -> list[TupleRow]:
        """Run a named statement that returns rows. Raises database-away or database-unfit."""
        with database_errors():
            return self._execute(QUERIES[name], parameters).fetchall()

    def row(self, name: str, parameters: Parameters | None = None) -> TupleRow | None:
        """Run a named statement and return its first row."""
        with database_errors():
            return self._execute(QUERIES[name], parameters).fetchone()

    def run(self, name: str, parameters: Parameters | None = None) -> None:
        """Run a named statement whose rows do not matter."""
        self.script(QUERIES[name], parameters)

    def script(self, sql: bytes, parameters: Parameters | None = None) -> None:
        """Run SQL given by its text; without parameters it may be several statements."""
        with database_errors():
            self._execute(sql, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What runs inside is committed together; within another transaction it is a savepoint."""
        with database_errors():
            connection = self.connection
            self._depth += 1
            try:
                with connection.transaction():
                    yield
                    # psycopg leaves a transaction on a dead connection without a word.
                    if connection.closed:
                        raise psycopg.OperationalError("the connection was lost")
            finally:
                self._depth -= 1

    def atomically(self, work: Callable[[], T]) -> T:
        """Run `work` in a transaction, again where the server ended it as a deadlock's victim."""
        for _ in range(_DEADLOCK_TRIES - 1):
            try:
                with self.transaction():
                    return work()
            except SpooldError as error:
                if self._depth > 0 or not isinstance(error.__cause__, _VICTIM):
                    raise
        with self.transaction():
            return work()

    @contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """Give this connection up where an answer takes longer; `math.inf`: never.

        What is given up may be committed all the same. Raises database-away.
        """
        connection = self.connection
        usual, connection.answer_seconds = connection.answer_seconds, seconds
        try:
            yield
        finally:
            connection.answer_seconds = usual

    def require_writable(self) -> None:
        """Raise database-away where there is nobody but a standby, or nothing may be written."""
        row = self.row("read_only")
        if row is not None and row[0]:
            self._hang_up()
            raise SpooldError(errors.DATABASE_AWAY, "the database can only be read")

    def _execute(self, sql: bytes, parameters: Parameters | None) -> psycopg.Cursor[TupleRow]:
        try:
            return self.connection.execute(sql, parameters)
        except psycopg.errors.ReadOnlySqlTransaction:
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        # A session keeps the default that it began with, and a new one may find the primary.
        if self._connection is not None:
            self._connection.close()


_VICTIM: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
