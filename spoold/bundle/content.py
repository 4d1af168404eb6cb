"""Reads an entry's content once, hashing it, and notices when it changes meanwhile."""

import errno
import hashlib
import os
from typing import BinaryIO, Final

from spoold import canonical, errors
from spoold.bundle.entry import ByteStream, SourceEntry, clamp_mtime
from spoold.bundle.scratch import disk_errors
from spoold.errors import SpooldError

_COPY_BYTES: Final = 1024 * 1024


class ContentReader:
    """Reads an entry's content once, hashing whole and chunk as it goes."""

    def __init__(self, entry: SourceEntry) -> None:
        assert entry.content is not None
        self._entry = entry
        self._content = entry.content
        self._whole = self._chunk = hashlib.sha256()
        self._begun = False
        self._ahead = b""

    def begin_chunk(self) -> None:
        """The next bytes are counted to a new chunk."""
        # As long as there is one chunk, it is the whole: it need not be hashed twice.
        if self._begun:
            self._chunk = hashlib.sha256()
        self._begun = True

    def sha256(self) -> str:
        """Of all that was read, lowercase hex."""
        return self._whole.hexdigest()

    def chunk_sha256(self) -> str:
        """Of what was read since `begin_chunk`."""
        return self._chunk.hexdigest()

    def fill(self, view: memoryview) -> None:
        """Fill the view, or raise source-changed, source-unreadable."""
        left = view
        while left:
            count = self._read_into(left)
            if not count:
                raise changed(self._entry.path, "it became shorter while it was read")
            left = left[count:]
        self._count(view)

    def copy(self, target: BinaryIO, limit: int) -> int:
        """Append up to `limit` bytes to the target; return how many there were."""
        total = 0
        buffer = memoryview(bytearray(_COPY_BYTES))
        while total < limit:
            count = self._read_into(buffer[: min(_COPY_BYTES, limit - total)])
            if not count:
                break
            self._count(buffer[:count])
            with disk_errors():
                target.write(buffer[:count])
            total += count
        return total

    def peek(self) -> bool:
        """Whether another byte follows; it is kept for the next read."""
        byte = bytearray(1)
        if not self._ahead and self._read_into(memoryview(byte)):
            self._ahead = bytes(byte)
        return bool(self._ahead)

    def expect_end(self) -> None:
        """Raise source-changed where more follows."""
        if self.peek():
            raise changed(self._entry.path, "it became longer while it was read")

    def _count(self, view: memoryview) -> None:
        self._whole.update(view)
        if self._chunk is not self._whole:
            self._chunk.update(view)

    def _read_into(self, view: memoryview) -> int:
        if self._ahead:
            view[:1], self._ahead = self._ahead, b""
            return 1
        try:
            return _read_into(self._content, view)
        except OSError as error:
            raise unreadable(self._entry.path, error) from error


class Refill:
    """Gives back what stands in one of our own scratch files."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def fill(self, view: memoryview) -> None:
        """Fill the view with the next bytes."""
        done = 0
        while done < len(view):
            data = self._file.read(min(len(view) - done, _COPY_BYTES))
            if not data:
                raise OSError(errno.EIO, "scratch file is shorter than it was")
            view[done : done + len(data)] = data
            done += len(data)


class ReadAhead:
    """Gives back a chunk of a stream, and meanwhile puts as much of the next one into a file."""

    def __init__(self, refill: Refill, reader: ContentReader, target: BinaryIO) -> None:
        reader.begin_chunk()
        self._refill, self._reader, self._target = refill, reader, target
        self.bytes = 0
        """How long the next one is."""

    def fill(self, view: memoryview) -> None:
        """Fill the view with the next bytes of the chunk."""
        self._refill.fill(view)
        self.bytes += self._reader.copy(self._target, len(view))


def read_whole(entry: SourceEntry, size: int, room: memoryview) -> None:
    """All of a small file into `room`, one byte longer than it, in one read where possible.

    Raises source-changed, source-unreadable.
    """
    content = entry.content
    assert content is not None
    try:
        found = _read_into(content, room)
        while 0 < found < size and (more := _read_into(content, room[found:])):
            found += more
    except OSError as error:
        raise unreadable(entry.path, error) from error
    if found != size:
        raise changed(entry.path, f"it had {size} bytes, now it has {_count(found, size)}")
    check_unchanged(entry)


def _read_into(content: int | ByteStream, view: memoryview) -> int:
    if isinstance(content, int):
        return os.readv(content, (view,))
    data = content.read(len(view))
    view[: len(data)] = data
    return len(data)


def check_unchanged(entry: SourceEntry) -> None:
    """Raise source-changed where a file's size or time is another than before reading."""
    if isinstance(entry.content, int):
        status = os.fstat(entry.content)
        if status.st_size != entry.size or clamp_mtime(status.st_mtime_ns) != entry.mtime_ns:
            raise changed(entry.path, "it was written to while it was read")


def changed(path: bytes, what: str) -> SpooldError:
    """The source-changed of an entry."""
    shown = canonical.text(path)
    return SpooldError(errors.SOURCE_CHANGED, f"{shown}: {what}", at=shown)


def unreadable(path: bytes, error: OSError) -> SpooldError:
    """The source-unreadable of an entry."""
    shown = canonical.text(path)
    return SpooldError(errors.SOURCE_UNREADABLE, f"{shown}: {error.strerror}", at=shown)


def _count(found: int, expected: int) -> str:
    return "more" if found > expected else str(found)
