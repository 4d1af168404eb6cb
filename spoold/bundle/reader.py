"""Reads a bundle: once, forward, fail closed; a pipe is as good as a file.

The steps are those of the format page, section 5: head, policy, INDEX, PAYLOAD, end. Each is
entered only with what the one before it returned, so none can be left out. Of a file that can seek,
`read_chosen` reads a part of the payload, verified as strictly, and says nothing of the rest.

Guarantees: a visitor is handed nothing whose hash has not matched, but the pieces between `begin`
and `commit`, which it must not make visible; when `read_payload` returns, every byte of the file
was accounted for.
"""

import errno
import hashlib
import io
import os
import select
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

from spoold import canonical, errors
from spoold.bundle.choosing import choose, member_sizes
from spoold.bundle.entry import Entry, Kind, Report, chunk_members
from spoold.bundle.frame_table import Frame
from spoold.bundle.frames import END_FRAME, FRAME_BYTES, Codec, padding
from spoold.bundle.head import Head, Policy, VerifiedHead, slice_head, verify_head
from spoold.bundle.index import Index, IndexReader
from spoold.bundle.members import BLOCK
from spoold.bundle.pool import Pool, usable_cores
from spoold.bundle.unpacking import MemberStream, Places, unpack_frames
from spoold.errors import SpooldError
from spoold.trust import Trust

__all__ = [
    "BundleReader",
    "Discard",
    "Head",
    "Index",
    "Policy",
    "VerifiedHead",
    "Visitor",
    "inspect",
    "named_codec",
    "open_bundle",
    "verify",
    "verify_head",
]

_WHOLE_BYTES: Final = FRAME_BYTES - BLOCK
_PIPE_BYTES: Final = 64 * 1024  # what a pipe holds


class Visitor(Protocol):
    """What becomes of the content of a bundle. Views are good until the call returns."""

    def entry(self, entry: Entry) -> None:
        """A folder or a symbolic link."""

    def whole(self, entry: Entry, content: memoryview) -> None:
        """A file whose hash has matched."""

    def begin(self, entry: Entry) -> None:
        """A larger file begins."""

    def write(self, content: memoryview) -> None:
        """The next piece of it: its hash is not known yet."""

    def commit(self) -> None:
        """Its hash has matched."""


class Discard:
    """A visitor for those who only want to know whether a bundle is good."""

    def entry(self, entry: Entry) -> None:
        """Nothing."""

    def whole(self, entry: Entry, content: memoryview) -> None:
        """Nothing."""

    def begin(self, entry: Entry) -> None:
        """Nothing."""

    def write(self, content: memoryview) -> None:
        """Nothing."""

    def commit(self) -> None:
        """Nothing."""


def open_bundle(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a bundle for reading: a regular file, not through a symbolic link.

    Raises not-a-bundle, source-missing or disk-error.
    """
    shown = canonical.text(os.fsencode(path))
    try:
        # Non-blocking, so that a FIFO of that name does not hold us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if os.path.islink(path):
            raise SpooldError(errors.NOT_A_BUNDLE, f"{shown}: it is a symbolic link") from error
        # That a file cannot be opened says nothing about what is in it: only a socket and the like
        # are no bundle for sure.
        codes = {
            errno.ENXIO: errors.NOT_A_BUNDLE,
            errno.ENODEV: errors.NOT_A_BUNDLE,
            errno.ENOENT: errors.SOURCE_MISSING,
            errno.ENOTDIR: errors.SOURCE_MISSING,
        }
        code = codes.get(error.errno or 0, errors.DISK_ERROR)
        hint = "check the name" if code is errors.SOURCE_MISSING else ""
        raise SpooldError(code, f"{shown}: {error.strerror}", hint=hint) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SpooldError(errors.NOT_A_BUNDLE, f"{shown} is no regular file")
    return open(descriptor, "rb", buffering=0)


def named_codec(name: str | os.PathLike[str]) -> Codec | None:
    """The codec that a file's name promises, for Policy.codec."""
    text = os.fspath(name)
    return next((codec for codec in Codec if text.endswith(codec.suffix)), None)


class BundleReader:
    """One pass over one bundle. The file stays the caller's."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        scratch: Path | None = None,
        threads: int | None = None,
        report: Report | None = None,
        phase: str = "verify",
    ) -> None:
        self._file = file
        self._seekable = file.seekable()
        self._scratch = scratch
        self._pool = Pool(threads or usable_cores())
        self._report, self._phase = report, phase
        self._offset = 0
        self._index: Index | None = None

    def __enter__(self) -> "BundleReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give threads and scratch back."""
        self._pool.close()
        if self._index is not None:
            self._index.lines.close()

    @property
    def seekable(self) -> bool:
        """Whether `read_chosen` can be used: not of a pipe."""
        return self._seekable

    def read_head(self) -> Head:
        """Step 2. Raises what `slice_head` raises, bundle-truncated or disk-error."""
        assert self._offset == 0
        return slice_head(self._read)

    def read_index(self, head: VerifiedHead, policy: Policy) -> Index:
        """Step 4, and the padding after it."""
        assert self._offset == head.head.frame_bytes
        codec, frames = head.head.codec, head.manifest.index
        done, total = 0, sum(frame.raw for frame in frames)

        def tell_progress(raw: int) -> None:
            nonlocal done
            done += raw
            self._tell("index", done, total, 0)

        stream = MemberStream(self._unpack(codec, enumerate(frames), "index frame"), tell_progress)
        self._index = IndexReader(head, policy, self._scratch).read(stream)
        expected = padding(codec, self._offset)
        # Its header first: where there is none, the file may be too short for the rest.
        for part in filter(None, (expected[:8], expected[8:])):
            if self._read(len(part)) != part:
                raise SpooldError(errors.PAD_INVALID)
        return self._index

    def read_payload(self, index: Index, visitor: Visitor) -> None:
        """Steps 5 to 7: every frame, every member, to the very end of the file."""
        assert index is self._index
        head = index.head
        prefix = f"{head.manifest.bundle_id}/".encode()
        total = head.manifest.totals.raw
        done = entries = 0

        def tell_progress(raw: int) -> None:
            nonlocal done
            done += raw
            self._tell(self._phase, done, total, entries)

        frames = self._unpack(head.head.codec, enumerate(index.frames), "frame")
        stream = MemberStream(frames, tell_progress)
        for entry in index.entries():
            if entry.kind is Kind.FILE:
                _read_file(stream, prefix, entry, visitor)
            else:
                visitor.entry(entry)
            entries += 1
        stream.expect_end()
        self._read_end(head.head.codec)
        self._tell(self._phase, total, total, entries)

    def read_chosen(self, index: Index, wanted: Callable[[Entry], bool], visitor: Visitor) -> None:
        """Steps 5 to 7 for the wanted entries only: the frames that hold them, and the end.

        The file must be `seekable`. What is in other frames is not read, and nothing is said of
        it; of the frames that are read every byte is authenticated.
        """
        assert index is self._index
        head = index.head
        prefix = f"{head.manifest.bundle_id}/".encode()
        chosen, total = choose(index, wanted)
        done = entries = 0

        def tell_progress(raw: int) -> None:
            nonlocal done
            done += raw
            self._tell(self._phase, done, total, entries)

        codec, begin = head.head.codec, self._offset
        stream = MemberStream(
            self._unpack(codec, self._seek_frames(index, chosen), "frame"), tell_progress
        )
        places = Places()
        for entry in index.entries():
            stand = [places.add(size) for size in member_sizes(entry)]
            if wanted(entry):
                if not stand:
                    visitor.entry(entry)
                else:
                    stream.skip_to(stand[0])
                    _read_file(stream, prefix, entry, visitor)
            entries += 1
        self._seek(begin + index.frames.compressed_bytes)
        self._read_end(codec)
        self._tell(self._phase, total, total, entries)

    def _seek_frames(self, index: Index, chosen: bytearray) -> Iterator[tuple[int, Frame]]:
        offset = self._offset
        for number, frame in enumerate(index.frames):
            if chosen[number]:
                self._seek(offset)
                yield number, frame
            offset += frame.size

    def _seek(self, offset: int) -> None:
        try:
            self._file.seek(offset - self._offset, os.SEEK_CUR)
        except OSError as error:
            raise SpooldError(errors.DISK_ERROR, f"the bundle: {error.strerror}") from error
        self._offset = offset

    def _read_end(self, codec: Codec) -> None:
        end = END_FRAME[codec]
        if self._read(len(end)) != end:
            raise SpooldError(errors.END_INVALID)
        if self._read_some(1):
            raise SpooldError(errors.TRAILING_DATA, f"more follows after byte {self._offset - 1}")

    def _unpack(
        self, codec: Codec, frames: Iterable[tuple[int, Frame]], where: str
    ) -> Iterator[bytes]:
        return unpack_frames(self._pool, codec, frames, self._read, where)

    def _tell(self, phase: str, done: int, total: int, entries: int) -> None:
        if self._report is not None:
            self._report(phase, done, total, entries)

    def _read(self, count: int) -> bytes:
        data = self._read_some(count)
        if len(data) == count:
            return data
        pieces, found = [data], len(data)
        while data and found < count:
            data = self._read_some(count - found)
            pieces.append(data)
            found += len(data)
        if found < count:
            if self._offset == 0:
                raise SpooldError(errors.NOT_A_BUNDLE, "the file is empty")
            raise SpooldError(
                errors.BUNDLE_TRUNCATED,
                f"it ends at byte {self._offset}, where {count - found} more must follow",
            )
        return b"".join(pieces)

    def _read_some(self, count: int) -> bytes:
        try:
            if self._seekable:
                data = self._file.read(count)
            else:
                data = self._read_pipe(min(count, _PIPE_BYTES))
        except OSError as error:
            raise SpooldError(
                errors.DISK_ERROR, f"the bundle at byte {self._offset}: {error.strerror}"
            ) from error
        self._offset += len(data)
        return data

    def _read_pipe(self, count: int) -> bytes:
        # One read(2) at most: a signal that comes between two of them within the library
        # is not heeded before the last one returns, and a pipe may stall.
        file = cast(io.BufferedReader, self._file)
        data = file.read1(count)
        if not data and _never_waits(file):
            # It says "nothing yet" in the same way as "the end".
            readable = select.poll()
            readable.register(file, select.POLLIN)
            readable.poll()
            data = file.read1(count)
        return data


def inspect(file: BinaryIO) -> Head:
    """Read only the head: who claims what. Nothing of it is verified."""
    with BundleReader(file, threads=1) as reader:
        return reader.read_head()


def verify(
    file: BinaryIO,
    trust: Trust,
    policy: Policy,
    *,
    visitor: Visitor | None = None,
    scratch: Path | None = None,
    threads: int | None = None,
    report: Report | None = None,
    phase: str = "verify",
) -> VerifiedHead:
    """All of it, from the first byte to the last. Returns only when everything matched."""
    with BundleReader(file, scratch=scratch, threads=threads, report=report, phase=phase) as reader:
        head = verify_head(reader.read_head(), trust, policy)
        index = reader.read_index(head, policy)
        reader.read_payload(index, visitor or Discard())
        return head


def _never_waits(file: io.BufferedReader) -> bool:
    try:
        return not os.get_blocking(file.fileno())
    except OSError:  # no file of the system's
        return False


def _read_file(stream: MemberStream, prefix: bytes, entry: Entry, visitor: Visitor) -> None:
    if entry.chunks or entry.size > _WHOLE_BYTES:
        _read_pieces(stream, prefix, entry, visitor)
        return
    content = stream.whole(prefix + entry.member.encode(), entry.size)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise _mismatch(entry.member, found, entry.sha256)
    visitor.whole(entry, content)


def _read_pieces(stream: MemberStream, prefix: bytes, entry: Entry, visitor: Visitor) -> None:
    visitor.begin(entry)
    whole = hashlib.sha256()
    if not entry.chunks:
        for view in stream.member(prefix + entry.member.encode(), entry.size):
            whole.update(view)
            visitor.write(view)
    for number, (name, chunk) in enumerate(chunk_members(entry)):
        # Up to its end, the first chunk is the whole.
        digest = hashlib.sha256() if number else whole
        for view in stream.member(prefix + name.encode(), chunk.size):
            digest.update(view)
            if number:
                whole.update(view)
            visitor.write(view)
        if digest.hexdigest() != chunk.sha256:
            raise _mismatch(name, digest.hexdigest(), chunk.sha256)
    if whole.hexdigest() != entry.sha256:
        raise _mismatch(entry.member, whole.hexdigest(), entry.sha256)
    visitor.commit()


def _mismatch(name: str, found: str, signed: str) -> SpooldError:
    shown = canonical.text(name)
    return SpooldError(
        errors.ENTRY_DIGEST, f"{shown} is {found}, the manifest says {signed}", at=shown
    )
