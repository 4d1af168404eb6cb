"""The live status of a running attempt: written beside the work, never in its way.

The action reports how far it is; a ticking thread writes it. A status appears when an attempt is
a second old, so that small jobs cost nothing, and leaves scratch by path, so that a worker that
lost its lease writes none; before the first, the row is asked whether the lease still stands. Once
an attempt has stopped, nothing more is written: the next status is the final one.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from spoold import disk, points
from spoold.errors import SpooldError
from spoold.queue.job import Claim, Job, State
from spoold.spool import Folder, Spool
from spoold.status import Host, Progress, Status, status_name

TEMPORARY: Final = "live.tmp"
"""In scratch; stays where it could not be written whole."""

_FIRST_SECONDS = 1.0
_AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Attempt:
    claim: Claim
    scratch: Path
    started: float
    sure: bool = False
    """The claim was found to hold when the folder was there: who claims next moves it away."""
    written: float = 0.0
    shown: Progress | None = None


class LiveStatus:
    """What the running attempt of this worker shows."""

    def __init__(self, tree: Spool, host: Host) -> None:
        self._tree = tree
        self._host = host
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._last = Progress("start")

    @contextmanager
    def of(self, claim: Claim, scratch: Path) -> Iterator[None]:
        """While inside, `tick` shows this job as running."""
        self._last = Progress("start")
        with self._lock:
            self._attempt = _Attempt(claim, scratch, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                self._attempt = None

    def report(self, progress: Progress) -> None:
        """Take note of how far the attempt is; cheap enough to call for every entry."""
        self._last = progress

    def tick(self, holds: Callable[[Claim], bool]) -> None:
        """Write the status if it is due. Called by the worker's second thread."""
        attempt, now = self._attempt, time.monotonic()
        if attempt is None or now - attempt.started < _FIRST_SECONDS:
            return
        if now - attempt.written < _AGAIN_SECONDS or attempt.shown is self._last:
            return
        if not attempt.sure:
            with suppress(SpooldError):  # asked again at the next tick
                attempt.sure = holds(attempt.claim)
        with self._lock:
            if not attempt.sure or self._attempt is not attempt:
                return
            attempt.written, attempt.shown = now, self._last
            progress = self._last.document()
            status = replace(Status.of(attempt.claim.job, State.RUNNING), progress=progress)
            self._write(status, attempt.scratch)

    def scheduled(self, job: Job, scratch: Path, error: SpooldError, when: datetime) -> None:
        """Show that the attempt failed, why, and when the next one starts."""
        status = replace(Status.of(job, State.SCHEDULED), next_attempt_at=when).with_error(error)
        self._write(status, scratch)

    def deferred(self, job: Job, scratch: Path, error: SpooldError, when: datetime) -> None:
        """Show what stands in the way of publishing a decided job, and when that goes on."""
        status = replace(Status.of(job, State.PUBLISHING), next_attempt_at=when).with_error(error)
        self._write(status, scratch)

    def held_up(self, job: Job, scratch: Path) -> None:
        """Show that the job waits for another one that does the same."""
        status = replace(Status.of(job, State.SCHEDULED), reason="key-held")
        self._write(status, scratch)

    def progress(self) -> Progress:
        """How far the attempt has come."""
        return self._last

    def _write(self, status: Status, scratch: Path) -> None:
        target = self._tree.folder(Folder.STATUS) / os.fsdecode(status_name(status.drop))
        with suppress(OSError):  # the next one may succeed; the final one says what was wrong
            disk.replace_content(target, status.live(self._host), scratch / TEMPORARY)
            points.reached("live")
