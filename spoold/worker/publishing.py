"""The worker's publishing thread: what attempts made ready is published together.

While one batch is committed and fsynced the main thread makes the next one: under load many small
jobs share each commit, and alone a job waits for nobody.

Crash: what is ready but not recorded is begun again, what is recorded is taken over by a claim.
"""

import queue
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from spoold import points
from spoold.canonical import error_document
from spoold.errors import SpooldError
from spoold.publish import Publisher, Ready
from spoold.queue.job import State
from spoold.queue.patience import patiently
from spoold.queue.store import Store
from spoold.spool import Spool
from spoold.worker import scratch
from spoold.worker.attempt import Became
from spoold.worker.live import LiveStatus

_log = structlog.get_logger()

MOST_AT_ONCE: Final = 64
_AGAIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a job that was to be published."""

    ready: Ready
    started: float
    """When its attempt began, on the monotonic clock."""
    became: Became


class Publishing:
    """A thread and its queue. `on_finished` is called in that thread, `on_crash` at its death."""

    def __init__(
        self,
        tree: Spool,
        store: Store,
        publisher: Publisher,
        live: LiveStatus,
        on_finished: Callable[[Finished], None],
        on_crash: Callable[[], None],
    ) -> None:
        self._tree = tree
        self._store = store
        self._publisher = publisher
        self._live = live
        self._on_finished = on_finished
        self._on_crash = on_crash
        self._queue: queue.Queue[tuple[Ready, float] | None] = queue.Queue(MOST_AT_ONCE)
        self._in_hand: set[uuid.UUID] = set()  # each operation on it is one step of the interpreter
        self._thread = threading.Thread(target=self._run, name="publishing", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def put(self, ready: Ready, started: float) -> None:
        """Have a job published soon; waits where the disk cannot keep up with the work."""
        self._in_hand.add(ready.claim.id)
        self._queue.put((ready, started))

    def in_hand(self) -> frozenset[uuid.UUID]:
        """The jobs that are waiting here or being published."""
        return frozenset(self._in_hand.copy())

    def finish(self) -> None:
        """Publish what is waiting, then end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                waiting = [self._queue.get()]
                while len(waiting) < MOST_AT_ONCE and not self._queue.empty():
                    waiting.append(self._queue.get_nowait())
                batch = [one for one in waiting if one is not None]
                if batch:
                    self._publish(batch)
                if len(batch) < len(waiting):
                    return
        except SpooldError as error:  # tables that are gone, say
            _log.error("publish.crashed", error=str(error), fix=error.hint)
            self._on_crash()
        except Exception:  # noqa: BLE001  # a worker that publishes nothing must not go on
            _log.exception("publish.crashed")
            self._on_crash()

    def _publish(self, batch: list[tuple[Ready, float]]) -> None:
        try:
            self._publisher.publish([ready for ready, _ in batch])
        except SpooldError as error:  # the database has refused what it never refuses
            for ready, _ in batch:
                ready.error = ready.error or error
        for ready, started in batch:
            became = self._end(ready)
            self._in_hand.discard(ready.claim.id)
            self._on_finished(Finished(ready, started, became))

    def _end(self, ready: Ready) -> Became:
        if ready.error is not None and not ready.published:
            return self._again(ready, ready.error)
        if ready.published:
            scratch.end(self._tree, ready.scratch)
            return Became.PUBLISHED
        scratch.leave(self._tree, self._store, ready.claim)
        return Became.LOST

    def _again(self, ready: Ready, error: SpooldError) -> Became:
        """Try again later, for ever: by then it may be somebody else who does."""
        job, claim = ready.claim.job, ready.claim
        _log.error("publish.failed", job=str(job.id), error=str(error), fix=error.hint)
        document = error_document(error)
        when = datetime.now(UTC) + timedelta(seconds=_AGAIN_SECONDS)
        held = patiently(self._store.holds, claim)
        if ready.publication is not None or job.state is State.PUBLISHING:
            if held and not ready.answered:
                self._live.deferred(job, ready.scratch, error, when)
            deferred = patiently(self._store.defer_publishing, claim, _AGAIN_SECONDS, document)
            points.reached("defer")
            return Became.DEFERRED if deferred else Became.LOST
        # Nothing is recorded yet: the attempt is made again, and not counted.
        if held:
            self._live.scheduled(job, ready.scratch, error, when)
        # Removed only once the row says so: a commit whose answer was lost may have recorded it.
        if not patiently(self._store.postpone, claim, document, _AGAIN_SECONDS):
            scratch.leave(self._tree, self._store, claim)
            return Became.LOST
        scratch.end(self._tree, ready.scratch)
        return Became.POSTPONED
