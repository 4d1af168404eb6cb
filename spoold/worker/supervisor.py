"""The worker processes of one daemon: started, restarted with back-off, drained, never left over.

Each worker has a process group of its own, a lifeline (a pipe whose end of file tells it that the
supervisor is gone) and an event pipe, on which it writes what it begins and what it has published.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from spoold.worker.loop import end_group
from spoold.worker.published import WORKING, Events, Published

log = structlog.get_logger()

ID_VARIABLE: Final = "SPOOLD_WORKER_ID"
LIFELINE_VARIABLE: Final = "SPOOLD_WORKER_LIFELINE"
EVENTS_VARIABLE: Final = "SPOOLD_WORKER_EVENTS"

_PR_SET_PDEATHSIG = 1
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0  # a worker that lived so long begins its back-off anew


@dataclass(slots=True)
class _Child:
    identity: uuid.UUID
    process: subprocess.Popen[bytes]
    pidfd: int
    lifeline: int
    events: int
    started: float
    job: uuid.UUID | None = None
    """Whose attempt it has begun last."""
    unread: bytes = b""


@dataclass(slots=True)
class _Place:
    """One of the `count` places for a worker; `due` is when an empty one is filled again."""

    child: _Child | None = None
    due: float = 0.0
    pause: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Keeps `count` workers running. To be used by one thread, the one that lives longest.

    PR_SET_PDEATHSIG, which backs the lifeline, is tied to the thread that started the worker.
    """

    command: Sequence[str]
    count: int
    environment: Mapping[str, str]
    on_published: Callable[[Published], None]
    on_death: Callable[[uuid.UUID, int, uuid.UUID | None], None]
    """Given a worker, its exit status, negative where a signal ended it, and its last job."""
    _places: list[_Place] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _draining: bool = False

    def start(self) -> None:
        """Start all workers."""
        self._places = [_Place() for _ in range(self.count)]
        self._fill()

    def alive(self) -> int:
        """How many workers run at the moment."""
        return sum(place.child is not None for place in self._places)

    def wait(self, seconds: float) -> None:
        """Take events and deaths as they come, for at most this long; restart what has died."""
        due = [place.due - time.monotonic() for place in self._places if place.child is None]
        if due and not self._draining:
            seconds = min(seconds, max(0.0, min(due)))
        for key, _ in self._selector.select(seconds):
            key.data()
        if not self._draining:
            self._fill()

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call back from `wait` when a descriptor of the caller's becomes readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def drain(self) -> None:
        """Ask every worker to end after its running attempt; start no new one."""
        self._draining = True
        for child in self._children():
            with suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)

    def kill(self, worker: uuid.UUID | None = None) -> None:
        """End one worker, or all, with everything that they started."""
        for child in self._children():
            if worker in {None, child.identity}:
                with suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)

    def identities(self) -> list[uuid.UUID]:
        """The running workers."""
        return [child.identity for child in self._children()]

    def _children(self) -> list[_Child]:
        return [place.child for place in self._places if place.child is not None]

    def _fill(self) -> None:
        for place in self._places:
            if place.child is None and time.monotonic() >= place.due:
                try:
                    place.child = self._spawn(place)
                except OSError as error:  # of descriptors or memory there may be more later
                    log.error("worker.not-started", error=str(error))
                    self._back_off(place)

    def _spawn(self, place: _Place) -> _Child:
        identity = uuid.uuid4()
        with ExitStack() as theirs, ExitStack() as ours:
            lifeline_read, lifeline_write = os.pipe()
            theirs.callback(os.close, lifeline_read)
            ours.callback(os.close, lifeline_write)
            events_read, events_write = os.pipe()
            theirs.callback(os.close, events_write)
            ours.callback(os.close, events_read)
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                pass_fds=(lifeline_read, events_write),
                start_new_session=True,
                env={
                    **self.environment,
                    ID_VARIABLE: str(identity),
                    LIFELINE_VARIABLE: str(lifeline_read),
                    EVENTS_VARIABLE: str(events_write),
                },
            )
            ours.callback(process.wait)
            ours.callback(process.kill)
            pidfd = os.pidfd_open(process.pid)
            ours.pop_all()  # nothing is undone any more
        child = _Child(identity, process, pidfd, lifeline_write, events_read, time.monotonic())
        self.watch(child.events, lambda: self._read_events(child))
        self.watch(child.pidfd, lambda: self._bury(place, child))
        log.info("worker.started", worker=str(identity), pid=process.pid)
        return child

    def _read_events(self, child: _Child) -> None:
        data = os.read(child.events, 65536)
        if not data:  # ended; `_bury` does the rest
            self._selector.unregister(child.events)
            return
        *lines, child.unread = (child.unread + data).split(b"\n")
        for line in lines:
            if line.startswith(WORKING):
                child.job = uuid.UUID(line.removeprefix(WORKING).decode())
            else:
                self.on_published(Published.parse(line))

    def _bury(self, place: _Place, child: _Child) -> None:
        with suppress(ProcessLookupError):  # what a dead worker started must not outlive it
            os.killpg(child.process.pid, signal.SIGKILL)
        status = child.process.wait()  # not before: its number could be given to another group
        with suppress(KeyError):
            while child.events in self._selector.get_map():
                self._read_events(child)
        self._selector.unregister(child.pidfd)
        for descriptor in (child.pidfd, child.lifeline, child.events):
            os.close(descriptor)
        place.child = None
        # What ended one that has worked is, for all we know, its job, and that one's next attempt
        # has a back-off of its own: the others are not to wait for it.
        if child.job is not None or time.monotonic() - child.started > _STEADY_SECONDS:
            place.pause = 0.0
        self._back_off(place)
        if not self._draining:
            log.warning("worker.died", worker=str(child.identity), status=status)
        self.on_death(child.identity, status, child.job)

    @staticmethod
    def _back_off(place: _Place) -> None:
        place.due = time.monotonic() + place.pause
        place.pause = min(max(0.5, place.pause * 2), _LONGEST_PAUSE_SECONDS)


def hold_lifeline() -> None:
    """In a worker: end with everything it started as soon as its supervisor is gone.

    Does nothing for a worker that was started by hand.
    """
    number = os.environ.get(LIFELINE_VARIABLE)
    if number is None:
        return
    lifeline = int(number)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        os.read(lifeline, 1)
        end_group()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def events() -> Events:
    """In a worker: what tells the supervisor."""
    number = os.environ.get(EVENTS_VARIABLE)
    return Events(None if number is None else int(number))
