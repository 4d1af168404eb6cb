"""What kind of file system a path is on, and what that means for a spool: one table."""

import ctypes
import os
from dataclasses import dataclass
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A kind of file system."""

    name: str
    network: bool = False
    """Other hosts change it behind our back: no event tells of that."""
    leases: bool = False
    """All its writers are local: a lease, fcntl(2), tells of every one."""


# By f_type of statfs(2).
_KNOWN: Final = {
    0xEF53: FileSystem("ext4", leases=True),  # and ext2, ext3
    0x58465342: FileSystem("XFS", leases=True),
    0x9123683E: FileSystem("btrfs", leases=True),
    0x01021994: FileSystem("tmpfs", leases=True),
    0x2FC12FC1: FileSystem("ZFS", leases=True),
    0x794C7630: FileSystem("overlay", leases=True),
    0x6969: FileSystem("NFS", network=True),
    0x517B: FileSystem("SMB1", network=True),
    0xFF534D42: FileSystem("CIFS", network=True),
    0xFE534D42: FileSystem("SMB", network=True),
    0x5346414F: FileSystem("AFS", network=True),
    0x00C36400: FileSystem("Ceph", network=True),
    0x01021997: FileSystem("9p", network=True),
    0x65735546: FileSystem("FUSE", network=True),
}


def file_system_of(path: str | bytes | os.PathLike[str]) -> FileSystem:
    """The kind of file system that holds a path. Raises OSError."""
    # struct statfs begins with f_type, one word, on every Linux ABI that CPython 3.11 supports.
    buffer = ctypes.create_string_buffer(512)
    raw = os.fsencode(path)
    if _libc.statfs(raw, buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fsdecode(raw))
    kind = int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], "little") & 0xFFFFFFFF
    return _KNOWN.get(kind, FileSystem(f"type {kind:#x}"))
