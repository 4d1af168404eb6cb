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

import structlog

from spoold import disk, points
from spoold.publish.plan import STATUS_FILE
from spoold.queue.answers import StateAndEpoch
from spoold.queue.job import FINAL, Claim, State
from spoold.queue.patience import patiently
from spoold.queue.store import Store
from spoold.sinks.remove import remove_tree
from spoold.spool import Folder, Spool

log = structlog.get_logger()

_NAME = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})\.([0-9]+)")


class LeaseLostError(Exception):
    """The job is somebody else's by now: this attempt publishes nothing."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """One scratch folder."""

    job: uuid.UUID
    epoch: int
    path: Path


def begin(tree: Spool, claim: Claim) -> Path:
    """A new empty scratch folder for an attempt; older ones of the job go to the trash.

    Raises LeaseLostError where a newer claim has begun: nothing is changed then.
    """
    if claim.epoch > 1:
        for older in _older(tree, claim):
            discard(tree, older)
    path = _path(tree, claim.id, claim.epoch)
    path.mkdir(mode=0o700)
    return path


def take_over(tree: Spool, claim: Claim) -> Path:
    """The newest older folder of a job whose publishing goes on, renamed to this claim's epoch.

    Raises LeaseLostError where a newer claim has begun: nothing is changed then.
    """
    _older(tree, claim)
    path = _path(tree, claim.id, claim.epoch)
    while not path.exists():
        # An empty one holds nothing to publish, and stands for none that does.
        filled = [older for older in _before(tree, claim) if not _removed_empty(older)]
        if not filled:
            path.mkdir(mode=0o700)
            break
        # A worker that has lost its claim may be at this too: what it has renamed is found again.
        with suppress(FileNotFoundError):
            disk.rename_new(filled[-1].path, path)
            points.reached("take_over")
            for rest in filled[:-1]:
                discard(tree, rest)
    return path


def all_of(tree: Spool) -> list[Scratch]:
    """Every scratch folder of the spool."""
    work = tree.folder(Folder.WORK)
    return [
        Scratch(uuid.UUID(match[1]), int(match[2]), work / name)
        for name in os.listdir(work)
        if (match := _NAME.fullmatch(name))
    ]


def newest(tree: Spool, job: uuid.UUID) -> Path | None:
    """The folder of a job's last attempt, if there is one."""
    found = max(_of_job(tree, job), key=lambda scratch: scratch.epoch, default=None)
    return found.path if found else None


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


def leave(tree: Spool, store: Store, claim: Claim) -> None:
    """Remove the folder of a claim that was lost, as the sweep would: it may be the next one's.

    What a row that is being published has recorded stands in it, and nowhere else.
    """
    scratch = Scratch(claim.job.id, claim.epoch, _path(tree, claim.id, claim.epoch))
    if _removed_empty(scratch):  # made after a newer claim had looked: nobody would move it
        return
    rows = patiently(store.existing, [scratch.job])
    if _is_over(tree, scratch, rows.get(scratch.job)):
        end(tree, scratch.path)


def begun(tree: Spool, store: Store) -> set[uuid.UUID]:
    """The jobs whose present claim has taken its first step."""
    found = all_of(tree)
    rows = store.existing([scratch.job for scratch in found])
    return {
        scratch.job
        for scratch in found
        if (row := rows.get(scratch.job)) is not None and row.epoch == scratch.epoch
    }


def sweep(tree: Spool, store: Store) -> int:
    """Empty the trash and remove the scratch that nobody can own; returns how many went.

    A folder goes only if its job's row has a higher epoch, or is final, or if there is neither a
    row nor a claimed file nor a final status in it: never one of a job that is being published.
    """
    found = all_of(tree)
    rows = store.existing([scratch.job for scratch in found])
    removed = 0
    for scratch in found:
        if _is_over(tree, scratch, rows.get(scratch.job)):
            discard(tree, scratch)
            removed += 1
    _empty_trash(tree)
    return removed


def _is_over(tree: Spool, scratch: Scratch, row: StateAndEpoch | None) -> bool:
    """Whether nobody can own this folder any more."""
    if row is None:
        # A final status in it may be all that is left of a job in a database that was lost.
        answered = (scratch.path / STATUS_FILE).exists()
        return not (answered or _has_claimed_file(tree, scratch.job))
    return row.state in FINAL or (row.epoch > scratch.epoch and row.state is not State.PUBLISHING)


def _empty_trash(tree: Spool) -> None:
    """What cannot be removed stops nothing else, and is tried again by the next sweep."""
    failed: OSError | None = None
    with suppress(FileNotFoundError):
        for entry in os.scandir(tree.folder(Folder.TRASH)):
            try:
                remove_tree(entry.path)
            except OSError as error:
                failed = error
    if failed is not None:
        log.warning("trash.not-removed", error=str(failed))


def _path(tree: Spool, job: uuid.UUID, epoch: int) -> Path:
    return tree.folder(Folder.WORK) / f"{job}.{epoch}"


def _older(tree: Spool, claim: Claim) -> list[Scratch]:
    """The folders of earlier claims, oldest first. Raises LeaseLostError where there is a newer."""
    found = sorted(_of_job(tree, claim.job.id), key=lambda scratch: scratch.epoch)
    if found and found[-1].epoch > claim.epoch:
        raise LeaseLostError
    return [scratch for scratch in found if scratch.epoch < claim.epoch]


def _before(tree: Spool, claim: Claim) -> Iterator[Scratch]:
    """The folders of earlier claims, oldest first, looked for one by one.

    A listing may miss a folder that is renamed meanwhile, under both its names. These are only ever
    renamed to a later epoch, and so are met there at the latest.
    """
    for epoch in range(1, claim.epoch):
        path = _path(tree, claim.id, epoch)
        if path.exists():
            yield Scratch(claim.id, epoch, path)


def _removed_empty(scratch: Scratch) -> bool:
    try:
        scratch.path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _of_job(tree: Spool, job: uuid.UUID) -> list[Scratch]:
    return [scratch for scratch in all_of(tree) if scratch.job == job]


def _has_claimed_file(tree: Spool, job: uuid.UUID) -> bool:
    prefix = f"{job}."
    return any(name.startswith(prefix) for name in os.listdir(tree.folder(Folder.CLAIMED)))


def discard(tree: Spool, scratch: Scratch) -> None:
    """Remove a scratch folder, its name first."""
    # Renamed first: removing takes time, and the name must be gone before the new attempt begins.
    with suppress(FileNotFoundError):
        trash = _to_trash(tree, scratch.path)
        remove_tree(trash)


def _to_trash(tree: Spool, path: Path) -> Path:
    trash = tree.folder(Folder.TRASH) / f"{path.name}.{uuid.uuid4().hex[:12]}"
    try:
        disk.rename_new(path, trash)
    except PermissionError:  # moving a folder writes to it, and a handler's tool may have closed it
        path.chmod(0o700)
        disk.rename_new(path, trash)
    points.reached("trash")
    return trash
