"""H34 to H49, H99: the paths of entries, the names of members, and what may stand beside what."""

import base64
from typing import Any

from spoold.bundle.frames import Codec
from tests.bundles import Document, Forge, file_entry, plain_entry, sha256, tar_member
from tests.hostile.case import PREFIX, Case, entry_changed, forged, made

_FOLDING = "it folds ASCII only"


def _b64(path: bytes) -> str:
    return base64.b64encode(path).decode()


def _path(row: str, what: str, path: bytes, code: str = "entry-path", **own: Any) -> Case:
    """An entry of this path, in whichever field it belongs."""
    try:
        text = path.decode()
        plain = not any(character < " " or "\x7f" <= character <= "\x9f" for character in text)
    except UnicodeDecodeError:
        plain = False
    fields = {"path": text} if plain else {"path": None, "path_b64": _b64(path)}
    return entry_changed(row, what, code, **fields, **own)


def _named(row: str, what: str, name: str, code: str = "member-header") -> Case:
    """Another name in the first member's header, for an entry that is good."""

    def rename(members: list[bytes]) -> list[bytes]:
        return [tar_member(name.encode(), b"alpha\n"), *members[1:]]

    return forged(row, what, code, edit_members=rename)


def _more(row: str, name: str, **changes: Any) -> list[Case]:
    """A member more, known to nobody, with the totals made to fit or not."""

    def insert(members: list[bytes]) -> list[bytes]:
        return [tar_member(name.encode(), b"x"), *members]

    return [
        forged(row, f"a member {name}", "totals-mismatch", edit_members=insert),
        forged(
            row,
            f"a member {name}, totals as before",
            "frame-cut",
            edit_members=insert,
            totals={"raw": 12_288},
        ),
    ]


def _entries(row: str, what: str, code: str, *entries: Document, **own: Any) -> Case:
    """Entries whose files hold one byte, under the members that they name."""

    def forge(codec: Codec) -> Forge:
        names = [
            entry.get("member", f"data/{entry['path']}")
            for entry in entries
            if entry["kind"] == "file"
        ]
        return Forge(codec=codec, entries=list(entries), contents=dict.fromkeys(names, b"x"))

    return made(row, what, code, forge, **own)


def _file(path: str, **changes: Any) -> Document:
    return file_entry(path, b"x", **changes)


def _aside(path: str, **changes: Any) -> Document:
    """A file whose member is the hash of its path."""
    return _file(path, member=f"data/_x/{sha256(path.encode())}", **changes)


CASES = [
    _path("H34", "..", b".."),
    _path("H34", "in front", b"../a.txt"),
    _path("H34", "in between", b"a/../../b"),
    _path("H34", "behind", b"a/.."),
    _named("H34", "in a header", f"{PREFIX}../../../etc/passwd"),
    _named("H34", "a header that leaves the folder", "../a.txt"),
    *_more("H34", "../x"),
    entry_changed("H34", "as a member", "entry-member", member="data/../../x"),
    entry_changed("H34", "as a member outside data", "entry-member", member="../../x"),
    _path("H35", "etc", b"/etc/passwd"),
    _path("H35", "nothing but a slash", b"/"),
    _named("H35", "in a header", "/etc/passwd"),
    *_more("H35", "/x"),
    entry_changed("H35", "as a member", "entry-member", member="/etc/passwd"),
    _path("H36", ".", b"."),
    _path("H36", "./", b"./a.txt"),
    _path("H36", "/./", b"a/./b"),
    _path("H36", "//", b"a//b"),
    _path("H36", "a slash behind", b"a/"),
    _path("H36", "no path", b""),
    _named("H36", "// in a header", f"{PREFIX}data//a.txt"),
    _named("H36", "./ in a header", f"./{PREFIX}data/a.txt"),
    _path("H37", "a backslash as its own member", b"C:\\a.txt", "entry-member"),
    _path("H37", "UNC", b"\\\\host\\share", "entry-member"),
    _path("H37", "a backslash in between", b"a\\..\\b", "entry-member"),
    _named("H37", "in a header", f"{PREFIX}data\\a.txt"),
    _path("H38", "in front", b"-a.txt", "entry-member"),
    _path("H38", "of a file in a folder", b"a/--checkpoint-action=exec=sh", "entry-member"),
    _named("H38", "in a header", "--checkpoint-action=exec=sh"),
    _path("H39", "a line feed", b"a\n", "entry-member"),
    _path("H39", "ESC", b"\x1b[2Ja", "entry-member"),
    _path("H39", "a percent sign", b"%0a", "entry-member"),
    _path("H39", "a line separator", "a\u2028b".encode(), "entry-member"),
    _path("H39", "a space at the end", b"a ", "entry-member"),
    _path("H39", "a wide space at the end", "a\u3000".encode(), "entry-member"),
    entry_changed("H39", "in clear", "not-canonical", path="a\nb"),
    _named("H39", "in a header", f"{PREFIX}data/a\x1b.txt"),
    _path("H40", "as its own member", b"\xff", "entry-member"),
    _path("H40", "a surrogate", b"\xed\xa0\x80", "entry-member"),
    entry_changed(
        "H40", "base64 without need", "not-canonical", path=None, path_b64=_b64(b"a.txt")
    ),
    entry_changed(
        "H40", "base64 that is not canonical", "not-canonical", path=None, path_b64="/x=="
    ),
    entry_changed("H40", "base64 without padding", "not-canonical", path=None, path_b64="/w"),
    entry_changed("H40", "no base64", "entry-invalid", path=None, path_b64="////\u00e4"),
    entry_changed("H40", "both", "entry-invalid", path_b64="/w=="),
    entry_changed("H40", "neither", "entry-invalid", path=None),
    _path("H41", "in a path", b"a\x00b"),
    _path("H41", "behind a path", b"a.txt\x00"),
    entry_changed(
        "H41", "in a target", "entry-invalid", position=4, target=None, target_b64=_b64(b"a\x00b")
    ),
    forged(
        "H41",
        "in a header",
        "member-header",
        edit_members=lambda m: [
            tar_member(f"{PREFIX}data/a.txt".encode(), b"alpha\n", at_90=b"x"),
            *m[1:],
        ],
    ),
    forged(
        "H42",
        "in a header",
        "member-header",
        edit_members=lambda m: [
            tar_member(f"{PREFIX}data/a.txt".encode(), b"alpha\n", at_345=b"../.."),
            *m[1:],
        ],
    ),
    forged(
        "H42",
        "the name in the prefix",
        "member-header",
        edit_members=lambda m: [
            tar_member(b"a.txt", b"alpha\n", at_345=f"{PREFIX}data".encode()),
            *m[1:],
        ],
    ),
    _entries("H43", "files", "entry-member", _file("A.txt"), _file("a.txt")),
    _entries("H43", "folders", "entry-member", _file("Dir/a"), _file("dir/b")),
    _entries("H43", "a file and a folder", "entry-member", _file("Dir"), _file("dir/b")),
    _entries(
        "H43", "sharp s", "entry-member", _file("Stra\u00dfe"), _file("strasse"), unseen=_FOLDING
    ),
    _entries("H43", "aside without need", "entry-member", _aside("a.txt")),
    _entries("H43", "the place aside", "entry-member", _file("_X/a")),
    _entries(
        "H43", "another hash aside", "entry-member", _file("A", member=f"data/_x/{sha256(b'B')}")
    ),
    _entries(
        "H43", "a member outside the rule", "entry-member", _file("a.txt", member="data/b.txt")
    ),
    _entries(
        "H43", "the member that goes without saying", "entry-invalid", _file("a", member="data/a")
    ),
    _entries("H43", "a name like a chunk's", "entry-member", _file("a.CHUNK")),
    _entries(
        "H44", "files", "entry-member", _file("Cafe\u0301"), _file("Caf\u00e9"), unseen=_FOLDING
    ),
    _entries(
        "H44",
        "a point that Unicode 14 does not know",
        "entry-member",
        _file("a\U00031350"),
        unseen="it does not know which code points are assigned",
    ),
    _entries("H45", "a file", "entry-collides", _file("a"), _aside("a/b")),
    _entries("H45", "twice", "entry-collides", _file("a"), _aside("a")),
    _entries(
        "H45",
        "a folder twice",
        "entry-collides",
        plain_entry("a", "dir"),
        plain_entry("a", "dir"),
        _file("b"),
    ),
    _entries("H45", "a file and a folder", "entry-collides", _file("a"), plain_entry("a", "dir")),
    _entries("H45", "of two sources", "entry-collides", _file("a"), _aside("a", source="other")),
    _entries(
        "H45",
        "a file of another source",
        "entry-collides",
        _file("a/b"),
        _aside("a", source="other"),
    ),
    _path("H47", "4,097 bytes", b"/".join([b"a" * 241] * 17)),
    _path("H47", "129 segments", b"/".join([b"a"] * 129)),
    _path("H47", "a segment of 256 bytes", b"a" * 256),
    made(
        "H47",
        "no room in a header",
        "entry-member",
        lambda codec: Forge(codec=codec, entries=[_file("x" * 150)], contents={"data/short": b"x"}),
    ),
    made(
        "H47",
        "no room in a header, with folders",
        "entry-member",
        lambda codec: Forge(
            codec=codec, entries=[_file(f"{'x' * 140}/{'y' * 110}")], contents={"data/short": b"x"}
        ),
    ),
    entry_changed("H47", "a target of 4,096 bytes", "entry-invalid", position=4, target="x" * 4096),
    entry_changed("H47", "an empty target", "entry-invalid", position=4, target=""),
    *(
        case
        for name in ("manifest.json", "entries.jsonl", "bagit.txt", "manifest-sha256.txt")
        for case in _more("H49", f"{PREFIX}{name}")
    ),
    _named("H49", "a header that names the manifest", f"{PREFIX}manifest.json"),
    _named("H49", "a header outside the bundle's folder", "other/data/a.txt"),
    entry_changed("H49", "the manifest as a member", "entry-member", member="manifest.json"),
    _entries(
        "H99",
        "a file beneath a link",
        "entry-collides",
        plain_entry("a", "symlink", target="/etc"),
        _file("a/b"),
    ),
    _entries(
        "H99",
        "a folder beneath a link",
        "entry-collides",
        plain_entry("a", "symlink", target="/etc"),
        plain_entry("a/b", "dir"),
        _file("b"),
    ),
    _entries(
        "H99",
        "of another source",
        "entry-collides",
        plain_entry("a", "symlink", target="b"),
        _file("a/b", source="other"),
    ),
    _entries(
        "H99",
        "a link over a link",
        "entry-collides",
        plain_entry("a", "symlink", target="/etc"),
        plain_entry("a/b", "symlink", target="/"),
        _file("b"),
    ),
]
