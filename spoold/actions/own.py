"""A drop that has other names becomes a file of our own: what is verified is what is published.

Intake gives a request an inode that nobody else can write to, whatever it was dropped as. A bundle
may be too large to copy before it is known to be worth it, and stays on the dropper's inode; where
that has further hard links, whoever has those could change it under the signed answer. So one whose
head has verified is cloned (where the file system shares blocks), else copied, holes as holes.

Crash: the copy is in the attempt's scratch, which the next attempt throws away; one rename puts it
in the drop's place. A stale attempt has no scratch any more, and so nothing to rename.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from spoold import disk, errors, points
from spoold.bundle.copying import copy_range, own_mode
from spoold.errors import SpooldError

_COPY: Final = "drop.own"
_FICLONE: Final = 0x40049409  # linux/fs.h


def has_other_names(file: BinaryIO) -> bool:
    """Whether a file has further hard links."""
    return os.fstat(file.fileno()).st_nlink > 1


def replace(drop: Path, file: BinaryIO, scratch: Path, min_free_bytes: int) -> None:
    """Put a copy of `file`, which is the drop opened, in the drop's place.

    Raises no-space, drop-hard-links where there can never be room for it, and OSError.
    """
    status = os.fstat(file.fileno())
    copy = scratch / _COPY
    target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(target, own_mode(status))
        _fill(file.fileno(), target, status.st_size, min_free_bytes)
        os.fsync(target)
    finally:
        os.close(target)
    os.rename(copy, drop)
    points.reached("own")
    disk.sync_folder(drop.parent)


def _fill(source: int, target: int, size: int, min_free_bytes: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    _require_room(target, sum(map(len, _data(source, size))), min_free_bytes)
    for part in _data(source, size):
        os.lseek(target, part.start, os.SEEK_SET)
        copy_range(source, target, part.start, len(part))
    os.ftruncate(target, size)


def _data(source: int, size: int) -> Iterator[range]:
    """What is not a hole, up to `size`: whoever has the file's other names may still change it."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # the rest is a hole
                return
            raise
        yield range(min(start, size), min(end, size))


def _require_room(target: int, count: int, min_free_bytes: int) -> None:
    room = os.fstatvfs(target)
    whole = room.f_blocks * room.f_frsize
    if 2 * count > whole:
        raise SpooldError(
            errors.DROP_HARD_LINKS,
            f"the drop has other hard links, and its file system of {whole:,} bytes can never hold "
            f"{count:,} bytes twice",
        )
    if room.f_bavail * room.f_frsize - count < min_free_bytes:
        raise SpooldError(
            errors.NO_SPACE,
            f"the drop has other hard links, and there is no room for {count:,} bytes of a copy",
        )
