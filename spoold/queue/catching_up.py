"""What a database that is older than the tree is told: outcomes, epochs, and that a drop has left.

Each statement asks again whether the row still knows less: beside a daemon that runs, and rows that
are up to date, nothing changes.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from spoold.canonical import Document
from spoold.queue.database import Database
from spoold.queue.job import Publication
from spoold.queue.reserving import Owner, reservations
from spoold.queue.rows import dump, dump_moves

# A row that is made again is only published; these say how it would have been run.
_PRIORITY = 500


@dataclass(frozen=True, slots=True)
class Decided:
    """A job whose outcome was recorded once, as its signed final status says."""

    id: uuid.UUID
    epoch: int
    """That of the scratch folder which holds the rest of it."""
    drop_name: bytes
    drop_bytes: int
    document: Document
    key: tuple[bytes, bytes] | None
    """Dedup key and content digest, where success is to be remembered."""
    publication: Publication


def decide(database: Database, spool: uuid.UUID, decided: Decided) -> bool:
    """Have a job published by whoever claims it, with or without a row; False if there is no need.

    Names that have an owner by now are left to it, and so is the key.
    """
    key, request_sha256 = decided.key or (None, None)
    document, publication = decided.document, decided.publication
    sha256 = document["drop_sha256"]
    attempts, most = document["attempt"], document["max_attempts"]
    attempt = attempts if isinstance(attempts, int) else 0
    action = document["action"] if isinstance(document["action"], str) else None
    parameters: dict[str, object] = {
        "spool": spool,
        "job": decided.id,
        "epoch": decided.epoch,
        "drop_name": decided.drop_name,
        "drop_sha256": bytes.fromhex(sha256) if isinstance(sha256, str) else None,
        "drop_bytes": decided.drop_bytes,
        "action": action,
        "priority": _PRIORITY,
        "correlation_id": document["correlation_id"],
        "admitted_at": document["admitted_at"],
        "started_at": document["started_at"],
        "attempt": attempt,
        "max_attempts": max(1, attempt, most if isinstance(most, int) else 0),
        "intake": dump(document["intake"] if isinstance(document["intake"], dict) else {}),
        "outcome": dump(publication.outcome),
        "final_document": publication.final_document,
        "sources": dump_moves(publication.sources),
        **reservations([(Owner(decided.id, action, decided.drop_name), publication)]),
    }
    for kept in (True, False):
        given = {"dedup_key": key, "request_sha256": request_sha256, "keep_key": kept}
        try:
            with database.transaction():
                if database.row("decide", {**parameters, **given}) is None:
                    return False
                database.run("reserve_free", parameters)
                return True
        except psycopg.errors.UniqueViolation:
            key = request_sha256 = None  # another job has the key, or the drop's name
    return False


def raise_epoch(database: Database, spool: uuid.UUID, job: uuid.UUID, epoch: int) -> bool:
    """Let no claim of a job have an epoch again; False if its row is as far."""
    parameters = {"spool": spool, "job": job, "epoch": epoch}
    return database.row("raise_epoch", parameters) is not None


def hasten(database: Database, spool: uuid.UUID, jobs: Sequence[uuid.UUID]) -> int:
    """Make scheduled jobs due; how many."""
    if not jobs:
        return 0
    return len(database.rows("hasten", {"spool": spool, "jobs": list(jobs)}))
