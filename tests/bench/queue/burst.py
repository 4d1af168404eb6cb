"""Bursts: what the intake alone takes for a drop, and the whole daemon from drop to answer.

The intake alone runs in a process of its own (this module as a script), so that its peak of memory
is that of the intake and of what it imports.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spoold import log
from spoold.actions import MODELS
from spoold.config import load
from spoold.daemon.wiring import intake_settings
from spoold.intake.loop import Intake
from spoold.queue.database import Database
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.bench.queue.site import REQUEST, Site

_PROGRESS_SECONDS = 1.0
_DEADLINE_SECONDS = 3600.0


class Taken(NamedTuple):
    """A backlog taken in by the intake alone; `peak` is its process's, in MB."""

    drops: int
    seconds: float
    cpu_seconds: float
    peak: float

    @property
    def each(self) -> float:
        """Seconds a drop."""
        return self.seconds / self.drops


class Whole(NamedTuple):
    """A burst on a daemon that runs; seconds since the first drop, memory in MB."""

    drops: int
    dropping_seconds: float
    admitted_seconds: float
    seconds: float
    finished_meanwhile: int
    """Jobs finished by the time that the last one was admitted: admission starves nobody."""
    supervisor_peak: float
    worker_peak: float


def backlog(site: Site, drops: int, *, settle: bool = False) -> Taken:
    """Let an intake of its own take what lies in the inbox of a spool whose daemon does not run.

    With `settle` the kernel is not asked for writers: each drop is remembered while it rests.
    """
    prefix = uuid.uuid4().hex[:6]
    for number in range(drops):
        (site.inbox / f"request-{prefix}-{number:06d}.json").write_bytes(REQUEST)
    os.sync()
    command = [sys.executable, "-m", __spec__.name, str(site.root), site.server.conninfo]
    done = subprocess.run(
        [*command, str(drops)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "SPOOLD_INTAKE_WRITER_CHECK": "settle" if settle else "auto"},
    )
    taken = Taken(**json.loads(done.stdout))
    with_row = site.ask(
        "select count(distinct drop_name) from spoold.job where drop_name like %s",
        f"request-{prefix}-%".encode(),
    )
    assert with_row == drops, (with_row, drops)
    return taken


def whole(site: Site, drops: int, *, copied: bool) -> Whole:
    """Rename or write so many drops into the inbox of a daemon that runs; check every answer."""
    aside = site.root / "aside"
    aside.mkdir(exist_ok=True)
    prefix = uuid.uuid4().hex[:6]
    names = [f"request-{prefix}-{number:06d}.json" for number in range(drops)]
    if not copied:
        for name in names:
            (aside / name).write_bytes(REQUEST)
        os.sync()
    begin = time.perf_counter()
    for name in names:
        if copied:
            (site.inbox / name).write_bytes(REQUEST)
        else:
            os.rename(aside / name, site.inbox / name)
    dropping = time.perf_counter() - begin
    pattern = f"request-{prefix}-%".encode()
    admitted, meanwhile, done = 0.0, 0, 0
    while done < drops:
        if time.perf_counter() - begin > _DEADLINE_SECONDS:
            raise TimeoutError(f"{done} of {drops}: see {site.root}/daemon.log")
        time.sleep(_PROGRESS_SECONDS)
        done = site.ask(
            "select count(*) from spoold.job where finished_at is not null and drop_name like %s",
            pattern,
        )
        if not admitted and not any(os.scandir(site.inbox)):
            admitted, meanwhile = time.perf_counter() - begin, done
    seconds = time.perf_counter() - begin
    _check(site, names, pattern)
    return Whole(
        drops,
        dropping,
        admitted,
        seconds,
        meanwhile,
        peak(site.supervisor),
        max(map(peak, site.workers())),
    )


def _check(site: Site, names: Sequence[str], pattern: bytes) -> None:
    """Each drop has one row, one final answer, and nothing is left of it."""
    rows = site.ask("select count(*) from spoold.job where drop_name like %s", pattern)
    assert rows == len(names), (rows, len(names))
    for name in names:
        status = json.loads((site.root / "status" / f"{name}.status.json").read_bytes())
        assert status["final"], name
        assert status["state"] == "succeeded", (name, status)
        assert (site.root / "processed" / name).exists(), name
    assert not os.listdir(site.inbox)
    assert not os.listdir(site.root / ".spoold/claimed")


def peak(pid: int) -> float:
    """The most memory that a process has had resident, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(pid)


def _take(root: str, conninfo: str, drops: int) -> Taken:
    spool = Spool.at(root)
    store = Store(Database(conninfo, "spoold bench"), spool.identity().spool)
    intake = Intake(spool, store, intake_settings(load(spool)), MODELS)
    stop = threading.Event()
    begin, cpu = time.perf_counter(), time.process_time()
    thread = threading.Thread(target=intake.run, args=(stop,))
    thread.start()
    while intake.metrics.admitted < drops:
        time.sleep(0.001)
    seconds, spent = time.perf_counter() - begin, time.process_time() - cpu
    stop.set()
    intake.wake()
    thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return Taken(drops, seconds, spent, used)


if __name__ == "__main__":
    log.configure("warning", "text")
    print(json.dumps(_take(sys.argv[1], sys.argv[2], int(sys.argv[3]))._asdict()))
