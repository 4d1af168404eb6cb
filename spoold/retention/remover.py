"""Remove published files: out of sight, for good, then out of the rows, then from the disk.

(1) each file is looked at, renamed into `trash/`, and looked at again; (2) the folders are synced;
(3) the names are given up in one commit; (4) the trash is emptied.

Guarantees: a file that is not the one which was published stays; whoever has it open goes on
reading; a name is free for other jobs only when its file is gone for good.
Crash: after (1) or (2) the rows still have the names, and the next round finds their files gone;
after (3) the sweep empties the trash.
"""

import enum
import errno
import os
import stat
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from spoold import disk, points
from spoold.publish.plan import STATUS, target_path
from spoold.queue.placed import Places
from spoold.queue.tree_rows import Area, Placed
from spoold.sinks.remove import remove_tree
from spoold.spool import Folder, Spool
from spoold.status import suffixed_name

log = structlog.get_logger()

_ANSWER: Final = "answer"
_FOLDERS: Final = frozenset({"restored", "result"})  # what may be a folder with all that is in it
_MAX_STATUS_BYTES: Final = 4 * 1024 * 1024


class Found(enum.Enum):
    """What stands at a published name."""

    OURS = "ours"
    GONE = "gone"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"  # its folder is not there, or is no folder


@dataclass(slots=True)
class Removed:
    """What was removed. `foreign`: names at which somebody else's file stands, and stays."""

    files: Counter[Area] = field(default_factory=Counter)
    bytes: int = 0
    foreign: int = 0
    failed: int = 0

    def add(self, other: "Removed") -> None:
        """Count another one's too."""
        self.files.update(other.files)
        self.bytes += other.bytes
        self.foreign += other.foreign
        self.failed += other.failed


def is_gone(tree: Spool, one: Placed) -> bool:
    """Whether nothing has a name any more, in a folder that is there."""
    path = target_path(tree, one.folder, one.name)
    return not os.path.lexists(path) and _is_folder(tree, one.folder)


def look(tree: Spool, one: Placed) -> tuple[Found, os.stat_result | None]:
    """What stands at a name; with its status, where anything does. Links are not followed.

    Raises OSError where it cannot be known.
    """
    if not _is_folder(tree, one.folder):
        return Found.UNKNOWN, None
    return _look_at(target_path(tree, one.folder, one.name), one)


class Remover:
    """Removes files of one spool. To be used under the lock `removing`."""

    def __init__(self, tree: Spool, places: Places) -> None:
        self._tree = tree
        self._places = places

    def remove(self, batch: Sequence[Placed]) -> Removed:
        """Remove these files, and give their names up. Raises database-away and OSError.

        What cannot be removed is logged, stays, and keeps its name.
        """
        done = Removed()
        trash: list[bytes] = []
        over: list[Placed] = []
        folders: set[str] = set()
        failure: OSError | None = None
        for one in batch:
            try:
                taken = self._take(one, done)
                if taken is not None:
                    trash.append(taken)
                    folders.add(one.folder)
                if taken is not None or self._is_over(one):
                    over.append(one)
            except OSError as error:
                done.failed += 1
                failure = error
            points.reached("retain.renamed")
        if failure is not None:  # one for all: it may be the same with each
            log.warning("retention.not-removed", files=done.failed, error=str(failure))
        for folder in sorted(folders):
            disk.sync_folder(self._tree.root / folder)
        points.reached("retain.synced")
        self._places.give_up(over)
        points.reached("retain.given-up")
        for each in trash:
            with suppress(OSError):  # the sweep tries again, and says why not
                remove_tree(each)
        return done

    def _take(self, one: Placed, done: Removed) -> bytes | None:
        """Rename a file into the trash; its path there, None where it is not the one meant."""
        found, status = look(self._tree, one)
        done.foreign += found is Found.FOREIGN
        if found is not Found.OURS:
            return None
        path = target_path(self._tree, one.folder, one.name)
        trash = target_path(self._tree, Folder.TRASH, f"{one.job}.{uuid.uuid4().hex[:12]}".encode())
        try:
            disk.rename_unique(path, trash)
        except FileNotFoundError:
            return None
        if _look_at(trash, one)[0] is not Found.OURS:
            self._put_back(one, trash, path)
            done.foreign += 1
            return None
        done.files[one.area] += 1
        if status is not None and stat.S_ISREG(status.st_mode):
            done.bytes += status.st_size
        return trash

    def _put_back(self, one: Placed, trash: bytes, path: bytes) -> None:
        """What somebody has put there meanwhile is his; beside, where there is a third by now."""
        try:
            disk.rename_new(trash, path)
        except FileExistsError:
            if one.area is Area.STATUS:  # an answer that a newer one has replaced
                os.unlink(trash)
                return
            beside = suffixed_name(one.name, uuid.uuid4().hex[:12])
            disk.rename_new(trash, target_path(self._tree, one.folder, beside))

    def _is_over(self, one: Placed) -> bool:
        return look(self._tree, one)[0] in {Found.GONE, Found.FOREIGN}


def _look_at(path: bytes, one: Placed) -> tuple[Found, os.stat_result | None]:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found.GONE, None
    if one.role in {STATUS, _ANSWER}:
        ours = stat.S_ISREG(status.st_mode) and _is_final_of(path, one.job)
    elif stat.S_ISDIR(status.st_mode):
        ours = one.role in _FOLDERS and status.st_ino == one.inode
    else:
        ours = (
            stat.S_ISREG(status.st_mode)
            and (status.st_ino, status.st_size) == (one.inode, one.size)
            and one.mtime_ns in {None, 0, status.st_mtime_ns}
        )
    return (Found.OURS if ours else Found.FOREIGN), status


def _is_final_of(path: bytes, job: uuid.UUID) -> bool:
    """Whether a file says that it is this job's final status: its inode may be a redo's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            content = file.read(_MAX_STATUS_BYTES)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:  # gone, or a link by now
            return False
        raise
    return b'"job_id":"%s"' % str(job).encode() in content and b'"final":true' in content


def _is_folder(tree: Spool, folder: str) -> bool:
    """Whether the way to a name is one of folders alone: no links, nothing unmounted.

    A site's folder in `restored/` may be gone with all that was in it.
    """
    top, _, site = folder.partition("/")
    try:
        if not stat.S_ISDIR((tree.root / top).lstat().st_mode):
            return False
        return not site or stat.S_ISDIR((tree.root / folder).lstat().st_mode)
    except FileNotFoundError:
        return (tree.root / top).is_dir() and bool(site)
    except OSError:
        return False
