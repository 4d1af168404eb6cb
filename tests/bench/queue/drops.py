"""Throughput: from the first rename into the inbox to the last final status."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bench.queue.site import DEADLINE_SECONDS, REQUEST, Cpu, Site, until


class Burst(NamedTuple):
    """What became of so many drops. `admitted_seconds`: until the last one had its row."""

    jobs: int
    seconds: float
    admitted_seconds: float
    cpu: Cpu
    commits: int
    wal_bytes: int
    flushes: int

    @property
    def per_second(self) -> float:
        """Jobs per second."""
        return self.jobs / self.seconds

    def said(self) -> str:
        """Where the time went."""
        cost = "/".join(f"{seconds * 1000 / self.jobs:.2f}" for seconds in self.cpu)
        return (
            f"all admitted after {self.admitted_seconds:.1f} of {self.seconds:.1f} s; a job costs "
            f"{cost} ms of CPU (supervisor/workers/server), "
            f"{self.commits / self.jobs:.2f} commits, "
            f"{self.wal_bytes / self.jobs / 1000:.1f} kB of WAL, "
            f"{self.flushes / self.jobs:.2f} disk flushes"
        )


def run(site: Site, jobs: int) -> Burst:
    """Drop so many requests at once on a daemon that runs, and wait for their answers."""
    names = _prepare(site, jobs)
    until(lambda: _unfinished(site) == 0, DEADLINE_SECONDS)
    before = site.cpu()
    return _measured(site, names, before, lambda: _drop(site, names))


def run_waiting(site: Site, jobs: int) -> Burst:
    """The same, but they lie in the inbox already when the daemon starts."""
    names = _prepare(site, jobs)
    _drop(site, names)
    return _measured(site, names, Cpu(0.0, 0.0, site.server_seconds()), site.launch)


def _prepare(site: Site, jobs: int) -> list[str]:
    run_id = uuid.uuid4().hex[:6]
    names = [f"request-{run_id}-{number:06d}.json" for number in range(jobs)]
    aside = site.root / "aside"
    aside.mkdir(exist_ok=True)
    for name in names:
        (aside / name).write_bytes(REQUEST)
    os.sync()  # not to be written out during the run
    return names


def _drop(site: Site, names: list[str]) -> None:
    for name in names:
        os.rename(site.root / "aside" / name, site.inbox / name)


def _measured(site: Site, names: list[str], before: Cpu, begin: Callable[[], None]) -> Burst:
    commits, wal, flushes = _commits(site), _wal(site), _flushes(site.root)
    begun_at, began = site.ask("select clock_timestamp()"), time.perf_counter()
    begin()
    _await_finished(site, names, began)
    seconds = time.perf_counter() - began
    admitted = site.ask("select max(admitted_at) from spoold.job") - begun_at
    burst = Burst(
        len(names),
        seconds,
        admitted.total_seconds(),
        site.cpu().since(before),
        _commits(site) - commits,
        _wal(site) - wal,
        _flushes(site.root) - flushes,
    )
    _check(site, names)
    return burst


def _await_finished(site: Site, names: list[str], began: float) -> None:
    """Ask rarely while many are left: asking is work for the same server."""
    pattern, jobs = f"{names[0].rpartition('-')[0]}%".encode(), len(names)
    query = "select count(*) from spoold.job where finished_at is not null and drop_name like %s"
    while (done := site.ask(query, pattern) if site.migrated() else 0) < jobs:
        spent = time.perf_counter() - began
        if spent > DEADLINE_SECONDS:
            raise TimeoutError(f"{done} of {jobs} after {spent:.0f} s: see {site.root}/daemon.log")
        time.sleep(min(1.0, max(0.02, (jobs - done) * spent / max(done, 1) / 2)))


def _check(site: Site, names: list[str]) -> None:
    """Every drop has its final status, and it succeeded."""
    for name in names:
        status = (site.root / "status" / f"{name}.status.json").read_bytes()
        assert b'"final":true' in status, name
        assert b'"state":"succeeded"' in status, (name, status)


def _unfinished(site: Site) -> int:
    return int(site.ask("select count(*) from spoold.job where finished_at is null"))


def _commits(site: Site) -> int:
    # Backends report these to the statistics within a second: at this many it does not matter.
    return int(
        site.ask("select xact_commit from pg_stat_database where datname = current_database()")
    )


def _wal(site: Site) -> int:
    return int(site.ask("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def _flushes(path: Path) -> int:
    """Flush requests that the disk has completed so far; 0 where the kernel does not tell."""
    device = os.stat(path).st_dev
    try:
        text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
        return int(text.split()[15])
    except (OSError, IndexError):
        return 0
