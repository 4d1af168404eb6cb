"""Frames: the constant ones byte for byte, the cutting rule, and what is no frame of ours."""

import io
import struct
from collections.abc import Callable

import pytest

from spoold.bundle import frames
from spoold.bundle.frames import FRAME_BYTES, Codec, Cutter
from spoold.errors import SpooldError
from tests.bundles import cut_frames, gzip_frame, stored_frame, zstd_frame

RAW = b"some tar bytes, some tar bytes, some tar bytes\n" * 100
CODECS = pytest.mark.parametrize("codec", list(Codec))


def _code(call: Callable[[], object]) -> str:
    try:
        call()
    except SpooldError as error:
        return error.code.name
    return "accepted"


@CODECS
def test_the_end_frame_is_what_the_codec_makes_of_two_zero_blocks(codec: Codec) -> None:
    assert frames.compress(codec, codec.default_level, bytes(1024)) == frames.END_FRAME[codec]


@CODECS
@pytest.mark.parametrize("size", [512, 65_535, 65_536, 131_072, 131_073, 300_000])
def test_a_stored_head_comes_back(codec: Codec, size: int) -> None:
    raw = bytes(range(250)) * (size // 250) + bytes(size % 250)
    frame = frames.stored(codec, raw)
    assert frame == stored_frame(codec, raw)
    assert frames.read_stored(io.BytesIO(frame).read) == (codec, raw, len(frame))


@CODECS
def test_h85_a_head_that_is_compressed_is_no_head(codec: Codec) -> None:
    frame = frames.compress(codec, 3, RAW)
    assert _code(lambda: frames.read_stored(io.BytesIO(frame).read)) == "not-a-bundle"


def test_h19_a_head_above_its_limit_is_refused_before_it_is_read() -> None:
    def read(count: int) -> bytes:
        assert count < FRAME_BYTES
        return file.read(count)

    file = io.BytesIO(bytes.fromhex("28b52ffda0") + struct.pack("<I", FRAME_BYTES + 1))
    assert _code(lambda: frames.read_stored(read)) == "head-malformed"


@CODECS
def test_frames_come_back(codec: Codec) -> None:
    for level in codec.levels:
        assert frames.decompress(codec, frames.compress(codec, level, RAW), len(RAW)) == RAW


@CODECS
def test_h84_a_frame_of_another_size_than_signed_is_refused(codec: Codec) -> None:
    frame = frames.compress(codec, 3, bytes(FRAME_BYTES))
    assert _code(lambda: frames.decompress(codec, frame, 512)) == "frame-invalid"
    assert _code(lambda: frames.decompress(codec, frame, FRAME_BYTES + 1)) == "frame-invalid"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(zstd_frame(RAW, write_checksum=False), id="H80 no checksum"),
        pytest.param(zstd_frame(RAW, write_content_size=False), id="no content size"),
        pytest.param(bytes.fromhex("502a4d1808000000") + bytes(8), id="H79 skippable"),
        pytest.param(zstd_frame(RAW) + b"x", id="H76 trailing byte"),
        pytest.param(zstd_frame(RAW)[:-1], id="H77 cut"),
        pytest.param(zstd_frame(RAW) + zstd_frame(b""), id="H86 two frames"),
        pytest.param(gzip_frame(RAW), id="H78 the other codec"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_h80_a_zstd_frame_outside_the_profile_is_refused(frame: bytes) -> None:
    assert _code(lambda: frames.decompress(Codec.ZSTD, frame, len(RAW))) == "frame-invalid"


@pytest.mark.parametrize("bit", [0x08, 0x10, 0x01, 0x02, 0x03])
def test_h83_h97_bits_of_a_zstd_header_that_must_be_zero(bit: int) -> None:
    frame = bytearray(zstd_frame(RAW))
    frame[4] |= bit
    assert _code(lambda: frames.decompress(Codec.ZSTD, bytes(frame), len(RAW))) == "frame-invalid"


@pytest.mark.parametrize("window", [(27 - 10) << 3, (31 - 10) << 3, (23 - 10) << 3 | 1])
def test_h82_a_window_above_eight_mebibytes_is_refused(window: int) -> None:
    # Not one segment, 32-bit content size, checksum: then the window is stated.
    frame = bytes.fromhex("28b52ffd84") + bytes([window]) + struct.pack("<I", len(RAW)) + bytes(20)
    assert _code(lambda: frames.decompress(Codec.ZSTD, frame, len(RAW))) == "frame-invalid"


@pytest.mark.parametrize("at", range(10))
def test_h97_gzip_header_fields_are_fixed(at: int) -> None:
    frame = bytearray(gzip_frame(RAW))
    frame[at] ^= 1
    assert _code(lambda: frames.decompress(Codec.GZIP, bytes(frame), len(RAW))) == "frame-invalid"


@pytest.mark.parametrize(
    "sizes",
    [
        [512],
        [FRAME_BYTES],
        [FRAME_BYTES, 512],
        [1024, FRAME_BYTES - 1024, 512],
        [1024, FRAME_BYTES - 512, 512],
        [512, FRAME_BYTES + 512, 512],
        [3 * FRAME_BYTES, 512],
        [2 * FRAME_BYTES + 1024, FRAME_BYTES - 512, 512],
    ],
)
def test_h87_frames_are_cut_by_the_rule(sizes: list[int]) -> None:
    cutter = Cutter()
    found = [raw for size in sizes for raw in cutter.add(size)] + list(cutter.close())
    assert found == [len(frame) for frame in cut_frames([bytes(size) for size in sizes])]


@pytest.mark.parametrize("length", [0, 1, 4087, 4088, 4089, 4095, 4096, 5000])
def test_padding_aligns_the_payload_and_has_one_form(length: int) -> None:
    pad = frames.padding(Codec.ZSTD, length)
    assert (length + len(pad)) % 4096 == 0
    assert 8 <= len(pad) < 4096 + 8
    assert pad == bytes.fromhex("502a4d18") + struct.pack("<I", len(pad) - 8) + bytes(len(pad) - 8)
    assert frames.padding(Codec.GZIP, length) == b""
