"""A file or folder beneath a configured root, opened without following links.

Every step is taken relative to a directory handle and with O_NOFOLLOW, so that a folder which is
swapped for a symbolic link meanwhile ends it with an error, never outside the root. The root itself
is the operator's word: links in its own path are followed, each time it is opened. Wherever that
leads, no spool's private folder is entered: whoever can replace a root does not get its keys.
"""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final

from spoold import canonical, errors
from spoold.bundle.content import changed
from spoold.errors import SpooldError
from spoold.spool import Folder

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PRIVATE_NAME: Final = os.fsencode(Folder.PRIVATE)
_IDENTITY_NAME: Final = b"spool.id"
FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class RootedPath:
    """What a request names by a root and a path beneath it; an empty path is the root itself."""

    def __init__(self, root: str, path: str, roots: Mapping[str, Path]) -> None:
        """Raises root-unknown or path-outside-root."""
        if root not in roots:
            known = ", ".join(sorted(roots)) or "none is configured"
            raise SpooldError(
                errors.ROOT_UNKNOWN, f"{canonical.text(root)}; there are: {known}", at="root"
            )
        self._root, self._folder = root, roots[root]
        self._path = path
        self._segments = _segments(path)

    def open(self) -> tuple[int, bytes | None]:
        """A handle of the folder and None; or of the folder that holds the file, and its name.

        Raises path-outside-root, source-missing or source-unreadable.
        """
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self.failure(error, "the root") from error
        descriptor, name = self._descend(folder)
        try:
            require_public(descriptor)
        except SpooldError:
            os.close(descriptor)
            raise
        return descriptor, name

    def _descend(self, folder: int) -> tuple[int, bytes | None]:
        """What `open` returns, from a handle of the root, which is used up."""
        for number, segment in enumerate(self._segments):
            shown = canonical.text(b"/".join(self._segments[: number + 1]))
            try:
                status = os.stat(segment, dir_fd=folder, follow_symlinks=False)
                last = number == len(self._segments) - 1
                if last and stat.S_ISREG(status.st_mode):
                    return folder, segment
                if stat.S_ISLNK(status.st_mode):
                    raise SpooldError(
                        errors.PATH_OUTSIDE_ROOT, f"{shown} is a symbolic link", at="path"
                    )
                following = os.open(segment, FOLDER_FLAGS, dir_fd=folder)
            except OSError as error:
                os.close(folder)
                raise self.failure(error, shown) from error
            except SpooldError:
                os.close(folder)
                raise
            os.close(folder)
            folder = following
        return folder, None

    def open_file(self) -> BinaryIO:
        """Open the file for reading.

        Raises path-outside-root, source-missing (also for a folder), source-changed or
        source-unreadable.
        """
        folder, name = self.open()
        try:
            if name is None:
                shown = canonical.text(self._path)
                raise SpooldError(
                    errors.SOURCE_MISSING, f"{shown} is a folder, not a file", at="path"
                )
            descriptor = os.open(name, FILE_FLAGS, dir_fd=folder)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise changed(name, "it is no regular file any more")
            return open(descriptor, "rb", buffering=0)
        except OSError as error:
            raise self.failure(error, canonical.text(name or b"")) from error
        finally:
            os.close(folder)

    def failure(self, error: OSError, shown: str) -> SpooldError:
        """What the operating system says of a path beneath the root, as an error of the request."""
        where = f"{shown} (root {canonical.text(self._root)})"
        if error.errno == errno.ELOOP:
            return SpooldError(errors.PATH_OUTSIDE_ROOT, f"{where} is a symbolic link", at="path")
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            what = "does not exist" if error.errno == errno.ENOENT else "is neither file nor folder"
            return SpooldError(errors.SOURCE_MISSING, f"{where} {what}", at="path")
        return SpooldError(errors.SOURCE_UNREADABLE, f"{where}: {error.strerror}", at="path")


def require_public(descriptor: int) -> None:
    """Raise path-outside-root for a spool's private folder and all in it, however reached."""
    path = b""
    for part in os.readlink(b"/proc/self/fd/%d" % descriptor).split(b"/")[1:]:
        path += b"/" + part
        if part == PRIVATE_NAME and os.path.lexists(path + b"/" + _IDENTITY_NAME):
            shown = canonical.text(path)
            raise SpooldError(
                errors.PATH_OUTSIDE_ROOT, f"{shown} holds a spool's own files and keys", at="path"
            )


def _segments(path: str) -> list[bytes]:
    raw = path.encode()
    segments = [segment for segment in raw.rstrip(b"/").split(b"/") if segment != b"."]
    if raw.startswith(b"/") or b".." in segments or b"\0" in raw:
        raise SpooldError(
            errors.PATH_OUTSIDE_ROOT, f"{canonical.text(raw)} is no path beneath it", at="path"
        )
    return [segment for segment in segments if segment]
