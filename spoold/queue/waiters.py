"""Who has a key, who waits for it, and what becomes of those when its holder has ended.

A key is *held* by the unfinished job that stands in the index job_dedup, *done* once a job with it
has succeeded. A job may wait only for a holder whose row it has locked and found unfinished, so
that the holder's finish, which looks for waiters in a statement of its own, sees it.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg

from spoold import errors
from spoold.canonical import Document, Json, error_document
from spoold.errors import SpooldError
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.rows import dump, duplicate_outcome, outcome


@dataclass(frozen=True, slots=True)
class Keyed:
    """A job with a key, and the digest of the request that goes with it."""

    job: uuid.UUID
    dedup_key: bytes
    request_sha256: bytes


def lock_holder(database: Database, spool: uuid.UUID, dedup_key: bytes) -> Keyed | None:
    """The unfinished holder of a key, kept from finishing until this transaction ends."""
    row = database.row("lock_key_holder", {"spool": spool, "dedup_key": dedup_key})
    return None if row is None else Keyed(row[0], dedup_key, row[1])


def holder(database: Database, spool: uuid.UUID, dedup_key: bytes) -> Keyed | None:
    """The unfinished holder of a key, as of now."""
    row = database.row("key_holder", {"spool": spool, "dedup_key": dedup_key})
    return None if row is None else Keyed(row[0], dedup_key, row[1])


def done(database: Database, spool: uuid.UUID, dedup_keys: Sequence[bytes]) -> dict[bytes, Keyed]:
    """The succeeded jobs of these keys."""
    rows = database.rows("done", {"spool": spool, "dedup_keys": list(dedup_keys)})
    return {row[0]: Keyed(row[2], row[0], row[1]) for row in rows}


def reused_outcome(owner: uuid.UUID) -> dict[str, Json]:
    """The outcome of a job whose key belongs to another request."""
    message = f"this idempotency_key was used by job {owner} for another request"
    error = error_document(SpooldError(errors.IDEMPOTENCY_KEY_REUSED, message))
    return outcome(State.REJECTED, error=error)


def settle(database: Database, spool: uuid.UUID, jobs: Iterable[Keyed], owner: Keyed) -> None:
    """Let the success of `owner` stand for these jobs; those with another request are rejected."""
    ids, outcomes = [], []
    for job in jobs:
        same = job.request_sha256 == owner.request_sha256
        ids.append(job.job)
        outcomes.append(_dump(duplicate_outcome(owner.job) if same else reused_outcome(owner.job)))
    database.run("stand_for", {"spool": spool, "ids": ids, "outcomes": outcomes})


def resolve(database: Database, spool: uuid.UUID, ended: uuid.UUID) -> int:
    """Decide about all who wait for a job that has ended; return how many.

    Runs inside a transaction, in statements after the one that ended the job. If its key is done
    they are duplicates; else, if another job holds the key by now, they wait for that; else the
    first of them takes the key, and the others wait for it.
    """
    rows = database.rows("waiting", {"spool": spool, "holder": ended})
    waiting = [Keyed(*row) for row in rows]
    for key in {job.dedup_key for job in waiting}:
        _resolve_key(database, spool, [job for job in waiting if job.dedup_key == key])
    return len(waiting)


def _resolve_key(database: Database, spool: uuid.UUID, waiting: list[Keyed]) -> None:
    key = waiting[0].dedup_key
    while True:
        if owner := done(database, spool, [key]).get(key):
            settle(database, spool, waiting, owner)
            return
        if present := lock_holder(database, spool, key):
            _wait_for_another(database, spool, waiting, present)
            return
        first, others = waiting[0], waiting[1:]
        try:
            with database.transaction():
                database.run("free", {"spool": spool, "job": first.job})
        except psycopg.errors.UniqueViolation:
            continue  # somebody took the key since it was looked for
        if owner := done(database, spool, [key]).get(key):  # whoever had it then, succeeded
            settle(database, spool, waiting, owner)
        else:
            _wait_for_another(database, spool, others, first)
        return


def _wait_for_another(
    database: Database, spool: uuid.UUID, waiting: Sequence[Keyed], present: Keyed
) -> None:
    same = [job.job for job in waiting if job.request_sha256 == present.request_sha256]
    if same:
        database.run("wait_for_another", {"spool": spool, "ids": same, "holder": present.job})
    settle(
        database,
        spool,
        [job for job in waiting if job.request_sha256 != present.request_sha256],
        present,
    )


def _dump(document: Document) -> str:
    text = dump(document)
    assert text is not None
    return text
