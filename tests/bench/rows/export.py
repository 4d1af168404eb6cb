"""Rows into a bundle, beside psql's own export of the same rows.

Run as a module it is the process that is measured: it prints the seconds of its work as JSON.
"""

import json
import shlex
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from spoold import trust
from spoold.actions.bundle import BundleRequest, build
from spoold.actions.context import ActionSettings, Context
from spoold.bundle.manifest import format_time
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.disk import sync_file
from spoold.trust import Signer, Trust
from tests.bench.report import Row
from tests.bench.rows import table
from tests.bench.running import Run, clear, run

_MUST = 1.3
_MEMORY_MUST_MB = 200
_SELECT = f"select * from {table.NAME} order by id"


def compare(folder: Path, conninfo: str, rows: int, rounds: int) -> list[Row]:
    """Both in turns."""
    url, out = folder / "url", folder / "out"
    url.touch(0o600)
    url.write_text(conninfo)
    plain, durable, ours = list[float](), list[float](), list[Run]()
    copy = f"\\copy (select row_to_json(q) from ({_SELECT}) q) to '{out}/rows.jsonl'"
    psql = f"psql {shlex.quote(conninfo)} -qc {shlex.quote(copy)}"
    spoold = shlex.join([sys.executable, "-m", __name__, str(url), str(out)])
    for number in range(rounds):
        for which in ("psql", "spoold") if number % 2 == 0 else ("spoold", "psql"):
            clear(out)
            out.mkdir()
            if which == "psql":
                plain.append(run(psql, own_clock=False).seconds)
                sync = run(f"sync -f {shlex.quote(str(out))}", own_clock=False)
                durable.append(plain[-1] + sync.seconds)
                size = (out / "rows.jsonl").stat().st_size
            else:
                ours.append(run(spoold, own_clock=True))
                subprocess.run(["sync", "-f", out], check=True)  # before the next one begins
    clear(out)
    baseline = statistics.median(durable)
    seconds = statistics.median(each.seconds for each in ours)
    peak = max(each.memory_mb for each in ours)
    label = f"{rows:,} rows, {size / 1e6:.0f} MB"
    return [
        ("export", label, "`psql -c '\\copy …'`, `sync -f`", f"{baseline:.2f} s", "1.00", "", ""),
        (
            "export",
            label,
            "the same without `sync -f`",
            f"{statistics.median(plain):.2f} s",
            "",
            "",
            "",
        ),
        (
            "export",
            label,
            "spoold",
            f"{seconds:.2f} s",
            f"{seconds / baseline:.2f}",
            f"<= {_MUST}",
            f"{peak:.0f} MB, < {_MEMORY_MUST_MB}",
        ),
    ]


def context(scratch: Path, connections: Connections) -> Context:
    """What a worker gives an attempt."""
    private = trust.generate(trust.Algorithm.RSA)
    key_id = trust.key_id(private.public_key())
    signer = Signer(key_id, "bench", trust.Algorithm.RSA, private)
    return Context(
        request=None,
        request_sha256=None,
        digits="0123456789ab",
        drop=scratch / "none",
        scratch=scratch,
        settings=ActionSettings(connections=connections),
        signer=signer,
        trust=Trust([signer.trusted()]),
        report=lambda _: None,
        take_key=lambda _key, _content: None,
    )


def _main(url: str, scratch: Path) -> None:
    import_module("spoold.sources.snapshot")  # a worker has the driver loaded before its first job
    connections = Connections(
        databases={"bench": DatabaseSettings(url_file=url)},
        queries={"alerts": QuerySettings(database="bench", sql=_SELECT, key=["id"])},
    )
    request = BundleRequest.model_validate(
        {
            "type": "spoold.request/1",
            "action": "bundle",
            "name": f"alerts {format_time(datetime.now(UTC))}",
            "sources": [{"kind": "postgres", "query": "alerts"}],
        }
    )
    here = context(scratch, connections)
    begin = time.perf_counter()
    built, _ = build(request, here)
    sync_file(built.path)
    print(json.dumps(time.perf_counter() - begin))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
