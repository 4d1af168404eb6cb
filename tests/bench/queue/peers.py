"""The yardsticks on the same server: procrastinate's no-op jobs, and commits of one row.

As a process, `python -m tests.bench.queue.peers`: procrastinate's run alone.
"""

import asyncio
import importlib.util
import json
import logging
import subprocess
import sys
import time

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.bench.queue.site import Site

CONCURRENCY = 10
_BATCH = 1000


def commits_per_second(site: Site, seconds: float) -> float:
    """Single-row inserts on one connection, each its own commit."""
    with psycopg.connect(_database(site), autocommit=True) as connection:
        connection.execute("create table if not exists raw (number bigint)")
        begin = time.perf_counter()
        count = 0
        while (spent := time.perf_counter() - begin) < seconds:
            connection.execute("insert into raw values (%s)", (count,))
            count += 1
        return count / spent


def procrastinate_is_installed() -> bool:
    """Whether there is a peer to compare with."""
    return importlib.util.find_spec("procrastinate") is not None


def procrastinate_jobs_per_second(site: Site, jobs: int) -> float:
    """So many no-op jobs, deferred before, worked off by one worker of 10 at a time."""
    command = [sys.executable, "-m", "tests.bench.queue.peers", _database(site), str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return jobs / float(json.loads(done.stdout))


def _database(site: Site) -> str:
    """A database beside ours."""
    connection = site.database.connection
    if connection.execute("select 1 from pg_database where datname = 'peer'").fetchone() is None:
        connection.execute(sql.SQL("create database peer"))
    return make_conninfo(site.server.conninfo, dbname="peer")


async def _work(conninfo: str, jobs: int) -> float:
    import procrastinate  # noqa: PLC0415  # only this process needs it

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo))

    @app.task(queue="bench", name="nothing")
    async def nothing(number: int) -> None:
        pass

    async with app.open_async():
        with psycopg.connect(conninfo, autocommit=True) as connection:
            if connection.execute("select to_regclass('procrastinate_jobs')").fetchone() == (None,):
                await app.schema_manager.apply_schema_async()
            connection.execute("truncate procrastinate_jobs cascade")
        for first in range(0, jobs, _BATCH):
            numbers = range(first, min(first + _BATCH, jobs))
            await nothing.batch_defer_async(*({"number": number} for number in numbers))
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("vacuum analyze procrastinate_jobs")
        begin = time.perf_counter()
        await app.run_worker_async(
            concurrency=CONCURRENCY,
            wait=False,
            listen_notify=False,
            install_signal_handlers=False,
            update_heartbeat_interval=3600,
        )
        seconds = time.perf_counter() - begin
        with psycopg.connect(conninfo) as connection:
            done = connection.execute(
                "select count(*) from procrastinate_jobs where status = 'succeeded'"
            ).fetchone()
            assert done == (jobs,), done
        return seconds


if __name__ == "__main__":
    logging.disable()
    print(json.dumps(asyncio.run(_work(sys.argv[1], int(sys.argv[2])))))
