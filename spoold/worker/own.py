"""A drop that has other names becomes a file of our own: what is verified is what is published.

Intake gives a request an inode that nobody else can write to, whatever it was dropped as. A bundle
may be too large to copy before it is known to be worth it, and stays on the dropper's inode; where
that has further hard links, whoever has those could change it under the signed answer. So the first
thing done with it is a clone (where the file system shares blocks), else a copy.

Crash: the copy is in the attempt's scratch, which the next attempt throws away; one rename puts it
in the drop's place. A stale attempt has no scratch any more, and so nothing to rename.
"""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from spoold import disk, errors, points
from spoold.bundle.copying import copy_range
from spoold.errors import SpooldError

_COPY: Final = "drop.own"
_FICLONE: Final = 0x40049409  # linux/fs.h


def own(drop: Path, scratch: Path, min_free_bytes: int) -> None:
    """Replace a drop that has other hard links. Raises no-space and OSError."""
    source = os.open(drop, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink == 1:
            return
        copy = scratch / _COPY
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(target, 0o600 | status.st_mode & 0o044)
            _fill(source, target, status.st_size, min_free_bytes)
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    os.rename(copy, drop)
    points.reached("own")
    disk.sync_folder(drop.parent)


def _fill(source: int, target: int, size: int, min_free_bytes: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    disk = os.fstatvfs(target)
    if disk.f_bavail * disk.f_frsize - size < min_free_bytes:
        raise SpooldError(
            errors.NO_SPACE,
            f"the drop has other hard links, and there is no room for {size:,} bytes of a copy",
        )
    copy_range(source, target, 0, size)
