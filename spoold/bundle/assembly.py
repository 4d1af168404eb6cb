"""HEAD, INDEX and PAD put in front of a payload that is on disk already.

Guarantees: all ways give the same bytes.
Not guaranteed: that anything is durable; whoever publishes the file syncs it.
Crash: the scratch folder keeps a file that was not finished; sweeping it is the caller's.
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from spoold.bundle.copying import copy_range, write_all

_INSERT_RANGE: Final = 0x20  # FALLOC_FL_INSERT_RANGE, linux/falloc.h
_SMALL_BYTES: Final = 256 * 1024  # making room in front of so little costs more than writing it
# What fallocate(2) says where the file system cannot do it.
_CANNOT: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EPERM, errno.ENODEV}
)
_libc = ctypes.CDLL(None, use_errno=True)


def put_in_front(
    payload: int, path: Path, head: bytes, index: int, pad: bytes, other: Path
) -> Path:
    """Make head, index, pad and the payload one file; return its path.

    `payload` and `index` are descriptors of whole files, `path` the payload's name. Where room
    cannot be made in front (the file system, or no multiple of its block size), `other` is made
    and the payload's name removed. A small payload is written again, further back.
    """
    size = os.fstat(payload).st_size
    if size <= _SMALL_BYTES:
        content = os.pread(payload, size, 0)
        os.lseek(payload, 0, os.SEEK_SET)
        _write_front(payload, head, index, pad)
        write_all(payload, content)
        return path
    if _insert(payload, len(head) + os.fstat(index).st_size + len(pad)):
        os.lseek(payload, 0, os.SEEK_SET)
        _write_front(payload, head, index, pad)
        return path
    target = os.open(other, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_front(target, head, index, pad)
        _copy_whole(payload, target)
    finally:
        os.close(target)
    os.unlink(path)
    return other


def _write_front(target: int, head: bytes, index: int, pad: bytes) -> None:
    write_all(target, head)
    _copy_whole(index, target)
    write_all(target, pad)


def _copy_whole(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    if copy_range(source, target, 0, size) < size:
        raise OSError(errno.EIO, "scratch file is shorter than it was")


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
