"""Where restored files go: folders reached through handles, and files that have no name yet.

Every step is taken from an open folder and never through a symbolic link.
"""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
UNFINISHED_MODE: Final = 0o700
_IMPLIED_MODE: Final = 0o755  # of folders that no entry describes
_NO_UNNAMED: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL})


def _implied(folder: int) -> None:
    os.fchmod(folder, _IMPLIED_MODE)


class Folders:
    """Handles of the folder in use and of those above it.

    `dress` gives a folder that was made on the way its owner and mode.
    """

    def __init__(self, top: int, dress: Callable[[int], None] = _implied) -> None:
        self.top = top
        self._dress = dress
        self._path = b""
        self._names: list[bytes] = []
        self._handles = [top]

    def handle(self, path: bytes) -> int:
        """A handle of a folder beneath the top, made if it is missing; good until the next call."""
        return self._go(path, self._enter)

    def find(self, path: bytes) -> int | None:
        """The same of a folder that is there; None where it is not."""
        try:
            return self._go(path, self._open)
        except FileNotFoundError:
            return None

    def _go(self, path: bytes, enter: Callable[[bytes], int]) -> int:
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
            self._handles.append(enter(name))
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

    def _open(self, name: bytes) -> int:
        return os.open(name, FOLDER_FLAGS, dir_fd=self._handles[-1])

    def _enter(self, name: bytes) -> int:
        try:
            return self._open(name)
        except FileNotFoundError:
            try:
                os.mkdir(name, UNFINISHED_MODE, dir_fd=self._handles[-1])
            except FileExistsError:  # somebody else was faster
                return self._open(name)
            descriptor = self._open(name)
            self._dress(descriptor)
            return descriptor


class LargeFile:
    """A file without a name, or with one of our own where the file system has no O_TMPFILE."""

    def __init__(self, name: bytes, folder: int, *, unnamed: bool) -> None:
        self._name = name
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
            self._link(self._name)
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

    def take_name(self) -> None:
        """Make it visible in its folder, in the place of what stands there."""
        if self._temporary is None:
            temporary = _temporary_name()
            self._link(temporary)
            self._temporary = temporary
        os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._temporary = None

    def close(self) -> None:
        """Close it; without a name given before, it is gone."""
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
        os.close(self.descriptor)
        os.close(self._folder)

    def _link(self, name: bytes) -> None:
        # With either dir_fd, os.link is linkat(2) with AT_SYMLINK_FOLLOW, which /proc needs;
        # without, link(2), which says EXDEV.
        os.link(
            f"/proc/self/fd/{self.descriptor}".encode(),
            name,
            src_dir_fd=self._folder,
            dst_dir_fd=self._folder,
            follow_symlinks=True,
        )

    def _open(self, unnamed: bool) -> int:
        if unnamed:
            try:
                flags = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
                return os.open(b".", flags, 0o600, dir_fd=self._folder)
            except OSError as error:
                if error.errno not in _NO_UNNAMED:
                    raise
        self._temporary = _temporary_name()
        return os.open(self._temporary, NEW_FLAGS, 0o600, dir_fd=self._folder)


def _temporary_name() -> bytes:
    return f".{secrets.token_hex(16)}.restoring".encode()
