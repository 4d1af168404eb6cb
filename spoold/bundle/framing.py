"""Members into frames, frames through the pool, into a file in order; and back to an earlier point.

Not guaranteed: that anything is durable; whoever owns the file syncs it.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from spoold.bundle.frames import FRAME_BYTES, Codec, compress
from spoold.bundle.lines import Frame
from spoold.bundle.manifest import Compression
from spoold.bundle.members import BLOCK, ZEROS, member_bytes
from spoold.bundle.pool import Ordered, Pool
from spoold.bundle.scratch import disk_errors

# Fills the whole view with the next bytes of a member's content, or raises.
Fill: TypeAlias = Callable[[memoryview], None]
Piece: TypeAlias = bytes | bytearray

_RECORD: Final = struct.Struct("<II32s")  # raw, size, SHA-256: a terabyte's frames take 10 MB


class _Packed(NamedTuple):
    data: bytes
    sha256: bytes
    raw: int


class _Mark(NamedTuple):
    frames: int
    pieces: list[Piece]
    raw: int
    total: int


class FrameWriter:
    """Cuts members into frames by the rule, has them compressed, writes them one after the other.

    `on_frame` is called after each frame that was handed to the pool.
    """

    def __init__(
        self,
        descriptor: int,
        compression: Compression,
        pool: Pool,
        on_frame: Callable[[], None] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._compression = compression
        self._packing: Ordered[_Packed] = Ordered(pool)
        self._on_frame = on_frame
        self._table = bytearray()
        self._submitted = 0
        self._pieces: list[Piece] = []
        self._raw = 0
        self._mark: _Mark | None = None
        self.bytes = 0  # written, compressed
        self.raw = 0  # tar bytes of all members so far

    def member(self, header: bytes, size: int, fill: Fill) -> None:
        """Take a member of any size, its content from `fill`."""
        if member_bytes(size) <= FRAME_BYTES:
            content = bytearray(size)
            if size:
                fill(memoryview(content))
            self.small(header, content)
            return
        self._close()
        start, left = BLOCK, size
        while left:
            count = min(left, FRAME_BYTES - start)
            end = start + count + -(start + count) % BLOCK
            # A buffer of its own for each frame: the pool reads it while the next one is filled.
            buffer = bytearray(end)
            if start:
                buffer[:BLOCK] = header
            fill(memoryview(buffer)[start : start + count])
            self._pieces, self._raw = [buffer], end
            self.raw += end
            self._close()
            start, left = 0, left - count

    def small(self, header: bytes, content: Piece) -> None:
        """Take a member that fits into one frame."""
        size = len(content)
        padding = -size % BLOCK
        total = BLOCK + size + padding
        if self._raw + total > FRAME_BYTES:
            self._close()
        if padding:
            self._pieces += (header, content, ZEROS[padding])
        else:
            self._pieces += (header, content)
        self._raw += total
        self.raw += total

    def mark(self) -> None:
        """Remember this point for `cut_back`, until `forget_mark`."""
        self._mark = _Mark(self._submitted, list(self._pieces), self._raw, self.raw)

    def forget_mark(self) -> None:
        """The mark is not needed any more."""
        self._mark = None

    def cut_back(self) -> None:
        """Undo all members since the mark: the file is cut, the frame then open is open again."""
        mark = self._mark
        assert mark is not None
        for packed in self._packing.drain():
            self._write(packed)
        del self._table[mark.frames * _RECORD.size :]
        self.bytes = sum(frame.size for frame in self.frames())
        with disk_errors():
            os.ftruncate(self._descriptor, self.bytes)
            os.lseek(self._descriptor, self.bytes, os.SEEK_SET)
        self._submitted = mark.frames
        self._pieces, self._raw, self.raw = mark.pieces, mark.raw, mark.total
        self._mark = None

    def finish(self) -> None:
        """Close the open frame and wait until all are written."""
        self._close()
        for packed in self._packing.drain():
            self._write(packed)

    def frames(self) -> Iterator[Frame]:
        """The frames written so far."""
        for raw, size, digest in _RECORD.iter_unpack(self._table):
            yield Frame(raw, digest.hex(), size)

    def _close(self) -> None:
        if not self._raw:
            return
        codec, level = self._compression.codec, self._compression.level
        call = partial(_pack, codec, level, self._pieces)
        self._pieces, self._raw = [], 0
        self._submitted += 1
        for packed in self._packing.submit(call):
            self._write(packed)
        if self._on_frame is not None:
            self._on_frame()

    def _write(self, packed: _Packed) -> None:
        with disk_errors():
            write_all(self._descriptor, packed.data)
        self._table += _RECORD.pack(packed.raw, len(packed.data), packed.sha256)
        self.bytes += len(packed.data)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """write(2) until all is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _pack(codec: Codec, level: int, pieces: list[Piece]) -> _Packed:
    raw = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    data = compress(codec, level, raw)
    return _Packed(data, hashlib.sha256(data).digest(), len(raw))
