"""H69 to H87, H97: frames, and the stream that they make."""

import itertools
import struct
import zlib
from collections.abc import Callable
from typing import Any

import zstandard

from spoold.bundle.frames import END_FRAME, Codec
from spoold.bundle.reader import Policy
from tests.bundles import (
    FRAME,
    Forge,
    canonical,
    frame_edges,
    gzip_frame,
    plain_entry,
    sha256,
    tar_member,
    zstd_frame,
)
from tests.hostile.case import GZIP, MIB, ZSTD, Case, damaged, edited, forged, made

Pieces = list[bytes]
_SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"abcd"
_GZIP_HEADER = bytes.fromhex("1f8b08000000000000ff")


def packed(codec: Codec, raw: bytes) -> bytes:
    return zstd_frame(raw) if codec is Codec.ZSTD else gzip_frame(raw)


def _frames(row: str, what: str, code: str, change: Callable[[Pieces, Codec], Pieces]) -> Case:
    """The frames of a good bundle, in another order: HEAD, INDEX, PAD (zstd), PAYLOAD, END."""

    def damage(data: bytes, codec: Codec) -> bytes:
        edges = [*frame_edges(data, codec), len(data)]
        return b"".join(change([data[a:b] for a, b in itertools.pairwise(edges)], codec))

    return damaged(row, what, code, damage)


def _signed(
    row: str, what: str, change: Callable[[bytes, bytes], bytes], codec: Codec
) -> list[Case]:
    """Another frame for a raw one (`change(raw, good frame)`), hashed and signed as it is."""
    pack: Callable[[bytes], bytes] = lambda raw: change(raw, packed(codec, raw))  # noqa: E731
    return [
        forged(row, f"{what} ({codec})", "frame-invalid", compress=pack, codecs=(codec,)),
        forged(
            row,
            f"{what}, in the index ({codec})",
            "frame-invalid",
            compress_index=pack,
            codecs=(codec,),
        ),
    ]


def _zstd_header(frame: bytes) -> tuple[int, int, bytes]:
    """Descriptor, content size and the rest of a frame that the library made in one piece."""
    width = (1, 2, 4, 8)[frame[4] >> 6]
    size = int.from_bytes(frame[5 : 5 + width], "little") + 256 * (width == 2)
    assert frame[4] & 0x20
    return frame[4], size, frame[5 + width :]


def _windowed(frame: bytes, window: int, size: int | None = None) -> bytes:
    """The frame with a window descriptor, and with another content size where one is given."""
    _, found, blocks = _zstd_header(frame)
    size = found if size is None else size
    return frame[:4] + bytes([0x84, window]) + struct.pack("<I", size) + blocks


def _zstd_bomb(raw: bytes, claimed: int) -> bytes:
    """1,000 blocks that each stand for 128 KiB."""
    blocks = b"".join(
        (131072 << 3 | 2 | last).to_bytes(3, "little") + b"A" for last in [0] * 999 + [1]
    )
    return b"\x28\xb5\x2f\xfd\x84\x58" + struct.pack("<I", claimed) + blocks + bytes(4)


def _gzip_member(raw: bytes, *, crc: int = 0, header: bytes = _GZIP_HEADER) -> bytes:
    return header + gzip_frame(raw)[10:-8] + struct.pack("<II", zlib.crc32(raw) ^ crc, len(raw))


def _cut(sizes: list[int]) -> Callable[[Pieces], Pieces]:
    """The same tar bytes in frames of other sizes."""

    def change(frames: Pieces) -> Pieces:
        raw, pieces, position = b"".join(frames), [], 0
        for size in sizes:
            pieces.append(raw[position : position + size])
            position += size
        return [piece for piece in [*pieces, raw[position:]] if piece]

    return change


def _wide(codec: Codec, **changes: Any) -> Forge:
    return Forge.of({"a": bytes(3 * MIB), "b": bytes(3 * MIB), "c": b"x"}, codec=codec, **changes)


def _lines(row: str, what: str, code: str, *lines: bytes) -> Case:
    return forged(row, what, code, edit_frame_lines=lambda _: list(lines))


def _frame_line(**fields: Any) -> bytes:
    return canonical({"raw": 12_288, "sha256": "0" * 64, "size": 10} | fields)


def _pad(data: bytes) -> int:
    return next(e for e in frame_edges(data, Codec.ZSTD) if data[e : e + 4] == b"\x50\x2a\x4d\x18")


def _padded(what: str, code: str, change: Callable[[bytes], bytes]) -> Case:
    def damage(data: bytes, codec: Codec) -> bytes:
        start = _pad(data)
        end = start + 8 + struct.unpack("<I", data[start + 4 : start + 8])[0]
        return data[:start] + change(data[start:end]) + data[end:]

    return damaged("H79", what, code, damage, codecs=ZSTD)


def _flip(at: int) -> Callable[[bytes, Codec], bytes]:
    def change(data: bytes, codec: Codec) -> bytes:
        position = at % len(data)
        return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]

    return change


def _in_last_payload_frame(data: bytes, codec: Codec) -> bytes:
    return _flip(len(data) - len(END_FRAME[codec]) - 20)(data, codec)


def _reblocked(data: bytes) -> bytes:
    """The stored blocks of a gzip head, cut at 1,000 bytes."""
    length = struct.unpack("<H", data[11:13])[0]
    body = data[15 : 15 + length]
    blocks = [
        struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF) + part
        for last, part in ((0, body[:1000]), (1, body[1000:]))
    ]
    return data[:10] + b"".join(blocks) + data[15 + length :]


def _headless(data: bytes, codec: Codec) -> bytes:
    """The head frame's tar bytes, compressed as any other."""
    edges = frame_edges(data, codec)
    if codec is Codec.ZSTD:
        raw = zstandard.ZstdDecompressor().decompress(data[: edges[1]])
    else:
        raw = zlib.decompress(data[: edges[1]], 31)
    return packed(codec, raw) + data[edges[1] :]


CASES = [
    damaged("H69", "in the last frame", "frame-digest-mismatch", _in_last_payload_frame),
    _frames("H71", "a frame behind", "end-invalid", lambda f, c: [*f[:-1], f[-2], f[-1]]),
    _frames("H72", "frames", "frame-digest-mismatch", lambda f, c: [f[0], f[-2], *f[1:-2], f[-1]]),
    damaged(
        "H74",
        "another member behind",
        "trailing-data",
        lambda data, codec: data + packed(codec, tar_member(b"x", b"x")) + END_FRAME[codec],
    ),
    damaged("H74", "another bundle behind", "trailing-data", lambda data, _: data + data),
    damaged("H75", "no end", "bundle-truncated", lambda d, c: d[: -len(END_FRAME[c])]),
    made(
        "H75",
        "one block",
        "end-invalid",
        lambda c: Forge.good(c, end=packed(c, bytes(512)) + bytes(9)),
    ),
    made(
        "H75",
        "one block and nothing more",
        "bundle-truncated",
        lambda c: Forge.good(c, end=packed(c, bytes(512))[:20]),
    ),
    made(
        "H75",
        "other bytes for the same",
        "end-invalid",
        lambda c: Forge.good(
            c,
            end=zstd_frame(bytes(1024), write_checksum=False) + bytes(9)
            if c is Codec.ZSTD
            else _gzip_member(bytes(1024), header=b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
        ),
    ),
    made(
        "H75",
        "20 blocks",
        "end-invalid",
        lambda c: Forge.good(c, end=packed(c, bytes(10240)) + bytes(9)),
    ),
    damaged("H75", "no zeros in it", "end-invalid", _flip(-9)),
    damaged("H76", "a byte", "trailing-data", lambda data, _: data + b"x"),
    damaged("H76", "zeros", "trailing-data", lambda data, _: data + bytes(512)),
    damaged("H76", "the end twice", "trailing-data", lambda d, c: d + END_FRAME[c]),
    damaged("H76", "a skippable frame", "trailing-data", lambda d, c: d + _SKIPPABLE),
    damaged("H77", "by one byte", "bundle-truncated", lambda data, _: data[:-1]),
    damaged(
        "H77", "in the last member", "bundle-truncated", lambda d, c: d[: -len(END_FRAME[c]) - 9]
    ),
    damaged("H77", "in the middle", "bundle-truncated", lambda data, _: data[: len(data) // 2]),
    damaged("H77", "behind the head", "bundle-truncated", lambda d, c: d[: frame_edges(d, c)[1]]),
    damaged("H77", "behind the index", "bundle-truncated", lambda d, c: d[: frame_edges(d, c)[2]]),
    damaged("H77", "in the head", "bundle-truncated", lambda data, _: data[:700]),
    damaged("H77", "to nothing", "not-a-bundle", lambda data, _: b""),
    damaged("H77", "to four bytes", "bundle-truncated", lambda data, _: data[:4]),
    *(
        Case(
            "H78",
            f"{codec} named {other.suffix}",
            "codec-mismatch",
            lambda codec: Forge.good(codec).build(),
            codecs=(codec,),
            policy=Policy(codec=other),
        )
        for codec, other in ((Codec.ZSTD, Codec.GZIP), (Codec.GZIP, Codec.ZSTD))
    ),
    *(
        forged(
            "H78",
            f"{codec}, the manifest says {other}",
            "codec-mismatch",
            codecs=(codec,),
            edit_manifest=edited(compression={"codec": other.value, "level": 3}),
        )
        for codec, other in ((Codec.ZSTD, Codec.GZIP), (Codec.GZIP, Codec.ZSTD))
    ),
    *_signed("H78", "frames of the other codec", lambda raw, _: gzip_frame(raw), Codec.ZSTD),
    *_signed("H78", "frames of the other codec", lambda raw, _: zstd_frame(raw), Codec.GZIP),
    damaged(
        "H78",
        "frames not compressed",
        "frame-digest-mismatch",
        lambda d, c: d[: frame_edges(d, c)[1]] + bytes(60_000),
    ),
    _padded("not zero", "pad-invalid", lambda pad: pad[:-1] + b"\x01"),
    _padded("another magic", "pad-invalid", lambda pad: b"\x51" + pad[1:]),
    _padded("too short", "pad-invalid", lambda pad: pad[:4] + b"\0\0\0\0"),
    _padded("none", "pad-invalid", lambda pad: b""),
    _padded("twice", "frame-digest-mismatch", lambda pad: pad + pad),
    _padded(
        "4,096 more",
        "pad-invalid",
        lambda pad: pad[:4] + struct.pack("<I", len(pad) + 4088) + bytes(len(pad) + 4088),
    ),
    _padded(
        "one byte more",
        "pad-invalid",
        lambda pad: pad[:4] + struct.pack("<I", len(pad) - 7) + bytes(len(pad) - 7),
    ),
    _padded(
        "two instead of one",
        "pad-invalid",
        lambda pad: (
            pad[:4]
            + struct.pack("<I", 8)
            + bytes(8)
            + pad[:4]
            + struct.pack("<I", len(pad) - 24)
            + bytes(len(pad) - 24)
        ),
    ),
    damaged(
        "H79",
        "where gzip has none",
        "frame-digest-mismatch",
        lambda d, c: d[: (at := frame_edges(d, c)[2])] + _SKIPPABLE + d[at:],
        codecs=GZIP,
    ),
    damaged("H79", "before the head", "not-a-bundle", lambda data, _: _SKIPPABLE + data),
    _frames(
        "H79", "behind the head", "frame-digest-mismatch", lambda f, c: [f[0], _SKIPPABLE, *f[1:]]
    ),
    _frames("H79", "before the end", "end-invalid", lambda f, c: [*f[:-1], _SKIPPABLE, f[-1]]),
    *_signed("H79", "a skippable frame behind", lambda _, frame: frame + _SKIPPABLE, Codec.ZSTD),
    *_signed("H79", "a skippable frame in front", lambda _, frame: _SKIPPABLE + frame, Codec.ZSTD),
    *_signed("H80", "signed", lambda raw, _: zstd_frame(raw, write_checksum=False), Codec.ZSTD),
    *_signed(
        "H80",
        "no content size either",
        lambda raw, _: zstd_frame(raw, write_content_size=False),
        Codec.ZSTD,
    ),
    *_signed("H81", "signed", lambda _, frame: frame[:-1] + bytes([frame[-1] ^ 1]), Codec.ZSTD),
    *_signed("H81", "signed", lambda raw, _: _gzip_member(raw, crc=1), Codec.GZIP),
    *_signed("H81", "the length", lambda _, frame: frame[:-1] + b"\x01", Codec.GZIP),
    _frames(
        "H81",
        "not signed",
        "frame-digest-mismatch",
        lambda f, c: [*f[:-2], f[-2][:-1] + bytes([f[-2][-1] ^ 1]), f[-1]],
    ),
    *_signed("H82", "128 MiB", lambda _, frame: _windowed(frame, 17 << 3), Codec.ZSTD),
    *_signed("H82", "2 GiB", lambda _, frame: _windowed(frame, 21 << 3), Codec.ZSTD),
    *_signed("H82", "9 MiB", lambda _, frame: _windowed(frame, 13 << 3 | 1), Codec.ZSTD),
    *(
        case
        for bits, dictionary in (
            (1, b"\x07"),
            (2, b"\x07\x00"),
            (3, b"\x07\x00\x00\x00"),
            (1, b"\x00"),
        )
        for case in _signed(
            "H83",
            f"{dictionary.hex()}",
            lambda _, f, bits=bits, dictionary=dictionary: (
                f[:4] + bytes([f[4] | bits]) + dictionary + f[5:]
            ),
            Codec.ZSTD,
        )
    ),
    *_signed("H84", "more than signed", lambda raw, _: zstd_frame(bytes(2 * FRAME)), Codec.ZSTD),
    *_signed("H84", "more than signed", lambda raw, _: gzip_frame(bytes(FRAME + MIB)), Codec.GZIP),
    *_signed(
        "H84", "125 MiB that claim less", lambda raw, _: _zstd_bomb(raw, len(raw)), Codec.ZSTD
    ),
    *_signed("H84", "125 MiB", lambda raw, _: _zstd_bomb(raw, 1000 * 131072), Codec.ZSTD),
    *_signed("H84", "less than signed", lambda raw, _: zstd_frame(raw[:-512]), Codec.ZSTD),
    *_signed("H84", "less than signed", lambda raw, _: gzip_frame(raw[:-512]), Codec.GZIP),
    *_signed("H84", "nothing", lambda raw, _: zstd_frame(b""), Codec.ZSTD),
    _lines("H84", "a frame of a tebibyte", "frame-cut", _frame_line(raw=2**40)),
    _lines("H84", "a frame that takes more than it may", "frame-cut", _frame_line(size=2**40)),
    forged(
        "H84",
        "an index frame of a tebibyte",
        "manifest-invalid",
        edit_manifest=edited(index=[{"raw": 2**40, "sha256": "0" * 64, "size": 10}]),
    ),
    forged(
        "H84",
        "an index frame that takes more than it may",
        "manifest-invalid",
        edit_manifest=edited(index=[{"raw": 512, "sha256": "0" * 64, "size": 2**40}]),
    ),
    damaged("H85", "compressed", "not-a-bundle", _headless),
    damaged(
        "H85",
        "125 MiB",
        "not-a-bundle",
        lambda d, c: _zstd_bomb(b"", 1000 * 131072) + d,
        codecs=ZSTD,
    ),
    damaged(
        "H85",
        "4 GiB claimed",
        "head-malformed",
        lambda d, c: d[:5] + b"\xff\xff\xff\xff" + d[9:],
        codecs=ZSTD,
    ),
    damaged(
        "H85",
        "a byte above its limit",
        "head-malformed",
        lambda d, c: d[:5] + struct.pack("<I", FRAME + 1) + d[9:],
        codecs=ZSTD,
    ),
    damaged(
        "H85",
        "nothing in it",
        "head-malformed",
        lambda d, c: d[:5] + bytes(4) + b"\x01\0\0" + d[9:],
        codecs=ZSTD,
    ),
    damaged(
        "H85",
        "a block that repeats a byte",
        "head-malformed",
        lambda d, c: d[:9] + bytes([d[9] | 2]) + d[10:],
        codecs=ZSTD,
    ),
    damaged(
        "H85", "blocks of other sizes", "not-a-bundle", lambda d, c: _reblocked(d), codecs=GZIP
    ),
    damaged(
        "H85",
        "an empty block first",
        "not-a-bundle",
        lambda d, c: d[:10] + b"\x00\x00\x00\xff\xff" + d[10:],
        codecs=GZIP,
    ),
    damaged("H86", "a thousand in front", "not-a-bundle", lambda d, c: packed(c, b"") * 1000 + d),
    _frames(
        "H86",
        "a thousand behind the head",
        "frame-digest-mismatch",
        lambda f, c: [f[0], packed(c, b"") * 1000, *f[1:]],
    ),
    _frames(
        "H86",
        "a thousand before the end",
        "end-invalid",
        lambda f, c: [*f[:-1], packed(c, b"") * 1000, f[-1]],
    ),
    *_signed(
        "H86", "behind a frame, signed", lambda _, frame: frame + zstd_frame(b"") * 100, Codec.ZSTD
    ),
    *_signed(
        "H86", "behind a frame, signed", lambda _, frame: frame + gzip_frame(b"") * 9, Codec.GZIP
    ),
    *_signed(
        "H86", "before a frame, signed", lambda _, frame: zstd_frame(b"") * 100 + frame, Codec.ZSTD
    ),
    *(
        Case(
            case.row,
            case.what,
            case.code,
            case.make,
            case.codecs,
            unseen="gzip does not tell how many members it read",
        )
        for case in _signed(
            "H86", "before a frame, signed", lambda _, f: gzip_frame(b"") + f, Codec.GZIP
        )
    ),
    forged(
        "H86",
        "lines of empty frames",
        "frame-cut",
        edit_frame_lines=lambda lines: [
            *lines,
            *[canonical({"raw": 0, "sha256": sha256(zstd_frame(b"")), "size": 13})] * 1000,
        ],
    ),
    made(
        "H86",
        "no file at all",
        "totals-mismatch",
        lambda c: Forge(codec=c, entries=[plain_entry("a", "dir")], contents={}),
    ),
    made(
        "H87",
        "one a member",
        "frame-cut",
        lambda c: _wide(c, edit_payload=_cut([3 * MIB + 512, 3 * MIB + 512])),
    ),
    made(
        "H87", "in mid-member", "frame-cut", lambda c: _wide(c, edit_payload=_cut([MIB, 4 * MIB]))
    ),
    made("H87", "tiny ones", "frame-cut", lambda c: _wide(c, edit_payload=_cut([512] * 100))),
    made("H87", "one for all", "frame-cut", lambda c: _wide(c, edit_payload=_cut([7 * MIB]))),
    forged("H87", "the index", "frame-cut", edit_index_frames=_cut([512])),
    *_signed(
        "H97", "the unused bit", lambda _, f: f[:4] + bytes([f[4] | 0x10]) + f[5:], Codec.ZSTD
    ),
    *_signed(
        "H97", "the reserved bit", lambda _, f: f[:4] + bytes([f[4] | 0x08]) + f[5:], Codec.ZSTD
    ),
    *(
        case
        for what, at, value in (
            ("a time", 4, 1),
            ("extra flags", 8, 2),
            ("the system", 9, 3),
            ("the flag of text", 3, 1),
        )
        for case in _signed(
            "H97",
            what,
            lambda _, f, at=at, value=value: f[:at] + bytes([value]) + f[at + 1 :],
            Codec.GZIP,
        )
    ),
    *_signed(
        "H97", "a file name", lambda _, f: f[:3] + b"\x08" + f[4:10] + b"a\0" + f[10:], Codec.GZIP
    ),
    damaged(
        "H97",
        "the unused bit, in the head",
        "not-a-bundle",
        lambda d, c: d[:4] + bytes([d[4] | 0x10]) + d[5:],
        codecs=ZSTD,
    ),
    damaged(
        "H97",
        "a checksum's bit, in the head",
        "not-a-bundle",
        lambda d, c: d[:4] + bytes([d[4] | 4]) + d[5:],
        codecs=ZSTD,
    ),
    damaged(
        "H97",
        "a time, in the head",
        "not-a-bundle",
        lambda d, c: d[:4] + b"\1" + d[5:],
        codecs=GZIP,
    ),
    damaged(
        "H97",
        "a bit of a block, in the head",
        "not-a-bundle",
        lambda d, c: d[:10] + bytes([d[10] | 8]) + d[11:],
        codecs=GZIP,
    ),
    damaged(
        "H97",
        "the checksum of the head",
        "head-malformed",
        lambda d, c: _flip(frame_edges(d, c)[1] - 5)(d, c),
        codecs=GZIP,
    ),
    damaged(
        "H97",
        "a bit of the end",
        "end-invalid",
        lambda d, c: (
            d[: -len(END_FRAME[c]) + 4]
            + bytes([d[-len(END_FRAME[c]) + 4] ^ 0x10])
            + d[-len(END_FRAME[c]) + 5 :]
        ),
    ),
]
