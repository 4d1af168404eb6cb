"""What the daemon can be asked about itself: health checks, and gauges read at every scrape."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from spoold import metrics
from spoold.config import Config
from spoold.errors import SpooldError
from spoold.health import Check
from spoold.intake.loop import Intake
from spoold.intake.settings import FoundBy, IntakeMetrics, WatchMode
from spoold.metrics import Sample
from spoold.postgres.horizon import Holder, holders
from spoold.queue.answers import Backlog
from spoold.queue.listen import Wakes
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.worker.supervisor import Supervisor

Answer = TypeVar("Answer")

_SCAN_OVERDUE_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 5.0  # with a database that does not answer


class Observer:
    """Looks at the parts of one daemon. Any thread may ask."""

    def __init__(
        self,
        tree: Spool,
        intake: Intake,
        supervisor: Supervisor,
        store: Store,
        config: Config,
        wakes: Wakes,
    ) -> None:
        self._tree = tree
        self._intake = intake
        self._supervisor = supervisor
        self._store = store
        self._config = config
        self._wakes = wakes
        self._asking = threading.Lock()
        self._began = time.time()

    def backlog(self) -> Sequence[Backlog] | None:
        """Unfinished jobs by state and action; None while the database is away."""
        return self._ask(self._store.backlog)

    def busy(self) -> bool | None:
        """Whether a job is on its way; None while the database is away."""
        return self._ask(self._store.busy)

    def holders(self) -> list[Holder]:
        """Whoever keeps dead rows from being removed; none while the database is away."""
        return self._ask(lambda: holders(self._store.database.connection)) or []

    def checks(self) -> list[Check]:
        """Every health check, made now."""
        intake = self._intake.metrics
        asked = self._config.intake.watch == "polling"
        away = self.busy() is None
        writable, why = self._writable()
        workers = self._supervisor.alive()
        age = time.time() - (intake.last_scan_at or self._began)
        late = not intake.standing_by and age > (
            _SCAN_OVERDUE_SECONDS + self._config.intake.rescan_seconds
        )
        scanning = f"{age:.0f} s ago" if intake.last_scan_at else "none yet"
        if intake.standing_by:
            scanning = "stands by for another daemon"
        fault = _inbox_fault(self._intake)
        return [
            Check("database", not away, "cannot be reached or written to" if away else "answers"),
            Check("spool", writable, why),
            Check(
                "intake",
                not (fault or late),
                fault or f"last scan: {scanning}",
            ),
            Check("workers", workers > 0, f"{workers} of {self._supervisor.count}"),
            # To poll is slower, but no fault: it finds the same.
            Check("watch", good=True, text=watching(intake, asked=asked), needed=False),
            Check("wakes", good=True, text=str(self._wakes), needed=False),
        ]

    def samples(self) -> Iterator[Sample]:
        """Every measure, taken now."""
        backlog = self.backlog()
        yield metrics.DATABASE_UP.sample(backlog is not None)
        for line in backlog or ():
            yield metrics.JOBS.sample(line.jobs, line.state, line.action or "none")
        oldest = max((line.oldest_seconds for line in backlog or ()), default=0.0)
        yield metrics.OLDEST_JOB.sample(oldest)
        # Where that had no answer, each further question is one more to wait for.
        running_now = [] if backlog is None else self._ask(self._store.running)
        for running in running_now or ():
            yield metrics.RUNNING_BYTES.sample(running.bytes, running.action)
            yield metrics.RUNNING_ROWS.sample(running.rows, running.action)
            yield metrics.RUNNING_ENTRIES.sample(running.entries, running.action)
            yield metrics.RUNNING_RATE.sample(running.bytes_per_second, running.action)
        holders = [] if backlog is None else self.holders()
        oldest = max((holder.seconds or 0.0 for holder in holders), default=0.0)
        yield metrics.OLDEST_TRANSACTION.sample(oldest)
        behind = max((holder.transactions for holder in holders), default=0)
        yield metrics.HORIZON.sample(behind)
        yield metrics.WORKERS.sample(self._supervisor.alive())
        intake = self._intake.metrics
        yield metrics.DROPS_FOUND.sample(intake.found_by_event, FoundBy.EVENT)
        yield metrics.DROPS_FOUND.sample(intake.found_by_scan, FoundBy.SCAN)
        for method, count in intake.methods.items():
            yield metrics.DROPS_COMPLETE.sample(count, method)
        yield metrics.DROPS_ADMITTED.sample(intake.admitted)
        yield metrics.DROPS_REJECTED.sample(intake.refused)
        for reason, count in intake.waiting.items():
            yield metrics.DROPS_WAITING.sample(count, reason)
        yield metrics.INBOX_STRAYS.sample(intake.strays)
        yield metrics.INBOX_UNFINISHED.sample(intake.unfinished)
        for mode in WatchMode:
            yield metrics.WATCH_MODE.sample(intake.mode is mode, mode)
        yield metrics.WATCH_OVERFLOWS.sample(intake.overflows)
        for wakes in Wakes:
            yield metrics.WAKE_MODE.sample(self._wakes is wakes, wakes)
        yield metrics.INTAKE_ERRORS.sample(intake.errors)
        yield metrics.SCAN_SECONDS.sample(intake.scan_seconds)
        yield metrics.LAST_SCAN.sample(intake.last_scan_at)

    def _ask(self, question: Callable[[], Answer]) -> Answer | None:
        if not self._asking.acquire(timeout=_PATIENCE_SECONDS):
            return None  # whoever asked before is still waiting
        try:
            # Twice: the connection of the last time may be one to a server that was restarted.
            for _ in range(2):
                with suppress(SpooldError):
                    self._store.require_writable()  # or nothing can go on, whatever it answers
                    return question()
        finally:
            self._asking.release()
        return None

    def _writable(self) -> tuple[bool, str]:
        probe = self._tree.folder(Folder.PRIVATE) / f".probe.{os.getpid()}"
        try:
            probe.write_bytes(b"x")
            probe.unlink(missing_ok=True)  # two may look at once
        except OSError as error:
            return False, f"{self._tree.root}: {error.strerror}"
        return True, "writable"


def _inbox_fault(intake: Intake) -> str:
    if intake.metrics.inbox_missing:
        return "the inbox cannot be read"
    if intake.metrics.inbox_foreign:
        return "something is mounted over the inbox"
    return "the last look at the inbox failed: see the log" if intake.report.failed else ""


def watching(intake: IntakeMetrics, *, asked: bool) -> str:
    """How drops are noticed, and why by polling; `asked`: it was asked for."""
    if intake.mode is WatchMode.POLLING:
        instead = "" if asked else " instead of events"
        look = f"a look takes {intake.scan_seconds:.3f} s"
        return f"{intake.mode}{instead}: {intake.mode_reason}; {look}"
    return str(intake.mode or "not yet")
