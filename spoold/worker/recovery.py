"""Before a daemon begins: bring a database that is older than the tree up to what the disk knows.

After a backup was restored, or a database given up, rows say less than what stands in the tree, or
there are none. Drops in `claimed/` that have no row are intake's to admit again, and a job whose
final status stands beside its drop follows that as soon as a worker has it. Here is the rest:

* a scratch folder with the signed final status of a job whose files have begun to leave it: the
  outcome was recorded, so it is again, in a row that is being published, for a worker to go on;
* a scratch folder of a claim that the row has not seen yet: the row's epoch follows, because no
  claim may get a number a second time;
* a scratch folder without a row, of a drop that begins anew: removed;
* a row that waits for its time while its drop has left `claimed/`: it is due, to follow its answer.

Beside a daemon that runs, and with rows that are up to date, all this changes nothing: what is read
from the disk is read before the rows, and each statement asks again.

Crash: the next start begins anew.
"""

import os
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from spoold.actions import ACTIONS
from spoold.canonical import Document
from spoold.publish import LOG_FILE, Ending, standing
from spoold.publish.plan import (
    DROP,
    LOG,
    OWN_FILES,
    STATUS,
    STATUS_FILE,
    Name,
    found_move,
    target_path,
)
from spoold.queue.catching_up import Decided
from spoold.queue.job import Move, Publication, State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import claimed_name, parse_claimed_name, status_name, true_name
from spoold.trust import Signer, Trust
from spoold.worker import live, scratch
from spoold.worker.scratch import Scratch

log = structlog.get_logger()

# What is no result; anything else in a scratch folder is one that has not left it.
_NO_RESULTS: Final = OWN_FILES | {live.TEMPORARY}
_SOURCES: Final = {DROP: "", STATUS: STATUS_FILE, LOG: LOG_FILE}


def recover(tree: Spool, store: Store, signer: Signer) -> None:
    """Bring the rows of a spool up to what its tree knows. Raises database-away and OSError."""
    found = {one.job: one for one in sorted(scratch.all_of(tree), key=lambda one: one.epoch)}
    rows = store.existing(list(found))
    own = standing.own_trust(tree, signer)
    unknown = [one for one in found.values() if one.job not in rows]
    beside = _finals_beside(tree, unknown)
    for one in found.values():
        row = rows.get(one.job)
        if row is not None and row.state.final:
            continue
        decided = _decided(tree, own, one, beside.get(one.job))
        if decided is not None:
            begun = store.decide(decided)  # else an older job has the name, and goes first
            log.warning("recovery.decided", job=str(one.job), begun=begun)
        elif row is None:
            scratch.discard(tree, one)
            log.warning("recovery.discarded", job=str(one.job))
        elif row.epoch < one.epoch and store.raise_epoch(one.job, one.epoch):
            log.warning("recovery.epoch", job=str(one.job), epoch=one.epoch)
    if hastened := store.hasten(_without_drop(tree, store.scheduled())):
        log.warning("recovery.hastened", jobs=hastened)


def drop_answered(tree: Spool, signer: Signer) -> int:
    """Remove drops that have their final status from `claimed/`, and their scratch; how many.

    A backup of a tree that was in use has a file twice where it moved while the backup was made.
    """
    own = standing.own_trust(tree, signer)
    answered = set()
    for name in _claimed_names(tree):
        parsed = parse_claimed_name(name)
        if parsed is not None and _is_answered(tree, own, *parsed):
            os.unlink(target_path(tree, Folder.CLAIMED, name))
            answered.add(parsed[0])
    for one in scratch.all_of(tree):
        if one.job in answered:
            scratch.discard(tree, one)
    return len(answered)


def _is_answered(tree: Spool, own: Trust, job: uuid.UUID, drop: bytes) -> bool:
    with suppress(OSError):
        path = target_path(tree, Folder.STATUS, status_name(drop))
        content = Path(os.fsdecode(path)).read_bytes()
        return standing.verified(own, content, str(job)) is not None
    return False


def _decided(tree: Spool, own: Trust, one: Scratch, beside: bytes | None) -> Decided | None:
    """The outcome of a job whose files have begun to leave its scratch; None for any other."""
    content = beside
    with suppress(OSError):
        content = (one.path / STATUS_FILE).read_bytes()
    document = standing.verified(own, content, str(one.job))
    if content is None or document is None:
        return None
    if _is_answered(tree, own, one.job, true_name(document)):
        return None  # all of it is done: a row that does not know follows that
    names = standing.names_of(document)
    claimed = target_path(tree, Folder.CLAIMED, claimed_name(one.job, true_name(document)))
    drop_has_left = not os.path.lexists(claimed)
    if DROP not in names or not (drop_has_left or _results_have_left(tree, one, names)):
        return None
    moves = [
        move
        for role, name in names.items()
        if (move := _move(role, name, _paths(tree, one, claimed, role, name))) is not None
    ]
    ending = Ending.of(document)
    return Decided(
        id=one.job,
        epoch=one.epoch,
        drop_name=true_name(document),
        drop_bytes=next((move.size for move in moves if move.role == DROP), 0),
        document=document,
        key=_key(document, ending),
        publication=Publication(ending.outcome(), content, tuple(moves), tuple(names.values())),
    )


def _results_have_left(tree: Spool, one: Scratch, names: Mapping[str, Name]) -> bool:
    """Results are renamed before the drop: then this scratch has none, and they are in place."""
    results = [name for role, name in names.items() if role not in {DROP, LOG, STATUS}]
    there = all(os.path.lexists(target_path(tree, *name)) for name in results)
    return bool(results) and there and set(os.listdir(one.path)) <= _NO_RESULTS


def _paths(tree: Spool, one: Scratch, claimed: bytes, role: str, name: Name) -> list[bytes]:
    """Where a file may stand, its source first."""
    target = target_path(tree, *name)
    if role == DROP:
        return [claimed, target]
    if role in _SOURCES:
        return [os.fsencode(one.path / _SOURCES[role]), target]
    return [target]


def _move(role: str, name: Name, paths: Iterable[bytes]) -> Move | None:
    """The move of a file as it stands; None for one that a consumer has taken meanwhile."""
    for path in paths:
        with suppress(OSError):
            return found_move(role, _SOURCES.get(role, ""), name, os.lstat(path))
    return None


def _key(document: Document, ending: Ending) -> tuple[bytes, bytes] | None:
    action = document["action"]
    if ending.state is not State.SUCCEEDED or ending.result is None or action not in ACTIONS:
        return None
    return ACTIONS[str(action)].key_of(ending.result)


def _finals_beside(tree: Spool, unknown: Iterable[Scratch]) -> dict[uuid.UUID, bytes]:
    """Status files beside drops, of jobs that no row and no name tells of: all are looked at."""
    wanted = {one.job for one in unknown if not (one.path / STATUS_FILE).exists()}
    if not wanted:
        return {}
    found = {}
    for folder in (Folder.PROCESSED, Folder.FAILED):
        for path in tree.folder(folder).glob("*.status.json"):
            with suppress(OSError):
                content = path.read_bytes()
                if (job := _job_of(content)) in wanted:
                    found[job] = content
    return found


def _without_drop(tree: Spool, jobs: Iterable[uuid.UUID]) -> list[uuid.UUID]:
    waiting = list(jobs)  # before the listing: a row's drop was there before the row
    there = {parsed[0] for name in _claimed_names(tree) if (parsed := parse_claimed_name(name))}
    return [job for job in waiting if job not in there]


def _claimed_names(tree: Spool) -> list[bytes]:
    return os.listdir(os.fsencode(tree.folder(Folder.CLAIMED)))


def _job_of(content: bytes) -> uuid.UUID | None:
    _, _, rest = content.partition(b'"job_id":"')
    with suppress(ValueError):
        return uuid.UUID(rest[:36].decode("ascii"))
    return None
