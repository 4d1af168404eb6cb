"""Connections: how they are opened, what an external server must be, which errors they turn into.

Nothing on these connections depends on session state, so a transaction pooler may stand between:
the settings made here are safety belts, and `check_external` refuses a server whose own defaults
would lose committed jobs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
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
# xmin); a lock waited for that long means that somebody hangs. transaction_timeout is 17 and later.
_SETTINGS = (
    ("synchronous_commit", "on", 0),
    ("idle_in_transaction_session_timeout", "60s", 0),
    ("lock_timeout", "30s", 0),
    ("transaction_timeout", "300s", 17),
)


def connect(conninfo: str, application: str) -> Connection:
    """Open a connection in autocommit mode. Raises database-away."""
    with database_errors():
        connection = psycopg.connect(
            _with_defaults(conninfo, application),
            autocommit=True,
            prepare_threshold=None,  # prepared statements do not survive a transaction pooler
        )
        try:
            major = connection.info.server_version // 10000
            settings = [(name, value) for name, value, since in _SETTINGS if major >= since]
            connection.execute(
                "select set_config(name, value, false)"
                " from unnest(%s::text[], %s::text[]) as setting(name, value)",
                ([name for name, _ in settings], [value for _, value in settings]),
            )
        except BaseException:
            connection.close()
            raise
    return connection


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
    major = connection.info.server_version // 10000
    if major < MINIMUM_VERSION:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"the server is PostgreSQL {major}, below {MINIMUM_VERSION}",
            hint=f"use PostgreSQL {MINIMUM_VERSION} or later",
        )
    with database_errors():
        row = connection.execute(
            "select current_setting('fsync'), current_setting('full_page_writes'),"
            " current_setting('synchronous_commit'), current_setting('server_encoding'),"
            " pg_is_in_recovery()"
        ).fetchone()
    assert row is not None
    fsync, full_page_writes, synchronous_commit, encoding, standby = row
    for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)):
        if value != "on":
            raise SpooldError(
                errors.DATABASE_UNFIT,
                f"{name} is {value} on the server: a power cut would lose jobs",
                hint=f"set {name} = on in postgresql.conf and reload the server",
            )
    if synchronous_commit == "off":
        raise SpooldError(
            errors.DATABASE_UNFIT,
            "synchronous_commit is off on the server: a crash would lose committed jobs",
            hint="ALTER ROLE … SET synchronous_commit = on, or use another pooler mode",
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
