"""A finished tree moved into a folder that has content already, name by name.

Both trees are walked through handles of folders that were opened without following links: a link
that stands in the target is an obstacle like a file, it is never gone through.

Guarantees: what is moved is whole and replaces one name at a time, atomically; where folders and
files would have to give way to each other, nothing is moved at all; when `merge` returns, all of it
is durable.
Not guaranteed: that all of it appears at one instant, as it does where there is no target yet.
Crash: some names are moved, the others still stand in the source tree, which stays. The same merge
again, with REPLACE, brings the target to the same end.
"""

import enum
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spoold import canonical, errors
from spoold.disk import rename_new, sync_file_system
from spoold.errors import SpooldError
from spoold.sinks.places import FOLDER_FLAGS, Folders

_HANDLE_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Conflict(enum.StrEnum):
    """What becomes of a name that stands in the target already."""

    REFUSE = "refuse"  # nothing is restored
    SKIP = "skip"  # what stands there stays
    REPLACE = "replace"  # a file or link gives way to a file or link


@dataclass(slots=True)
class Merged:
    """How many names stood in the target: kept as they were, or replaced."""

    kept: int = 0
    replaced: int = 0


def merge(
    source: Path,
    target: Path,
    conflict: Conflict,
    *,
    described: Callable[[bytes], bool],
    owners: bool = False,
) -> Merged:
    """Move what is in `source` into `target`, which is a folder on the same file system.

    `described` says of a folder's path whether its mode and times are to be set where it stands
    already (with REPLACE only). Raises target-exists before anything is moved, later disk-error or
    no-space.
    """
    here = os.open(source, FOLDER_FLAGS)
    try:
        there = os.open(target, FOLDER_FLAGS)
        try:
            if conflict is not Conflict.SKIP:
                _check(here, there, target, conflict)
            mover = _Mover(conflict, described, owners)
            mover.move_all(here, there, b"")
            sync_file_system(target)
        finally:
            os.close(there)
    finally:
        os.close(here)
    return mover.done


class Foresight:
    """What `merge` would find in a target, told by the paths of the entries alone; changes nothing.

    Use as a context manager; `done` counts as `merge` does.
    """

    def __init__(self, target: Path, conflict: Conflict) -> None:
        self._target, self._conflict = target, conflict
        self._folders = Folders(os.open(target, FOLDER_FLAGS))
        self._kept: set[bytes] = set()
        self.done = Merged()

    def __enter__(self) -> "Foresight":
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.close()

    def meet(self, path: bytes, *, is_folder: bool) -> None:
        """Take the next entry. Raises target-exists where it would."""
        try:
            standing = self._standing(path)
        except OSError as error:
            raise _failure(path, error) from error
        if standing is None:
            return
        name, mode = standing
        if stat.S_ISDIR(mode) and is_folder:
            return
        if self._conflict is Conflict.SKIP:
            self._kept.add(name)
            self.done.kept = len(self._kept)
        elif self._conflict is Conflict.REFUSE or name != path or is_folder or stat.S_ISDIR(mode):
            raise _in_the_way(self._target, name, self._conflict)
        else:
            self.done.replaced += 1

    def _standing(self, path: bytes) -> tuple[bytes, int] | None:
        """The path and its mode, if something stands there; or those of what is in its way."""
        above, _, name = path.rpartition(b"/")
        try:
            folder = self._folders.find(above)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            return self._standing(above)  # it, or something above it, is no folder
        mode = None if folder is None else _mode(folder, name)
        return None if mode is None else (path, mode)


def _in_the_way(target: Path, path: bytes, conflict: Conflict) -> SpooldError:
    shown = canonical.text(path)
    why = "it is there" if conflict is Conflict.REFUSE else "a folder cannot replace a file"
    return SpooldError(
        errors.TARGET_EXISTS, f"{canonical.text(str(target))}/{shown}: {why}", at=shown
    )


def _check(here: int, there: int, target: Path, conflict: Conflict) -> None:
    found = _obstacles(here, there, b"", conflict)
    if (first := next(found, None)) is not None:
        raise _in_the_way(target, first, conflict)


def _obstacles(here: int, there: int, above: bytes, conflict: Conflict) -> Iterator[bytes]:
    for name, is_folder in _names(here):
        standing = _mode(there, name)
        if standing is None:
            continue
        if is_folder and stat.S_ISDIR(standing):
            with entered(here, name) as (inner, _), entered(there, name) as (other, _):
                yield from _obstacles(inner, other, above + name + b"/", conflict)
        elif conflict is Conflict.REFUSE or is_folder or stat.S_ISDIR(standing):
            yield above + name


@dataclass(slots=True)
class _Mover:
    conflict: Conflict
    described: Callable[[bytes], bool]
    owners: bool
    done: Merged = field(default_factory=Merged)

    def move_all(self, here: int, there: int, above: bytes) -> None:
        for name, is_folder in _names(here):
            path = above + name
            try:
                standing = _mode(there, name)
                if standing is None:
                    self._move_new(here, there, name, is_folder=is_folder)
                elif is_folder and stat.S_ISDIR(standing):
                    self._go_into(here, there, path, name)
                else:
                    self._meet(here, there, name)
            except OSError as error:
                raise _failure(path, error) from error

    def _go_into(self, here: int, there: int, path: bytes, name: bytes) -> None:
        with entered(here, name) as (inner, status):
            with entered(there, name) as (other, _):
                self.move_all(inner, other, path + b"/")
            if self.conflict is Conflict.REPLACE and self.described(path):
                _dress(there, name, status, owners=self.owners)

    def _move_new(self, here: int, there: int, name: bytes, *, is_folder: bool) -> None:
        # Renaming a folder into another one needs leave to write in itself.
        with entered(here, name) if is_folder else nullcontext():
            try:
                # The handles' own paths: renameat2(2) with a flag is at hand for paths only.
                rename_new(_through(here, name), _through(there, name))
            except FileExistsError:  # somebody was faster
                if is_folder and self.conflict is not Conflict.SKIP:
                    raise
                self._meet(here, there, name)

    def _meet(self, here: int, there: int, name: bytes) -> None:
        if self.conflict is Conflict.SKIP:
            self.done.kept += 1
            return
        if self.conflict is Conflict.REFUSE:
            raise FileExistsError(errno.EEXIST, "it is there")
        os.replace(name, name, src_dir_fd=here, dst_dir_fd=there)
        self.done.replaced += 1


def _names(folder: int) -> list[tuple[bytes, bool]]:
    with os.scandir(folder) as found:
        return sorted(
            (os.fsencode(item.name), item.is_dir(follow_symlinks=False)) for item in found
        )


def _mode(folder: int, name: bytes) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _through(folder: int, name: bytes) -> bytes:
    return f"/proc/self/fd/{folder}/".encode() + name


@contextmanager
def entered(parent: int, name: bytes) -> Iterator[tuple[int, os.stat_result]]:
    """A folder and its status. What its mode denies us, its owner, is granted until it is left."""
    handle = os.open(name, _HANDLE_FLAGS, dir_fd=parent)
    try:
        status = os.fstat(handle)
        mode = stat.S_IMODE(status.st_mode)
        narrow = mode & 0o700 != 0o700 and status.st_uid == os.geteuid()
        if narrow:
            os.chmod(_itself(handle), mode | 0o700)
        try:
            descriptor = os.open(b".", FOLDER_FLAGS, dir_fd=handle)
            try:
                yield descriptor, status
            finally:
                os.close(descriptor)
        finally:
            if narrow:
                os.chmod(_itself(handle), mode)
    finally:
        os.close(handle)


def _dress(parent: int, name: bytes, status: os.stat_result, *, owners: bool) -> None:
    handle = os.open(name, _HANDLE_FLAGS, dir_fd=parent)
    try:
        if owners:
            os.chown(_itself(handle), status.st_uid, status.st_gid)
        os.chmod(_itself(handle), stat.S_IMODE(status.st_mode))
        os.utime(_itself(handle), ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(handle)


def _itself(handle: int) -> str:
    # fchmod(2) and the like refuse a handle that was opened without leave to read.
    return f"/proc/self/fd/{handle}"


def _failure(path: bytes, error: OSError) -> SpooldError:
    shown = canonical.text(path)
    if isinstance(error, FileExistsError | NotADirectoryError):
        return SpooldError(errors.TARGET_EXISTS, f"{shown}: {error.strerror}", at=shown)
    return SpooldError(errors.disk_code(error), f"{shown}: {error.strerror}", at=shown)
