"""Connections: how they are opened, what an external server must be, which errors they turn into.

Nothing on these connections depends on session state, so a transaction pooler may stand between.
The settings made here are safety belts: behind a pooler, where they would stay in somebody else's
session, they are left out, and what its operator has set for the role counts. `check_external`
refuses a server whose own defaults would lose committed jobs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from spoold import errors
from spoold.errors import SpooldError

MINIMUM_VERSION = 15

Connection = psycopg.Connection[TupleRow]

# A peer that vanished without a FIN is noticed within half a minute, not in hours.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "client_encoding": "UTF8",
}

# An idle transaction holds back vacuum and makes every claim slower (dead tuples under a pinned
# xmin); a lock waited for that long means that somebody hangs. The longest statement of ours prunes
# 5,000 rows. transaction_timeout is 17 and later.
_SETTINGS = (
    ("synchronous_commit", "on", 0),
    ("idle_in_transaction_session_timeout", "60s", 0),
    ("lock_timeout", "30s", 0),
    ("statement_timeout", "120s", 0),
    ("transaction_timeout", "300s", 17),
)

# A server that is frozen, its disk perhaps, keeps a connection alive and ends no statement by
# itself. Longer than `statement_timeout`, which ends all but a COMMIT before. What is given up so
# may still be committed, as with any connection that is lost.
_ANSWER_SECONDS: Final = 150.0

T = TypeVar("T")

# How a server refuses whoever calls. libpq gives no SQLSTATE of a connection that failed: what is
# not known here, another language for one, is taken for a server that is away.
_LOGIN: Final = "check user, password and database name in database_url, and pg_hba.conf"
_REFUSALS: Final = (
    ("authentication failed", _LOGIN),
    ("no pg_hba.conf entry", _LOGIN),
    ("no such user", _LOGIN),
    ("is not permitted to log in", "ALTER ROLE … LOGIN"),
    ("permission denied for database", "GRANT CONNECT, CREATE ON DATABASE … TO this user"),
    ('" does not exist', "make it: CREATE ROLE … LOGIN, or CREATE DATABASE … OWNER that role"),
)


class LoginRefusedError(SpooldError):
    """The server answers, but not to this user: `database-away` until somebody mends it."""


class LimitedConnection(Connection):
    """A connection that is given up where nothing comes for too long."""

    answer_seconds = _ANSWER_SECONDS

    # Any: what else it is given differs between psycopg's versions.
    def wait(self, gen: PQGen[T], *arguments: Any, **named: Any) -> T:
        """Wait for what psycopg is doing. Raises OperationalError, the connection then closed."""
        return super().wait(self._in_time(gen), *arguments, **named)

    def _in_time(self, doing: PQGen[T]) -> PQGen[T]:
        until = time.monotonic() + self.answer_seconds
        try:
            wanted = next(doing)
            while True:
                ready = yield wanted
                # psycopg comes by every 0.1 s, with nothing where nothing has come.
                if ready:
                    until = time.monotonic() + self.answer_seconds
                elif time.monotonic() >= until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(
                        f"the server has not answered for {self.answer_seconds:g} s"
                    )
                wanted = doing.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


def connect(conninfo: str, application: str) -> LimitedConnection:
    """Open a connection in autocommit mode. Raises database-away or config-invalid."""
    try:
        connection = LimitedConnection.connect(
            _with_defaults(conninfo, application),
            autocommit=True,
            prepare_threshold=None,  # prepared statements do not survive a transaction pooler
        )
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise _not_connected(error) from error
    try:
        with database_errors():
            major = connection.info.server_version // 10000
            settings = [(name, value) for name, value, since in _SETTINGS if major >= since]
            connection.execute(
                "select set_config(name, value, false)"
                " from unnest(%s::text[], %s::text[]) as setting(name, value)"
                " where pg_backend_pid() = %s",  # as in `is_pooled`
                (
                    [name for name, _ in settings],
                    [value for _, value in settings],
                    connection.info.backend_pid,
                ),
            )
    except BaseException:
        connection.close()
        raise
    return connection


def is_pooled(connection: Connection) -> bool:
    """Whether a pooler stands between: the session is then not ours, LISTEN hears nothing.

    Poolers give their clients cancellation keys of their own making, so that the process id in
    ours is not that of the process that answers. LISTEN cannot be tried instead: a NOTIFY to
    oneself may by chance go the same way, and a transaction pooler keeps what has listened.

    Source: BackendKeyData, https://www.postgresql.org/docs/current/protocol-message-formats.html
    """
    with database_errors():
        row = connection.execute("select pg_backend_pid()").fetchone()
    assert row is not None
    return bool(row[0] != connection.info.backend_pid)


def _not_connected(error: psycopg.Error) -> SpooldError:
    sentence = _sentence(error)
    if "unsupported startup parameter" in sentence:
        return SpooldError(
            errors.CONFIG_INVALID,
            f"the pooler takes no such parameter: {sentence}",
            hint="leave options=… out of database_url and PGOPTIONS, and set these things for the "
            "role: ALTER ROLE … SET …",
            at="database_url",
        )
    for said, hint in _REFUSALS:
        if said in sentence:
            return LoginRefusedError(errors.DATABASE_AWAY, sentence, hint=hint)
    return SpooldError(errors.DATABASE_AWAY, sentence)


def _with_defaults(conninfo: str, application: str) -> str:
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError as error:
        raise SpooldError(
            errors.CONFIG_INVALID,
            f"database_url is no libpq address: {error}",
            hint='write it as "postgresql://USER@HOST/DATABASE", or leave it empty',
            at="database_url",
        ) from error
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
    return make_conninfo(conninfo, application_name=application, **defaults)


def check_external(connection: Connection) -> None:
    """Raise database-unfit where a server is too old, or would lose what it has committed."""
    check_version(connection.info.server_version)
    with database_errors():
        row = connection.execute(
            "select current_setting('fsync'), current_setting('full_page_writes'),"
            " current_setting('synchronous_commit'),"
            " (select reset_val from pg_settings where name = 'synchronous_commit'),"
            " current_setting('server_encoding'), pg_is_in_recovery()"
        ).fetchone()
    assert row is not None
    fsync, full_page_writes, synchronous_commit, default_commit, encoding, standby = row
    for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)):
        if value != "on":
            raise SpooldError(
                errors.DATABASE_UNFIT,
                f"{name} is {value} on the server: a power cut would lose jobs",
                hint=f"set {name} = on in postgresql.conf and reload the server",
            )
    # What `connect` has set holds for this session; behind a pooler the next one has the default.
    if "off" in {synchronous_commit, default_commit if is_pooled(connection) else None}:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            "synchronous_commit is off on the server: a crash would lose committed jobs",
            hint="ALTER ROLE … SET synchronous_commit = on, and have the pooler connect anew",
        )
    if encoding != "UTF8":
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"the database's encoding is {encoding}",
            hint="make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    if standby:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            "the server is a read-only standby",
            hint="point database_url at the primary, with target_session_attrs=read-write",
        )


def check_version(server_version: int) -> None:
    """Raise database-unfit where a server is too old; 150003 is 15.3."""
    major = server_version // 10000
    if major < MINIMUM_VERSION:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"the server is PostgreSQL {major}, below {MINIMUM_VERSION}",
            hint=f"use PostgreSQL {MINIMUM_VERSION} or later",
        )


@contextmanager
def database_errors() -> Iterator[None]:
    """The seam: what psycopg raises becomes an error that a user can act on.

    DataError and IntegrityError pass: they are about the values, and only the caller knows those.
    """
    try:
        yield
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,
        psycopg.errors.IdleInTransactionSessionTimeout,  # one of `_SETTINGS` has cut the connection
        psycopg.errors.TransactionTimeout,
    ) as error:
        raise SpooldError(errors.DATABASE_AWAY, _sentence(error)) from error
    except (psycopg.DataError, psycopg.IntegrityError):
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            _sentence(error),
            hint="GRANT CREATE ON DATABASE … TO this user, who must own the schema spoold",
        ) from error
    except psycopg.Error as error:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            _sentence(error),
            hint="the schema is not what this version of spoold made: restore it from a backup",
        ) from error


def _sentence(error: psycopg.Error) -> str:
    # libpq tells each address it tried on a line of its own; the last says what counts.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
