"""What keeps all drops in the inbox: the spool's disk, a mount over it, no permission, no room."""

import errno
import os
from typing import Final

from spoold import errors
from spoold.intake.complete import Wait
from spoold.intake.settings import Reason

UNMOVABLE: Final = "it cannot be moved out of the inbox"
"""Begins the message of a drop that no rename gets out of the inbox."""


def obstacle(root: str, inbox: bytes, min_free_bytes: int, *, foreign: bool) -> Wait | None:
    """Why nothing may be claimed now; `foreign`: something is mounted over the inbox.

    Asked before a claim is tried, which begins with a status.
    """
    space = os.statvfs(root)
    if space.f_flag & os.ST_RDONLY:
        return Wait(Reason.DISK, "the spool's file system can only be read", errors.READ_ONLY)
    if foreign:
        return Wait(Reason.UNREADABLE, f"{UNMOVABLE}: something is mounted over it")
    if not os.access(inbox, os.W_OK | os.X_OK, effective_ids=True):
        return Wait(Reason.UNREADABLE, f"{UNMOVABLE}: the daemon may not write there")
    free = space.f_bavail * space.f_frsize
    if free < min_free_bytes:
        # Not how many are: that is another number at each look, and no other reason.
        message = f"fewer bytes are free than [intake] min_free_bytes, {min_free_bytes:,}"
        return Wait(Reason.SPACE, message, errors.NO_SPACE)
    return None


def our_disk(error: OSError) -> Reason | None:
    """Why nothing at all can be taken, where that is what an error on our side means."""
    if errors.disk_code(error) is errors.NO_SPACE:
        return Reason.SPACE
    return Reason.DISK if error.errno in {errno.EROFS, errno.EIO} else None


def held_by(error: OSError) -> Wait:
    """Why a drop waits that an error on our side keeps."""
    failure = errors.of_os_error(error)
    return Wait(our_disk(error) or Reason.DISK, failure.message, failure.code)
