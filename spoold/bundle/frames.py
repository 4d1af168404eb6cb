"""Frames: the cutting rule, the two codecs, the stored head, the padding and the end. Pure.

Sources: RFC 8878 (Zstandard), RFC 1951 and 1952 (DEFLATE, gzip); the profile is the format page's,
section 1. Nothing here is given bytes to decompress whose hash was not authenticated before.
"""

import enum
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Final, assert_never

import zstandard

from spoold import errors
from spoold.errors import SpooldError

FRAME_BYTES: Final = 4 * 1024 * 1024
ALIGNMENT: Final = 4096
MAX_HEAD_BYTES: Final = FRAME_BYTES

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_STORED = _ZSTD_MAGIC + b"\xa0"  # one segment, 32-bit content size, no checksum
_ZSTD_BLOCK = 131_072
_MAX_WINDOW = 8 * 1024 * 1024
_SKIPPABLE = b"\x50\x2a\x4d\x18"
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_BLOCK = 65_535


class Codec(enum.StrEnum):
    """How frames are compressed."""

    ZSTD = "zstd"
    GZIP = "gzip"

    @property
    def suffix(self) -> str:
        """What the name of such a bundle ends in."""
        return ".tar.zst" if self is Codec.ZSTD else ".tar.gz"

    @property
    def levels(self) -> range:
        """The levels that the format allows."""
        return range(1, 20) if self is Codec.ZSTD else range(1, 10)

    @property
    def default_level(self) -> int:
        """What is used where nobody asks for another."""
        return 3 if self is Codec.ZSTD else 6

    @property
    def library(self) -> str:
        """Name and version of the library that does it, for the manifest's `producer`."""
        if self is Codec.ZSTD:
            return "libzstd/" + ".".join(map(str, zstandard.ZSTD_VERSION))
        return f"zlib/{zlib.ZLIB_RUNTIME_VERSION}"


END_FRAME: Final = {
    Codec.ZSTD: bytes.fromhex("28b52ffd6400034d00001000000100fb2b8005cdac85f0"),
    Codec.GZIP: bytes.fromhex("1f8b08000000000000ff63601805a360148c5400002eafb5ef00040000"),
}


class Cutter:
    """The cutting rule: given members' sizes in tar bytes, the sizes of the frames."""

    def __init__(self) -> None:
        self._open = 0

    def add(self, size: int) -> Iterator[int]:
        """Take a member of `size` tar bytes; yield the raw size of each frame that it closes."""
        if size > FRAME_BYTES:
            yield from self.close()
            for _ in range(size // FRAME_BYTES):
                yield FRAME_BYTES
            if size % FRAME_BYTES:
                yield size % FRAME_BYTES
        elif self._open + size <= FRAME_BYTES:
            self._open += size
        else:
            yield self._open
            self._open = size

    def close(self) -> Iterator[int]:
        """Yield the raw size of the open frame, if there is one."""
        if self._open:
            yield self._open
            self._open = 0


def max_compressed_bytes(raw: int) -> int:
    """The most that a frame of `raw` tar bytes may take."""
    return raw + raw // 64 + 4096


_local = threading.local()  # compressors hold megabytes and are not to be shared by threads


def compress(codec: Codec, level: int, raw: bytes | bytearray | memoryview) -> bytes:
    """One frame. A function of its arguments and the codec library's version."""
    match codec:
        case Codec.ZSTD:
            compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("c", {})
            if level not in compressors:
                compressors[level] = zstandard.ZstdCompressor(
                    level=level, write_checksum=True, write_content_size=True
                )
            try:
                return compressors[level].compress(raw)
            except zstandard.ZstdError as error:
                _refuse_memory(error)
                raise
        case Codec.GZIP:
            deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 8)
            return b"".join(
                (_GZIP_HEADER, deflate.compress(raw), deflate.flush(), _gzip_trailer(raw))
            )
        case _:
            assert_never(codec)


def _refuse_memory(error: Exception) -> None:
    """Raise MemoryError where that is all that was wrong: no frame is invalid for it."""
    # Neither library says it but in words: ZSTD_getErrorName, and Z_MEM_ERROR of zlib.h.
    if "not enough memory" in str(error) or str(error).startswith("Error -4 "):
        raise MemoryError(str(error)) from error


def decompress(codec: Codec, frame: bytes, raw: int) -> bytes:
    """Undo one frame whose hash was authenticated; `raw` is its signed size.

    Never makes more than `raw` bytes. Raises frame-invalid.
    """
    match codec:
        case Codec.ZSTD:
            _check_zstd_header(frame, raw)
            if not hasattr(_local, "d"):
                _local.d = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
            try:
                content: bytes = _local.d.decompress(frame, allow_extra_data=False)
            except zstandard.ZstdError as error:
                _refuse_memory(error)
                raise SpooldError(errors.FRAME_INVALID, f"zstd: {error}") from error
        case Codec.GZIP:
            if frame[: len(_GZIP_HEADER)] != _GZIP_HEADER:
                raise SpooldError(errors.FRAME_INVALID, "its gzip header is not the one allowed")
            inflate = zlib.decompressobj(-15)
            try:
                content = inflate.decompress(frame[len(_GZIP_HEADER) :], raw + 1)
            except zlib.error as error:
                _refuse_memory(error)
                raise SpooldError(errors.FRAME_INVALID, f"gzip: {error}") from error
            if not inflate.eof or inflate.unused_data != _gzip_trailer(content):
                raise SpooldError(errors.FRAME_INVALID, "gzip: its end or checksum does not fit")
        case _:
            assert_never(codec)
    if len(content) != raw:
        raise SpooldError(
            errors.FRAME_INVALID, f"it holds {len(content)} bytes, the signed size is {raw}"
        )
    return content


def _check_zstd_header(frame: bytes, raw: int) -> None:
    if frame[:4] != _ZSTD_MAGIC or len(frame) < 6:
        raise SpooldError(errors.FRAME_INVALID, "it is no zstd frame")
    descriptor = frame[4]
    if descriptor & 0b00011000:
        raise SpooldError(errors.FRAME_INVALID, "unused or reserved bits are set in its header")
    if not descriptor & 0b00000100:
        raise SpooldError(errors.FRAME_INVALID, "it has no checksum")
    if descriptor & 0b00000011:
        raise SpooldError(errors.FRAME_INVALID, "it names a dictionary")
    position, single = 5, descriptor & 0b00100000
    if not single:
        exponent, mantissa = frame[5] >> 3, frame[5] & 7
        base = 1 << (10 + exponent)
        if base + (base >> 3) * mantissa > _MAX_WINDOW:
            raise SpooldError(errors.FRAME_INVALID, f"its window is above {_MAX_WINDOW} bytes")
        position = 6
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    size = int.from_bytes(frame[position : position + width], "little") + (256 * (width == 2))
    if not width or size != raw:
        raise SpooldError(
            errors.FRAME_INVALID, f"its header does not state the signed size, {raw} bytes"
        )


def _gzip_trailer(raw: bytes | bytearray | memoryview) -> bytes:
    return struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFFFFFF)


def stored(codec: Codec, raw: bytes) -> bytes:
    """The one frame in which a head travels: not compressed."""
    assert 0 < len(raw) <= MAX_HEAD_BYTES
    size = _ZSTD_BLOCK if codec is Codec.ZSTD else _GZIP_BLOCK
    blocks = [raw[start : start + size] for start in range(0, len(raw), size)]
    last = len(blocks) - 1
    match codec:
        case Codec.ZSTD:
            pieces = [_ZSTD_STORED, struct.pack("<I", len(raw))]
            for number, block in enumerate(blocks):
                pieces += ((len(block) << 3 | (number == last)).to_bytes(3, "little"), block)
        case Codec.GZIP:
            pieces = [_GZIP_HEADER]
            for number, block in enumerate(blocks):
                pieces += (
                    struct.pack("<BHH", number == last, len(block), len(block) ^ 0xFFFF),
                    block,
                )
            pieces.append(_gzip_trailer(raw))
        case _:
            assert_never(codec)
    return b"".join(pieces)


def read_stored(read: Callable[[int], bytes]) -> tuple[Codec, bytes, int]:
    """Slice the head out of its frame: codec, tar bytes, length of the frame.

    `read(n)` gives exactly n bytes or raises. Raises not-a-bundle where no stored frame begins, and
    head-malformed where it is not byte for byte the frame that its content makes.
    """
    start = read(5)
    if start == _ZSTD_STORED:
        codec = Codec.ZSTD
        start += read(4)
        length = int.from_bytes(start[5:], "little")
        if not 0 < length <= MAX_HEAD_BYTES:
            raise SpooldError(errors.HEAD_MALFORMED, f"the head claims {length} bytes")
        body = read(length + 3 * -(-length // _ZSTD_BLOCK))
        step = _ZSTD_BLOCK + 3
        raw = b"".join(body[at + 3 : at + step] for at in range(0, len(body), step))
        frame = start + body
    elif start == _GZIP_HEADER[:5]:
        codec = Codec.GZIP
        start += read(len(_GZIP_HEADER) - 5)
        if start != _GZIP_HEADER:
            raise SpooldError(errors.NOT_A_BUNDLE, "its gzip header is not that of a bundle")
        pieces, raw = _read_stored_deflate(read)
        frame = start + pieces + read(8)
    else:
        raise SpooldError(errors.NOT_A_BUNDLE, "it does not begin with a stored head")
    if not raw or stored(codec, raw) != frame:
        raise SpooldError(errors.HEAD_MALFORMED, "the head's frame is not the one its bytes make")
    return codec, raw, len(frame)


def _read_stored_deflate(read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    pieces: list[bytes] = []
    blocks: list[bytes] = []
    total = final = 0
    while not final:
        header = read(5)
        final, length, inverse = struct.unpack("<BHH", header)
        total += length
        if final > 1 or length ^ inverse != 0xFFFF or (length != _GZIP_BLOCK and not final):
            code = errors.HEAD_MALFORMED if pieces else errors.NOT_A_BUNDLE
            raise SpooldError(code, "the head is not stored in blocks of 65,535 bytes")
        if total > MAX_HEAD_BYTES:
            raise SpooldError(errors.HEAD_MALFORMED, "the head is above 4 MiB")
        block = read(length)
        pieces += [header, block]
        blocks.append(block)
    return b"".join(pieces), b"".join(blocks)


def padding(codec: Codec, length: int) -> bytes:
    """What stands between `length` bytes of HEAD and INDEX and the PAYLOAD."""
    if codec is Codec.GZIP:
        return b""
    total = -length % ALIGNMENT
    if total < 8:
        total += ALIGNMENT
    return _SKIPPABLE + struct.pack("<I", total - 8) + bytes(total - 8)
