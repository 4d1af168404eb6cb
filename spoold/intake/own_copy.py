"""The copy by which a claimed drop gets an inode of our own, and when it needs none.

Crash: a copy that did not come to replace its drop stays in `claimed/`; it is begun anew with the
drop, or removed when `claimed/` is next compared with the queue and no drop is held there.
"""

import os
import stat
import uuid

from spoold.bundle.copying import own_mode, write_all
from spoold.intake.complete import Writer


def is_ours(status: os.stat_result, writer: Writer) -> bool:
    """Whether nobody but our own user can write to an inode. (ACLs show in the group's bits.)

    It saves more than the copy: ext4 is slow to make files while many were removed just now.
    """
    return (
        writer is Writer.NONE
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and stat.S_IMODE(status.st_mode) == own_mode(status)
    )


def copy_name(job_id: uuid.UUID) -> bytes:
    """The name in `claimed/` of a copy on its way; `is_copy` knows it."""
    return b".%s.own" % str(job_id).encode()


def is_copy(name: bytes) -> bool:
    """Whether a name in `claimed/` is that of a copy."""
    return name.startswith(b".") and name.endswith(b".own")


def open_copy(path: bytes, status: os.stat_result) -> int:
    """Begin a copy of a drop with this status.

    Returns a descriptor for writing, the caller's to close. Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    copy = os.open(path, flags, 0o600)
    os.fchmod(copy, own_mode(status))
    return copy


def write_copy(path: bytes, status: os.stat_result, content: bytes) -> None:
    """Write a whole copy of a drop with this status. Raises OSError."""
    copy = open_copy(path, status)
    try:
        write_all(copy, content)
    finally:
        os.close(copy)
