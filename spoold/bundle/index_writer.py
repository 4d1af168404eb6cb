"""Writes the INDEX of a bundle: what is recorded of each entry is spooled, counted and hashed.

Crash: nothing stays behind, the spooled lines are in files without a name.
"""

from pathlib import Path

from spoold import errors
from spoold.bundle import members
from spoold.bundle.content import Refill
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.frame_table import FrameTable
from spoold.bundle.framing import FrameWriter
from spoold.bundle.lines import entry_lines, frame_line, member_lines
from spoold.bundle.manifest import IndexFile
from spoold.bundle.order import check_sources
from spoold.bundle.scratch import LineFile, LineSorter
from spoold.errors import SpooldError


class IndexWriter:
    """Takes the entries, then writes the three members of the INDEX.

    `files`, their content `bytes` and their `chunks` are of what was taken so far.
    """

    def __init__(self, scratch: Path, bundle_id: str) -> None:
        self._scratch = scratch
        self._prefix = f"{bundle_id}/".encode()
        self._entries, self._frames = LineFile(scratch), LineFile(scratch)
        self._digests = LineFile(scratch)  # manifest-sha256.txt
        self._content = LineSorter(scratch)
        self.files = self.bytes = self.chunks = 0

    def close(self) -> None:
        """Give the disk space back."""
        for closeable in (self._entries, self._frames, self._digests, self._content):
            closeable.close()

    def add(self, entry: Entry) -> None:
        """Record the next entry, in bundle order."""
        line, short = entry_lines(entry)
        self._entries.append(line + b"\n")
        self._content.add(short)
        if entry.kind is Kind.FILE:
            chunks = len(entry.chunks)
            self._digests.append(member_lines(entry), chunks or 1)
            self.files += 1
            self.bytes += entry.size
            self.chunks += chunks

    def check_sources(self) -> None:
        """Raise sources-collide where two sources bring what cannot stand in one tree."""
        try:
            check_sources(self._entries, self._scratch)
        except SpooldError as error:
            if error.code is not errors.ENTRY_COLLIDES:  # a disk that is full, say
                raise
            raise SpooldError(errors.SOURCES_COLLIDE, error.message, at=error.at) from error

    def write(self, payload: FrameTable, target: FrameWriter) -> None:
        """Write the INDEX, which ends with the frames of the PAYLOAD and the members' hashes."""
        for frame in payload:
            self._frames.append(frame_line(frame))
        for name, lines in (
            (b"entries.jsonl", self._entries),
            (b"frames.jsonl", self._frames),
            (b"manifest-sha256.txt", self._digests),
        ):
            header = members.header(self._prefix + name, lines.bytes)
            target.member(header, lines.bytes, Refill(lines.reopened()).fill)
        target.finish()

    @property
    def entries(self) -> IndexFile:
        """What the manifest says of entries.jsonl."""
        return _index_file(self._entries)

    @property
    def frames(self) -> IndexFile:
        """What the manifest says of frames.jsonl, when it is written."""
        return _index_file(self._frames)

    @property
    def count(self) -> int:
        """How many entries there are so far."""
        return self._entries.count

    @property
    def members(self) -> int:
        """How many members the PAYLOAD has so far."""
        return self._digests.count

    def content_sha256(self) -> str:
        """Of what the entries are, whichever source brought them and whenever; lowercase hex."""
        return self._content.sha256()

    def digests_sha256(self) -> str:
        """Of manifest-sha256.txt, lowercase hex."""
        return self._digests.sha256()


def _index_file(lines: LineFile) -> IndexFile:
    return IndexFile(lines.bytes, lines.count, lines.sha256())
