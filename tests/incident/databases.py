"""The two sites' own databases, each beside the queue's in the server that spoold brings along."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spoold import postgres
from spoold.spool import Spool

NAME: Final = "soc"
HERE: Final = Path(__file__).parent
# What two sites must agree on; `seen_at` is site-b's own.
_ROW: Final = "id, raised_at, severity, rule, score, source_ip, hosts, payload, details"


@contextmanager
def database(root: Path, schema: Path) -> Iterator[str]:
    """A database of a site, made by a script; its URL stands in the site's `soc.url`."""
    server = postgres.ensure_running(Spool.at(root))
    try:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(f"create database {NAME}".encode())
        conninfo = make_conninfo(server.conninfo, dbname=NAME)
        with psycopg.connect(conninfo) as connection:
            connection.execute(schema.read_bytes())
        path = root / "soc.url"
        path.touch(mode=0o600)
        path.write_text(_url(conninfo) + "\n")
        yield conninfo
    finally:
        server.stop_if_last()


def alerts(conninfo: str, where: str = "true") -> list[tuple[object, ...]]:
    """The rows, each value as the server's own text."""
    fields = ", ".join(f"{name.strip()}::text" for name in _ROW.split(","))
    with psycopg.connect(conninfo) as connection:
        statement = f"select {fields} from alert where {where} order by id"
        return connection.execute(statement.encode()).fetchall()


def _url(conninfo: str) -> str:
    given = {key: str(value) for key, value in conninfo_to_dict(conninfo).items() if value}
    return f"postgresql:///{given.pop('dbname')}?{urlencode(given)}"
