"""What time does to jobs: they become due, they lose their worker, they are pruned.

Any number of daemons may run this at once: each change asks again whether its reason still holds.
"""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from spoold import errors, points
from spoold.canonical import error_document
from spoold.errors import SpooldError
from spoold.queue.answers import Rescued
from spoold.queue.claims import resolve_all
from spoold.queue.database import Database
from spoold.queue.job import RetryPolicy, State, retry_delay
from spoold.queue.rows import dump, outcome

# A worker's row outlives it by this much when nobody signed it off: long enough to be looked at.
_FORGET_WORKERS_SECONDS: Final = 3600.0


def promote(database: Database, spool: uuid.UUID) -> int:
    """Queue what has become due, and free who waits for a job that has ended; return how many."""
    due = len(database.rows("promote", {"spool": spool}))
    if due:
        points.reached("promote")
    freed = database.atomically(
        lambda: resolve_all(database, spool, "orphaned_waits", {"spool": spool})
    )
    return due + freed


def rescue(
    database: Database,
    spool: uuid.UUID,
    lease_seconds: float,
    policy: RetryPolicy,
    causes: Mapping[uuid.UUID, SpooldError],
    watched_seconds: float,
) -> list[Rescued]:
    """Take jobs back whose worker is gone, unseen for a lease, or past the attempt's deadline.

    `causes` says of some workers how they died; `watched_seconds` for how long a silent one would
    have been noticed.
    """
    parameters: dict[str, object] = {
        "spool": spool,
        "lease_seconds": lease_seconds,
        "watched_seconds": watched_seconds,
    }
    rescued = []
    lost = [_Lost(causes, *row) for row in database.rows("lost", parameters)]
    for statement, point, found in (
        ("rescue", "rescue", [one for one in lost if one.error is not None]),
        ("rescue_publishing", "rescue.publishing", [one for one in lost if one.error is None]),
    ):
        if found:
            rows = database.rows(statement, {**parameters, **_arrays(found, policy)})
            points.reached(point)
            states = {row[0]: State(row[1]) for row in rows}
            rescued += [one.rescued(states[one.job]) for one in found if one.job in states]
    seconds = max(_FORGET_WORKERS_SECONDS, 10 * lease_seconds)
    database.run("forget_workers", {"spool": spool, "seconds": seconds})
    return rescued


@dataclass(frozen=True, slots=True)
class _Lost:
    """A row of the statement `lost`, and what is known of workers that died."""

    causes: Mapping[uuid.UUID, SpooldError]
    job: uuid.UUID
    epoch: int
    worker: uuid.UUID
    state: str
    attempt: int
    worker_lives: bool

    @property
    def error(self) -> SpooldError | None:
        """Why its attempt has failed; None for a job that is being published."""
        if self.state == State.PUBLISHING:
            return None
        if self.worker_lives:
            return SpooldError(errors.TIMEOUT)
        return self.causes.get(self.worker) or SpooldError(errors.WORKER_LOST)

    def rescued(self, state: State) -> Rescued:
        """What is told of it, now that it is in that state."""
        code = self.error.code.name if self.error else None
        return Rescued(self.job, self.epoch, self.worker, state, code)


def _arrays(found: Sequence[_Lost], policy: RetryPolicy) -> dict[str, object]:
    documents = [error_document(one.error) if one.error else None for one in found]
    return {
        "jobs": [one.job for one in found],
        "epochs": [one.epoch for one in found],
        "workers": [one.worker for one in found],
        # `random` spreads load here and guards nothing.
        "delays": [
            retry_delay(max(1, one.attempt), policy, random.random())  # noqa: S311
            for one in found
        ],
        "errors": [dump(document) for document in documents],
        "outcomes": [dump(outcome(State.FAILED, error=document)) for document in documents],
    }
