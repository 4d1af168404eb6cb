"""Sessions with the servers of `[databases]`: known settings, patience that can end, plain errors.

Guarantees: in a transaction that was begun here, the text of a value does not depend on what the
server, the database or the role have set. Settings are those of the transaction alone, so that a
transaction pooler may stand between. The role's search_path stays, which the operator's SQL and
triggers need: so our own statements name functions by their schema, and give operators the very
types that the built-in ones have, else a namesake in `public` would be run (CVE-2018-1058). While
an answer is awaited, `check` is called every second, and where it raises, the statement is
cancelled. No error tells a password.
Crash: the server ends the transaction when it writes to the lost connection, or within
`_NOTICE_SECONDS` while it computes; within half a minute where nothing tells it of the loss.
"""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NoReturn

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from spoold import errors
from spoold.connections.databases import DatabaseSettings
from spoold.errors import Code, SpooldError

Connection = psycopg.Connection[TupleRow]
Check = Callable[[], None]

_CHECK_SECONDS: Final = 1.0
# libpq may hold decrypted bytes that the socket does not tell of.
_TLS_SECONDS: Final = 0.05
_CANCEL_SECONDS: Final = 5.0
_NOTICE_SECONDS: Final = 10

# A peer that vanished without a FIN is noticed within half a minute, not in hours.
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "client_encoding": "UTF8",
    "application_name": "spoold",
}

# The forms in which values are exact, and which any server reads back whatever it is set to.
_SETTINGS: Final = (
    ("timezone", "UTC", 0),
    ("datestyle", "ISO, MDY", 0),
    ("intervalstyle", "postgres", 0),
    ("extra_float_digits", "1", 0),
    ("bytea_output", "hex", 0),
    ("lc_monetary", "C", 0),
    ("xmloption", "content", 0),
    ("array_nulls", "on", 0),
    ("quote_all_identifiers", "off", 0),
    # A snapshot, or staged rows, wait for others as long as the attempt may take.
    ("idle_in_transaction_session_timeout", "0", 0),
    ("transaction_timeout", "0", 17),
    # If our machine or the network has gone, they hold no locks for hours. (No tcp_user_timeout: it
    # would end an export whose reader waits for a disk.)
    ("tcp_keepalives_idle", "10", 0),
    ("tcp_keepalives_interval", "5", 0),
    ("tcp_keepalives_count", "3", 0),
)

# How a server refuses whoever calls. libpq gives no SQLSTATE of a connection that failed: what is
# not known here, another language for one, is taken for a server that is away.
_LOGIN: Final = "check user, password and database name in its URL, and pg_hba.conf"
_TLS: Final = "check sslmode, sslrootcert, sslcert and sslkey in its URL, and the certificates"
_REFUSALS: Final = (
    ("authentication failed", _LOGIN),
    ("no password supplied", _LOGIN),
    ("no pg_hba.conf entry", _LOGIN),
    ("no such user", _LOGIN),
    ("certificate", _TLS),
    ("server does not support SSL", _TLS),
    ("SSL error", _TLS),
    ("private key", _TLS),
    ("is not permitted to log in", "ALTER ROLE … LOGIN"),
    ("permission denied for database", "GRANT CONNECT ON DATABASE … TO this user"),
    ('" does not exist', "make it: CREATE ROLE … LOGIN, or CREATE DATABASE …"),
)

# READ WRITE is what a standby does not support, until it is promoted.
_STANDBY: Final = (
    "it is a standby: name all servers in the URL, with target_session_attrs=read-write; it is "
    "tried again"
)

# By SQLSTATE or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_AWAY: Final = ("08", "57P", "53300", "25P")
_LOGIN_STATES: Final = ("28", "3D")
_PASSING: Final = ("40", "53", "55P03", "58", "72")
_HINTS: Final = (
    ("42501", "GRANT SELECT or what the message names to this user"),
    ("25006", "a query may only read"),
    ("42601", "a query's sql is one SELECT, VALUES, TABLE or WITH … SELECT"),
    ("57014", "somebody cancelled it, or raise statement_timeout_seconds in its [databases]"),
    ("55P03", "somebody holds a lock; it is tried again. lock_timeout_seconds says for how long"),
    ("40", "the server is a standby or busy: it is tried again"),
)


@dataclass(frozen=True, slots=True)
class Codes:
    """Which errors a server's answers become."""

    away: Code
    """It cannot be reached, or the connection was lost."""
    refused: Code
    """It does not let this user in, or does not permit what is asked."""
    failed: Code
    """The statement cannot be done."""


def connect(
    name: str,
    settings: DatabaseSettings,
    codes: Codes,
    *,
    isolation: psycopg.IsolationLevel | None = None,
    read_only: bool = False,
) -> Connection:
    """Connect to the database that is configured under a name, and begin a transaction.

    Raises config-invalid, or one of `codes`.
    """
    conninfo = _conninfo(name, settings)
    try:
        connection = psycopg.connect(conninfo, prepare_threshold=None)
    except psycopg.Error as error:
        raise _not_connected(name, error, codes) from error
    try:
        with database_errors(name, codes):
            connection.isolation_level = isolation
            connection.read_only = read_only
            begin(connection, settings)
    except SpooldError as error:
        connection.close()
        if isinstance(error.__cause__, psycopg.errors.FeatureNotSupported) and not read_only:
            raise SpooldError(codes.away, error.message, hint=_STANDBY) from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def begin(connection: Connection, settings: DatabaseSettings) -> None:
    """Begin the connection's next transaction, with our settings in it."""
    major = connection.info.server_version // 10000
    chosen = [(name, value) for name, value, since in _SETTINGS if major >= since]
    chosen += [
        ("statement_timeout", f"{settings.statement_timeout_seconds * 1000:.0f}"),
        ("lock_timeout", f"{settings.lock_timeout_seconds * 1000:.0f}"),
    ]
    connection.execute(
        "select pg_catalog.set_config(name, value, true) from rows from"
        " (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[]))"
        " as setting(name, value)",
        ([name for name, _ in chosen], [value for _, value in chosen]),
    )
    # Where the server's system cannot tell it, the setting is refused.
    with suppress(psycopg.errors.InvalidParameterValue), connection.transaction():
        connection.execute(f"set local client_connection_check_interval = '{_NOTICE_SECONDS}s'")


def cancel(connection: Connection) -> None:
    """Have the server end the statement that runs, if one does; its answer is still to come."""
    if connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_CANCEL_SECONDS)


def end(connection: Connection) -> None:
    """Cancel what the connection still does, and close it: its transaction is rolled back."""
    cancel(connection)
    connection.close()


def run(connection: Connection, statement: str, check: Check) -> pq.abc.PGresult:
    """Run one statement, by itself, without parameters; whoever runs a COPY goes on from there.

    Raises psycopg.Error, or what `check` raises; the statement is then cancelled.
    """
    pgconn = connection.pgconn
    # The extended protocol takes one statement only, whatever semicolons stand in it.
    pgconn.send_query_params(statement.encode(), None)
    return answer(connection, check)


def answer(connection: Connection, check: Check) -> pq.abc.PGresult:
    """The answer to what was sent. Raises psycopg.Error, or what `check` raises."""
    pgconn = connection.pgconn
    try:
        result = _result(pgconn, check)
        assert result is not None
        if result.status in {pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_IN}:
            return result
        while _result(pgconn, check):
            pass
    except psycopg.Error:
        raise
    except BaseException:
        cancel(connection)
        raise
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    return result


def wait(pgconn: pq.abc.PGconn, check: Check) -> None:
    """Wait for more, at most a second, and take it; call `check` where nothing has come."""
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    seconds = _TLS_SECONDS if pgconn.ssl_in_use else _CHECK_SECONDS
    if not poll.poll(seconds * 1000):
        check()
    pgconn.consume_input()


@contextmanager
def database_errors(name: str, codes: Codes, *, at: str | None = None) -> Iterator[None]:
    """The seam: what psycopg raises becomes an error that a user can act on."""
    try:
        yield
    except psycopg.Error as error:
        _raise(name, error, codes, at)


def _raise(name: str, error: psycopg.Error, codes: Codes, at: str | None) -> NoReturn:
    state = error.sqlstate or ""
    said = f"[databases.{name}]: {sentence(error)}"
    hint = next((hint for begins, hint in _HINTS if state.startswith(begins)), "")
    # Without a SQLSTATE libpq speaks, of a lost connection; or the driver, of a wrong value.
    lost = not state and not isinstance(error, psycopg.ProgrammingError | psycopg.DataError)
    if lost or state.startswith(_AWAY):
        raise SpooldError(codes.away, said, at=at) from error
    if state.startswith(_LOGIN_STATES):
        raise SpooldError(codes.refused, said, hint=_LOGIN, at=at) from error
    if state == "42501":
        raise SpooldError(codes.refused, said, hint=hint, at=at) from error
    passing = True if state.startswith(_PASSING) else None
    raise SpooldError(codes.failed, said, hint=hint, at=at, transient=passing) from error


def sentence(error: psycopg.Error) -> str:
    """What the server or libpq says, in one line."""
    said = error.diag.message_primary
    # libpq tells each address it tried on a line of its own; the first says what counts.
    lines = [said] if said else [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _not_connected(name: str, error: psycopg.Error, codes: Codes) -> SpooldError:
    said = f"[databases.{name}]: {sentence(error)}"
    for words, hint in _REFUSALS:
        if words in said:
            return SpooldError(codes.refused, said, hint=hint)
    return SpooldError(codes.away, said)


def _conninfo(name: str, settings: DatabaseSettings) -> str:
    address = settings.address(name)
    key = "url" if settings.url_file is None else "url_file"
    try:
        given = conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        given = {"host": "@"}
    # libpq's own words would tell a part of the password, where that holds a character of URLs.
    if not address or any("@" in str(given.get(part, "")) for part in ("host", "dbname")):
        raise SpooldError(
            errors.CONFIG_INVALID,
            "it is no libpq address",
            hint='write it as "postgresql://USER@HOST/DATABASE"; in a password, @ is %40 and / %2F',
            at=f"databases.{name}.{key}",
        ) from None
    # What the operator has written counts.
    defaults = {key: value for key, value in _DEFAULTS.items() if key not in given}
    return make_conninfo(address, **defaults)


def _result(pgconn: pq.abc.PGconn, check: Check) -> pq.abc.PGresult | None:
    pgconn.consume_input()
    while pgconn.is_busy():
        wait(pgconn, check)
    return pgconn.get_result()
