"""The command: see the package."""

import argparse
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from spoold import log
from tests.bench.queue import burst as bursts
from tests.bench.queue import claims, drops, fence, idle, latency, peers, site
from tests.bench.report import Row, machine, table

_OPERATIONS = ("drops", "latency", "idle", "claim", "fence")
_ASKED_FOR = ("burst", "intake-latency")  # a quarter of an hour, and for one part alone
_HEAD = ("operation", "input", "by", "figure", "ratio", "must")
_SERVERS = {"18": None, "15": Path("/usr/lib/postgresql/15/bin")}
_CLAIM_MUST = 1.2
_DROPS_MUST = {"ed25519": 0.6, "rsa": 0.4}


class Bench:
    """One run of the whole."""

    def __init__(self, folder: Path, *, jobs: int, rounds: int, quick: bool) -> None:
        self._folder = folder
        self._jobs = jobs
        self._rounds = rounds
        self._quick = quick
        self.rows: list[Row] = []

    def drops(self) -> None:
        """Throughput beside the yardsticks: these before, between and after our own runs."""
        peer = peers.procrastinate_is_installed()
        if not peer:
            _say("procrastinate is not installed (pip install procrastinate): no ratio")
        for algorithm, must in _DROPS_MUST.items():
            commits, theirs, ours = [], [], []
            with site.opened(self._folder, algorithm) as here:
                for _ in range(self._rounds):
                    commits.append(peers.commits_per_second(here, 2.0))
                    if peer:
                        theirs.append(peers.procrastinate_jobs_per_second(here, self._jobs))
                    here.start()
                    burst = drops.run(here, self._jobs)
                    here.stop()
                    ours.append(burst.per_second)
                    _say(f"{algorithm}: {burst.per_second:.0f}/s; {burst.said()}")
                commits.append(peers.commits_per_second(here, 2.0))
                if peer:
                    theirs.append(peers.procrastinate_jobs_per_second(here, self._jobs))
                waiting = drops.run_waiting(here, self._jobs)
                _say(f"{algorithm}, waiting: {waiting.per_second:.0f}/s; {waiting.said()}")
                here.stop()
                self._complain(here)
            label = f"{self._jobs:,} requests, {algorithm}"
            raw, rate = statistics.median(commits), statistics.median(ours)
            self._row("drops", label, "commits of one row", f"{raw:.0f}/s")
            if peer:
                other = statistics.median(theirs)
                self._row("drops", label, "procrastinate, no-op", f"{other:.0f}/s", "1.00")
                ratio = f"{rate / other:.2f}"
            else:
                ratio = ""
            self._row("drops", label, "spoold", f"{rate:.0f}/s", ratio, f">= {must}")
            self._row("drops", label, "spoold, jobs per commit", f"{rate / raw:.2f}")
            figure = f"{waiting.per_second:.0f}/s"
            self._row("drops", label, "spoold, waiting when it starts", figure)

    def latency(self) -> None:
        """Single drops on an idle daemon."""
        for algorithm in _DROPS_MUST:
            with site.opened(self._folder, algorithm) as here:
                here.start()
                latency.run(here, 5)  # what is loaded at the first job is loaded
                found = latency.run(here, 40 if self._quick else 200)
                self._complain(here)
            label = f"{len(found)} single drops, {algorithm}"
            for what, seconds, must in (
                ("row committed", [one.admitted for one in found], "p99 <= 100 ms"),
                ("final status", [one.final for one in found], "p50 <= 250 ms"),
            ):
                p50, p99 = _percentile(seconds, 50), _percentile(seconds, 99)
                figure = f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
                self._row("latency", label, f"spoold, {what}", figure, "", must)

    def burst(self) -> None:
        """120,000 drops: what one costs, beside one of 1,000; memory; each answered once."""
        few, many = (100, 5_000) if self._quick else (1_000, 120_000)
        # Few, many, few: what else the machine does in these minutes is the same for both.
        taken = [self._taken(few, times=5), self._taken(many), self._taken(few, times=5)]
        several = sorted(taken[0] + taken[2])
        small = several[len(several) // 2]
        self._backlog(small, small)
        self._backlog(taken[1][0], small)
        self._backlog(self._taken(many, settle=True)[0], None)
        for copied in (False, True):
            with site.opened(self._folder, "ed25519") as here:
                here.start()
                found = bursts.whole(here, many, copied=copied)
                overflows = here.log.count("queue overflowed")
                self._complain(here)
            how = "copied" if copied else "renamed"
            label = f"{many:,} drops, {how} in {found.dropping_seconds:.0f} s"
            rate = found.drops / found.admitted_seconds
            self._row("burst", label, "spoold, admitted", f"{rate:.0f}/s")
            rate = found.drops / found.seconds
            self._row("burst", label, "spoold, each answered once", f"{rate:.0f}/s")
            meanwhile = found.finished_meanwhile / found.admitted_seconds
            self._row("burst", label, "spoold, done while admitting", f"{meanwhile:.0f}/s")
            self._row("burst", label, "queue overflows", f"{overflows}")
            figure = f"{found.supervisor_peak:.0f} MB"
            self._row("burst", label, "the supervisor's peak", figure, "", "< 150 MB")
            self._row("burst", label, "a worker's peak", f"{found.worker_peak:.0f} MB")

    def _taken(self, count: int, *, times: int = 1, settle: bool = False) -> list[bursts.Taken]:
        with site.opened(self._folder, "ed25519") as here:
            here.start()
            here.stop()
            return [bursts.backlog(here, count, settle=settle) for _ in range(times)]

    def _backlog(self, found: bursts.Taken, small: bursts.Taken | None) -> None:
        how = "as they lie there" if small else "each after a rest"
        label = f"{found.drops:,} drops, {how}"
        each, cpu = found.each * 1e6, found.cpu_seconds / found.drops * 1e6
        ratio = f"{found.each / small.each:.2f}" if small else ""
        must = "<= 1.3" if small and found is not small else ""
        figure = f"{each:.0f} us, {cpu:.0f} us of CPU"
        self._row("burst", label, "the intake alone, a drop", figure, ratio, must)
        self._row("burst", label, "its process's peak", f"{found.peak:.0f} MB", "", "< 150 MB")

    def intake_latency(self) -> None:
        """From `mv` to the `queued` status on an idle daemon."""
        with site.opened(self._folder, "ed25519") as here:
            here.start()
            latency.until_status(here, 5)
            found = latency.until_status(here, 40 if self._quick else 200)
            self._complain(here)
        p50, p99 = _percentile(found, 50), _percentile(found, 99)
        figure = f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"
        label = f"{len(found)} single drops"
        self._row("intake-latency", label, "spoold, status queued", figure, "", "p99 <= 150 ms")

    def idle(self) -> None:
        """CPU and memory of a daemon that has worked and now has nothing to do."""
        with site.opened(self._folder, "ed25519") as here:
            here.start()
            drops.run(here, 100)
            found = idle.run(here, 20.0 if self._quick else 60.0)
            self._complain(here)
        cpu = found.cpu
        ours = f"{cpu.supervisor:.2f} + {cpu.workers:.2f} %"
        label = f"supervisor, {site.WORKERS} workers"
        self._row("idle CPU", label, "spoold, supervisor + workers", ours, "", "< 1 %")
        self._row("idle CPU", label, "the embedded server", f"{cpu.server:.2f} %")
        for name, size in (("supervisor", found.supervisor), ("a worker", found.worker)):
            figure = f"RSS {size.resident:.0f} MB, PSS {size.proportional:.0f} MB"
            self._row("idle memory", name, "spoold", figure, "", "RSS < 80 MB")

    def claim(self) -> None:
        """Claims beside many rows, against claims beside none."""
        for version, programs in _SERVERS.items():
            if programs is not None and not programs.is_dir():
                _say(f"PostgreSQL {version} is not installed: left out")
                continue
            scale, rounds = (0.05, 3) if self._quick else (1.0, 5)
            queues = claims.run(self._folder, programs, scale=scale, rounds=rounds)
            for batch in claims.BATCHES:
                empty = queues[0].median(batch)
                for queue in queues:
                    seconds = queue.median(batch)
                    self._row(
                        f"claim {batch}",
                        f"{queue.beside}{f', times {scale}' if scale != 1 else ''}",
                        f"PostgreSQL {version}",
                        f"{seconds * 1000:.2f} ms, {batch / seconds:.0f}/s",
                        f"{seconds / empty:.2f}",
                        "" if queue.beside == claims.EMPTY else f"<= {_CLAIM_MUST}",
                    )

    def fence(self) -> None:
        """Results of workers that have lost their lease."""
        with site.opened(self._folder, "ed25519") as here:
            here.start()
            found = fence.run(here, 100 if self._quick else 600)
        for problem in found.problems:
            _say(problem)
        label = (
            f"{found.jobs} jobs, {found.claims} claims, {found.lost} lost, leases of "
            f"{found.lease_seconds * 1000:.0f} ms"
        )
        for what, tried, accepted in (
            ("writes to rows", found.writes, found.writes_accepted),
            ("renames", found.renames, found.renames_done),
        ):
            figure = f"{accepted} of {tried}"
            self._row("stale results accepted", label, f"spoold, {what}", figure, "", "0")

    def _complain(self, here: site.Site) -> None:
        for line in here.complaints()[:5]:
            _say(line)

    def _row(self, *cells: str) -> None:
        row = (*cells, *[""] * (len(_HEAD) - len(cells)))
        self.rows.append(row)
        _say(" · ".join(filter(None, row)))


def _percentile(values: list[float], per_cent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * per_cent // 100)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Parse the arguments, run, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.queue")
    parser.add_argument("--quick", action="store_true", help="a tenth of it, in 2 minutes")
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    parser.add_argument("--jobs", type=int, help="drops of a burst; else 10,000, quick 1,000")
    parser.add_argument("--rounds", type=int, help="runs of each; else 3, quick 1")
    parser.add_argument(
        "operations", nargs="*", choices=[*_OPERATIONS, *_ASKED_FOR, []], metavar="OPERATION"
    )
    arguments = parser.parse_args()
    log.configure("warning", "text")
    # So that daemon, server and folders do not stay behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="spoold-bench-", dir=arguments.folder) as temporary:
        folder = Path(temporary).resolve()
        bench = Bench(
            folder,
            jobs=arguments.jobs or (1_000 if quick else 10_000),
            rounds=arguments.rounds or (1 if quick else 3),
            quick=quick,
        )
        for operation in arguments.operations or _OPERATIONS:
            getattr(bench, operation.replace("-", "_"))()
        print(table(_HEAD, bench.rows))
        print(f"\n{machine(folder)}")


if __name__ == "__main__":
    main()
