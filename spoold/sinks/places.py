"""Where restored files go: folders reached through handles, and files that have no name yet.

Every step is taken from an open folder and never through a symbolic link.
"""

import errno
import os
import secrets
from contextlib import suppress
from typing import Final

from spoold.bundle.entry import Entry

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
UNFINISHED_MODE: Final = 0o700
_IMPLIED_MODE: Final = 0o755  # of folders that no entry describes
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})


class Folders:
    """Handles of the folder in use and of those above it."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._path = b""
        self._names: list[bytes] = []
        self._handles = [top]

    def handle(self, path: bytes) -> int:
        """A handle of a folder beneath the top, made if it is missing; good until the next call."""
        if path == self._path:
            return self._handles[-1]
        names = path.split(b"/") if path else []
        common = 0
        for old, new in zip(self._names, names, strict=False):
            if old != new:
                break
            common += 1
        self._path = b"\x00"  # no path: if something fails, nothing is taken for it
        while len(self._names) > common:
            self._names.pop()
            os.close(self._handles.pop())
        for name in names[common:]:
            self._handles.append(self._enter(name, _IMPLIED_MODE))
            self._names.append(name)
        self._path = path
        return self._handles[-1]

    def make(self, path: bytes) -> None:
        """Make a folder that an entry describes: private until its time comes."""
        parent, _, name = path.rpartition(b"/")
        handle = self.handle(parent)
        try:
            os.mkdir(name, UNFINISHED_MODE, dir_fd=handle)
        except FileExistsError:
            # Made on the way to another source's file; anything else stands against it.
            os.close(os.open(name, FOLDER_FLAGS, dir_fd=handle))

    def close(self) -> None:
        """Close all handles."""
        while self._handles:
            os.close(self._handles.pop())

    def _enter(self, name: bytes, mode: int) -> int:
        handle = self._handles[-1]
        try:
            return os.open(name, FOLDER_FLAGS, dir_fd=handle)
        except FileNotFoundError:
            os.mkdir(name, UNFINISHED_MODE, dir_fd=handle)
            descriptor = os.open(name, FOLDER_FLAGS, dir_fd=handle)
            os.fchmod(descriptor, mode)
            return descriptor


class LargeFile:
    """A file without a name, or with one of our own where the file system has no O_TMPFILE."""

    def __init__(self, entry: Entry, folder: int, *, unnamed: bool) -> None:
        self.entry = entry
        self._name = entry.path.rpartition(b"/")[2]
        self._folder = os.dup(folder)
        self._temporary: bytes | None = None
        try:
            self.descriptor = self._open(unnamed)
        except BaseException:
            os.close(self._folder)
            raise

    @property
    def is_unnamed(self) -> bool:
        """Whether O_TMPFILE worked."""
        return self._temporary is None

    def give_name(self) -> None:
        """Make it visible in its folder; FileExistsError where the name stands."""
        if self._temporary is None:
            # With either dir_fd, os.link is linkat(2) with AT_SYMLINK_FOLLOW, which /proc needs;
            # without, link(2), which says EXDEV.
            os.link(
                f"/proc/self/fd/{self.descriptor}".encode(),
                self._name,
                src_dir_fd=self._folder,
                dst_dir_fd=self._folder,
                follow_symlinks=True,
            )
            return
        os.link(
            self._temporary,
            self._name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=False,
        )
        os.unlink(self._temporary, dir_fd=self._folder)
        self._temporary = None

    def close(self) -> None:
        """Close it; without `give_name` before, it is gone."""
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
        os.close(self.descriptor)
        os.close(self._folder)

    def _open(self, unnamed: bool) -> int:
        if unnamed:
            try:
                flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
                return os.open(b".", flags, 0o600, dir_fd=self._folder)
            except OSError as error:
                if error.errno not in _NO_UNNAMED:
                    raise
        self._temporary = f".{secrets.token_hex(16)}.restoring".encode()
        return os.open(self._temporary, NEW_FLAGS, 0o600, dir_fd=self._folder)
