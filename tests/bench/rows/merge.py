"""Rows of a bundle into a table, beside COPY and the same INSERT typed by hand.

Run as a module it is the process that is measured: it prints the seconds of its work as JSON.
"""

import hashlib
import json
import shlex
import statistics
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from spoold.bundle.entry import Entry, Kind
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.sinks.postgres import RowsSettings, RowsSink
from spoold.sinks.sink import Delivery
from spoold.sources.postgres import PostgresSource, PostgresSpec
from spoold.sources.source import Gathering
from tests.bench.report import Row
from tests.bench.rows import table
from tests.bench.running import Run, clear, run

_MUST = 1.5
_MEMORY_MUST_MB = 200
_TARGET = "merged"
_BY_HAND = """
begin;
create temporary table staged (like {0}) on commit drop;
\\copy staged from '{1}'
insert into {0} select * from staged on conflict (id) do nothing;
commit;
"""


def compare(folder: Path, conninfo: str, rows: int, rounds: int) -> list[Row]:
    """Both in turns, each into the empty table; then the same bundle once more."""
    url, tree = folder / "url", folder / "tree"
    url.touch(0o600)
    url.write_text(conninfo)
    tree.mkdir()
    _export(url, tree)
    typed, script = folder / "rows.copy", folder / "by-hand.sql"
    script.write_text(_BY_HAND.format(_TARGET, typed))
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"create table {_TARGET} (like {table.NAME} including all)".encode())
    psql = f"psql {shlex.quote(conninfo)} -q -v ON_ERROR_STOP=1"
    subprocess.run([*shlex.split(psql), "-c", f"\\copy {table.NAME} to '{typed}'"], check=True)
    spoold = shlex.join([sys.executable, "-m", __name__, str(url), str(tree)])
    plain, ours, again = list[Run](), list[Run](), list[Run]()
    for number in range(rounds):
        for which in ("psql", "spoold") if number % 2 == 0 else ("spoold", "psql"):
            _empty(conninfo, folder)
            if which == "psql":
                plain.append(run(f"{psql} -f {script}", own_clock=False))
            else:
                ours.append(run(f"{spoold} {rows} 0", own_clock=True))
                again.append(run(f"{spoold} 0 {rows}", own_clock=True))
    label = f"{rows:,} rows, {(tree / 'alert.jsonl').stat().st_size / 1e6:.0f} MB"
    clear(tree)
    baseline = statistics.median(each.seconds for each in plain)

    def row(what: str, runs: list[Run], must: str) -> Row:
        seconds = statistics.median(each.seconds for each in runs)
        peak = max(each.memory_mb for each in runs)
        memory = f"{peak:.0f} MB, < {_MEMORY_MUST_MB}"
        return (
            what,
            label,
            "spoold",
            f"{seconds:.2f} s",
            f"{seconds / baseline:.2f}",
            must,
            memory,
        )

    return [
        ("merge", label, "`\\copy`, `INSERT`", f"{baseline:.2f} s", "1.00", "", ""),
        row("merge", ours, f"<= {_MUST}"),
        row("merge again: all skipped", again, ""),
    ]


def _connections(url: Path) -> Connections:
    return Connections(
        databases={"bench": DatabaseSettings(url_file=str(url))},
        queries={"alert": QuerySettings(database="bench", table=table.NAME, key=["id"])},
    )


def _export(url: Path, tree: Path) -> None:
    """The rows as a bundle of the source brings them."""
    with Gathering(_connections(url)) as gathering:
        spec = PostgresSpec(kind="postgres", query="alert")
        for entry in PostgresSource.open(spec, gathering, "bench").entries():
            content: Any = entry.content
            with open(tree / Path(entry.path.decode()).name, "wb") as file, closing(content):
                while data := content.read(1024 * 1024):
                    file.write(data)


def _empty(conninfo: str, folder: Path) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"truncate {_TARGET}".encode())
        connection.execute("checkpoint")
    subprocess.run(["sync", "-f", folder], check=True)


def _main(url: str, tree: str, inserted: int, skipped: int) -> None:
    connections = _connections(Path(url))
    settings = RowsSettings(
        name="bench",
        kind="postgres",
        entries=["*.jsonl"],
        database="bench",
        table=f"public.{_TARGET}",
    )
    entry = Entry(b"alert.jsonl", Kind.FILE, 0o644, 0, 0, 0, "bench")
    delivery = Delivery(
        bundle_id="bench-0123456789ab",
        site="bench",
        manifest_sha256=hashlib.sha256().hexdigest(),
        job_id=str(uuid.uuid4()),
        tree=Path(tree),
        scratch=Path(tree),
        entries=lambda: iter([entry]),
        connections=connections,
    )
    begin = time.perf_counter()
    with closing(RowsSink.open(settings, connections).plan(delivery)) as plan:
        plan.apply()
        seconds = time.perf_counter() - begin
        found = plan.report["rows"]
    assert found == {"inserted": inserted, "skipped": skipped, "conflicting": 0}, found
    print(json.dumps(seconds))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
