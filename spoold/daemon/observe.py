"""What the daemon can be asked about itself: health checks, and gauges read at every scrape."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from spoold.config import Config
from spoold.errors import SpooldError
from spoold.health import Check
from spoold.intake.loop import Intake
from spoold.intake.settings import WatchMode
from spoold.metrics import Sample
from spoold.queue.job import Backlog
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.worker.supervisor import Supervisor

_SCAN_OVERDUE_SECONDS: Final = 60.0


class Observer:
    """Looks at the parts of one daemon. Any thread may ask."""

    def __init__(
        self, tree: Spool, intake: Intake, supervisor: Supervisor, store: Store, config: Config
    ) -> None:
        self._tree = tree
        self._intake = intake
        self._supervisor = supervisor
        self._store = store
        self._config = config
        self._asking = threading.Lock()

    def backlog(self) -> Sequence[Backlog] | None:
        """Unfinished jobs by state and action; None while the database is away."""
        with self._asking, suppress(SpooldError):
            return self._store.backlog()
        return None

    def checks(self) -> list[Check]:
        """Every health check, made now."""
        intake = self._intake.metrics
        away = self.backlog() is None
        writable, why = self._writable()
        workers = self._supervisor.alive()
        age = time.time() - intake.last_scan_at
        late = intake.last_scan_at > 0 and age > (
            _SCAN_OVERDUE_SECONDS + self._config.intake.rescan_seconds
        )
        scanning = "stands by for another daemon" if intake.standing_by else f"{age:.0f} s ago"
        return [
            Check("database", not away, "cannot be reached" if away else "answers"),
            Check("spool", writable, why),
            Check(
                "intake",
                not intake.inbox_missing and not late,
                "the inbox cannot be read" if intake.inbox_missing else f"last scan: {scanning}",
            ),
            Check("workers", workers > 0, f"{workers} of {self._supervisor.count}"),
            Check("watch", good=True, text=str(intake.mode or "not yet"), needed=False),
        ]

    def samples(self) -> Iterator[Sample]:
        """Every gauge, read now."""
        backlog = self.backlog()
        yield Sample("spoold_up_database", "Whether the database answers", backlog is not None, {})
        oldest = 0.0
        for line in backlog or ():
            labels = {"state": line.state.value, "action": line.action or "none"}
            yield Sample("spoold_jobs", "Unfinished jobs by state and action", line.jobs, labels)
            oldest = max(oldest, line.oldest_seconds)
        yield Sample(
            "spoold_oldest_job_seconds", "Since the oldest unfinished job was due", oldest, {}
        )
        workers = self._supervisor.alive()
        yield Sample("spoold_workers", "Worker processes that run", workers, {})
        intake = self._intake.metrics
        for found_by, count in (("event", intake.found_by_event), ("scan", intake.found_by_scan)):
            yield Sample(
                "spoold_drops_found",
                "Drops by what drew attention to them",
                count,
                {"found_by": found_by},
            )
        for reason, count in intake.waiting.items():
            yield Sample(
                "spoold_drops_waiting",
                "Drops in the inbox that wait, by reason",
                count,
                {"reason": reason},
            )
        for mode in WatchMode:
            yield Sample(
                "spoold_watch_mode",
                "How the inbox is watched",
                intake.mode is mode,
                {"mode": mode.value},
            )
        for name, help_, value in (
            ("spoold_drops_admitted", "Drops admitted since the start", intake.admitted),
            ("spoold_drops_rejected", "Of these, rejected at admission", intake.refused),
            ("spoold_inbox_strays", "Things in the inbox that are no drops", intake.strays),
            (
                "spoold_inbox_unfinished",
                "Files in the inbox still being written by name",
                intake.unfinished,
            ),
            (
                "spoold_last_scan_timestamp_seconds",
                "End of the last scan, Unix time",
                intake.last_scan_at,
            ),
        ):
            yield Sample(name, help_, value, {})

    def _writable(self) -> tuple[bool, str]:
        probe = self._tree.folder(Folder.PRIVATE) / f".probe.{os.getpid()}"
        try:
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            return False, f"{self._tree.root}: {error.strerror}"
        return True, "writable"
