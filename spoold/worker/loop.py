"""The worker process: claim jobs, run their attempts, again; and beat, so that nobody rescues it.

Three threads, a connection each. The main thread works, one attempt after the other. One publishes
what is ready. One beats the worker's row, writes live statuses, and ends the whole process group
when the running job has been taken away, because a cancel or a timeout must really stop the work,
whatever C code it is in.

Jobs that take milliseconds are claimed several at once. Should one of them take long after all, the
others are given back for somebody else.

Crash: the supervisor removes the worker's row, or its lease runs out; then its job is rescued and
the next claim renames its scratch away.
"""

import os
import random
import signal
import threading
import time
import uuid
from collections import deque
from contextlib import suppress
from typing import Final

import structlog

from spoold import __version__, errors, points
from spoold.errors import SpooldError
from spoold.publish import Ending, Publisher, Ready
from spoold.queue.database import Database
from spoold.queue.job import Claim, Job, State
from spoold.queue.listen import Channel, Listener
from spoold.queue.migrate import require_known
from spoold.queue.patience import patiently
from spoold.queue.store import Store
from spoold.worker.attempt import Attempt, Became, Site
from spoold.worker.lease import Lease
from spoold.worker.limits import processor_time
from spoold.worker.live import LiveStatus
from spoold.worker.pace import Pace
from spoold.worker.processes import here
from spoold.worker.published import Events, Published
from spoold.worker.publishing import MOST_AT_ONCE, Finished, Publishing
from spoold.worker.settings import WorkerSettings

log = structlog.get_logger()

_TICK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 0.5  # so long claimed jobs wait for the one before them
_GOOD: Final = frozenset({Became.PUBLISHED, Became.RETRIED, Became.WAITS})


class Worker:
    """One worker process's work on one spool."""

    def __init__(
        self,
        site: Site,
        settings: WorkerSettings,
        conninfo: str,
        events: Events,
        identity: uuid.UUID,
    ) -> None:
        self._site = site
        self._settings = settings
        self._conninfo = conninfo
        self._events = events
        self._id = identity
        self._spool = site.tree.identity().spool
        self._live = LiveStatus(site.tree, site.host)
        self._stopping = threading.Event()
        # A signal handler writes to it: what waits for work wakes up at once.
        self._woken, self._wake = os.pipe()
        self._ended = threading.Event()
        self._end_seen, self._end = os.pipe()  # the same, for the beating thread's select
        # The claim that the beating thread watches; None while nothing can be taken away.
        self._held: Claim | None = None
        self._held_since = 0.0
        self._lease = Lease(settings.lease_seconds, _now())
        self._lock = threading.Lock()  # of the jobs that are claimed and not begun
        self._waiting: deque[Claim] = deque()
        self._pace = Pace()
        # A claim whose answer was lost would be held and never worked on.
        self._in_doubt = False
        self._refusal: SpooldError | None = None

    def drain(self) -> None:
        """Finish the running attempt, then end. Safe to call from a signal handler."""
        self._stopping.set()
        os.write(self._wake, b"x")

    def run(self) -> None:
        """Work until drained. Raises schema-newer where that is why it ends."""
        store = self._store("spoold worker")
        patiently(lambda: store.register_worker(self._id, here(), os.getpid(), __version__))
        site, publishing_store = self._site, self._store("spoold publish")
        publishing = Publishing(
            site.tree,
            publishing_store,
            Publisher(site.tree, publishing_store, site.host, site.signer),
            self._live,
            self._published,
            end_group,
        )
        publishing.start()
        beating = threading.Thread(
            target=self._beat_for_ever, args=(publishing,), name="beat", daemon=True
        )
        beating.start()
        try:
            self._work(store, publishing)
            publishing.finish()
        finally:
            self._ended.set()
            os.write(self._end, b"x")
            beating.join()
            with suppress(SpooldError):
                store.disown(self._id)
                store.leave(self._id)
        if self._refusal is not None:
            raise self._refusal

    def _work(self, store: Store, publishing: Publishing) -> None:
        listener = Listener(self._conninfo, Channel.JOBS, self._spool)
        listener.wait(0)  # it listens before the first claim: nothing is called in between
        while not self._stopping.is_set():
            try:
                if self._in_doubt:
                    self._in_doubt = False
                    store.disown(self._id, publishing.in_hand())
                claims = [
                    *store.claim(self._id, self._pace.claim_at_once()),
                    *store.claim_publishing(self._id, MOST_AT_ONCE),
                ]
            except SpooldError as error:
                if error.code is not errors.DATABASE_AWAY:
                    raise
                self._in_doubt = True
                self._stopping.wait(self._pause())
                continue
            if claims:
                points.reached("claim")
            with self._lock:
                self._waiting.extend(claims)
            while not self._stopping.is_set() and (claim := self._next()) is not None:
                self._run(claim, store, publishing)
            if not claims:
                # NOTIFY is a hint, the pause is the truth.
                listener.wait(self._pause(), self._woken)
        self._give_back(store)
        listener.close()

    def _next(self) -> Claim | None:
        """The next claimed job, from now on the one that is watched."""
        with self._lock:
            claim = self._waiting.popleft() if self._waiting else None
            self._held, self._held_since = claim, time.monotonic()
            return claim

    def _run(self, claim: Claim, store: Store, publishing: Publishing) -> None:
        started = time.monotonic()
        self._events.working(claim.id)
        attempt = Attempt(claim, store, self._site, self._live, self._let_go, self._require_lease)
        try:
            with processor_time(self._settings.cpu_seconds):
                step = attempt.run()
        finally:
            self._let_go()
        if isinstance(step, Ready):
            publishing.put(step, started)
        else:
            self._log(claim.job, step, None, started)
        if claim.job.state is State.RUNNING:
            self._pace.took(time.monotonic() - started)

    def _published(self, finished: Finished) -> None:
        """Called in the publishing thread."""
        ready = finished.ready
        published = finished.became is Became.PUBLISHED
        seconds = self._log(
            ready.claim.job, finished.became, ready.ending if published else None, finished.started
        )
        if published:
            self._events.published(Published.of(ready.claim.job, ready.ending, seconds))

    @staticmethod
    def _log(job: Job, became: Became, ending: Ending | None, started: float) -> float:
        seconds = round(time.monotonic() - started, 3)
        level = log.info if became in _GOOD else log.warning
        level(
            "attempt.finished",
            job=str(job.id),
            attempt=job.attempt,
            drop=job.drop_name,
            action=job.action,
            became=str(became),
            state=str(ending.state) if ending else None,
            code=ending.error["code"] if ending and ending.error else None,
            seconds=seconds,
        )
        return seconds

    def _give_back(self, store: Store) -> None:
        """Give claimed jobs back that were not begun, their attempts not counted."""
        with self._lock:
            claims = list(self._waiting)
            self._waiting.clear()
        if not claims:
            return
        try:
            with store.transaction():
                for claim in claims:
                    if claim.job.state is State.RUNNING:
                        store.release(claim)
                    else:
                        store.defer_publishing(claim, 0.0)
        except SpooldError:  # they are still ours, for all we know
            with self._lock:
                self._waiting.extend(claims)
        points.reached("release")

    def _let_go(self) -> None:
        self._held = None

    def _require_lease(self) -> None:
        """Raise where it was last renewed two thirds of it ago: somebody may take the job over."""
        if not self._lease.safe(_now()):
            raise SpooldError(
                errors.DATABASE_AWAY,
                "the lease could not be renewed in time, so the work was stopped",
            )

    def _pause(self) -> float:
        return self._settings.poll_seconds * random.uniform(0.8, 1.2)  # noqa: S311  # jitter

    def _store(self, application: str) -> Store:
        database = Database(self._conninfo, application)
        return Store(database, self._spool, aging_seconds=self._settings.aging_seconds)

    # --- the second thread ------------------------------------------------------------------------

    def _beat_for_ever(self, publishing: Publishing) -> None:
        try:
            self._watch(publishing)
        except Exception:  # a worker that nobody can stop must not go on
            log.exception("beat.crashed")
            end_group()

    def _watch(self, publishing: Publishing) -> None:
        store = self._store("spoold beat")
        listener = Listener(self._conninfo, Channel.GONE, self._id)
        due = 0.0
        while not self._ended.is_set():
            self._live.tick(store.holds)
            if self._waiting and time.monotonic() - self._held_since > _PATIENCE_SECONDS:
                self._give_back(store)
            if listener.wait(_TICK_SECONDS, self._end_seen) or time.monotonic() >= due:
                due = time.monotonic() + self._settings.beat_seconds
                with suppress(SpooldError):  # away: attempts wait at their next guarded write
                    self._beat(store, publishing)
        listener.close()

    def _beat(self, store: Store, publishing: Publishing) -> None:
        held = self._held
        with self._lock:
            waiting = list(self._waiting)
        self._end_if_outdated(store)
        began = _now()
        standing = store.beat(self._id)
        self._lease.renewed(began)
        if standing is None:
            log.error("worker.forgotten", worker=str(self._id))
            end_group()
            return
        if held is not None and (held.id, held.epoch) not in standing and self._still_held(held):
            log.warning("attempt.taken-away", job=str(held.id), attempt=held.job.attempt)
            with suppress(SpooldError):  # the others are not at fault: no attempt of theirs counts
                store.disown(self._id)
            end_group()
        for claim in waiting:
            if (claim.id, claim.epoch) not in standing:
                self._strike(claim)
        # A server that froze may commit a claim long after we have given it up.
        known = {claim.id for claim in waiting} | publishing.in_hand()
        if held is not None:
            known.add(held.id)
        if not known.issuperset(job for job, _ in standing):
            self._in_doubt = True
        if held is not None and held is self._held:
            store.progress(held, self._live.progress().document())
            points.reached("progress")

    def _end_if_outdated(self, store: Store) -> None:
        """Drain where a newer spoold has taken the tables over; one without a daemon, too."""
        try:
            require_known(store.database)
        except SpooldError as error:
            if error.code is not errors.SCHEMA_NEWER:
                raise
            if self._refusal is None:
                log.error("worker.outdated", error=str(error), fix=error.hint)
                self._refusal = error
                self.drain()

    def _strike(self, claim: Claim) -> None:
        """Forget a claimed job that is somebody else's by now."""
        with self._lock, suppress(ValueError):
            self._waiting.remove(claim)

    def _still_held(self, claim: Claim) -> bool:
        """Whether the main thread still works on it: it may have finished as we asked."""
        self._ended.wait(_TICK_SECONDS / 4)
        return self._held is claim


def _now() -> float:
    """Seconds that go on while the machine sleeps, as the database's do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def end_group() -> None:
    """End this worker and all that it started, at once."""
    os.killpg(os.getpgrp(), signal.SIGKILL)
