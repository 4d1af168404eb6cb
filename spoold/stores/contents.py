"""What is sent to a store: bytes, or a range of a file that is read as it goes."""

import errno
import hashlib
import os
from collections.abc import Callable
from typing import Final

from spoold.bundle.scratch import disk_errors

_HASH_BYTES: Final = 1024 * 1024


class Bytes:
    """A short content."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self._position = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data)

    def rewind(self) -> None:
        """Begin again."""
        self._position = 0

    def read(self, count: int = -1, /) -> bytes:
        """The next bytes."""
        end = len(self._data) if count < 0 else self._position + count
        data = self._data[self._position : end]
        self._position += len(data)
        return data

    def sha256(self) -> bytes:
        """Its digest."""
        return hashlib.sha256(self._data).digest()


class FileRange:
    """A part of a file that nobody writes to. `told` is given the bytes of each block sent.

    What is sent again is not told again.
    """

    def __init__(self, descriptor: int, begin: int, size: int, told: Callable[[int], None]) -> None:
        self._descriptor, self._begin, self._size = descriptor, begin, size
        self._told = told
        self._position = self._furthest = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def rewind(self) -> None:
        """Begin again."""
        self._position = 0

    def read(self, count: int = -1, /) -> bytes:
        """The next bytes. Raises disk-error, and what `told` does."""
        left = self._size - self._position
        data = self._at(self._position, left if count < 0 else min(count, left))
        self._position += len(data)
        if self._position > self._furthest:
            self._told(self._position - self._furthest)
            self._furthest = self._position
        return data

    def sha256(self) -> bytes:
        """Its digest: the file is read once more for it."""
        digest = hashlib.sha256()
        position = 0
        while position < self._size:
            data = self._at(position, min(_HASH_BYTES, self._size - position))
            digest.update(data)
            position += len(data)
        return digest.digest()

    def _at(self, position: int, count: int) -> bytes:
        with disk_errors():
            data = os.pread(self._descriptor, count, self._begin + position)
            if count and not data:
                raise OSError(errno.EIO, "the file is shorter than it was")
        return data
