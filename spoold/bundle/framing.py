"""Members into frames, frames through the pool, into a file in order; and back to an earlier point.

Not guaranteed: that anything is durable; whoever owns the file syncs it.
"""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final, NamedTuple, TypeAlias

from spoold.bundle.frame_table import FrameTable
from spoold.bundle.frames import FRAME_BYTES, Codec, compress
from spoold.bundle.manifest import Compression
from spoold.bundle.members import BLOCK, ZEROS, member_bytes
from spoold.bundle.pool import Ordered, Pool
from spoold.bundle.scratch import disk_errors
from spoold.disk import begin_sync

_SYNC_BYTES: Final = 64 * 1024  # less than this is written soon enough when it has to be
# Fills the whole view with the next bytes of a member's content, or raises.
Fill: TypeAlias = Callable[[memoryview], None]


class _Packed(NamedTuple):
    data: bytes
    sha256: bytes
    raw: int
    buffer: mmap


class _Mark(NamedTuple):
    frames: int
    buffer: mmap
    raw: int
    total: int


class FrameWriter:
    """Cuts members into frames by the rule, has them compressed, writes them one after the other.

    A frame is gathered in a buffer of its own, straight from where its content comes from, for the
    pool reads it while the next one is gathered; a buffer that is written serves again.
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
        self._writing: Ordered[None] = Ordered(pool)
        self._on_frame = on_frame
        self._submitted = 0
        self._free: list[mmap] = []
        self._ahead: mmap | None = None  # of the next frame, where `room` needed it
        self._held: mmap | None = None  # written, but open at the mark
        self._buffer = _new_buffer()
        self._view = memoryview(self._buffer)
        self._raw = 0
        self._mark: _Mark | None = None
        self.frames = FrameTable()  # written or being written
        self.raw = 0  # tar bytes of all members so far

    def member(self, header: bytes, size: int, fill: Fill) -> None:
        """Take a member of any size, its content from `fill`."""
        if member_bytes(size) <= FRAME_BYTES:
            room = self.room(size)
            if size:
                fill(room[:size])
            self.small(header, size)
            return
        self._close()
        start, left = BLOCK, size
        while left:
            count = min(left, FRAME_BYTES - start)
            if start:
                self._view[:BLOCK] = header
            fill(self._view[start : start + count])
            padding = -(start + count) % BLOCK
            end = start + count + padding
            self._view[end - padding : end] = ZEROS[padding]
            self._raw = end
            self.raw += end
            self._close()
            start, left = 0, left - count

    def room(self, size: int) -> memoryview:
        """Where the content of a member that fits into one frame goes, and one byte more.

        Nothing is changed until `small` follows: the content may turn out not to be one.
        """
        start = self._raw + BLOCK
        if start + size + -size % BLOCK <= FRAME_BYTES:
            return self._view[start : start + size + 1]
        if self._ahead is None:
            self._ahead = self._spare()
        return memoryview(self._ahead)[BLOCK : BLOCK + size + 1]

    def small(self, header: bytes, size: int) -> None:
        """Take a member whose content was put where `room` said."""
        padding = -size % BLOCK
        total = BLOCK + size + padding
        if self._raw + total > FRAME_BYTES:
            self._close()
        start, view = self._raw, self._view
        view[start : start + BLOCK] = header
        self._raw = end = start + total
        if padding:
            view[end - padding : end] = ZEROS[padding]
        self.raw += total

    def mark(self) -> None:
        """Remember this point for `cut_back`, until `forget_mark`."""
        self._mark = _Mark(self._submitted, self._buffer, self._raw, self.raw)

    def forget_mark(self) -> None:
        """The mark is not needed any more."""
        self._mark = None
        if self._held is not None:
            self._free.append(self._held)
            self._held = None

    def cut_back(self) -> None:
        """Undo all members since the mark: the file is cut, the frame then open is open again."""
        mark = self._mark
        assert mark is not None
        self._drain()
        self.frames.cut(mark.frames)
        end = self.frames.compressed_bytes
        with disk_errors():
            os.ftruncate(self._descriptor, end)
            os.lseek(self._descriptor, end, os.SEEK_SET)
        self._submitted = mark.frames
        if self._buffer is not mark.buffer:
            self._free.append(self._buffer)
        self._take(mark.buffer)
        self._raw, self.raw = mark.raw, mark.total
        self._mark = self._held = None

    def finish(self) -> None:
        """Close the open frame and wait until all are written, the position at their end."""
        self._close()
        self._drain()
        with disk_errors():
            os.lseek(self._descriptor, self.frames.compressed_bytes, os.SEEK_SET)

    def _close(self) -> None:
        if not self._raw:
            return
        codec, level = self._compression.codec, self._compression.level
        call = partial(_pack, codec, level, self._buffer, self._raw)
        self._submitted += 1
        for packed in self._packing.submit(call):
            self._write(packed)
        self._take(self._ahead or self._spare())
        self._ahead = None
        if self._on_frame is not None:
            self._on_frame()

    def _spare(self) -> mmap:
        return self._free.pop() if self._free else _new_buffer()

    def _take(self, buffer: mmap) -> None:
        self._buffer, self._view, self._raw = buffer, memoryview(buffer), 0

    def _drain(self) -> None:
        for packed in self._packing.drain():
            self._write(packed)
        for _ in self._writing.drain():
            pass

    def _write(self, packed: _Packed) -> None:
        # Its place is known now; the writing itself need not hold up who reads.
        offset = self.frames.compressed_bytes
        for _ in self._writing.submit(partial(_write_at, self._descriptor, packed.data, offset)):
            pass
        self.frames.add(packed.raw, len(packed.data), packed.sha256)
        if self._mark is not None and packed.buffer is self._mark.buffer:
            self._held = packed.buffer  # what was in it at the mark may be needed again
        else:
            self._free.append(packed.buffer)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    with disk_errors():
        while view:
            count = os.pwrite(descriptor, view, offset)
            view, offset = view[count:], offset + count
    if len(data) >= _SYNC_BYTES:
        begin_sync(descriptor)


def _new_buffer() -> mmap:
    # One byte more than a frame: it tells that a file has grown (see `FrameWriter.room`).
    # Straight from the kernel: of a small bundle only a few pages are ever touched, and when it is
    # done they are not left as holes in the heap of a process that lives long.
    return mmap(-1, FRAME_BYTES + 1, MAP_PRIVATE | MAP_ANONYMOUS)


def _pack(codec: Codec, level: int, buffer: mmap, raw: int) -> _Packed:
    with memoryview(buffer) as whole, whole[:raw] as view:
        data = compress(codec, level, view)
    return _Packed(data, hashlib.sha256(data).digest(), raw, buffer)
