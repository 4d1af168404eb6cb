"""A worker that stalls between any two steps, past its lease, and goes on as if nothing were."""

import os
import random
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spoold import __version__, disk
from spoold.publish import Ending, Made, Publisher, Ready
from spoold.queue.answers import Begun, Key, Waiting
from spoold.queue.database import Database
from spoold.queue.job import TRANSITIONS, Claim, Publication, State, Verb
from spoold.queue.store import Store
from spoold.selftest.record import Record
from spoold.spool import Folder, Spool
from spoold.status import Host
from spoold.trust import Signer
from spoold.worker import scratch as scratch_folder
from spoold.worker.scratch import LeaseLostError

RESULT: Final = "result"
HELD_KEY: Final = b"held".ljust(32)
"""The key of the job that is there to be waited for."""

_OWN_KEY: Final = b"own".ljust(32)
_AT_ONCE: Final = 2
_PATIENT_EPOCHS: Final = 20  # a job that was claimed so often is let through
_PAUSE_SECONDS: Final = 0.002
_NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Stage:
    """What the workers of a self-test share."""

    tree: Spool
    conninfo: str
    spool: uuid.UUID
    host: Host
    signer: Signer
    record: Record
    ended: threading.Event
    lease_seconds: float = 0.0
    holder: uuid.UUID | None = None
    """A job that has HELD_KEY and is never due."""

    def database(self) -> Database:
        """A connection for one thread."""
        return Database(self.conninfo, "spoold selftest")


class _StallingStore(Store):
    """The queue of a worker that stalls before and after what it commits."""

    def __init__(self, stage: Stage, stall: Callable[[], None]) -> None:
        super().__init__(stage.database(), stage.spool)
        self._stall = stall

    def begin_publishing(self, batch: Sequence[tuple[Claim, Publication]]) -> list[Begun]:
        """As ever. What follows are the renames: a worker that stalls here is the worst."""
        self._stall()
        begun = super().begin_publishing(batch)
        self._stall()
        return begun

    def finish(
        self, batch: Sequence[Claim], answers: Mapping[uuid.UUID, bytes]
    ) -> frozenset[uuid.UUID]:
        """As ever, when everything is in its place."""
        self._stall()
        return super().finish(batch, answers)


class Worker:
    """One thread's work. `stalls`: before how many of its steps it stalls, 0 to 1."""

    def __init__(self, stage: Stage, number: int, stalls: float) -> None:
        self._stage = stage
        self._stalls = stalls
        self._dice = random.Random(number)  # noqa: S311  # the same order of stalls each time
        self._id = uuid.uuid4()
        self._store = _StallingStore(stage, self._stall)
        self._publisher = Publisher(stage.tree, self._store, stage.host, stage.signer)
        self._patient = True
        self._lost: list[Claim] = []

    def work(self) -> None:
        """Claim and publish until the end."""
        self.register()
        while not self._stage.ended.is_set():
            if not self.round():
                self._stage.ended.wait(_PAUSE_SECONDS)
        # Every job is final by now, so each lost claim was followed by another one.
        self._haunt()
        self.close()

    def register(self) -> None:
        """Announce it."""
        self._store.register_worker(self._id, "selftest", os.getpid(), __version__)

    def close(self) -> None:
        """Give up its connection."""
        self._store.database.close()

    def round(self) -> bool:
        """Claim some jobs and take them as far as they go; False if there were none."""
        store = self._store
        store.beat(self._id)
        claims = [
            *store.claim(self._id, _AT_ONCE),
            *store.claim_publishing(self._id, _AT_ONCE),
        ]
        self._stage.record.claimed(len(claims))
        self._patient = all(claim.epoch < _PATIENT_EPOCHS for claim in claims)
        self._publish([ready for claim in claims if (ready := self._attempt(claim)) is not None])
        self._haunt()
        return bool(claims)

    def _stall(self) -> None:
        """Be stopped for a while, longer than the lease or not; else beat."""
        if self._patient and self._dice.random() < self._stalls:
            self._stage.ended.wait(self._dice.random() * 3 * self._stage.lease_seconds)
        else:
            self._store.beat(self._id)

    def _attempt(self, claim: Claim) -> Ready | None:
        job, tree = claim.job, self._stage.tree
        self._stall()
        try:
            if job.state is State.PUBLISHING:
                assert job.outcome is not None
                scratch = scratch_folder.take_over(tree, claim)
                if not self._store.holds(claim):  # the folder was made too late to be fenced off
                    scratch_folder.leave(tree, self._store, claim)
                    raise LeaseLostError
                self._stage.record.begun(claim)
                return Ready(claim, scratch, Ending.of(job.outcome))
            scratch = scratch_folder.begin(tree, claim)
        except LeaseLostError:
            self._lose(claim)
            return None
        self._stage.record.begun(claim)
        try:
            (scratch / RESULT).write_text(str(claim.epoch))
        except FileNotFoundError:  # a newer claim has taken it away: then this one is lost
            self._give_up(claim, f"{scratch.name} vanished")
            return None
        self._stall()
        made = Made(RESULT, RESULT, Folder.PROCESSED, f"{job.short_id}.{RESULT}".encode())
        return Ready(claim, scratch, Ending(State.SUCCEEDED, {"epoch": claim.epoch}), made=[made])

    def _publish(self, batch: Sequence[Ready]) -> None:
        self._publisher.publish(batch)
        for ready in batch:
            if ready.published:
                scratch_folder.end(self._stage.tree, ready.scratch)
            else:
                self._give_up(ready.claim, str(ready.error or "it was refused"))

    def _give_up(self, claim: Claim, why: str) -> None:
        """What could not be published is somebody else's by now; if not, something is wrong."""
        if self._store.defer_publishing(claim, 0.0) or self._store.release(claim):
            self._stage.record.problem(f"{claim.job.short_id} was held, and all the same: {why}")
        else:
            self._lose(claim)

    def _lose(self, claim: Claim) -> None:
        self._stage.record.lost()
        self._try_writes(claim)
        self._lost.append(claim)

    def _haunt(self) -> None:
        """Come back to lost claims as soon as another one of their job has begun.

        Before that the old scratch may still be there: who has lost the job does not come to its
        renames, since the commit before them was refused.
        """
        followed = [claim for claim in self._lost if self._stage.record.followed(claim)]
        self._lost = [claim for claim in self._lost if claim not in followed]
        for claim in followed:
            self._try_writes(claim)
            self._try_renames(claim)
            # Its first step too, which sends older scratch away: that of its successor is not.
            publishing = claim.job.state is State.PUBLISHING
            first_step = scratch_folder.take_over if publishing else scratch_folder.begin
            with suppress(LeaseLostError):
                first_step(self._stage.tree, claim)

    def _try_writes(self, claim: Claim) -> None:
        """Write whatever an owner may: nothing of it may be accepted."""
        assert self._stage.holder is not None
        for verb, write in WRITES.items():
            accepted = write(self._store, claim, self._stage.holder)
            self._stage.record.wrote(verb, accepted=accepted)

    def _try_renames(self, claim: Claim) -> None:
        """Move what an owner may out of its scratch: nothing may be there."""
        tree = self._stage.tree
        scratch = tree.folder(Folder.WORK) / f"{claim.id}.{claim.epoch}"
        for source in (scratch / RESULT, scratch / "status", scratch):
            target = tree.folder(Folder.PROCESSED) / f"stale.{uuid.uuid4().hex}"
            self._stage.record.renamed(done=_moves(source, target))


def _moves(source: Path, target: Path) -> bool:
    try:
        disk.rename_new(source, target)
    except FileNotFoundError:
        return False
    return True


def _publication(claim: Claim) -> Publication:
    name = f"stale.{claim.id}.{claim.epoch}".encode()
    outcome = Ending(State.SUCCEEDED).outcome()
    return Publication(outcome, b"{}\n", (), ((Folder.PROCESSED, name),))


def _begin(store: Store, claim: Claim, _: uuid.UUID) -> bool:
    # Not by way of the stalling one: no lease can come back.
    return Store.begin_publishing(store, [(claim, _publication(claim))]) != [Begun.LOST]


def _wait(store: Store, claim: Claim, holder: uuid.UUID) -> bool:
    waiting = store.wait_for(claim, holder, HELD_KEY, HELD_KEY)
    assert waiting is not Waiting.HOLDER_GONE
    return waiting is Waiting.WAITING


WRITES: Final[Mapping[Verb, Callable[[Store, Claim, uuid.UUID], bool]]] = {
    Verb.PROGRESS: lambda store, claim, _: store.progress(claim, _NOTHING),
    Verb.TAKE_KEY: lambda store, claim, _: (
        store.take_key(claim, _OWN_KEY, _OWN_KEY).verdict is not Key.LOST
    ),
    Verb.WAIT: _wait,
    Verb.RELEASE: lambda store, claim, _: store.release(claim),
    Verb.RETRY: lambda store, claim, _: store.retry(claim, _NOTHING, 0.0),
    Verb.POSTPONE: lambda store, claim, _: store.postpone(claim, _NOTHING, 0.0),
    Verb.BEGIN_PUBLISHING: _begin,
    Verb.AMEND_PUBLISHING: lambda store, claim, _: (
        store.amend_publishing([(claim, _publication(claim))]) != [Begun.LOST]
    ),
    Verb.DEFER_PUBLISHING: lambda store, claim, _: store.defer_publishing(claim, 0.0),
    Verb.FINISH: lambda store, claim, _: claim.id in Store.finish(store, [claim], {}),
}
"""Each write that only a job's owner may do; true where it was accepted."""

assert WRITES.keys() == {verb for verb, transition in TRANSITIONS.items() if transition.fenced}
