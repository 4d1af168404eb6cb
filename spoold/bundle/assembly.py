"""HEAD, INDEX and PAD put in front of a payload that is on disk already.

Guarantees: both ways give the same bytes; the file is fsynced before its path is returned.
Crash: the scratch folder keeps a file that was not finished; sweeping it is the caller's.
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from spoold.bundle.framing import write_all

_INSERT_RANGE: Final = 0x20  # FALLOC_FL_INSERT_RANGE, linux/falloc.h
_COPY_BYTES: Final = 8 * 1024 * 1024
# What fallocate(2) and copy_file_range(2) say where the file system cannot do it.
_CANNOT: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EPERM, errno.ENODEV}
)
_libc = ctypes.CDLL(None, use_errno=True)


def put_in_front(
    payload: int, path: Path, head: bytes, index: int, pad: bytes, other: Path
) -> Path:
    """Make head, index, pad and the payload one durable file; return its path.

    `payload` and `index` are descriptors of whole files, `path` the payload's name. Where room
    cannot be made in front (the file system, or no multiple of its block size), `other` is made
    and the payload's name removed.
    """
    index_bytes = os.fstat(index).st_size
    if _insert(payload, len(head) + index_bytes + len(pad)):
        os.lseek(payload, 0, os.SEEK_SET)
        _write_front(payload, head, index, pad)
        os.fsync(payload)
        return path
    target = os.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_front(target, head, index, pad)
        copy_whole(payload, target)
        os.fsync(target)
    finally:
        os.close(target)
    os.unlink(path)
    return other


def copy_whole(source: int, target: int) -> None:
    """Append a whole file to the target's position, in the kernel where it can."""
    left, offset = os.fstat(source).st_size, 0
    while left:
        try:
            copied = os.copy_file_range(source, target, left, offset_src=offset)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            copied = _copy_by_hand(source, target, min(left, _COPY_BYTES), offset)
        if not copied:
            copied = _copy_by_hand(source, target, min(left, _COPY_BYTES), offset)
        left -= copied
        offset += copied


def _write_front(target: int, head: bytes, index: int, pad: bytes) -> None:
    write_all(target, head)
    copy_whole(index, target)
    write_all(target, pad)


def _copy_by_hand(source: int, target: int, count: int, offset: int) -> int:
    data = os.pread(source, count, offset)
    if not data:
        raise OSError(errno.EIO, "scratch file is shorter than it was")
    write_all(target, data)
    return len(data)


def _insert(descriptor: int, length: int) -> bool:
    if length % os.fstat(descriptor).st_blksize:
        return False
    arguments = (ctypes.c_int64(0), ctypes.c_int64(length))
    if _libc.fallocate64(descriptor, _INSERT_RANGE, *arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code))
