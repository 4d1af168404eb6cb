"""Lines of the index: one canonical form, both ways."""

import pytest

from spoold import canonical
from spoold.bundle.entry import Chunk, Entry, Kind
from spoold.bundle.frame_table import Frame
from spoold.bundle.lines import entry_lines, frame_line, parse_entry, parse_frame
from spoold.errors import SpooldError
from tests.bundles import canonical as encode
from tests.bundles import file_entry, plain_entry, sha256

HASH = sha256(b"x")
ENTRIES = [
    Entry(b"a", Kind.FILE, 0o644, 5, 1, 2, "s", 1, HASH, "data/a"),
    Entry('q"\\/ü'.encode(), Kind.FILE, 0, -5, 0, 0, 's"\\', 1, HASH, "data/_x/" + "0" * 64),
    Entry(b"\xff\n", Kind.FILE, 0, 0, 0, 0, "", 1, HASH, "data/_x/" + "0" * 64),
    Entry(
        b"big",
        Kind.FILE,
        0o777,
        10**19 - 1,
        2**32,
        7,
        "s",
        3,
        HASH,
        "data/big",
        (Chunk(HASH, 2), Chunk(HASH, 1)),
        None,
        "text/plain",
    ),
    Entry(b"d", Kind.DIR, 0o750, 1, 0, 0, "s"),
    Entry(b"l", Kind.SYMLINK, 0o777, 1, 0, 0, "s", target=b"../x"),
    Entry(b"l", Kind.SYMLINK, 0o777, 1, 0, 0, "s", target=b"\xff"),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_line_is_canonical_and_comes_back(entry: Entry) -> None:
    line, short = entry_lines(entry)
    document = canonical.decode(line + b"\n")
    assert isinstance(document, dict)
    assert parse_entry(line) == entry
    left_out = {"chunks", "gid", "media_type", "member", "mtime_ns", "source", "uid"}
    kept = {name: value for name, value in document.items() if name not in left_out}
    assert canonical.encode_unterminated(kept) == short


GOOD = file_entry("a", b"x")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param(encode({**GOOD, "more": 1}), "field-unknown", id="H23 unknown field"),
        pytest.param(encode(GOOD).replace(b'"gid"', b'"gid":0,"gid"'), "not-canonical", id="H13"),
        pytest.param(encode(GOOD).replace(b":0", b": 0", 1), "not-canonical", id="H14 space"),
        pytest.param(b"\xef\xbb\xbf" + encode(GOOD), "not-canonical", id="H14 BOM"),
        pytest.param(encode(GOOD)[:-1] + b"\r\n", "not-canonical", id="H14 CRLF"),
        pytest.param(encode(GOOD).replace(b'"a"', b'"\\u0061"'), "not-canonical", id="H14 \\u"),
        pytest.param(encode(GOOD).replace(b'"a"', b'"a\\/"'), "not-canonical", id="H14 \\/"),
        pytest.param(encode(GOOD).replace(b":0", b":0.0", 1), "not-canonical", id="H15 float"),
        pytest.param(encode(GOOD).replace(b":0", b":NaN", 1), "not-canonical", id="H15 NaN"),
        pytest.param(encode(GOOD).replace(b":0", b":1e400", 1), "not-canonical", id="H15 1e400"),
        pytest.param(encode({**GOOD, "size": 2**53}), "not-canonical", id="H15 2^53"),
        pytest.param(encode(GOOD).replace(b":0", b":-0", 1), "not-canonical", id="H15 -0"),
        pytest.param(b"[" * 100_000, "not-canonical", id="H16 deep"),
        pytest.param(
            encode({**GOOD, "uid": 10**900}),
            "not-canonical",
            id="H17 digits",
        ),
        pytest.param(encode({**GOOD, "path": "\ud800"}), "not-canonical", id="H18 surrogate"),
        pytest.param(encode(GOOD).replace(b'"a"', b'"\x7f"'), "not-canonical", id="H18 DEL"),
        pytest.param(encode(GOOD).replace(b'"a"', b'"\xff"'), "not-canonical", id="H18 UTF-8"),
        pytest.param(encode({**GOOD, "path": None}), "entry-invalid", id="null"),
        pytest.param(encode({**GOOD, "mode": 0o1777}), "entry-invalid", id="H67 mode"),
        pytest.param(encode({**GOOD, "mode": 512}), "entry-invalid", id="H67 mode 01000"),
        pytest.param(encode({**GOOD, "mtime_ns": 0}), "entry-invalid", id="mtime a number"),
        pytest.param(encode({**GOOD, "mtime_ns": "-0"}), "entry-invalid", id="mtime -0"),
        pytest.param(encode({**GOOD, "mtime_ns": "01"}), "entry-invalid", id="mtime 01"),
        pytest.param(encode({**GOOD, "sha256": HASH.upper()}), "entry-invalid", id="upper hash"),
        pytest.param(encode({**GOOD, "kind": "fifo"}), "entry-invalid", id="H53 kind"),
        pytest.param(encode({**GOOD, "kind": "dir"}), "entry-invalid", id="a folder's content"),
        pytest.param(encode({**GOOD, "target": "b"}), "entry-invalid", id="a file's target"),
        pytest.param(encode({**GOOD, "member": "data/a"}), "entry-invalid", id="needless member"),
        pytest.param(encode({**GOOD, "chunks": []}), "entry-invalid", id="no chunks"),
        pytest.param(encode({**GOOD, "path": "../a"}), "entry-path", id="H34"),
        pytest.param(encode({**GOOD, "path": "/a"}), "entry-path", id="H35"),
        pytest.param(encode({**GOOD, "path": "a//b"}), "entry-path", id="H36"),
        pytest.param(encode({**GOOD, "path": "a/."}), "entry-path", id="H36 dot"),
        pytest.param(encode({**GOOD, "path": "a" * 256}), "entry-path", id="H47"),
        pytest.param(encode({**GOOD, "path": "/".join("a" * 129)}), "entry-path", id="H47 deep"),
        pytest.param(encode(plain_entry("l", "symlink")), "entry-invalid", id="no target"),
        pytest.param(
            encode(plain_entry("l", "symlink", target="")), "entry-invalid", id="empty target"
        ),
        pytest.param(
            encode(plain_entry("l", "symlink", target="a" * 4096)), "entry-invalid", id="target"
        ),
        pytest.param(
            encode(plain_entry("l", "symlink", target="a", mode=0o755)),
            "entry-invalid",
            id="a link's mode",
        ),
    ],
)
def test_a_line_outside_the_form_is_refused(line: bytes, code: str) -> None:
    with pytest.raises(SpooldError) as caught:
        parse_entry(line.removesuffix(b"\n"))
    assert caught.value.code.name == code


@pytest.mark.parametrize("text", ["YQ==", "/w", "/x==", "AGE=\n", ""])
def test_base64_that_is_not_canonical_or_not_needed_is_refused(text: str) -> None:
    document = {**GOOD, "path_b64": text}
    del document["path"]
    with pytest.raises(SpooldError) as caught:
        parse_entry(encode(document).removesuffix(b"\n"))
    assert caught.value.code.name in {"not-canonical", "entry-invalid", "entry-path"}


def test_frames_come_back_and_nothing_else_does() -> None:
    frame = Frame(512, HASH, 40)
    line = frame_line(frame)
    assert line == encode({"raw": 512, "sha256": HASH, "size": 40})
    assert parse_frame(line[:-1]) == frame
    for wrong in (line, b" " + line[:-1], line[:-1].replace(b"512", b"0512"), b"{}", b"\xff"):
        with pytest.raises(SpooldError):
            parse_frame(wrong)
