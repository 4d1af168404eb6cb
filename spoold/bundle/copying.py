"""Bytes into a descriptor: all of what is in memory, or of another file, in the kernel if it can.

And the mode of a file that is our own copy of a drop.

Not guaranteed: that anything is durable; whoever owns the file syncs it.
"""

import os
from typing import Final

_COPY_BYTES: Final = 8 * 1024 * 1024


def own_mode(status: os.stat_result) -> int:
    """The mode of our own copy of a drop with this status: no wider than its dropper made it.

    Only we can write to it, or what was verified could be changed afterwards; its group and others
    can read it where the drop's could; nobody can execute it.
    """
    return 0o600 | status.st_mode & 0o044


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """write(2) until all is written. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def copy_range(source: int, target: int, offset: int, count: int) -> int:
    """Append `count` bytes of the source to the target's position; fewer where the source ends.

    Returns how many there were. Raises OSError.
    """
    left = count
    while left:
        try:
            copied = os.copy_file_range(source, target, left, offset_src=offset)
        except OSError:  # whatever the kernel cannot do here, reading and writing can, or says why
            copied = 0
        if not copied:
            data = os.pread(source, min(left, _COPY_BYTES), offset)
            if not data:
                break
            write_all(target, data)
            copied = len(data)
        offset += copied
        left -= copied
    return count - left
