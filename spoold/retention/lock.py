"""The lock of whoever removes published files: one daemon's retention, or one command."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from spoold import errors
from spoold.errors import SpooldError
from spoold.file_lock import FileLock
from spoold.spool import Spool

_ASK_AGAIN_SECONDS: Final = 0.1


@contextmanager
def removing(tree: Spool, patience_seconds: float = 0.0) -> Iterator[None]:
    """Be the only one; wait for so long. Raises retention-busy or OSError."""
    lock = FileLock(tree.retention_lock)
    until = time.monotonic() + patience_seconds
    while not lock.acquire():
        if time.monotonic() >= until:
            raise SpooldError(errors.RETENTION_BUSY)
        time.sleep(_ASK_AGAIN_SECONDS)
    try:
        yield
    finally:
        lock.release()
