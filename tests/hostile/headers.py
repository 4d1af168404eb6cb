"""H50 to H68: the headers of members, in payload, index and head; modes in entries."""

from collections.abc import Callable
from typing import Any

from tests.bundles import tar_header, tar_member
from tests.hostile.case import PREFIX, Case, entry_changed, forged

HEADERS: list[tuple[str, str, dict[str, bytes]]] = [
    ("H50", "a symbolic link", {"at_156": b"2", "at_157": b"/etc/passwd"}),
    ("H51", "a hard link", {"at_156": b"1", "at_157": b"x"}),
    ("H51", "a hard link to a symbolic link", {"at_156": b"1", "at_157": b"b/link"}),
    ("H52", "a character device", {"at_156": b"3", "at_329": b"0000001\0"}),
    ("H52", "a block device", {"at_156": b"4", "at_329": b"0000010\0"}),
    ("H53", "a FIFO", {"at_156": b"6"}),
    ("H54", "a folder", {"at_156": b"5"}),
    ("H55", "contiguous", {"at_156": b"7"}),
    ("H55", "NUL", {"at_156": b"\0"}),
    ("H55", "unknown", {"at_156": b"Z"}),
    ("H56", "pax x", {"at_156": b"x"}),
    ("H57", "pax g", {"at_156": b"g"}),
    ("H58", "GNU L", {"at_156": b"L"}),
    ("H58", "GNU K", {"at_156": b"K"}),
    ("H59", "GNU sparse", {"at_156": b"S"}),
    ("H60", "V", {"at_156": b"V"}),
    ("H60", "M", {"at_156": b"M"}),
    ("H60", "D", {"at_156": b"D"}),
    ("H60", "X", {"at_156": b"X"}),
    ("H61", "base-256", {"at_124": b"\x80" + bytes(10) + b"\x06"}),
    ("H62", "minus", {"at_124": b"-0000000006\0"}),
    ("H62", "negative base-256", {"at_124": b"\xff" * 12}),
    ("H63", "spaces", {"at_124": b"          6 "}),
    ("H63", "not octal", {"at_124": b"0000000009\0\0"}),
    ("H63", "short", {"at_124": b"6\0\0\0\0\0\0\0\0\0\0\0"}),
    ("H64", "in the header", {"at_124": b"77777777777\0"}),
    ("H66", "GNU", {"at_257": b"ustar  \0"}),
    ("H66", "v7", {"at_257": bytes(8)}),
    ("H67", "setuid", {"at_100": b"0004755\0"}),
    ("H67", "uid", {"at_108": b"0001750\0"}),
    ("H67", "gid", {"at_116": b"0001750\0"}),
    ("H67", "mtime", {"at_136": b"00000000001\0"}),
    ("H67", "uname", {"at_265": b"root"}),
    ("H67", "gname", {"at_297": b"root"}),
    ("H67", "linkname", {"at_157": b"x"}),
    ("H67", "device numbers", {"at_329": b"0000001\0"}),
    ("H67", "a tail", {"at_500": b"x"}),
]

NAME, CONTENT = f"{PREFIX}data/a.txt".encode(), b"alpha\n"


def _first(**changes: Any) -> Callable[[list[bytes]], list[bytes]]:
    return lambda members: [tar_member(NAME, CONTENT, **changes), *members[1:]]


def _index(**changes: Any) -> Callable[[list[bytes]], list[bytes]]:
    def change(members: list[bytes]) -> list[bytes]:
        name = f"{PREFIX}frames.jsonl".encode()
        size = int(members[1][124:135], 8)
        return [members[0], tar_header(name, size, **changes) + members[1][512:], members[2]]

    return change


def _head(**changes: Any) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        name = f"{PREFIX}manifest.json".encode()
        return tar_header(name, int(raw[124:135], 8), **changes) + raw[512:]

    return change


def _inserted(what: str, row: str, *members: bytes) -> list[Case]:
    """Members of other kinds before the others: what a tar of another format has."""
    return [
        forged(row, what, "totals-mismatch", edit_members=lambda m: [*members, *m]),
        forged(
            row,
            f"{what}, totals as before",
            "frame-cut",
            edit_members=lambda m: [*members, *m],
            totals={"raw": 12_288},
        ),
    ]


def _checksum(block: bytes) -> bytes:
    return block[:150] + bytes([block[150] ^ 1]) + block[151:]


PAX = b"19 path=/etc/passwd\n" + b"18 size=100000000\n"

CASES = [
    *(
        forged(row, what, "member-header", edit_members=_first(**changes))
        for row, what, changes in HEADERS
    ),
    *(
        forged(row, f"{what}, in the index", "member-header", edit_index=_index(**changes))
        for row, what, changes in HEADERS
    ),
    *(
        forged(row, f"{what}, in the head", "head-malformed", edit_head_raw=_head(**changes))
        for row, what, changes in HEADERS
    ),
    *_inserted("pax x, path and size", "H56", tar_member(b"PaxHeaders/a", PAX, at_156=b"x")),
    *_inserted("pax g, path and size", "H57", tar_member(b"pax_global", PAX, at_156=b"g")),
    *_inserted("GNU L, a long name", "H58", tar_member(b"././@LongLink", b"../" * 50, at_156=b"L")),
    *_inserted(
        "GNU K, a long target", "H58", tar_member(b"././@LongLink", b"/x" * 50, at_156=b"K")
    ),
    *_inserted("a symbolic link more", "H50", tar_header(b"x", 0, at_156=b"2", at_157=b"/etc")),
    *_inserted("a hard link more", "H51", tar_header(b"x", 0, at_156=b"1", at_157=NAME)),
    *_inserted("a folder more", "H54", tar_header(f"{PREFIX}data/".encode(), 0, at_156=b"5")),
    forged(
        "H50",
        "a symbolic link more, in the head",
        "head-malformed",
        edit_head_raw=lambda raw: raw + tar_header(PREFIX.encode() + b"x", 0, at_156=b"2"),
    ),
    forged(
        "H59",
        "pax sparse, in the payload",
        "totals-mismatch",
        edit_members=lambda m: [
            tar_member(b"x", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", at_156=b"x"),
            *m,
        ],
    ),
    entry_changed("H62", "in an entry", "entry-invalid", size=-1),
    entry_changed("H64", "another size signed", "entry-chunks", size=2**33),
    entry_changed("H64", "a byte more signed", "member-header", size=7),
    entry_changed("H64", "a byte less signed", "member-header", size=5),
    forged(
        "H65",
        "in mid-archive",
        "member-header",
        edit_members=lambda m: [m[0], _checksum(m[1]), *m[2:]],
    ),
    forged(
        "H65",
        "in the index",
        "member-header",
        edit_index=lambda m: [m[0], _checksum(m[1]), m[2]],
    ),
    forged("H65", "in the head", "head-malformed", edit_head_raw=_checksum),
    entry_changed("H67", "setuid in an entry", "entry-invalid", mode=0o4755),
    entry_changed("H67", "a mode of 512 in an entry", "entry-invalid", mode=0o1000),
    entry_changed("H67", "a link's mode in an entry", "entry-invalid", position=4, mode=0o644),
    entry_changed("H67", "a folder's target in an entry", "entry-invalid", position=1, target="x"),
    entry_changed("H67", "a kind that there is not", "entry-invalid", kind="fifo"),
    entry_changed("H67", "a time that is a number", "entry-invalid", mtime_ns=0),
    entry_changed("H67", "a time of minus nothing", "entry-invalid", mtime_ns="-0"),
    entry_changed("H67", "no owner", "entry-invalid", uid=None),
    forged(
        "H68",
        "in the payload",
        "member-header",
        edit_members=lambda m: [m[0][:-1] + b"\x01", *m[1:]],
    ),
    forged(
        "H68",
        "right behind the content",
        "member-header",
        edit_members=lambda m: [m[0][:518] + b"\x01" + m[0][519:], *m[1:]],
    ),
    forged(
        "H68",
        "in the index",
        "member-header",
        edit_index=lambda m: [*m[:2], m[2][:-1] + b"\x01"],
    ),
    forged("H68", "in the head", "head-malformed", edit_head_raw=lambda raw: raw[:-1] + b"x"),
]
