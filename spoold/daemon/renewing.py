"""Keeps `status/.spoold.json` fresh while this daemon's intake is the spool's one.

The main thread writes; another asks the database, so that one that hangs is told of instead of
looking like the end of the daemon.

Guarantees: a reader sees the whole of one document; the last one of a daemon that ended in order,
and whose place nobody has taken, says `stopped`.
Crash: the document stays as it is, and expires. `claimed/.daemon.tmp` may stay; it is overwritten.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from spoold import errors
from spoold.daemon.observe import Observer
from spoold.daemon_status import NAME, DaemonState, DaemonStatus, InboxStatus, LastError
from spoold.disk import replace_content
from spoold.errors import CODES, Code
from spoold.file_lock import FileLock
from spoold.intake.loop import Intake
from spoold.queue.answers import Backlog
from spoold.spool import Folder, Spool
from spoold.status import Host
from spoold.trust import Signer, sign_document
from spoold.worker.supervisor import Supervisor

_COUNTS_FOR = 3  # renewals

events = structlog.get_logger()


class Renewer:
    """Makes and signs the document. `ask` has a thread of its own, the rest is one thread's."""

    def __init__(
        self,
        tree: Spool,
        host: Host,
        signer: Signer,
        intake: Intake,
        supervisor: Supervisor,
        observer: Observer,
        seconds: float,
    ) -> None:
        self._tree = tree
        self._spool = tree.identity().spool
        self._host = host
        self._signer = signer
        self._intake = intake
        self._supervisor = supervisor
        self._observer = observer
        self._seconds = seconds
        self._started_at = _now()
        self._due = 0.0
        self._failing = False
        self._last_error: LastError | None = None
        # What the asking thread found: replaced, never changed.
        self._answer: Sequence[Backlog] | None = None
        self._answered_at = self._started_at
        self._away_since: datetime | None = None

    def ask(self, stop: threading.Event) -> None:
        """The body of the asking thread."""
        while True:
            answer = self._observer.backlog()
            if answer is None and self._away_since is None:
                self._away_since = _now()
                self.note(errors.DATABASE_AWAY)
            elif answer is not None:
                self._away_since = None
            self._answer, self._answered_at = answer, _now()
            if stop.wait(self._seconds):
                return

    def note(self, code: Code | str) -> None:
        """Remember an error as the last one. From any thread."""
        known = CODES.get(code) if isinstance(code, str) else code
        if known is not None:
            self._last_error = LastError.of(known, _now())

    def renew(self) -> float:
        """Write the document where that is due, and this daemon's to do.

        Returns in how many seconds it is due again.
        """
        now = time.monotonic()
        if now >= self._due and self._intake.takes_drops:
            self._due = now + self._seconds
            self._write(DaemonState.RUNNING, _COUNTS_FOR * self._seconds)
        return self._due - now if self._due > now else self._seconds

    def drain(self, seconds: float) -> None:
        """Say that no drop is taken any more; before the intake gives its lock to another daemon.

        It is not renewed again, and counts for as long as draining may take.
        """
        if self._intake.takes_drops:
            self._write(DaemonState.DRAINING, seconds + _COUNTS_FOR * self._seconds)

    def stop(self) -> None:
        """Say that the daemon has ended, unless another one has taken its place."""
        lock = FileLock(self._tree.intake_lock)
        try:
            if lock.acquire():
                self._write(DaemonState.STOPPED, 0)
        except OSError as error:
            events.warning("daemon.status_unwritten", error=str(error))
        finally:
            lock.release()

    def _write(self, state: DaemonState, counts_for_seconds: float) -> None:
        try:
            document = self._status(state, counts_for_seconds).document(self._host)
            replace_content(
                self._tree.folder(Folder.STATUS) / NAME,
                sign_document(document, self._signer),
                self._tree.folder(Folder.CLAIMED) / ".daemon.tmp",
            )
        except OSError as error:  # a full disk, say: the next one may succeed
            if not self._failing:
                events.warning("daemon.status_unwritten", error=str(error))
            self._failing = True
        else:
            self._failing = False

    def _status(self, state: DaemonState, counts_for_seconds: float) -> DaemonStatus:
        now = _now()
        backlog, away = self._answer, self._away_since
        if now - self._answered_at > timedelta(seconds=_COUNTS_FOR * self._seconds):
            backlog, away = None, away or self._answered_at  # the question hangs
        intake = self._intake.metrics
        jobs: Counter[str] = Counter()
        for line in backlog or ():
            jobs[line.state.value] += line.jobs
        told = [error for error in (self._last_error, intake.last_error) if error is not None]
        waits: list[float] = [] if backlog is None else [0.0]
        waits += [line.oldest_seconds for line in backlog or ()]
        if intake.waiting_since is not None:
            waits.append(time.monotonic() - intake.waiting_since)
        space = os.statvfs(self._tree.root)
        return DaemonStatus(
            state=state,
            spool=self._spool,
            pid=os.getpid(),
            started_at=self._started_at,
            renewed_at=now,
            expires_at=now + timedelta(seconds=counts_for_seconds),
            mode=None if intake.mode is None else intake.mode.value,
            inbox=InboxStatus(
                intake.inbox_missing,
                intake.waiting,
                intake.strays,
                intake.unfinished,
                datetime.fromtimestamp(intake.last_scan_at, UTC) if intake.last_scan_at else None,
            ),
            backlog=None if backlog is None else jobs,
            oldest_wait_seconds=int(max(waits)) if waits else None,
            workers_alive=self._supervisor.alive(),
            workers_configured=self._supervisor.count,
            database_away_since=away,
            last_error=max(told, key=lambda error: error.at, default=None),
            free_bytes=space.f_bavail * space.f_frsize,
        )


def _now() -> datetime:
    return datetime.now(UTC)
