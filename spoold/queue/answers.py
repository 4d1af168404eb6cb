"""What the store answers to those who change the queue or look at it."""

import enum
import uuid
from dataclasses import dataclass

from spoold.queue.job import State


class Verdict(enum.StrEnum):
    """What became of an admission."""

    ADMITTED = "admitted"
    ALREADY = "already"  # its own id has a row: admitted before a crash
    ELSEWHERE = "elsewhere"  # its id is that of another spool's job, which this one is a copy of
    NAME_BUSY = "name-busy"  # an unfinished job has that drop name: nothing was stored
    WAITS = "waits"  # for the unfinished job that has its key
    DUPLICATE = "duplicate"  # of a succeeded job: will be published as such
    KEY_REUSED = "key-reused"  # the key belongs to another request: will be published as rejected
    REFUSED = "refused"  # the database refuses the values: nothing was stored


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one admission; `job` is the other job it speaks of, `message` why refused."""

    id: uuid.UUID
    verdict: Verdict
    job: uuid.UUID | None = None
    message: str = ""


class Begun(enum.StrEnum):
    """What became of a step to, or within, `publishing`."""

    BEGUN = "begun"
    NAME_TAKEN = "name-taken"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a published name is; `manifest_sha256` of the bundle that its job made or restored."""

    job: uuid.UUID
    manifest_sha256: str | None


class Key(enum.StrEnum):
    """What became of taking a key for a running job."""

    TAKEN = "taken"
    HELD = "held"  # by an unfinished job: wait_for it
    DONE = "done"  # a job with this key has succeeded
    REUSED = "reused"  # the key belongs to another request
    OTHER = "other"  # the job has a key of its own already, which stands
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """The answer to take_key; `job` is the holder, or the job that is done."""

    verdict: Key
    job: uuid.UUID | None = None


class Waiting(enum.StrEnum):
    """What became of wait_for."""

    WAITING = "waiting"
    HOLDER_GONE = "holder-gone"  # final by now: take the key again
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Rescued:
    """A job taken back; `code` is None for one that was being published."""

    id: uuid.UUID
    epoch: int
    worker: uuid.UUID
    state: State
    code: str | None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancelled job; `worker` held it, and is to be stopped."""

    id: uuid.UUID
    worker: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class StateAndEpoch:
    """All that those who compare the disk with the rows ask of a job."""

    state: State
    epoch: int


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker process as the database knows it. `seen_seconds`: since its last beat.

    `place` is where `pid` counts: host name and pid namespace.
    """

    id: uuid.UUID
    place: str
    pid: int
    version: str
    seen_seconds: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished jobs of one state and action. `oldest_seconds`: since the oldest became due."""

    state: State
    action: str | None
    jobs: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Running:
    """How far the running attempts of one action are, together."""

    action: str
    bytes: float
    rows: float
    entries: float
    bytes_per_second: float
