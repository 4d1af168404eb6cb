"""A folder that keeps artifacts: what stands in it, and whole new files put beside that.

The store's own path is the operator's word: links in it are followed. Beneath it every step is
taken from an open folder and never through a symbolic link; a link, or anything else that is no
regular file, is never replaced either. Other file systems may be mounted beneath it.

Guarantees: a file appears under its name whole, after what the disk holds of it was read again
through another descriptor and had the hash it was to have. When `sync` returns, names are durable,
those that were only looked at as well: an earlier attempt may have given them and then died.
Crash: names that were made stay, and may be lost in a power cut before `sync`; where the file
system has no unnamed files, `.<digits>.restoring` may stay beside them.
"""

import enum
import errno
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from spoold import canonical, errors
from spoold.disk import begin_sync, sync_file_system
from spoold.errors import SpooldError
from spoold.sinks.places import Folders, LargeFile

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_READ_BYTES: Final = 1024 * 1024
_FEW_FILES: Final = 16  # so many are fsynced one by one; for more, the whole file system is
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ESTALE})
_IN_THE_WAY: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})


class Standing(enum.Enum):
    """What a store has under a name."""

    NOTHING = enum.auto()
    SAME = enum.auto()
    OTHER = enum.auto()


@dataclass(frozen=True, slots=True)
class Policy:
    """Whose a store's files and folders are, and their modes. None: whoever makes them."""

    file_mode: int
    folder_mode: int
    uid: int | None = None
    gid: int | None = None

    def dress_file(self, descriptor: int) -> None:
        """Give a new file its owner and mode."""
        self._own(descriptor)
        os.fchmod(descriptor, self.file_mode)

    def dress_folder(self, descriptor: int) -> None:
        """Give a new folder its owner and mode."""
        self._own(descriptor)
        os.fchmod(descriptor, self.folder_mode)

    def _own(self, descriptor: int) -> None:
        if self.uid is not None or self.gid is not None:
            os.fchown(descriptor, -1 if self.uid is None else self.uid,
                      -1 if self.gid is None else self.gid)  # fmt: skip


@dataclass(slots=True)
class _FileSystem:
    """One that has something of the store."""

    folder: int
    """A descriptor of a folder on it."""
    new_bytes: int = 0
    """Of what was looked for and is not there."""
    new_files: int = 0


class Store:
    """An open store. Names are paths beneath it."""

    def __init__(self, folder: Path, policy: Policy, check: Callable[[], None]) -> None:
        """Raises artifacts-away."""
        self._folder, self._policy, self._check = folder, policy, check
        self._unnamed = True
        try:
            top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            code = errors.ARTIFACTS_AWAY if error.errno in _NOT_THERE else errors.DISK_ERROR
            raise SpooldError(code, f"{folder}: {error.strerror}") from error
        self._folders = Folders(top, policy.dress_folder)
        self._file_systems: dict[int, _FileSystem] = {}  # by st_dev

    def close(self) -> None:
        """Give the handles back."""
        self._folders.close()
        while self._file_systems:
            os.close(self._file_systems.popitem()[1].folder)

    def require_room(self, content_bytes: int, files: int) -> None:
        """Raise no-space where so much does not fit.

        Each file system must have room for what `look` has not found there; what replaces other
        files may be on any of them.
        """
        free_bytes = free_files = 0
        for each in self._file_systems.values():
            disk = os.fstatvfs(each.folder)
            room = disk.f_bavail * disk.f_frsize
            # A file system that makes inodes as they are needed counts none.
            places = disk.f_favail if disk.f_files else sys.maxsize
            if room < each.new_bytes or places < each.new_files:
                folder = canonical.text(os.readlink(f"/proc/self/fd/{each.folder}"))
                raise _no_room(folder, each.new_files, each.new_bytes)
            free_bytes += room
            free_files += places
        if free_bytes < content_bytes or free_files < files:
            raise _no_room(str(self._folder), files, content_bytes)

    def look(self, name: bytes, sha256: str, size: int) -> Standing:
        """What stands under a name, its content read. Raises artifact-conflict, disk-error."""
        with store_errors(name):
            file_system = self._file_system_of(name)
            descriptor = self._open(name)
            if descriptor is None:
                file_system.new_bytes += size
                file_system.new_files += 1
                return Standing.NOTHING
            try:
                if os.fstat(descriptor).st_size != size:
                    return Standing.OTHER
                return Standing.SAME if self._hash(descriptor) == sha256 else Standing.OTHER
            finally:
                os.close(descriptor)

    def open_file(self, name: bytes) -> BinaryIO | None:
        """What stands under a name, for reading; None where nothing does."""
        with store_errors(name):
            descriptor = self._open(name)
            return None if descriptor is None else open(descriptor, "rb")

    def new_file(self, name: bytes) -> LargeFile:
        """A file that is to be filled, dressed, synced, read again, and then given its name."""
        folder, _, last = name.rpartition(b"/")
        with store_errors(name):
            handle = self._folders.handle(folder)
            self._note(handle)
            file = LargeFile(last, handle, unnamed=self._unnamed)
        self._unnamed = file.is_unnamed
        return file

    def dress(self, file: LargeFile, mtime_ns: int | None) -> None:
        """Owner, mode and time of a file that was filled; the kernel begins to write it."""
        self._policy.dress_file(file.descriptor)
        if mtime_ns is not None:
            os.utime(file.descriptor, ns=(mtime_ns, mtime_ns))
        begin_sync(file.descriptor)

    def sync_contents(self, files: Sequence[LargeFile]) -> None:
        """What was filled becomes durable."""
        with store_errors(b"."):
            if len(files) > _FEW_FILES:
                self._sync_file_systems()
                return
            for file in files:
                os.fsync(file.descriptor)

    def read_again(self, file: LargeFile, name: bytes, sha256: str) -> None:
        """Read what was synced. Raises disk-error where it is not what it was to be."""
        with store_errors(name):
            again = os.open(f"/proc/self/fd/{file.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                # So that it comes from the disk, as far as the kernel goes along.
                os.posix_fadvise(again, 0, 0, os.POSIX_FADV_DONTNEED)
                found = self._hash(again)
            finally:
                os.close(again)
        if found != sha256:
            shown = canonical.text(name)
            raise SpooldError(
                errors.DISK_ERROR,
                f"{shown}: what was written has the hash {found}, not {sha256}",
                at=shown,
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Meanwhile nobody else who asks for this does anything in the store."""
        with store_errors(b"."):
            fcntl.flock(self._folders.top, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._folders.top, fcntl.LOCK_UN)

    def sync(self) -> None:
        """Names that were given become durable."""
        with store_errors(b"."):
            self._sync_file_systems()

    def _sync_file_systems(self) -> None:
        for each in self._file_systems.values():
            sync_file_system(f"/proc/self/fd/{each.folder}")

    def _file_system_of(self, name: bytes) -> _FileSystem:
        """The one that has a name, or would get it."""
        folder = name.rpartition(b"/")[0]
        while (handle := self._folders.find(folder)) is None:
            folder = folder.rpartition(b"/")[0]
        return self._note(handle)

    def _note(self, folder: int) -> _FileSystem:
        device = os.fstat(folder).st_dev
        if device not in self._file_systems:
            self._file_systems[device] = _FileSystem(os.dup(folder))
        return self._file_systems[device]

    def _open(self, name: bytes) -> int | None:
        folder, _, last = name.rpartition(b"/")
        handle = self._folders.find(folder)
        if handle is None:
            return None
        try:
            # Looked at first: to open a device can already do something.
            status = os.stat(last, dir_fd=handle, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise obstacle(name, f"{_kind(status.st_mode)} stands there")
            return os.open(last, _READ_FLAGS, dir_fd=handle)
        except FileNotFoundError:
            return None

    def _hash(self, descriptor: int) -> str:
        digest, buffer = hashlib.sha256(), bytearray(_READ_BYTES)
        offset = 0
        while count := os.preadv(descriptor, (buffer,), offset):
            digest.update(memoryview(buffer)[:count])
            offset += count
            self._check()
        return digest.hexdigest()


def _no_room(folder: str, files: int, content_bytes: int) -> SpooldError:
    return SpooldError(
        errors.NO_SPACE, f"{folder}: {files} files with {content_bytes} bytes do not fit"
    )


def obstacle(name: bytes, what: str) -> SpooldError:
    """The artifact-conflict of a name that no setting lets be replaced."""
    shown = canonical.text(name)
    return SpooldError(
        errors.ARTIFACT_CONFLICT,
        f"{shown}: {what}",
        hint="what is no regular file is neither followed nor replaced: move it away, then "
        "`spoold retry` the job",
        at=shown,
    )


@contextmanager
def store_errors(name: bytes) -> Iterator[None]:
    """What the operating system says of a name in the store."""
    try:
        yield
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise obstacle(name, "a link or a file stands where a folder belongs") from error
        shown = canonical.text(name)
        raise SpooldError(
            errors.disk_code(error), f"{shown}: {error.strerror}", at=shown
        ) from error


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a symbolic link stands there"
    return (
        "a folder stands there" if stat.S_ISDIR(mode) else "a device, FIFO or socket stands there"
    )
