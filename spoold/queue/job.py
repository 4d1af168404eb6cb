"""What a job is: its states, the one table of transitions, its retry decision and its ids. Pure.

The store has one guarded statement for each verb of TRANSITIONS and none beside them.
"""

import enum
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from spoold.canonical import Document


class State(enum.StrEnum):
    """Where a job stands; the last five are final."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    DUPLICATE = "duplicate"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can change this state any more."""
        return self in FINAL


FINAL: Final = frozenset(
    {State.SUCCEEDED, State.DUPLICATE, State.FAILED, State.REJECTED, State.CANCELLED}
)
UNFINISHED: Final = frozenset(State) - FINAL


class Verb(enum.StrEnum):
    """What can happen to a job once it is admitted."""

    PROMOTE = "promote"
    FREE = "free"
    STAND_FOR = "stand_for"
    CLAIM = "claim"
    CLAIM_PUBLISHING = "claim_publishing"
    PROGRESS = "progress"
    TAKE_KEY = "take_key"
    WAIT = "wait_for"
    RELEASE = "release"
    RETRY = "retry"
    POSTPONE = "postpone"
    BEGIN_PUBLISHING = "begin_publishing"
    AMEND_PUBLISHING = "amend_publishing"
    DEFER_PUBLISHING = "defer_publishing"
    RESCUE = "rescue"
    RESCUE_PUBLISHING = "rescue_publishing"
    CANCEL = "cancel"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Transition:
    """From which states a verb leads where, and whether only the claim's owner may use it."""

    source: frozenset[State]
    target: frozenset[State]
    fenced: bool


def _transition(source: str, target: str, *, fenced: bool = False) -> Transition:
    return Transition(
        frozenset(map(State, source.split())), frozenset(map(State, target.split())), fenced
    )


TRANSITIONS: Final[Mapping[Verb, Transition]] = {
    # by the clock, or because the job waited for has ended
    Verb.PROMOTE: _transition("scheduled", "queued"),
    Verb.FREE: _transition("scheduled", "scheduled queued"),
    Verb.STAND_FOR: _transition("scheduled queued", "publishing"),
    # by a worker that takes it
    Verb.CLAIM: _transition("queued", "running"),
    Verb.CLAIM_PUBLISHING: _transition("publishing", "publishing"),
    # by the worker that holds it
    Verb.PROGRESS: _transition("running", "running", fenced=True),
    Verb.TAKE_KEY: _transition("running", "running", fenced=True),
    Verb.WAIT: _transition("running", "scheduled", fenced=True),
    Verb.RELEASE: _transition("running", "queued", fenced=True),
    Verb.RETRY: _transition("running", "scheduled", fenced=True),
    Verb.POSTPONE: _transition("running", "scheduled", fenced=True),
    Verb.BEGIN_PUBLISHING: _transition("running", "publishing", fenced=True),
    Verb.AMEND_PUBLISHING: _transition("publishing", "publishing", fenced=True),
    Verb.DEFER_PUBLISHING: _transition("publishing", "publishing", fenced=True),
    Verb.FINISH: _transition(
        "publishing", "succeeded duplicate failed rejected cancelled", fenced=True
    ),
    # by others
    Verb.RESCUE: _transition("running", "scheduled publishing"),
    Verb.RESCUE_PUBLISHING: _transition("publishing", "publishing"),
    Verb.CANCEL: _transition("scheduled queued running", "publishing"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the queue. Times are the database's, in UTC."""

    id: uuid.UUID
    spool: uuid.UUID
    drop_name: bytes
    drop_sha256: bytes | None
    drop_bytes: int
    action: str | None
    request: Document | None
    request_sha256: bytes | None
    priority: int
    correlation_id: str | None
    due_at: datetime
    rank: datetime
    admitted_at: datetime
    claimed_at: datetime | None
    deadline_at: datetime | None
    finished_at: datetime | None
    state: State
    epoch: int
    attempt: int
    max_attempts: int
    timeout_seconds: int
    worker: uuid.UUID | None
    dedup_key: bytes | None
    waits_for: uuid.UUID | None
    retry_of: uuid.UUID | None
    intake: Document
    progress: Document | None
    outcome: Document | None
    error: Document | None
    final_document: bytes | None
    sources: tuple["Move", ...]

    @property
    def short_id(self) -> str:
        """The form of the id that people read and file names carry."""
        return short_id(self.id)

    @property
    def next_attempt_at(self) -> datetime | None:
        """When it is due again; None unless only time stands in its way."""
        scheduled = self.state is State.SCHEDULED and self.waits_for is None
        return self.due_at if scheduled else None

    @property
    def last_error(self) -> Document | None:
        """The error it ended with, or, while it may still succeed, that of its last attempt."""
        if self.outcome is None:
            return self.error
        error = self.outcome["error"]
        assert error is None or isinstance(error, Mapping)
        return error


@dataclass(frozen=True, slots=True)
class Claim:
    """A job under a lease: `epoch` and `worker` fence every write to it."""

    job: Job
    epoch: int
    worker: uuid.UUID

    @property
    def id(self) -> uuid.UUID:
        """The job's id."""
        return self.job.id


@dataclass(frozen=True, slots=True)
class Admission:
    """A drop on its way into the queue.

    `error` set: it enters as rejected, without an owner, and needs no action and no request.
    `dedup_key` is the digest of the idempotency key or of the content, None: never a duplicate.
    """

    id: uuid.UUID
    drop_name: bytes
    drop_sha256: bytes | None
    drop_bytes: int
    intake: Document
    action: str | None = None
    request: Document | None = None
    request_sha256: bytes | None = None
    priority: int = 500
    correlation_id: str | None = None
    not_before: datetime | None = None
    max_attempts: int = 5
    timeout_seconds: int = 21600
    dedup_key: bytes | None = None
    retry_of: uuid.UUID | None = None
    error: Document | None = None

    def rejected(self, error: Document) -> "Admission":
        """The same drop, entering as rejected."""
        drop = self.id, self.drop_name, self.drop_sha256, self.drop_bytes, self.intake
        return Admission(*drop, error=error)


@dataclass(frozen=True, slots=True)
class Move:
    """One planned rename of a publication.

    `source` is a name in the job's scratch folder, empty for the drop itself; `folder` a path
    relative to the spool and `name` the name in it. `device`, `inode`, `size` and `mtime_ns` prove
    afterwards that what stands there is what was meant.
    """

    role: str
    source: str
    folder: str
    name: bytes
    device: int
    inode: int
    size: int
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Publication:
    """What the step to `publishing` makes durable, before the first rename.

    `outcome` is {"state", "result", "error", "warnings"}; `names` are the (folder, name) pairs
    that must not belong to any other job; `standing` are moves that were made before, by a job that
    its row had forgotten.
    """

    outcome: Document
    final_document: bytes
    sources: tuple[Move, ...]
    names: tuple[tuple[str, bytes], ...]
    standing: tuple[Move, ...] = ()

    @classmethod
    def of(cls, outcome: Document, final_document: bytes, sources: Sequence[Move]) -> "Publication":
        """One that reserves the names of its moves, and no others."""
        names = tuple((move.folder, move.name) for move in sources)
        return cls(outcome, final_document, tuple(sources), names)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off: base * 2^n seconds, at most the cap."""

    base_seconds: float = 2.0
    cap_seconds: float = 600.0


def retry_delay(attempt: int, policy: RetryPolicy, jitter: float) -> float:
    """Seconds from the failure of attempt number `attempt` (1 is the first) to the next one.

    `jitter` in [0, 1) spreads the upper half, so that jobs that failed together do not come back
    together.
    """
    assert attempt >= 1
    assert 0.0 <= jitter < 1.0
    # 2**60 seconds is beyond any cap, and the exponent must not overflow a float.
    full = min(policy.cap_seconds, policy.base_seconds * 2.0 ** min(attempt - 1, 60))
    return full * (0.5 + 0.5 * jitter)


def may_retry(job: Job, *, transient: bool) -> bool:
    """Whether a failed attempt is followed by another one."""
    return transient and job.attempt < job.max_attempts


def uuid7(nanoseconds: int, random: int) -> uuid.UUID:
    """A version 7 UUID (RFC 9562, section 5.7) of a Unix time and 62 random bits.

    The 12 bits after the milliseconds are their fraction (section 6.2, method 3), so that ids
    made one after the other sort so.
    """
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | fraction << 64
    return uuid.UUID(int=value | 0b10 << 62 | random & (1 << 62) - 1)


def new_job_id() -> uuid.UUID:
    """A fresh job id."""
    return uuid7(time.time_ns(), int.from_bytes(os.urandom(8), "big"))


def short_id(job: uuid.UUID) -> str:
    """The last 12 hex digits: random. (The first 12 are a clock, equal for jobs of one moment.)"""
    return job.hex[-12:]
