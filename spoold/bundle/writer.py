"""Writes a bundle: each entry is read once, hashed while it is copied, cut into frames.

The payload goes into a scratch file first, because the manifest that stands in front of it is known
last; see `assembly`.

Guarantees: a bundle is returned only when it is complete; an entry that could not be read whole has
left no byte in it; equal entries, fields and codec library give equal INDEX and PAYLOAD bytes,
whatever the number of threads.
Not guaranteed: that a bundle is durable, whoever publishes it syncs it; that a file which is
written to while it is read is noticed, when its size and time of change end as they were.
Crash: the scratch folder holds unfinished files; sweeping it is the caller's.
"""

import datetime
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from spoold import __version__, canonical, errors
from spoold.bundle import bagit, members
from spoold.bundle.assembly import put_in_front
from spoold.bundle.content import (
    ContentReader,
    ReadAhead,
    Refill,
    check_unchanged,
    read_whole,
)
from spoold.bundle.copying import write_all
from spoold.bundle.entry import Chunk, Entry, Kind, Report, Skipped, SourceEntry, chunk_member
from spoold.bundle.frame_table import FrameTable
from spoold.bundle.frames import END_FRAME, FRAME_BYTES, padding
from spoold.bundle.framing import Fill, FrameWriter
from spoold.bundle.head import make_head
from spoold.bundle.index_writer import IndexWriter
from spoold.bundle.lines import MAX_LINE_BYTES
from spoold.bundle.manifest import (
    DEFAULT_CHUNK_SIZE,
    MAX_CHUNK_SIZE,
    MAX_CHUNKS,
    MAX_SKIPPED,
    MAX_SKIPPED_BYTES,
    MIN_CHUNK_SIZE,
    Compression,
    Manifest,
    Totals,
    format_time,
    skipped_document,
)
from spoold.bundle.order import PathOrder
from spoold.bundle.paths import MemberNames, path_fault, valid_bundle_id
from spoold.bundle.pool import Pool, usable_cores
from spoold.bundle.scratch import disk_errors, unnamed_file
from spoold.errors import SpooldError
from spoold.trust import Signer

_WHOLE_BYTES: Final = FRAME_BYTES - members.BLOCK  # what is read in one go
_INLINE_BYTES: Final = 1024 * 1024  # so little is compressed sooner than a thread has started
_FEW_ENTRIES: Final = 1000  # an index of so many is put together in memory
_CHUNK_LINE_BYTES: Final = 110  # a chunk's share of an entry's line

# What is wrong with one entry, and lets a bundle without it be made.
SKIPPABLE: Final = frozenset(
    {
        errors.SOURCE_CHANGED,
        errors.SOURCE_UNREADABLE,
        errors.PATH_UNSUPPORTED,
        errors.ENTRY_TOO_LARGE,
    }
)


@dataclass(frozen=True, slots=True)
class ManifestFields:
    """What the manifest says beyond what the writer knows."""

    name: str
    created_at: datetime.datetime
    to: tuple[str, ...] = ()
    not_after: datetime.datetime | None = None
    request_sha256: str | None = None
    correlation_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A finished bundle in the scratch folder, not synced yet."""

    path: Path
    suffix: str  # .tar.zst or .tar.gz
    manifest: Manifest
    manifest_sha256: str
    bytes: int


class BundleWriter:
    """One bundle in the making. Leaving the context removes its scratch, not a finished bundle."""

    def __init__(
        self,
        scratch: Path,
        *,
        bundle_id: str,
        compression: Compression | None = None,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        threads: int | None = None,
        report: Report | None = None,
        bytes_total: int | None = None,
    ) -> None:
        assert valid_bundle_id(bundle_id), bundle_id
        assert MIN_CHUNK_SIZE <= chunk_size <= MAX_CHUNK_SIZE, chunk_size
        self._bundle_id = bundle_id
        self._prefix = f"{bundle_id}/".encode()
        self._compression = compression or Compression.default()
        self._chunk_size = chunk_size
        self._whole_bytes = min(_WHOLE_BYTES, chunk_size)
        self._scratch = scratch
        self._path = scratch / f"{bundle_id}.payload"
        self._report, self._bytes_total = report, bytes_total
        self._names, self._order = MemberNames(bundle_id), PathOrder()
        self._folders: set[bytes] = set()  # short hashes of their paths
        self._skipped: list[Skipped] = []
        self._skipped_count = self._skipped_bytes = 0
        self._finished = False
        with disk_errors():
            self._descriptor = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        self._index = IndexWriter(scratch, bundle_id)
        small = bytes_total is not None and bytes_total <= _INLINE_BYTES
        self._pool = Pool(0 if small else threads or usable_cores())
        self._payload = FrameWriter(
            self._descriptor, self._compression, self._pool, self._tell_progress
        )

    def __enter__(self) -> "BundleWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back; an unfinished bundle is removed."""
        self._pool.close()
        self._index.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if not self._finished:
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    @property
    def skipped(self) -> int:
        """How many entries were left out."""
        return self._skipped_count

    def add(self, entry: SourceEntry) -> bool:
        """Take an entry, in the order of its source; close its content.

        False: a folder that another source has brought already; the first one stands. Raises
        source-changed, source-unreadable, path-unsupported or entry-too-large with the path in
        `at`: the bundle is then as it was before, and the next entry may follow.
        """
        try:
            if fault := path_fault(entry.path):
                shown = canonical.text(entry.path[:200])
                raise SpooldError(errors.PATH_UNSUPPORTED, f"{shown}: {fault}", at=shown)
            if entry.kind is not Kind.FILE:
                return self._add_plain(entry)
            self._order.add(entry.path, entry.kind, entry.source)
            size = entry.size
            if size is not None and size <= self._whole_bytes:
                self._add_whole(entry, size)
            else:
                self._add_pieces(entry)
            return True
        finally:
            content = entry.content
            if isinstance(content, int):
                os.close(content)
            elif content is not None:
                content.close()

    def skip(self, path: bytes, error: SpooldError) -> None:
        """Note an entry that is left out, for the manifest.

        Raises the error itself where it is none of a single entry: a full disk is not left out.
        """
        if error.code not in SKIPPABLE:
            raise error
        skipped = Skipped(path, canonical.text(str(error)))
        self._skipped_count += 1
        size = len(canonical.encode(skipped_document(skipped)))
        if len(
            self._skipped
        ) < MAX_SKIPPED and self._skipped_bytes + size <= MAX_SKIPPED_BYTES - len("[]"):
            self._skipped.append(skipped)
            self._skipped_bytes += size

    def finish(self, fields: ManifestFields, signer: Signer) -> BuiltBundle:
        """Sign and put together. Raises nothing-to-bundle, sources-collide, manifest-too-large."""
        assert not self._finished
        if not self._index.files:
            raise SpooldError(errors.NOTHING_TO_BUNDLE)
        if self._order.sources > 1:
            self._index.check_sources()
        with disk_errors(), self._index_file() as index_file:
            self._payload.finish()
            write_all(self._descriptor, END_FRAME[self._compression.codec])
            index = FrameWriter(index_file.fileno(), self._compression, self._pool)
            self._index.write(self._payload.frames, index)
            manifest = self._manifest(fields, signer, index.frames)
            manifest_bytes = manifest.encode()
            head = self._head(manifest, manifest_bytes, signer.sign(manifest_bytes))
            pad = padding(self._compression.codec, len(head) + index.frames.compressed_bytes)
            path = put_in_front(
                self._descriptor,
                self._path,
                head,
                index_file.fileno(),
                pad,
                self._scratch / f"{self._bundle_id}.whole",
            )
            size = os.stat(path).st_size
        self._finished = True
        if self._report is not None:
            self._report("build", self._index.bytes, self._index.bytes, self._index.count)
        return BuiltBundle(
            path,
            self._compression.codec.suffix,
            manifest,
            hashlib.sha256(manifest_bytes).hexdigest(),
            size,
        )

    def _index_file(self) -> BinaryIO:
        if self._index.count > _FEW_ENTRIES:
            return unnamed_file(self._scratch, 0)
        return os.fdopen(os.memfd_create("index"), "w+b", 0)

    def _add_plain(self, entry: SourceEntry) -> bool:
        if entry.kind is Kind.DIR:
            key = hashlib.blake2b(entry.path, digest_size=16).digest()
            if key in self._folders:
                return False
            self._folders.add(key)
        self._order.add(entry.path, entry.kind, entry.source)
        self._index.add(
            Entry(
                entry.path,
                entry.kind,
                entry.mode,
                entry.mtime_ns,
                entry.uid,
                entry.gid,
                entry.source,
                target=entry.target,
            )
        )
        return True

    def _add_whole(self, entry: SourceEntry, size: int) -> None:
        # The hot path: one read, straight into the frame, one hash, one header, one line.
        room = self._payload.room(size)
        read_whole(entry, size, room)
        sha256 = hashlib.sha256(room[:size]).hexdigest()
        member = self._names.propose(entry.path, chunked=False)
        self._payload.small(members.header(self._prefix + member.encode(), size), size)
        self._record_file(entry, size, sha256, member, ())

    def _add_pieces(self, entry: SourceEntry) -> None:
        self._payload.mark()
        try:
            if entry.size is None:
                self._add_stream(entry)
            else:
                self._add_chunks(entry, entry.size)
        except BaseException:
            self._payload.cut_back()
            raise
        self._payload.forget_mark()

    def _add_chunks(self, entry: SourceEntry, size: int) -> None:
        count = -(-size // self._chunk_size) if size > self._chunk_size else 0
        self._check_chunks(entry, count)
        member = self._names.propose(entry.path, chunked=count > 0)
        reader = ContentReader(entry)
        chunks = []
        for number in range(count or 1):
            length = min(self._chunk_size, size - number * self._chunk_size)
            name = chunk_member(member, number) if count else member
            reader.begin_chunk()
            self._write_member(name, length, reader.fill)
            if count:
                chunks.append(Chunk(reader.chunk_sha256(), length))
        reader.expect_end()
        check_unchanged(entry)
        self._record_file(entry, size, reader.sha256(), member, tuple(chunks))

    def _add_stream(self, entry: SourceEntry) -> None:
        # A member's header states its size, so a stream's next chunk is on disk before it is
        # written as a member. While one is compressed, the one after it is read: whoever sends
        # the stream has not to wait.
        reader = ContentReader(entry)
        total, chunks = 0, list[Chunk]()
        with unnamed_file(self._scratch) as one, unnamed_file(self._scratch) as other:
            waiting, next_ = one, other
            reader.begin_chunk()
            length = reader.copy(waiting, self._chunk_size)
            while True:
                final = length < self._chunk_size or not reader.peek()
                chunked = bool(chunks) or not final
                member = self._names.propose(entry.path, chunked=chunked)
                self._check_chunks(entry, len(chunks) + 1 if chunked else 0)
                name = chunk_member(member, len(chunks)) if chunked else member
                total += length
                if chunked:
                    chunks.append(Chunk(reader.chunk_sha256(), length))
                waiting.seek(0)
                refill = Refill(waiting)
                if final:
                    self._write_member(name, length, refill.fill)
                    break
                ahead = ReadAhead(refill, reader, next_)
                self._write_member(name, length, ahead.fill)
                waiting.seek(0)
                waiting.truncate()
                waiting, next_, length = next_, waiting, ahead.bytes
        self._record_file(entry, total, reader.sha256(), member, tuple(chunks))

    def _write_member(self, member: str, size: int, fill: Fill) -> None:
        header = members.header(self._prefix + member.encode(), size)
        self._payload.member(header, size, fill)

    def _check_chunks(self, entry: SourceEntry, count: int) -> None:
        room = (MAX_LINE_BYTES - 64 * 1024) // _CHUNK_LINE_BYTES
        if count > room or self._index.chunks + count > MAX_CHUNKS:
            shown = canonical.text(entry.path)
            raise SpooldError(
                errors.ENTRY_TOO_LARGE,
                f"{shown}: {count} chunks of {self._chunk_size} bytes",
                at=shown,
            )

    def _record_file(
        self,
        entry: SourceEntry,
        size: int,
        sha256: str,
        member: str,
        chunks: tuple[Chunk, ...],
    ) -> None:
        recorded = Entry(
            entry.path,
            entry.kind,
            entry.mode,
            entry.mtime_ns,
            entry.uid,
            entry.gid,
            entry.source,
            size,
            sha256,
            member,
            chunks,
            None,
            entry.media_type,
        )
        self._names.commit()
        self._index.add(recorded)

    def _manifest(
        self, fields: ManifestFields, signer: Signer, index_frames: FrameTable
    ) -> Manifest:
        return Manifest(
            bundle_id=self._bundle_id,
            name=canonical.text(fields.name),
            created_at=format_time(fields.created_at),
            producer=f"spoold/{__version__} {self._compression.codec.library}",
            site=signer.site,
            to=fields.to,
            key_id=signer.key_id,
            algorithm=signer.algorithm,
            compression=self._compression,
            chunk_size=self._chunk_size,
            entries=self._index.entries,
            frames=self._index.frames,
            index=tuple(index_frames),
            totals=Totals(self._index.files, self._index.bytes, self._payload.raw),
            content_sha256=self._index.content_sha256(),
            not_after=None if fields.not_after is None else format_time(fields.not_after),
            request_sha256=fields.request_sha256,
            correlation_id=fields.correlation_id,
            labels=fields.labels,
            skipped=tuple(self._skipped),
            skipped_count=self._skipped_count,
        )

    def _head(self, manifest: Manifest, manifest_bytes: bytes, signature: bytes) -> bytes:
        info = bagit.bag_info(manifest, self._index.members)
        return make_head(
            self._compression.codec,
            self._bundle_id,
            manifest=manifest_bytes,
            signature=signature,
            further_signatures={},
            bag_info=info,
            tag_manifest=bagit.tag_manifest(
                manifest, manifest_bytes, info, self._index.digests_sha256()
            ),
        )

    def _tell_progress(self) -> None:
        if self._report is not None:
            self._report("build", self._index.bytes, self._bytes_total, self._index.count)
