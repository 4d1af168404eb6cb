"""Scratch folders, `work/<job id>.<epoch>/`: fencing on disk, and sweeping what crashes left.

A row cannot guard a rename. So the first act of a claim is to rename every older folder of its job
away: whatever a worker that lost its lease still wants to move is then no longer where it looks.

Crash: a folder in `trash/` is removed by the next sweep; one in `work/` once its job's row shows
that nobody can own it any more.
"""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spoold import spool
from spoold.queue.job import FINAL, Claim, State
from spoold.queue.store import Store
from spoold.sinks.remove import remove_tree
from spoold.spool import Folder, Spool

_NAME = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Scratch:
    """One scratch folder."""

    job: uuid.UUID
    epoch: int
    path: Path


def begin(tree: Spool, claim: Claim) -> Path:
    """A new empty scratch folder for an attempt; older ones of the job go to the trash."""
    if claim.epoch > 1:
        for older in _of_job(tree, claim.job.id):
            _discard(tree, older)
    path = _path(tree, claim)
    path.mkdir(mode=0o700)
    return path


def take_over(tree: Spool, claim: Claim) -> Path:
    """The newest older folder of a job whose publishing goes on, renamed to this claim's epoch."""
    path = _path(tree, claim)
    older = sorted(_of_job(tree, claim.job.id), key=lambda scratch: scratch.epoch)
    if older and older[-1].epoch < claim.epoch:
        spool.rename_new(older.pop().path, path)
    for rest in older:
        if rest.epoch < claim.epoch:
            _discard(tree, rest)
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def end(tree: Spool, path: Path) -> None:
    """Remove an attempt's folder; what cannot be removed now is left to the sweep."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        with suppress(OSError):
            trash = _to_trash(tree, path)
            remove_tree(trash)


def sweep(tree: Spool, store: Store) -> int:
    """Empty the trash and remove the scratch that nobody can own; returns how many went.

    A folder goes only if its job's row has a higher epoch, or is final, or if there is neither a
    row nor a claimed file: never one of a job that is being published.
    """
    found = list(_all(tree))
    rows = store.existing([scratch.job for scratch in found])
    removed = 0
    for scratch in found:
        row = rows.get(scratch.job)
        if row is None:
            gone = not _has_claimed_file(tree, scratch.job)
        else:
            gone = row.state in FINAL or (
                row.epoch > scratch.epoch and row.state is not State.PUBLISHING
            )
        if gone:
            _discard(tree, scratch)
            removed += 1
    with suppress(FileNotFoundError):
        for entry in os.scandir(tree.folder(Folder.TRASH)):
            remove_tree(Path(entry.path))
    return removed


def _path(tree: Spool, claim: Claim) -> Path:
    return tree.folder(Folder.WORK) / f"{claim.job.id}.{claim.epoch}"


def _all(tree: Spool) -> Iterator[Scratch]:
    for name in os.listdir(tree.folder(Folder.WORK)):
        if match := _NAME.fullmatch(name):
            yield Scratch(uuid.UUID(match[1]), int(match[2]), tree.folder(Folder.WORK) / name)


def _of_job(tree: Spool, job: uuid.UUID) -> list[Scratch]:
    return [scratch for scratch in _all(tree) if scratch.job == job]


def _has_claimed_file(tree: Spool, job: uuid.UUID) -> bool:
    prefix = f"{job}."
    return any(name.startswith(prefix) for name in os.listdir(tree.folder(Folder.CLAIMED)))


def _discard(tree: Spool, scratch: Scratch) -> None:
    # Renamed first: removing takes time, and the name must be gone before the new attempt begins.
    with suppress(FileNotFoundError):
        trash = _to_trash(tree, scratch.path)
        remove_tree(trash)


def _to_trash(tree: Spool, path: Path) -> Path:
    trash = tree.folder(Folder.TRASH) / f"{path.name}.{uuid.uuid4().hex[:12]}"
    spool.rename_new(path, trash)
    return trash
