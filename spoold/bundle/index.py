"""Reads the INDEX of a bundle: every line checked, spooled, counted and hashed; nothing held.

All is compared with the signed manifest: hashes, counts, totals, and the files that are functions
of the rest, which are made again.
"""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spoold import canonical, errors
from spoold.bundle import bagit
from spoold.bundle.entry import Chunk, Entry, Kind
from spoold.bundle.frame_table import Frame, FrameTable, frame_fault
from spoold.bundle.frames import Cutter
from spoold.bundle.head import Policy, VerifiedHead
from spoold.bundle.lines import (
    MAX_LINE_BYTES,
    content_line,
    frame_line,
    member_lines,
    parse_entry,
    parse_frame,
)
from spoold.bundle.manifest import MAX_CHUNKS, IndexFile, Manifest, Totals
from spoold.bundle.members import member_bytes
from spoold.bundle.order import PathOrder, check_sources
from spoold.bundle.paths import MemberNames
from spoold.bundle.scratch import LineFile, LineSorter
from spoold.bundle.unpacking import MemberStream
from spoold.errors import SpooldError

_SHORTEST_FRAME_LINE: Final = len(frame_line(Frame(1, "0" * 64, 1)))


@dataclass(frozen=True, slots=True)
class Index:
    """What a verified bundle contains, to be walked any number of times, once at a time."""

    head: VerifiedHead
    lines: LineFile
    frames: FrameTable  # of the PAYLOAD

    def entries(self) -> Iterator[Entry]:
        """The entries, in order."""
        for line in self.lines:
            yield parse_entry(line[:-1])


class IndexReader:
    """Takes the three members of the INDEX, one after the other."""

    def __init__(self, head: VerifiedHead, policy: Policy, scratch: Path | None) -> None:
        self._head, self._policy = head, policy
        self._manifest = head.manifest
        self._prefix = f"{self._manifest.bundle_id}/".encode()
        self._lines = LineFile(scratch)
        self._content, self._scratch = LineSorter(scratch), scratch
        self._names, self._order = MemberNames(self._manifest.bundle_id), PathOrder()
        self._cutter = Cutter()
        self._raws = array("I")  # of the PAYLOAD frames, as the entries make them
        self._frames = FrameTable()
        self._digests = hashlib.sha256()  # of manifest-sha256.txt
        self._digests_bytes = self._members = 0
        self._files = self._bytes = self._chunks = 0
        frames = self._manifest.frames
        self._max_frames = min(frames.count, frames.bytes // _SHORTEST_FRAME_LINE)

    def read(self, stream: MemberStream) -> Index:
        """Read all of it. Raises what the format page's section 5, step 4, asks for."""
        try:
            _check_index_cut(self._manifest)
            self._read_entries(stream)
            self._read_frames(stream)
            self._read_digests(stream)
            stream.expect_end()
            self._check_rest()
        except BaseException:
            self._lines.close()
            raise
        finally:
            self._content.close()
        return Index(self._head, self._lines, self._frames)

    def _read_entries(self, stream: MemberStream) -> None:
        expected = self._manifest.entries
        for line in _read_lines(stream, self._prefix, "entries.jsonl", expected):
            self._take(parse_entry(line))
            self._lines.append(line + b"\n")
        self._raws.extend(self._cutter.close())
        if self._order.sources > 1:
            check_sources(self._lines, self._scratch)
        found = Totals(self._files, self._bytes, sum(self._raws))
        if found != self._manifest.totals:
            raise SpooldError(
                errors.TOTALS_MISMATCH,
                f"the entries make {found}, the manifest says {self._manifest.totals}",
                at="totals",
            )
        if not self._files:
            raise SpooldError(errors.TOTALS_MISMATCH, "there is no file in it", at="totals.files")
        content = self._content.sha256()
        if content != self._manifest.content_sha256:
            raise SpooldError(
                errors.TOTALS_MISMATCH,
                f"the entries' content is {content}, the manifest says "
                f"{self._manifest.content_sha256}",
                at="content_sha256",
            )

    def _take(self, entry: Entry) -> None:
        depth = self._policy.max_depth
        if depth is not None and entry.path.count(b"/") >= depth:
            raise SpooldError(
                errors.QUOTA_EXCEEDED,
                f"max_depth is {depth}: {canonical.text(entry.path)}",
                at="max_depth",
            )
        self._order.add(entry.path, entry.kind, entry.source)
        self._content.add(content_line(entry))
        if entry.kind is not Kind.FILE:
            return
        pieces = self._check_chunks(entry)
        member = self._names.propose(entry.path, chunked=bool(entry.chunks))
        if member != entry.member:
            raise SpooldError(
                errors.ENTRY_MEMBER,
                f"it is {canonical.text(entry.member[:500])}, "
                f"the rule gives {canonical.text(member)}",
                at=canonical.text(entry.path),
            )
        self._names.commit()
        self._count_bytes(entry)
        for size in pieces:
            self._cut(entry, size)
        lines = member_lines(entry)
        self._digests.update(lines)
        self._digests_bytes += len(lines)
        self._members += len(pieces)
        self._files += 1

    # A line of an entry is short whatever size it claims: a million of them, or one of as many
    # chunks as it holds, could fill the memory with the frames that they would need. So what no
    # later comparison would let pass is refused at once.

    def _count_bytes(self, entry: Entry) -> None:
        self._bytes += entry.size
        if self._bytes > self._manifest.totals.bytes:
            raise SpooldError(
                errors.TOTALS_MISMATCH,
                f"the entries hold more than the {self._manifest.totals.bytes} bytes of the "
                "manifest",
                at="totals.bytes",
            )

    def _cut(self, entry: Entry, size: int) -> None:
        self._raws.extend(self._cutter.add(member_bytes(size)))
        if len(self._raws) > self._max_frames:
            raise SpooldError(
                errors.FRAME_CUT,
                "the entries need more frames than frames.jsonl can list",
                at=canonical.text(entry.path),
            )

    def _check_chunks(self, entry: Entry) -> list[int]:
        chunk_size = self._manifest.chunk_size
        if not entry.chunks and entry.size <= chunk_size:
            return [entry.size]
        self._chunks += len(entry.chunks)
        if (
            entry.size <= chunk_size
            or self._chunks > MAX_CHUNKS
            or not _make_up(entry.chunks, entry.size, chunk_size)
        ):
            raise SpooldError(
                errors.ENTRY_CHUNKS,
                f"{entry.size} bytes in chunks of {chunk_size}: not those it lists",
                at=canonical.text(entry.path),
            )
        return [chunk.size for chunk in entry.chunks]

    def _read_frames(self, stream: MemberStream) -> None:
        number = 0
        for line in _read_lines(stream, self._prefix, "frames.jsonl", self._manifest.frames):
            frame = parse_frame(line)
            if number >= len(self._raws) or frame.raw != self._raws[number]:
                raise SpooldError(
                    errors.FRAME_CUT, "frames.jsonl: not as the rule cuts", at=f"frame {number}"
                )
            if fault := frame_fault(frame):
                raise SpooldError(errors.FRAME_CUT, fault, at=f"frame {number}")
            self._frames.add(frame.raw, frame.size, bytes.fromhex(frame.sha256))
            number += 1
        if number != len(self._raws):
            raise SpooldError(
                errors.FRAME_CUT, f"frames.jsonl has {number} frames, not {len(self._raws)}"
            )
        limit, compressed = self._policy.max_expansion, self._frames.compressed_bytes
        if limit is not None and self._manifest.totals.raw > limit * compressed:
            raise SpooldError(
                errors.QUOTA_EXCEEDED,
                f"max_expansion is {limit}, {compressed} bytes become {self._manifest.totals.raw}",
                at="max_expansion",
            )

    def _read_digests(self, stream: MemberStream) -> None:
        name = "manifest-sha256.txt"
        digest = hashlib.sha256()
        for view in stream.member(self._prefix + name.encode(), self._digests_bytes):
            digest.update(view)
        if digest.digest() != self._digests.digest():
            raise SpooldError(
                errors.TAG_FILE, f"{name} is not the one that the entries make", at=name
            )

    def _check_rest(self) -> None:
        manifest, head = self._manifest, self._head.head
        _check_index_cut(manifest, self._digests_bytes)
        info = bagit.bag_info(manifest, self._members)
        tags = bagit.tag_manifest(manifest, head.manifest_bytes, info, self._digests.hexdigest())
        for name, found, expected in (
            ("bag-info.txt", head.bag_info, info),
            ("tagmanifest-sha256.txt", head.tag_manifest, tags),
        ):
            if found != expected:
                raise SpooldError(
                    errors.TAG_FILE, f"{name} is not the one that the manifest makes", at=name
                )


def _make_up(chunks: tuple[Chunk, ...], size: int, chunk_size: int) -> bool:
    """Whether the chunks are those of a file of this size."""
    if len(chunks) != -(-size // chunk_size):  # first: the size may be anything
        return False
    last = size - (len(chunks) - 1) * chunk_size
    return chunks[-1].size == last and all(chunk.size == chunk_size for chunk in chunks[:-1])


def _check_index_cut(manifest: Manifest, digests_bytes: int | None = None) -> None:
    """Without the size of manifest-sha256.txt, which the entries make: as far as can be known."""
    cutter = Cutter()
    raws: list[int] = []
    for size in (manifest.entries.bytes, manifest.frames.bytes):
        raws += cutter.add(member_bytes(size))
    found = [frame.raw for frame in manifest.index]
    if digests_bytes is None:
        found = found[: len(raws)]
    else:
        raws += [*cutter.add(member_bytes(digests_bytes)), *cutter.close()]
    if raws != found:
        raise SpooldError(
            errors.FRAME_CUT, "the index's frames are not cut as the rule says", at="index"
        )


def _read_lines(
    stream: MemberStream, prefix: bytes, name: str, expected: IndexFile
) -> Iterator[bytes]:
    """Yield a member's lines without line feeds; at the end compare hash and count."""
    digest = hashlib.sha256()
    rest, count = b"", 0
    for view in stream.member(prefix + name.encode(), expected.bytes):
        digest.update(view)
        lines = (rest + bytes(view)).split(b"\n")
        rest = lines.pop()
        count += len(lines)
        if count > expected.count:
            raise SpooldError(
                errors.INDEX_DIGEST, f"{name} has more than the signed {expected.count} lines"
            )
        for line in lines:
            if len(line) >= MAX_LINE_BYTES:
                raise SpooldError(errors.ENTRY_INVALID, f"{name} has a line above 4 MiB", at=name)
            yield line
        if len(rest) >= MAX_LINE_BYTES:
            raise SpooldError(errors.ENTRY_INVALID, f"{name} has a line above 4 MiB", at=name)
    if rest or count != expected.count or digest.hexdigest() != expected.sha256:
        raise SpooldError(
            errors.INDEX_DIGEST,
            f"{name} has {count} lines and the SHA-256 {digest.hexdigest()}; "
            f"signed are {expected.count} and {expected.sha256}",
            at=name,
        )
