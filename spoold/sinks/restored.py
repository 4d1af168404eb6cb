"""Reads files of a tree that was restored, whatever modes they and their folders have.

Every step is taken from an open folder and never through a symbolic link.
Crash: what a mode denied and was granted for the moment stays granted; the tree goes with scratch.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from spoold.bundle.content import changed
from spoold.sinks.merge import entered

_HANDLE_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_restored(tree: int, path: bytes) -> Iterator[int]:
    """A descriptor of the regular file at a path beneath an open folder.

    Raises OSError, and source-changed where it is no regular file.
    """
    *folders, name = path.split(b"/")
    with ExitStack() as stack:
        folder = tree
        for each in folders:
            folder, _ = stack.enter_context(entered(folder, each))
        descriptor = _open(folder, name)
        stack.callback(os.close, descriptor)
        yield descriptor


def _open(folder: int, name: bytes) -> int:
    handle = os.open(name, _HANDLE_FLAGS, dir_fd=folder)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise changed(name, "it is no regular file any more")
        itself, mode = f"/proc/self/fd/{handle}", stat.S_IMODE(status.st_mode)
        narrow = not mode & 0o400 and status.st_uid == os.geteuid()
        if narrow:
            os.chmod(itself, mode | 0o400)
        try:
            return os.open(itself, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            if narrow:
                os.chmod(itself, mode)
    finally:
        os.close(handle)
