"""The daemon's maintenance: promote what is due, take back what is stuck, sweep what is left.

Every statement re-checks state and epoch, so that any number of daemons on one database may do
this at once. A job that ran out of time, or whose worker was silent for a lease, is first taken
back in its row; then the worker that still runs it is ended.
"""

import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable

import structlog

from spoold import errors, points
from spoold.errors import SpooldError
from spoold.queue.migrate import require_known
from spoold.queue.store import Store
from spoold.spool import Spool
from spoold.worker import processes, scratch
from spoold.worker.clock import Unbroken
from spoold.worker.settings import WorkerSettings

log = structlog.get_logger()

_ROUND_SECONDS = 1.0
_SWEEP_SECONDS = 60.0


class Maintenance:
    """One thread's work.

    `keep_database` starts the embedded server again if it has died; `kill` ends a worker of this
    daemon, and ignores the others.
    """

    def __init__(
        self,
        tree: Spool,
        store: Store,
        settings: WorkerSettings,
        keep_database: Callable[[], None],
        kill: Callable[[uuid.UUID], None],
    ) -> None:
        self._tree = tree
        self._store = store
        self._settings = settings
        self._keep_database = keep_database
        self._kill = kill
        self._dead: queue.SimpleQueue[tuple[uuid.UUID, uuid.UUID | None]] = queue.SimpleQueue()
        self._causes: dict[uuid.UUID, SpooldError] = {}
        self._buried: list[uuid.UUID] = []  # signed off, their jobs perhaps not taken back yet
        self._swept = -_SWEEP_SECONDS
        self._awake = threading.Event()
        self._unbroken = Unbroken(time.time(), time.monotonic())

    def bury(self, worker: uuid.UUID, status: int, job: uuid.UUID | None) -> None:
        """Take note that a worker of this daemon has died: its jobs need not wait for the lease.

        `status` is its exit status, negative where a signal ended it; `job` the one that it has
        begun last.
        """
        self._causes[worker] = _cause(status, self._settings)
        self._dead.put((worker, job))
        self._awake.set()

    def wake(self) -> None:
        """Do a round now, or see that it is time to stop."""
        self._awake.set()

    def run(self, stop: threading.Event) -> None:
        """Until stopped. A database that is away is waited for.

        Raises schema-newer: this daemon has no more business there.
        """
        failing: errors.Code | None = None  # in what way: told once, not every second
        forgotten = False
        while not stop.is_set():
            self._keep_database()
            try:
                if not forgotten:
                    self._forget_dead_of_this_place()
                    forgotten = True
                require_known(self._store.database)  # before any statement that it may not fit
                self.round()
                if failing is errors.DATABASE_AWAY:
                    log.info("database.back")
                failing = None
            except (SpooldError, OSError) as error:
                failure = errors.of_failure(error)
                if failure.code is errors.SCHEMA_NEWER:
                    raise
                if failing is not failure.code:
                    log.error("maintenance.failed", error=str(failure), fix=failure.hint)
                failing = failure.code
            self._awake.wait(_ROUND_SECONDS)
            self._awake.clear()

    def round(self) -> None:
        """Promote, rescue, and once a minute sweep."""
        self._leave_dead()
        self._store.promote()
        settings = self._settings
        watched = self._unbroken.seconds(time.time(), time.monotonic())
        taken_back = self._store.rescue(
            settings.lease_seconds, settings.retry, self._causes, watched
        )
        while self._buried:
            self._causes.pop(self._buried.pop())
        for rescued in taken_back:
            log.warning("job.rescued", job=str(rescued.id), epoch=rescued.epoch, code=rescued.code)
            if rescued.code == errors.TIMEOUT.name:
                # What else the worker holds is not at fault: no attempt of it counts.
                self._store.disown(rescued.worker)
            # Where it is not dead it is stopped, or busy in code that lets no other thread run: it
            # would never end itself, and its place would stay empty.
            self._kill(rescued.worker)
        if time.monotonic() - self._swept >= _SWEEP_SECONDS:
            self._swept = time.monotonic()
            if removed := scratch.sweep(self._tree, self._store):
                log.info("scratch.swept", folders=removed)

    def _leave_dead(self) -> None:
        while not self._dead.empty():
            worker, job = self._dead.get()
            try:
                # What it had finished, or had claimed and not begun, has not killed it: no attempt
                # of that counts.
                self._leave(worker, scratch.begun(self._tree, self._store) & {job})
            except (SpooldError, OSError):
                self._dead.put((worker, job))
                raise
            self._buried.append(worker)

    def _leave(self, worker: uuid.UUID, begun: set[uuid.UUID]) -> None:
        self._store.disown(worker, begun)
        points.reached("disown")
        self._store.leave(worker)
        points.reached("leave")

    def _forget_dead_of_this_place(self) -> None:
        """Workers of a daemon that was killed: their processes are gone, their rows are not."""
        place = processes.here()
        for worker in self._store.workers():
            if worker.place == place and not processes.is_worker(worker.pid):
                self._leave(worker.id, scratch.begun(self._tree, self._store))


def _cause(status: int, settings: WorkerSettings) -> SpooldError:
    """Why a worker's attempt has failed, as far as its exit status tells."""
    if status == -signal.SIGXCPU and settings.cpu_seconds:
        most = f"{settings.cpu_seconds:,} s"
        return SpooldError(errors.CPU_LIMIT, f"the attempt used more processor time than {most}")
    how = f"exit status {status}"
    if status < 0:
        names = {number.value: number.name for number in signal.Signals}
        how = names.get(-status, f"signal {-status}")
    return SpooldError(errors.WORKER_LOST, f"{errors.WORKER_LOST.sentence}: {how}")
