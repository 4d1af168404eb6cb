"""A server with the table that is exported and merged: six columns, with an integer key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from spoold import postgres
from spoold.spool import Spool

NAME = "alert"
COLUMNS = """
    id bigint primary key,
    fingerprint text not null,
    seen timestamptz not null,
    severity integer not null,
    score numeric(12, 2),
    message text
"""
_ROWS = """
    select i,
        md5(i::text),
        timestamptz '2026-11-20 10:00:00+00' - i * interval '1 second',
        i % 7,
        i * 1.37,
        case when i % 10 <> 0
            then 'login of "user-' || i % 5000 || E'" failed\\tfrom host\\\\' || i % 300 end
    from generate_series(1, %s) i
"""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The conninfo of an embedded server, removed at the end."""
    spool = Spool.at(folder / "spool")
    spool.create()
    running = postgres.ensure_running(spool)
    try:
        yield running.conninfo
    finally:
        running.stop_if_last()
        postgres.remove(spool)


def make(conninfo: str, rows: int) -> None:
    """Fill the table, and have the server tidy it up before anything is measured."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"create table {NAME} ({COLUMNS})".encode())
        connection.execute(f"insert into {NAME} {_ROWS.replace(' % ', ' %% ')}".encode(), (rows,))
        connection.execute(f"vacuum analyze {NAME}".encode())
        connection.execute("checkpoint")
