"""H69 to H74, H88: members and chunks that are missing, more, changed or exchanged."""

from collections.abc import Callable
from typing import Any

from spoold.bundle.frames import Codec
from tests.bundles import Forge, file_entry, sha256, tar_member
from tests.hostile.case import MIB, PREFIX, Case, forged, made

Pieces = list[bytes]


def _members(row: str, what: str, change: Callable[[Pieces], Pieces]) -> list[Case]:
    """Other members than the entries', the totals made to fit or not."""
    return [
        forged(row, what, "totals-mismatch", edit_members=change),
        forged(
            row,
            f"{what}, totals as before",
            "frame-cut",
            edit_members=change,
            totals={"raw": 12_288},
        ),
    ]


def _two(codec: Codec, **changes: Any) -> Forge:
    return Forge.of({"a": b"same size", "b": b"other one"}, codec=codec, **changes)


def _exchanged(members: Pieces) -> Pieces:
    return [members[0][:512] + members[1][512:], members[1][:512] + members[0][512:]]


def _large(codec: Codec) -> Forge:
    def change(members: Pieces) -> Pieces:
        return [members[0], members[1][:-1024] + b"x" + members[1][-1023:]]

    return Forge.of({"a": b"alpha", "big": bytes(5 * MIB)}, codec=codec, edit_members=change)


def _chunked(
    order: list[int], sizes: list[int] | None = None, **changes: Any
) -> Callable[[Codec], Forge]:
    content = b"".join(bytes([n]) * MIB for n in range(1, 3)) + b"\x03" * 10
    pieces = [content[at : at + MIB] for at in range(0, len(content), MIB)]
    chunks = [{"sha256": sha256(piece), "size": len(piece)} for piece in pieces]
    if sizes:
        chunks = [{**chunk, "size": size} for chunk, size in zip(chunks, sizes, strict=True)]
    names = [f"data/big.{at:06d}.chunk" for at in range(len(order))]
    contents = dict(zip(names, (pieces[n] for n in order), strict=True))
    edit = changes.pop("edit_members", lambda members: members)
    fields = {"chunks": [chunks[n] for n in order]} | changes

    def forge(codec: Codec) -> Forge:
        entry = file_entry("big", content, **fields)
        return Forge(
            codec=codec, chunk_size=MIB, entries=[entry], contents=contents, edit_members=edit
        )

    return forge


CASES = [
    forged(
        "H69",
        "signed, but not the entry's",
        "entry-digest-mismatch",
        edit_members=lambda m: [m[0][:512] + b"Alpha\n" + m[0][518:], *m[1:]],
    ),
    made("H69", "in a large file", "entry-digest-mismatch", _large),
    forged(
        "H69",
        "all of it zero",
        "entry-digest-mismatch",
        edit_members=lambda m: [m[0], m[1][:512] + bytes(len(m[1]) - 512), *m[2:]],
    ),
    *_members("H70", "the last", lambda m: m[:-1]),
    *_members("H70", "the first", lambda m: m[1:]),
    forged(
        "H70",
        "the only one in its frame",
        "frame-cut",
        edit_frame_lines=lambda _: [],
        edit_payload=lambda frames: frames,
    ),
    *_members("H71", "behind", lambda m: [*m, tar_member(f"{PREFIX}data/zz".encode(), b"x")]),
    *_members("H71", "in front", lambda m: [tar_member(f"{PREFIX}data/0".encode(), b"x"), *m]),
    made("H72", "members", "member-header", lambda c: _two(c, edit_members=lambda m: m[::-1])),
    made("H72", "contents", "entry-digest-mismatch", lambda c: _two(c, edit_members=_exchanged)),
    made("H72", "entries", "entry-order", lambda c: Forge.of({"b": b"1", "a": b"2"}, codec=c)),
    forged("H72", "index files", "member-header", edit_index=lambda m: [m[1], m[0], m[2]]),
    made(
        "H72",
        "sources mixed",
        "entry-order",
        lambda codec: Forge(
            codec=codec,
            entries=[
                file_entry("a", b"x"),
                file_entry("b", b"x", source="z"),
                file_entry("c", b"x"),
            ],
            contents={"data/a": b"x", "data/b": b"x", "data/c": b"x"},
        ),
    ),
    *_members("H73", "in front", lambda m: [m[0], *m]),
    *_members("H73", "behind", lambda m: [*m, m[-1]]),
    forged("H73", "in the index", "frame-cut", edit_index=lambda m: [*m, m[2]]),
    *_members("H74", "end blocks in between", lambda m: [m[0], bytes(1024), *m[1:]]),
    made("H88", "missing", "entry-chunks", _chunked([0, 1])),
    made("H88", "twice", "entry-chunks", _chunked([0, 1, 1, 2])),
    made("H88", "swapped", "entry-digest-mismatch", _chunked([1, 0, 2])),
    made(
        "H88",
        "swapped in the payload",
        "entry-digest-mismatch",
        _chunked(
            [0, 1, 2],
            edit_members=lambda m: [m[0][:512] + m[1][512:], m[1][:512] + m[0][512:], m[2]],
        ),
    ),
    made("H88", "out of order", "entry-chunks", _chunked([2, 0, 1])),
    made(
        "H88",
        "members out of order",
        "member-header",
        _chunked([0, 1, 2], edit_members=lambda m: [m[1], m[0], m[2]]),
    ),
    made("H88", "joined hash wrong", "entry-digest-mismatch", _chunked([0, 1, 2], sha256="0" * 64)),
    made("H88", "other sizes", "entry-chunks", _chunked([0, 1, 2], [MIB, MIB - 1, 11])),
    made("H88", "a chunk of nothing", "entry-invalid", _chunked([0, 1, 2], [MIB, MIB, 0])),
    made(
        "H88",
        "none of a large file",
        "entry-chunks",
        lambda c: Forge(
            codec=c,
            chunk_size=MIB,
            entries=[file_entry("big", bytes(MIB + 1))],
            contents={"data/big": bytes(MIB + 1)},
        ),
    ),
    made(
        "H88",
        "of a small file",
        "entry-chunks",
        lambda c: Forge(
            codec=c,
            chunk_size=MIB,
            entries=[file_entry("a", b"x", chunks=[{"sha256": sha256(b"x"), "size": 1}])],
            contents={"data/a.000000.chunk": b"x"},
        ),
    ),
]
