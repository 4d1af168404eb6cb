"""A lock on a file or a folder, which ends with the process that holds it, whatever ends that."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def shared(folder: str | bytes | os.PathLike[str]) -> Iterator[None]:
    """Use a folder together with others; waits for whoever is alone in it. Raises OSError.

    The lock is the folder's own: one that others can open would be theirs to lock.
    """
    with _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield


@contextmanager
def alone(folder: str | bytes | os.PathLike[str]) -> Iterator[bool]:
    """Whether nobody shares a folder; nobody begins to until the end. Raises OSError."""
    with _opened(folder) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_in_use(path: str | bytes | os.PathLike[str]) -> bool:
    """Whether somebody holds a lock on a file, or has one that is not ours to open."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _opened(folder: str | bytes | os.PathLike[str]) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
