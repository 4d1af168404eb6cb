"""What a bundle holds: an entry as a source offers it, and as the index records it.

Both are named tuples, not dataclasses: one is made per file, and a frozen dataclass costs four
times as much to make.
"""

import enum
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol, TypeAlias

MAX_MODE: Final = 0o777
SYMLINK_MODE: Final = 0o777
_MAX_MTIME_NS: Final = 10**19 - 1  # 19 digits: 1653 to 2286

# phase, bytes done, bytes in all (None: not known), entries done
Report: TypeAlias = Callable[[str, int, int | None, int], None]


class Kind(enum.StrEnum):
    """What an entry is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


class ByteStream(Protocol):
    """What content is read from that is no file's descriptor."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; none only at the end."""

    def close(self) -> None:
        """Read no more."""


class SourceEntry(NamedTuple):
    """One thing that a source offers for bundling.

    `path` is the path in the bundle. `content` belongs to files and is open; whoever is given the
    entry closes it. A descriptor is a regular file whose `size` and `mtime_ns` are those of the
    entry, looked at again after reading; a stream may be anything. `size` None: a stream of
    unknown length.
    """

    path: bytes
    kind: Kind
    mode: int
    mtime_ns: int
    uid: int
    gid: int
    source: str
    size: int | None = None
    target: bytes | None = None
    media_type: str | None = None
    content: int | ByteStream | None = None


class Chunk(NamedTuple):
    """One piece of a file that was split: lowercase hex SHA-256, bytes."""

    sha256: str
    size: int


class Entry(NamedTuple):
    """One line of entries.jsonl. Files only have `size`, `sha256` and `member`.

    `member` is `data/…`, without the bundle id and without a chunk suffix; `chunks` is empty where
    the file was not split.
    """

    path: bytes
    kind: Kind
    mode: int
    mtime_ns: int
    uid: int
    gid: int
    source: str
    size: int = 0
    sha256: str = ""
    member: str = ""
    chunks: tuple[Chunk, ...] = ()
    target: bytes | None = None
    media_type: str | None = None


def chunk_member(member: str, number: int) -> str:
    """The member that carries a chunk of a file; chunks are counted from 0."""
    return f"{member}.{number:06d}.chunk"


def chunk_members(entry: Entry) -> Iterator[tuple[str, Chunk]]:
    """The members that carry a split file, in order."""
    for number, chunk in enumerate(entry.chunks):
        yield chunk_member(entry.member, number), chunk


class Skipped(NamedTuple):
    """A path that was left out, and why."""

    path: bytes
    reason: str


def clamp_mtime(nanoseconds: int) -> int:
    """The nearest time that an entry can record."""
    if -_MAX_MTIME_NS <= nanoseconds <= _MAX_MTIME_NS:
        return nanoseconds
    return _MAX_MTIME_NS if nanoseconds > 0 else -_MAX_MTIME_NS
