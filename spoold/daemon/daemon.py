"""One spool's daemon: its threads and workers, started, watched and ended in order.

The main thread supervises the worker processes; intake, maintenance and HTTP have a thread each.
The first SIGTERM or SIGINT drains: no drop is claimed any more, running attempts get
`drain_seconds`, the rest is given back. A second one stops now.
"""

import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from spoold import __version__, errors
from spoold.actions import MODELS
from spoold.config import Config
from spoold.daemon.backend import Backend
from spoold.daemon.notify import notify
from spoold.daemon.observe import Observer
from spoold.daemon.once import Once
from spoold.daemon.renewing import Renewer
from spoold.daemon.retaining import Retaining
from spoold.daemon.wiring import intake_settings, retention_settings, worker_settings
from spoold.errors import Exit, SpooldError
from spoold.health import HealthServer
from spoold.intake.loop import Intake
from spoold.metrics import Metrics
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.patience import patiently
from spoold.queue.placed import Hold
from spoold.queue.store import Store
from spoold.retention import Round
from spoold.spool import Spool
from spoold.status import Host
from spoold.trust import load_signer
from spoold.worker.maintenance import Maintenance
from spoold.worker.published import Published
from spoold.worker.recovery import recover
from spoold.worker.supervisor import Supervisor

events = structlog.get_logger()

_ROUND_SECONDS: Final = 1.0
_GIVE_BACK_SECONDS: Final = 10.0


class Daemon:
    """The running parts of one daemon."""

    def __init__(self, config: Config, tree: Spool, backend: Backend) -> None:
        self._config = config
        self._tree = tree
        self._settings = worker_settings(config)
        self._backend = backend
        self._spool = tree.identity().spool
        self._stop = threading.Event()
        self._failed = threading.Event()
        self._refusal: SpooldError | None = None
        self._intake = Intake(
            tree,
            self._store("spoold intake"),
            intake_settings(config),
            MODELS,
        )
        self._supervisor = Supervisor(
            command=[sys.executable, "-m", "spoold", "worker", str(tree.root)],
            count=self._settings.count,
            environment={**os.environ, **config.child_environment()},
            on_published=self._count,
            on_death=self._died,
        )
        self._to_kill: list[uuid.UUID] = []
        self._maintenance = Maintenance(
            tree,
            self._store("spoold maintenance"),
            self._settings,
            backend.keep_alive,
            self._to_kill.append,
        )
        self._retaining = Retaining(
            tree,
            self._store("spoold retention"),
            retention_settings(config),
            config.connections,
            self._retained,
        )
        self._own = self._store("spoold run")
        self._observer = Observer(
            tree,
            self._intake,
            self._supervisor,
            self._store("spoold health"),
            config,
            backend.wakes,
        )
        self._metrics = Metrics(self._observer.samples)
        self._renewer = Renewer(
            tree,
            Host(config.site, socket.gethostname()),
            load_signer(config.signing_key, config.site),
            self._intake,
            self._supervisor,
            self._observer,
            config.intake.renew_seconds,
        )

    def run(self, *, once: bool) -> Exit:
        """Start everything, wait for the end, end everything.

        Raises schema-newer where that is why it ends.
        """
        # Before there are handlers: no signal is looked at meanwhile, so let it end the process.
        began = patiently(self._catch_up)
        signals = self._signals()
        server = None
        if address := self._config.http.address():
            server = HealthServer(address, self._metrics, self._observer.checks)
            server.start()
        threads = [
            self._thread("intake", self._intake.run),
            self._thread("maintenance", self._maintenance.run),
            self._thread("retention", self._retaining.run),
            self._thread("status", self._renewer.ask),
        ]
        try:
            self._supervisor.start()
            events.info(
                "daemon.started",
                spool=str(self._tree.root),
                site=self._config.site,
                version=__version__,
                workers=self._settings.count,
            )
            notify("READY=1")
            self._work(signals, Once(self._intake) if once else None)
        finally:
            notify("STOPPING=1")
            events.info("daemon.draining", seconds=self._settings.drain_seconds)
            self._renewer.drain(self._settings.drain_seconds)
            self._stop.set()
            self._intake.wake()
            self._maintenance.wake()
            self._supervisor.drain()
            # The first signal began the draining, and a second one may have come since.
            patience = 1 if signals else 0
            until = time.monotonic() + self._settings.drain_seconds
            hanging = _join(threads, lambda: len(signals) > patience or time.monotonic() >= until)
            self._drain(signals, patience, until)
            if server is not None:
                server.stop()
            self._renewer.stop()
        events.info("daemon.stopped")
        if self._refusal is not None:
            raise self._refusal
        if self._failed.is_set():
            return Exit.FAILED
        if hanging:  # the database, which would not answer here either
            events.warning("daemon.left-hanging", parts=hanging)
            return Exit.LEFT_FOR_LATER if once else Exit.DONE
        return self._verdict(began) if once else Exit.DONE

    def _catch_up(self) -> datetime:
        """Bring the rows up to what the tree knows; returns the database's time of before."""
        self._backend.keep_alive()  # as maintenance does later
        began = self._own.now()
        recover(self._tree, self._own, load_signer(self._config.signing_key, self._config.site))
        return began

    # --- the main thread ----------------------------------------------------------------------

    def _work(self, signals: Sequence[int], once: Once | None) -> None:
        """Supervise until a signal, the failure of a part, or the end of the work."""
        while not (signals or self._failed.is_set()):
            round_seconds = _ROUND_SECONDS if once is None else _ROUND_SECONDS / 10
            self._supervisor.wait(min(round_seconds, self._renewer.renew()))
            while self._to_kill:
                self._supervisor.kill(self._to_kill.pop())
            notify("WATCHDOG=1")
            if once is not None and once.is_done(self._observer.busy()):
                return

    def _signals(self) -> list[int]:
        """The stop signals received so far; each one wakes the main thread."""
        received: list[int] = []
        reading, writing = os.pipe()
        for descriptor in (reading, writing):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda got, _: received.append(got))
        self._supervisor.watch(reading, lambda: _empty(reading))
        return received

    def _drain(self, signals: Sequence[int], patience: int, until: float) -> None:
        """Let running attempts finish until then, or until there are more signals than that.

        What is still running then is given back.
        """
        while self._supervisor.alive() and time.monotonic() < until and len(signals) <= patience:
            self._supervisor.wait(_ROUND_SECONDS / 4)
        killed = self._supervisor.identities()
        self._supervisor.kill()
        until = time.monotonic() + _GIVE_BACK_SECONDS  # what waits for a dead disk cannot be killed
        while self._supervisor.alive() and time.monotonic() < until:
            self._supervisor.wait(_ROUND_SECONDS)
        # A database that hangs is not waited for; as where it is away, they are rescued later.
        giving = threading.Thread(target=self._give_back, args=(killed,), daemon=True)
        giving.start()
        giving.join(_GIVE_BACK_SECONDS)

    def _give_back(self, killed: Sequence[uuid.UUID]) -> None:
        for worker in killed:
            with suppress(SpooldError):  # then it is rescued later, and the attempt counts
                given_back = self._own.disown(worker)
                self._own.leave(worker)
                events.info("worker.stopped", worker=str(worker), given_back=given_back)

    def _died(self, worker: uuid.UUID, status: int, job: uuid.UUID | None) -> None:
        if not self._stop.is_set():
            self._maintenance.bury(worker, status, job)

    def _verdict(self, began: datetime) -> Exit:
        ended = self._own.ended_since(began)
        if ended.keys() & {State.FAILED, State.REJECTED, State.CANCELLED}:
            return Exit.FAILED
        report, metrics = self._intake.report, self._intake.metrics
        unseen = metrics.inbox_missing or report.failed
        left = unseen or report.waiting or report.name_busy or self._own.unfinished()
        return Exit.LEFT_FOR_LATER if left else Exit.DONE

    def _thread(self, name: str, target: Callable[[threading.Event], None]) -> threading.Thread:
        """Start a part in its own thread; if it fails, the daemon ends instead of limping on."""

        def body() -> None:
            try:
                target(self._stop)
            except SpooldError as refusal:  # told once more at the end, with its exit status
                events.error("daemon.part-refused", part=name, error=str(refusal), fix=refusal.hint)
                self._renewer.note(refusal.code)
                self._refusal = refusal
                self._failed.set()
            except Exception:  # noqa: BLE001  # whatever it is, it must not end in silence
                events.exception("daemon.part-failed", part=name)
                self._renewer.note(errors.INTERNAL)
                self._failed.set()

        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
        return thread

    def _store(self, application: str) -> Store:
        database = Database(self._backend.conninfo, application)
        return Store(database, self._spool, aging_seconds=self._settings.aging_seconds)

    # --- what is measured ---------------------------------------------------------------------

    def _retained(self, done: Round) -> None:
        """Take a round of retention into the metrics."""
        for area, count in done.removed.files.items():
            self._metrics.removed.labels(area).inc(count)
        self._metrics.removed_bytes.inc(done.removed.bytes)
        self._metrics.pruned.inc(done.rows)
        for reason in Hold:
            self._metrics.held.labels(reason).set(done.held[reason])

    def _count(self, published: Published) -> None:
        """Take a job that got its final status into the metrics."""
        action = published.action
        self._metrics.finished.labels(action, published.state).inc()
        self._metrics.attempt_seconds.labels(action).observe(published.seconds)
        if published.code is not None:
            self._metrics.errors.labels(published.code).inc()
            self._renewer.note(published.code)
        if published.state is State.SUCCEEDED:
            self._metrics.last_success.set_to_current_time()
            if published.bundle_bytes is not None:
                self._metrics.bundle_bytes.labels(action).observe(published.bundle_bytes)


def _join(threads: Sequence[threading.Thread], no_more: Callable[[], bool]) -> list[str]:
    """Wait for threads, as long as one may; the names of those that still run."""
    for thread in threads:
        while thread.is_alive() and not no_more():
            thread.join(_ROUND_SECONDS / 4)
    return [thread.name for thread in threads if thread.is_alive()]


def _empty(pipe: int) -> None:
    os.read(pipe, 512)
