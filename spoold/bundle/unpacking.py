"""Frames back into members: each frame's hash checked before it is decompressed, a few ahead.

Every byte of the tar is accounted for: a header is compared with the one that name and size give,
padding with zeros, and a member stands in its frame as the cutting rule has it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from spoold import canonical, errors
from spoold.bundle import members
from spoold.bundle.frame_table import Frame
from spoold.bundle.frames import FRAME_BYTES, Codec, decompress
from spoold.bundle.pool import Pool, ordered_map
from spoold.errors import SpooldError

_BLOCK: Final = members.BLOCK


def unpack_frames(
    pool: Pool,
    codec: Codec,
    frames: Iterable[tuple[int, Frame]],
    read: Callable[[int], bytes],
    where: str,
) -> Iterator[bytes]:
    """Yield the tar bytes of numbered frames; `read(n)` gives exactly n bytes of the next one.

    Raises frame-digest-mismatch, frame-invalid, or what `read` raises.
    """
    calls = (
        partial(_unpack, codec, read(frame.size), frame, f"{where} {number}")
        for number, frame in frames
    )
    return ordered_map(pool, calls)


def _unpack(codec: Codec, data: bytes, frame: Frame, where: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != frame.sha256:
        raise SpooldError(
            errors.FRAME_DIGEST, f"{where} is {found}, signed is {frame.sha256}", at=where
        )
    try:
        return decompress(codec, data, frame.raw)
    except SpooldError as error:
        raise SpooldError(error.code, f"{where}: {error.message}", at=where) from error


class Place(NamedTuple):
    """Where a member stands: its first frame, its offset there, and how many frames it takes."""

    frame: int
    offset: int
    frames: int


class Places:
    """The places of members, by the cutting rule, given their sizes one after the other."""

    def __init__(self) -> None:
        self._frame = 0
        self._open = 0

    def add(self, size: int) -> Place:
        """The place of the next member, of `size` bytes of content."""
        total = members.member_bytes(size)
        if self._open and self._open + total > FRAME_BYTES:
            self._frame, self._open = self._frame + 1, 0
        place = Place(self._frame, self._open, -(-total // FRAME_BYTES))
        if total > FRAME_BYTES:
            self._frame += place.frames
        else:
            self._open += total
        return place


class MemberStream:
    """Hands out the members of consecutive frames, one after the other."""

    def __init__(self, frames: Iterator[bytes], on_frame: Callable[[int], None]) -> None:
        self._frames = frames
        self._on_frame = on_frame  # is told the raw size of each frame that begins
        self._frame = b""
        self._position = 0
        self._number = -1

    def skip_to(self, place: Place) -> None:
        """Go on at a member's place, where the frames that were given may be a choice.

        Each frame of the choice must be asked for, in order.
        """
        if place.offset and place.frame == self._number:
            self._position = place.offset
            return
        self._position = len(self._frame)
        self._number = place.frame - 1
        if place.offset:
            self._next()
            self._position = place.offset

    def whole(self, name: bytes, size: int) -> memoryview:
        """The content of a member that fits into one frame."""
        frame, start = self._frame, self._position
        if start == len(frame):
            frame = self._next()
            start = 0
        begin = start + _BLOCK
        end = begin + size
        self._position = after = end + -size % _BLOCK
        if after > len(frame):
            raise _cut(name)
        if frame[start:begin] != members.header(name, size):
            raise _header(name)
        if after > end and frame[end:after] != members.ZEROS[after - end]:
            raise _padding(name)
        return memoryview(frame)[begin:end]

    def member(self, name: bytes, size: int) -> Iterator[memoryview]:
        """The content of a member of any size, in pieces of at most a frame."""
        left = members.member_bytes(size)
        if left <= FRAME_BYTES:
            yield self.whole(name, size)
            return
        if self._position != len(self._frame):
            raise _cut(name)
        begin = _BLOCK
        while left:
            frame = self._next()
            if len(frame) != min(left, FRAME_BYTES):
                raise _cut(name)
            if begin and frame[:begin] != members.header(name, size):
                raise _header(name)
            end = min(len(frame), begin + size)
            if frame[end:] != members.ZEROS[len(frame) - end]:
                raise _padding(name)
            yield memoryview(frame)[begin:end]
            size -= end - begin
            left -= len(frame)
            begin = 0
        self._position = len(self._frame)

    def expect_end(self) -> None:
        """Raise frame-cut where more follows in these frames."""
        if self._position != len(self._frame) or next(self._frames, None) is not None:
            raise SpooldError(errors.FRAME_CUT, "the frames hold more than their members")

    def _next(self) -> bytes:
        frame = next(self._frames, None)
        if frame is None:
            raise SpooldError(errors.FRAME_CUT, "the frames end before their members do")
        self._frame = frame
        self._number += 1
        self._on_frame(len(frame))
        return frame


def _cut(name: bytes) -> SpooldError:
    shown = canonical.text(name)
    return SpooldError(
        errors.FRAME_CUT, f"{shown} does not stand in its frame as the rule says", at=shown
    )


def _header(name: bytes) -> SpooldError:
    shown = canonical.text(name)
    return SpooldError(
        errors.MEMBER_HEADER, f"the header of {shown} is not the one it must be", at=shown
    )


def _padding(name: bytes) -> SpooldError:
    shown = canonical.text(name)
    return SpooldError(errors.MEMBER_HEADER, f"the padding of {shown} is not zero", at=shown)
