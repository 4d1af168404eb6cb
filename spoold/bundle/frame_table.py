"""What is recorded of frames: in memory 40 bytes each, so that a terabyte's take 10 MB. Pure."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from spoold.bundle.frames import FRAME_BYTES, max_compressed_bytes

_RECORD: Final = struct.Struct("<II32s")  # raw, size, SHA-256


class Frame(NamedTuple):
    """One frame of INDEX or PAYLOAD: tar bytes, SHA-256 (hex) and length of the compressed ones."""

    raw: int
    sha256: str
    size: int


class FrameTable:
    """Frames in order; `compressed_bytes` are those of all of them."""

    def __init__(self) -> None:
        self._records = bytearray()
        self.compressed_bytes = 0

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    def __iter__(self) -> Iterator[Frame]:
        for raw, size, digest in _RECORD.iter_unpack(self._records):
            yield Frame(raw, digest.hex(), size)

    def add(self, raw: int, size: int, digest: bytes) -> None:
        """Record the next frame; `digest` is the SHA-256 of its `size` compressed bytes."""
        self._records += _RECORD.pack(raw, size, digest)
        self.compressed_bytes += size

    def cut(self, count: int) -> None:
        """Forget all frames but the first `count`."""
        del self._records[count * _RECORD.size :]
        self.compressed_bytes = sum(frame.size for frame in self)


def frame_fault(frame: Frame) -> str | None:
    """What is wrong with a frame's sizes, or None."""
    if not 0 < frame.raw <= FRAME_BYTES:
        return f"a frame holds 1 to {FRAME_BYTES} bytes, not {frame.raw}"
    if not 0 < frame.size <= max_compressed_bytes(frame.raw):
        return f"a frame of {frame.raw} bytes cannot take {frame.size}"
    return None
