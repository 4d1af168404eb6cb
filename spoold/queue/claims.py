"""What a worker does with jobs: take them, report on them, publish them, give them back.

Each write is fenced by id, epoch, worker and state. Whoever lost the lease changes nothing and is
told so: that is a result here, never an exception.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

import psycopg

from spoold import errors
from spoold.errors import SpooldError
from spoold.queue.answers import Begun, Key, KeyAnswer, Waiting
from spoold.queue.database import Database
from spoold.queue.job import Claim, Publication
from spoold.queue.reserving import Owner, reservations
from spoold.queue.rows import dump, dump_moves, job_from
from spoold.queue.waiters import Keyed, done, holder, resolve

_KEY_ROUNDS = 100


def take(
    database: Database, statement: str, spool: uuid.UUID, worker: uuid.UUID, limit: int
) -> list[Claim]:
    """Claim up to `limit` jobs by one of the two claim statements, most urgent first."""
    rows = database.rows(statement, {"spool": spool, "worker": worker, "limit": limit})
    jobs = sorted(map(job_from, rows), key=lambda job: (job.rank, job.id))
    return [Claim(job, job.epoch, worker) for job in jobs]


def write(database: Database, verb: str, claim: Claim, **parameters: object) -> bool:
    """Run a fenced statement; False if the lease is lost."""
    return database.row(verb, {**_fence(claim), **parameters}) is not None


def take_key(
    database: Database, claim: Claim, dedup_key: bytes, request_sha256: bytes
) -> KeyAnswer:
    """Make a key this running job's own, unless it is held or done."""
    spool = claim.job.spool
    parameters = {**_fence(claim), "dedup_key": dedup_key, "request_sha256": request_sha256}

    def attempt() -> KeyAnswer:
        own = database.row("own_key", parameters)
        if own is None:
            return KeyAnswer(Key.LOST)
        if own[0] not in (None, dedup_key):
            if owner := done(database, spool, [dedup_key]).get(dedup_key):
                return _verdict(Key.DONE, owner, request_sha256)
            return KeyAnswer(Key.OTHER)
        for _ in range(_KEY_ROUNDS):
            try:
                with database.transaction():
                    database.run("take_key", parameters)
            except psycopg.errors.UniqueViolation:
                present = holder(database, spool, dedup_key)
                if present is None:
                    continue  # gone since: the key may be free
                return _verdict(Key.HELD, present, request_sha256)
            if owner := done(database, spool, [dedup_key]).get(dedup_key):
                database.run("give_up_key", parameters)
                return _verdict(Key.DONE, owner, request_sha256)
            return KeyAnswer(Key.TAKEN)
        raise SpooldError(errors.DATABASE_AWAY, f"the key of job {claim.id} changes hands too fast")

    return database.atomically(attempt)


def wait_for(
    database: Database, claim: Claim, other: uuid.UUID, dedup_key: bytes, request_sha256: bytes
) -> Waiting:
    """Put a running job back until the holder of its key has ended; the attempt is given back."""
    parameters = {
        **_fence(claim),
        "holder": other,
        "dedup_key": dedup_key,
        "request_sha256": request_sha256,
    }

    def attempt() -> Waiting:
        if database.row("lock_holder", parameters) is None:
            return Waiting.HOLDER_GONE
        moved = database.row("wait_for", parameters)
        return Waiting.LOST if moved is None else Waiting.WAITING

    return database.atomically(attempt)


def begin_publishing(
    database: Database, spool: uuid.UUID, batch: Sequence[tuple[Claim, Publication]]
) -> list[Begun]:
    """From running to publishing: outcome, signed document, planned moves and reserved names.

    A batch is one commit, unless one of its names is taken: then each is its own. The same call
    again, after a commit whose answer was lost, answers BEGUN.
    """

    def attempt(parameters: dict[str, object]) -> set[uuid.UUID]:
        begun = {row[0] for row in database.rows("begin_publishing", parameters)}
        if len(begun) < len(batch):
            begun |= {row[0] for row in database.rows("begun_before", parameters)}
        return begun

    return _publishing(database, spool, batch, attempt)


def amend_publishing(
    database: Database, spool: uuid.UUID, batch: Sequence[tuple[Claim, Publication]]
) -> list[Begun]:
    """Within publishing: the first document of a job without one, or other names for its files."""

    def attempt(parameters: dict[str, object]) -> set[uuid.UUID]:
        amended = {row[0] for row in database.rows("amend_publishing", parameters)}
        database.run("unreserve", {"amended": list(amended)})
        database.run("reserve", {**parameters, "amended": list(amended)})
        return amended

    return _publishing(database, spool, batch, attempt)


def _publishing(
    database: Database,
    spool: uuid.UUID,
    batch: Sequence[tuple[Claim, Publication]],
    attempt: Callable[[dict[str, object]], set[uuid.UUID]],
) -> list[Begun]:
    parameters = {"spool": spool, **_publications(batch)}
    try:
        begun = database.atomically(lambda: attempt(parameters))
    except psycopg.errors.UniqueViolation:
        if len(batch) == 1:
            return [Begun.NAME_TAKEN]
        alone = (_publishing(database, spool, [one], attempt) for one in batch)
        return [answer for answers in alone for answer in answers]
    return [Begun.BEGUN if claim.id in begun else Begun.LOST for claim, _ in batch]


def finish(
    database: Database,
    spool: uuid.UUID,
    claims: Sequence[Claim],
    answers: Mapping[uuid.UUID, bytes],
) -> frozenset[uuid.UUID]:
    """End jobs as their outcomes say, and decide about who waits for them; the ids now final.

    `answers` are the names of their final statuses under `status/`.
    """
    # In the order of ids, as everybody locks rows.
    claims = sorted(claims, key=lambda claim: claim.id)
    names = [answers.get(claim.id) for claim in claims]
    parameters = {"spool": spool, **_fences(claims), "answers": names}

    def attempt() -> set[uuid.UUID]:
        ended = {row[0] for row in database.rows("finish", parameters)}
        if ended:
            resolve_all(database, spool, "awaited", {"spool": spool, "jobs": list(ended)})
        return ended

    ended = database.atomically(attempt)
    if len(ended) < len(claims):
        ended |= {row[0] for row in database.rows("finished_before", parameters)}
    return frozenset(ended)


def resolve_all(
    database: Database, spool: uuid.UUID, statement: str, parameters: dict[str, object]
) -> int:
    """Decide about the waiters of each job that a statement names."""
    awaited: Iterable[uuid.UUID] = [row[0] for row in database.rows(statement, parameters)]
    return sum(resolve(database, spool, job) for job in awaited)


def _verdict(verdict: Key, owner: Keyed, request_sha256: bytes) -> KeyAnswer:
    same = owner.request_sha256 == request_sha256
    return KeyAnswer(verdict if same else Key.REUSED, owner.job)


def _fence(claim: Claim) -> dict[str, object]:
    return {
        "spool": claim.job.spool,
        "job": claim.id,
        "epoch": claim.epoch,
        "worker": claim.worker,
    }


def _fences(claims: Sequence[Claim]) -> dict[str, object]:
    return {
        "jobs": [claim.id for claim in claims],
        "epochs": [claim.epoch for claim in claims],
        "workers": [claim.worker for claim in claims],
    }


def _publications(batch: Sequence[tuple[Claim, Publication]]) -> dict[str, object]:
    return {
        **_fences([claim for claim, _ in batch]),
        "outcomes": [dump(publication.outcome) for _, publication in batch],
        "final_documents": [publication.final_document for _, publication in batch],
        "sources": [dump_moves(publication.sources) for _, publication in batch],
        **reservations((Owner.of(claim.job), publication) for claim, publication in batch),
    }
