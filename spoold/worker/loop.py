"""The worker process: claim a job, run one attempt, again; and beat, so that nobody rescues it.

Two threads, two connections. The main thread works. The other one beats the worker's row, writes
live statuses, and ends the whole process group when the running job has been taken away, because
a cancel or a timeout must really stop the work, whatever C code it is in.

Crash: the supervisor removes the worker's row, or its lease runs out; then its job is rescued and
the next claim renames its scratch away.
"""

import os
import random
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from spoold import __version__, errors
from spoold.errors import SpooldError
from spoold.queue.database import Database
from spoold.queue.job import Claim
from spoold.queue.listen import Channel, Listener
from spoold.queue.patience import patiently
from spoold.queue.store import Store
from spoold.worker.attempt import Attempt, Became, Site
from spoold.worker.live import LiveStatus
from spoold.worker.published import Published
from spoold.worker.settings import WorkerSettings

log = structlog.get_logger()

_TICK_SECONDS: Final = 0.5


class Worker:
    """One worker process's work on one spool."""

    def __init__(
        self,
        site: Site,
        settings: WorkerSettings,
        conninfo: str,
        tell: Callable[[Published], None],
        identity: uuid.UUID,
    ) -> None:
        self._site = site
        self._settings = settings
        self._conninfo = conninfo
        self._tell = tell
        self._id = identity
        self._spool = site.tree.identity().spool
        self._live = LiveStatus(site.tree, site.host)
        self._stopping = threading.Event()
        # A signal handler writes to it: what waits for work wakes up at once.
        self._woken, self._wake = os.pipe()
        self._ended = threading.Event()
        # The claim that the beating thread watches; None while nothing can be taken away.
        self._held: Claim | None = None

    def drain(self) -> None:
        """Finish the running attempt, then end. Safe to call from a signal handler."""
        self._stopping.set()
        os.write(self._wake, b"x")

    def run(self) -> None:
        """Work until drained."""
        store = self._store("spoold worker")
        patiently(
            lambda: store.register_worker(self._id, socket.gethostname(), os.getpid(), __version__)
        )
        beating = threading.Thread(target=self._beat_for_ever, name="beat", daemon=True)
        beating.start()
        try:
            self._work(store)
        finally:
            self._ended.set()
            beating.join()
            with suppress(SpooldError):
                store.disown(self._id)
                store.leave(self._id)

    def _work(self, store: Store) -> None:
        listener = Listener(self._conninfo, Channel.JOBS, self._spool)
        in_doubt = False
        while not self._stopping.is_set():
            try:
                if in_doubt:  # a claim whose answer was lost would be held and never worked on
                    store.disown(self._id)
                    in_doubt = False
                claims = store.claim(self._id) or store.claim_publishing(self._id)
            except SpooldError as error:
                if error.code is not errors.DATABASE_AWAY:
                    raise
                in_doubt = True
                self._stopping.wait(self._pause())
                continue
            for claim in claims:
                self._run(claim, store)
            if not claims:
                # NOTIFY is a hint, the pause is the truth.
                listener.wait(self._pause(), self._woken)
        listener.close()

    def _run(self, claim: Claim, store: Store) -> None:
        started = time.monotonic()
        self._held = claim
        try:
            attempt = Attempt(claim, store, self._site, self._live, self._let_go)
            became, ending = attempt.run()
        finally:
            self._let_go()
        seconds = round(time.monotonic() - started, 3)
        job = claim.job
        level = log.warning if became in {Became.LOST, Became.DEFERRED} else log.info
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
        if became is Became.PUBLISHED and ending is not None:
            self._tell(Published.of(job, ending, seconds))

    def _let_go(self) -> None:
        self._held = None

    def _pause(self) -> float:
        return self._settings.poll_seconds * random.uniform(0.8, 1.2)  # noqa: S311  # jitter

    def _store(self, application: str) -> Store:
        database = Database(self._conninfo, application)
        return Store(database, self._spool, aging_seconds=self._settings.aging_seconds)

    # --- the second thread ------------------------------------------------------------------------

    def _beat_for_ever(self) -> None:
        store = self._store("spoold beat")
        listener = Listener(self._conninfo, Channel.GONE, self._id)
        due = 0.0
        while not self._ended.is_set():
            self._live.tick()
            if listener.wait(_TICK_SECONDS) or time.monotonic() >= due:
                due = time.monotonic() + self._settings.beat_seconds
                with suppress(SpooldError):  # away: attempts wait at their next guarded write
                    self._beat(store)
        listener.close()

    def _beat(self, store: Store) -> None:
        held = self._held
        standing = store.beat(self._id)
        if standing is None:
            log.error("worker.forgotten", worker=str(self._id))
            end_group()
            return
        if held is not None and (held.id, held.epoch) not in standing and self._still_held(held):
            log.warning("attempt.taken-away", job=str(held.id), attempt=held.job.attempt)
            end_group()
        if held is not None and held is self._held:
            store.progress(held, self._live.progress().document())

    def _still_held(self, claim: Claim) -> bool:
        """Whether the main thread still works on it: it may have finished as we asked."""
        self._ended.wait(_TICK_SECONDS / 4)
        return self._held is claim


def end_group() -> None:
    """End this worker and all that it started, at once."""
    os.killpg(os.getpgrp(), signal.SIGKILL)
