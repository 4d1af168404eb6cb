"""A lock on a file, which ends with the process that holds it, whatever ends that."""

import fcntl
import os
from pathlib import Path

from spoold.ownership import hand_over


class FileLock:
    """An flock(2) on one file, held by one `FileLock` at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Try to take it, without waiting. Raises OSError where the file cannot be made."""
        if self._descriptor is not None:
            return True
        # Not inherited: a worker that outlives us must not keep it.
        # Read only: a lock must not keep a file system from being mounted so.
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            hand_over(self._path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it up."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
