"""What time does to jobs: they become due, they lose their worker, they are pruned.

Any number of daemons may run this at once: each change asks again whether its reason still holds.
"""

import random
import uuid
from typing import Final

from spoold import errors
from spoold.errors import SpooldError
from spoold.queue.claims import resolve_all
from spoold.queue.database import Database
from spoold.queue.job import Rescued, RetryPolicy, State, retry_delay
from spoold.queue.rows import dump, error_document, outcome

# A worker's row outlives it by this much when nobody signed it off: long enough to be looked at.
_FORGET_WORKERS_SECONDS: Final = 3600.0


def promote(database: Database, spool: uuid.UUID) -> int:
    """Queue what has become due, and free who waits for a job that has ended; return how many."""
    due = len(database.rows("promote", {"spool": spool}))
    freed = database.atomically(
        lambda: resolve_all(database, spool, "orphaned_waits", {"spool": spool})
    )
    return due + freed


def rescue(
    database: Database, spool: uuid.UUID, lease_seconds: float, policy: RetryPolicy
) -> list[Rescued]:
    """Take jobs back whose worker is gone, unseen for a lease, or past the attempt's deadline."""
    parameters: dict[str, object] = {"spool": spool, "lease_seconds": lease_seconds}
    rescued = []
    lost = [
        (Rescued(job, epoch, worker, State(state), _code(state, lives=lives)), attempt)
        for job, epoch, worker, state, attempt, lives in database.rows("lost", parameters)
    ]
    for statement, found in (
        ("rescue", [entry for entry in lost if entry[0].state is State.RUNNING]),
        ("rescue_publishing", [entry for entry in lost if entry[0].state is State.PUBLISHING]),
    ):
        if found:
            rows = database.rows(statement, {**parameters, **_arrays(found, policy)})
            states = {row[0]: State(row[1]) for row in rows}
            rescued += [
                Rescued(job.id, job.epoch, job.worker, states[job.id], job.code)
                for job, _ in found
                if job.id in states
            ]
    seconds = max(_FORGET_WORKERS_SECONDS, 10 * lease_seconds)
    database.run("forget_workers", {"spool": spool, "seconds": seconds})
    return rescued


def _code(state: str, *, lives: bool) -> str | None:
    if state == State.PUBLISHING:
        return None
    return errors.TIMEOUT.name if lives else errors.WORKER_LOST.name


def _arrays(found: list[tuple[Rescued, int]], policy: RetryPolicy) -> dict[str, object]:
    documents = [
        error_document(SpooldError(errors.CODES[job.code])) if job.code else None
        for job, _ in found
    ]
    return {
        "jobs": [job.id for job, _ in found],
        "epochs": [job.epoch for job, _ in found],
        "workers": [job.worker for job, _ in found],
        # `random` spreads load here and guards nothing.
        "delays": [
            retry_delay(max(1, attempt), policy, random.random())  # noqa: S311
            for _, attempt in found
        ],
        "errors": [dump(document) for document in documents],
        "outcomes": [dump(outcome(State.FAILED, error=document)) for document in documents],
    }
