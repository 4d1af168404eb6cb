"""Unnamed scratch files for what must not be held in memory: lines, and their sorting.

Guarantees: memory is bounded by a few megabytes each, whatever is added.
Crash: nothing stays behind, the files have no name.
"""

import hashlib
import heapq
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, cast

from spoold import errors
from spoold.errors import SpooldError

_BATCH_LINES: Final = 512
_LINES_IN_MEMORY_BYTES: Final = 256 * 1024
_SORT_BYTES: Final = 4 * 1024 * 1024  # of line content; the objects around it are about as much
_SORT_LINES: Final = 40_000
_MERGE_READ_BYTES: Final = 32 * 1024
_MERGE_RUNS: Final = 256


@contextmanager
def disk_errors() -> Iterator[None]:
    """What the operating system says of our own files, as no-space or disk-error."""
    try:
        yield
    except OSError as error:
        raise SpooldError(errors.disk_code(error), f"scratch: {error.strerror}") from error


def unnamed_file(folder: Path | None, buffering: int = 64 * 1024) -> BinaryIO:
    """A file without a name, in `folder` or in the system's place for temporary ones."""
    with disk_errors():
        return tempfile.TemporaryFile(dir=folder, buffering=buffering)  # type: ignore[return-value]


class LineFile:
    """Lines, counted and hashed as they are added; on disk once they are many.

    A line includes its line feed.
    """

    def __init__(self, folder: Path | None) -> None:
        where = None if folder is None else os.fspath(folder)
        file = tempfile.SpooledTemporaryFile(_LINES_IN_MEMORY_BYTES, dir=where)  # noqa: SIM115
        self._file = cast(BinaryIO, file)
        self._waiting: list[bytes] = []
        self._held = 0
        self._hash = hashlib.sha256()
        self.count = 0
        self.bytes = 0

    def append(self, lines: bytes, count: int = 1) -> None:
        """Add lines."""
        self.count += count
        self.bytes += len(lines)
        self._waiting.append(lines)
        self._held += len(lines)
        if len(self._waiting) >= _BATCH_LINES or self._held >= _LINES_IN_MEMORY_BYTES:
            self._flush()

    def sha256(self) -> str:
        """Of all that was added so far, lowercase hex."""
        self._flush()
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        """The lines from the first on, each with its line feed."""
        return iter(self.reopened())

    def reopened(self) -> BinaryIO:
        """The file, to be read from its begin."""
        self._flush()
        with disk_errors():
            self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Give the disk space back."""
        _discard(self._file)

    def _flush(self) -> None:
        block = b"".join(self._waiting)
        self._waiting.clear()
        self._held = 0
        self._hash.update(block)
        with disk_errors():
            self._file.write(block)


class LineSorter:
    """Sorts lines (without line feeds inside) by their bytes; what is much goes to disk."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lines: list[bytes] = []
        self._held = 0
        self._runs: list[BinaryIO] = []

    def add(self, line: bytes) -> None:
        """Add a line, without a line feed."""
        self._lines.append(line)
        self._held += len(line)
        if self._held > _SORT_BYTES or len(self._lines) >= _SORT_LINES:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        """All lines in order, without line feeds. To be walked once."""
        self._lines.sort()
        if not self._runs:
            return iter(self._lines)
        self._spill()
        return (line[:-1] for line in heapq.merge(*self._rewound()))

    def sha256(self) -> str:
        """Of the sorted lines, each with a line feed: what `LC_ALL=C sort | sha256sum` prints."""
        digest = hashlib.sha256()
        lines = iter(self)
        while batch := list(islice(lines, _BATCH_LINES)):
            digest.update(b"\n".join(batch))
            digest.update(b"\n")
        return digest.hexdigest()

    def close(self) -> None:
        """Give the disk space back."""
        for run in self._runs:
            _discard(run)
        self._runs.clear()
        self._lines.clear()

    def _spill(self) -> None:
        if not self._lines:
            return
        self._lines.sort()
        self._lines.append(b"")
        self._write([b"\n".join(self._lines)])
        self._lines = []
        self._held = 0
        if len(self._runs) >= _MERGE_RUNS:  # open files and their buffers are bounded too
            runs, self._runs = self._rewound(), []
            self._write(heapq.merge(*runs))
            for run in runs:
                run.close()

    def _write(self, blocks: Iterator[bytes] | list[bytes]) -> None:
        run = unnamed_file(self._folder, _MERGE_READ_BYTES)
        self._runs.append(run)
        with disk_errors():
            run.writelines(blocks)
            run.flush()

    def _rewound(self) -> list[BinaryIO]:
        for run in self._runs:
            run.seek(0)
        return self._runs


def _discard(file: BinaryIO) -> None:
    # On a full disk it has bytes left that it cannot write: nobody needs them any more, and what
    # is on its way up has said so already.
    with suppress(OSError):
        file.close()
