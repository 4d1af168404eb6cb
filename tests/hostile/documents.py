"""H13 to H24, H33, H98: the JSON of a bundle, its head, and the files that follow from the rest."""

import json
from collections.abc import Callable
from typing import Any

from spoold.bundle.frames import Codec
from tests.bundles import Document, Forge, tar_member
from tests.hostile.case import MIB, PREFIX, Case, edited, forged, made, swapped

Change = Callable[[bytes], bytes]


def _raw(row: str, what: str, change: Change, **own: Any) -> Case:
    """Other bytes for the manifest, signed as they are."""
    own = {"code": "not-canonical"} | own
    return forged(row, what, own.pop("code"), edit_manifest_bytes=change, **own)


def _number(row: str, digits: bytes) -> Case:
    what = digits.decode() if len(digits) < 30 else f"{len(digits)} digits"
    # chunk_size means the same in both codecs.
    return _raw(row, what, swapped(b'"chunk_size":268435456', b'"chunk_size":' + digits))


def _line(row: str, what: str, code: str, change: Change) -> Case:
    """Another first line of entries.jsonl."""
    return forged(row, what, code, edit_lines=lambda lines: [change(lines[0]), *lines[1:]])


def _unsorted(data: bytes) -> bytes:
    document = json.loads(data)
    return json.dumps(dict(reversed(document.items())), separators=(",", ":")).encode() + b"\n"


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _without(*fields: str) -> Callable[[Document], Document]:
    return lambda manifest: {k: v for k, v in manifest.items() if k not in fields}


def _skipping(*skipped: Document, count: int | None = None) -> Callable[[Document], Document]:
    return edited(skipped=list(skipped), skipped_count=len(skipped) if count is None else count)


def _tag(name: str, change: Change) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda tags: {**tags, name: change(tags[name])}


def _index_file(size: int) -> Document:
    return {"bytes": size, "count": 1, "sha256": "0" * 64}


def _folder(bundle_id: str) -> Callable[[Codec], Forge]:
    return lambda codec: Forge.good(codec, bundle_id=bundle_id)


FIELDS: list[tuple[str, Callable[[Document], Document]]] = [
    ("producer is missing", _without("producer")),
    ("to is missing", _without("to")),
    ("null", edited(not_after=None)),
    ("a boolean for a number", edited(chunk_size=True)),
    ("a string for a number", edited(chunk_size="268435456")),
    ("a negative number", edited(chunk_size=-1)),
    ("a chunk size too small", edited(chunk_size=MIB - 1)),
    ("a chunk size too large", edited(chunk_size=4096 * MIB + 1)),
    ("an index that no member can hold", edited(entries=_index_file(8 * 1024 * MIB))),
    ("frames that no member can hold", edited(frames=_index_file(2**53 - 1))),
    ("level 20", edited(compression={"codec": "zstd", "level": 20})),
    ("level 0", edited(compression={"codec": "gzip", "level": 0})),
    ("codec xz", edited(compression={"codec": "xz", "level": 3})),
    ("algorithm none", edited(algorithm="none")),
    ("month 13", edited(created_at="2026-13-01T00:00:00Z")),
    ("30 February", edited(created_at="2026-02-30T00:00:00Z")),
    ("a time zone", edited(created_at="2026-01-01T00:00:00+00:00")),
    ("a time of day only", edited(not_after="12:00")),
    ("labels that are no strings", edited(labels={"a": 1})),
    ("labels in a list", edited(labels=[])),
    ("to a place that is no site", edited(to=["../etc"])),
    ("a hash in capitals", edited(content_sha256="A" * 64)),
    ("no index", edited(index=[])),
    ("skipped alone", edited(skipped=[{"path": "a", "reason": "b"}])),
    ("skipped without a reason", _skipping({"path": "a"})),
    ("skipped, but none", _skipping(count=1)),
    ("skipped more than counted", _skipping(*[{"path": "a", "reason": "b"}] * 2, count=1)),
    ("skipped base64 that is not needed", _skipping({"path_b64": "YQ==", "reason": "b"})),
    ("skipped base64 that is not canonical", _skipping({"path_b64": "/x==", "reason": "b"})),
]

CASES = [
    _raw("H13", "a key twice", swapped(b'{"algo', b'{"to":[],"algo')),
    _line("H13", "a key twice in an entry", "not-canonical", swapped(b'{"gid"', b'{"gid":0,"gid"')),
    _raw("H14", "a space", swapped(b":", b": ")),
    _raw("H14", "a byte order mark", lambda data: b"\xef\xbb\xbf" + data),
    _raw("H14", "CRLF", lambda data: data[:-1] + b"\r\n"),
    _raw("H14", "no final line feed", lambda data: data[:-1]),
    _raw("H14", "two final line feeds", lambda data: data + b"\n"),
    _raw("H14", "two documents", lambda data: data[:-1] + b"{}\n"),
    _raw("H14", "keys unsorted", _unsorted),
    _raw("H14", "an escape", swapped(b'"demo"', b'"dem\\u006f"')),
    _raw("H14", "an escaped slash", swapped(b'"demo"', b'"d\\/mo"')),
    _line("H14", "a space in an entry", "not-canonical", swapped(b":", b": ")),
    _line("H14", "an escape in an entry", "not-canonical", swapped(b'"file"', b'"f\\u0069le"')),
    forged(
        "H14",
        "an empty line in entries.jsonl",
        "not-canonical",
        edit_lines=lambda lines: [lines[0], b"\n", *lines[1:]],
    ),
    forged(
        "H14",
        "a line of frames.jsonl",
        "not-canonical",
        edit_frame_lines=lambda lines: [swapped(b":", b": ")(lines[0])],
    ),
    *(_number("H15", n) for n in (b"1.0", b"1e6", b"NaN", b"1e400", b"-Infinity", b"-0", b"01")),
    _number("H15", b"9007199254740992"),
    _number("H15", b"18446744073709551616"),
    _raw("H16", "100,000 deep", lambda _: b"[" * 100_000 + b"]" * 100_000),
    _raw("H16", "500,000 objects deep", lambda _: b'{"a":' * 500_000 + b"1" + b"}" * 500_000),
    forged("H16", "depth 9", "not-canonical", edit_manifest=edited(labels=_deep(8))),
    _line("H16", "depth 9 in an entry", "not-canonical", swapped(b'"file"', b"[" * 9 + b"]" * 9)),
    _number("H17", b"3" * 5000),
    _number("H17", b"3" * 1_000_000),
    _line("H17", "in an entry", "not-canonical", swapped(b'"gid":0', b'"gid":' + b"3" * 5000)),
    *(
        forged("H18", what, "not-canonical", edit_manifest=edited(name=name))
        for what, name in (
            ("a lone surrogate", "\ud800"),
            ("DEL", "\x7f"),
            ("C1", "\x85"),
            ("a control character, escaped", "\x1b"),
            ("a line feed, escaped", "\n"),
        )
    ),
    _raw("H18", "invalid UTF-8", swapped(b'"demo"', b'"\xff"')),
    _raw("H18", "overlong UTF-8", swapped(b'"demo"', b'"\xc0\xaf"')),
    _raw("H18", "a control character", swapped(b'"demo"', b'"a\x1bb"')),
    _raw("H18", "NUL", swapped(b'"demo"', b'"a\x00b"')),
    _line("H18", "invalid UTF-8 in an entry", "not-canonical", swapped(b'"a.txt"', b'"\xff"')),
    _line("H18", "DEL in an entry", "not-canonical", swapped(b'"a.txt"', b'"\x7f"')),
    forged(
        "H19", "a manifest of 5 MiB", "head-malformed", edit_manifest=edited(name="x" * 5 * MIB)
    ),
    forged(
        "H19",
        "1,001 skipped",
        "manifest-invalid",
        edit_manifest=_skipping(*[{"path": "a", "reason": "b"}] * 1001),
    ),
    forged(
        "H19",
        "skipped of more than 1 MiB",
        "manifest-invalid",
        edit_manifest=_skipping({"path": "a", "reason": "b" * MIB}),
    ),
    forged(
        "H19",
        "a signature of 9,000 bytes",
        "head-malformed",
        sign=lambda data: bytes(9000),
    ),
    forged("H20", "a second manifest", "member-unexpected", edit_head=lambda m: [m[0], *m]),
    forged("H20", "a second manifest last", "member-unexpected", edit_head=lambda m: [*m, m[0]]),
    forged(
        "H20",
        "a second manifest in the index",
        "frame-cut",
        edit_index=lambda m: [*m, tar_member(f"{PREFIX}manifest.json".encode(), b"{}\n")],
    ),
    forged(
        "H21", "a member more", "member-unexpected", edit_head=lambda m: [*m, ("readme.txt", b"")]
    ),
    forged(
        "H21",
        "a member between",
        "member-unexpected",
        edit_head=lambda m: [*m[:3], ("readme.txt", b""), *m[3:]],
    ),
    forged(
        "H21",
        "another order",
        "member-unexpected",
        edit_head=lambda m: [*m[:2], m[3], m[2], m[4]],
    ),
    forged("H21", "a member less", "head-malformed", edit_head=lambda m: m[:4]),
    forged(
        "H21",
        "17 further signatures",
        "head-malformed",
        edit_head=lambda m: [
            *m[:2],
            *((f"signatures/{n:064x}.sig", b"x") for n in range(17)),
            *m[2:],
        ],
    ),
    forged(
        "H21",
        "further signatures unsorted",
        "member-unexpected",
        edit_head=lambda m: [*m[:2], *((f"signatures/{n:064x}.sig", b"x") for n in (2, 1)), *m[2:]],
    ),
    forged(
        "H21",
        "a further signature twice",
        "member-unexpected",
        edit_head=lambda m: [*m[:2], *[(f"signatures/{1:064x}.sig", b"x")] * 2, *m[2:]],
    ),
    forged(
        "H21", "end blocks in the head", "head-malformed", edit_head_raw=lambda r: r + bytes(1024)
    ),
    forged("H21", "nothing but zeros", "not-a-bundle", edit_head_raw=lambda _: bytes(1024)),
    forged("H22", "a hash", "tag-file-mismatch", edit_digests=lambda data: b"0" * 64 + data[64:]),
    forged(
        "H22",
        "a line more",
        "member-header",
        edit_digests=lambda d: d + b"0" * 64 + b"  data/x\n" * 9,
    ),
    forged("H22", "a name", "tag-file-mismatch", edit_digests=swapped(b"a.txt", b"b.txt")),
    forged("H22", "a line feed more", "member-header", edit_digests=lambda data: data + b"\n"),
    forged(
        "H22",
        "entries.jsonl",
        "index-digest-mismatch",
        edit_manifest=lambda m: {**m, "entries": {**m["entries"], "sha256": "0" * 64}},
    ),
    forged(
        "H22",
        "frames.jsonl",
        "index-digest-mismatch",
        edit_manifest=lambda m: {**m, "frames": {**m["frames"], "sha256": "0" * 64}},
    ),
    forged(
        "H22",
        "a count too low",
        "index-digest-mismatch",
        edit_manifest=lambda m: {**m, "entries": {**m["entries"], "count": 4}},
    ),
    forged(
        "H22",
        "a count too high",
        "index-digest-mismatch",
        edit_manifest=lambda m: {**m, "entries": {**m["entries"], "count": 6}},
    ),
    forged(
        "H22",
        "the content's hash",
        "totals-mismatch",
        edit_manifest=edited(content_sha256="0" * 64),
    ),
    forged("H22", "total of files", "totals-mismatch", totals={"files": 2}),
    forged("H22", "total of bytes", "totals-mismatch", totals={"bytes": 1}),
    forged("H22", "total of tar bytes", "totals-mismatch", totals={"raw": 512}),
    forged("H23", "a newer type", "document-type", edit_manifest=edited(type="spoold.manifest/2")),
    forged("H23", "no type", "document-type", edit_manifest=_without("type")),
    forged("H23", "no object", "document-type", edit_manifest_bytes=lambda _: b"[]\n"),
    *(
        forged("H23", f"the field {name}", "field-unknown", edit_manifest=edited(**{name: value}))
        for name, value in (
            ("more", 1),
            ("requires", []),
            ("previous", "x"),
            ("volume", 1),
            ("stream", "x"),
            ("sequence", 1),
            ("records", 1),
        )
    ),
    forged("H23", "a field of totals", "field-unknown", totals={"entries": 5}),
    _line("H23", "a field of an entry", "field-unknown", swapped(b'"path"', b'"owner":1,"path"')),
    forged(
        "H23",
        "a field of a frame",
        "field-unknown",
        edit_frame_lines=lambda lines: [swapped(b'{"raw"', b'{"more":1,"raw"')(lines[0])],
    ),
    *(forged("H23", what, "manifest-invalid", edit_manifest=change) for what, change in FIELDS),
    forged(
        "H24", "in the head", "member-unexpected", edit_head=lambda m: [*m, ("fetch.txt", b"x")]
    ),
    forged(
        "H24",
        "in the index",
        "frame-cut",
        edit_index=lambda m: [*m, tar_member(f"{PREFIX}fetch.txt".encode(), b"x")],
    ),
    forged(
        "H24",
        "for the index",
        "member-header",
        edit_index=lambda m: [*m[:2], tar_member(f"{PREFIX}fetch.txt".encode(), bytes(300))],
    ),
    forged(
        "H33", "another id signed", "bundle-id-invalid", edit_manifest=edited(bundle_id="other")
    ),
    forged(
        "H33",
        "an id too long signed",
        "manifest-invalid",
        edit_manifest=edited(bundle_id="a" * 101),
    ),
    *(
        made("H33", f"the folder {name[:12]!r}", "bundle-id-invalid", _folder(name))
        for name in ("UPPER", "-dash", "a_b", "..", "a/b", "x-tagmanifest-x", "a" * 101)
    ),
    forged(
        "H33", "no folder", "bundle-id-invalid", edit_head=lambda m: [(f"!{n}", c) for n, c in m]
    ),
    forged(
        "H33",
        "a second folder",
        "bundle-id-invalid",
        edit_head=lambda m: [*m[:3], ("!other/bag-info.txt", b""), m[4]],
    ),
    forged(
        "H98",
        "bagit.txt",
        "tag-file-mismatch",
        edit_tags=_tag("bagit.txt", swapped(b"1.0", b"0.9")),
    ),
    forged(
        "H98",
        "bag-info.txt",
        "tag-file-mismatch",
        edit_tags=_tag("bag-info.txt", lambda d: d + b"\n"),
    ),
    forged(
        "H98",
        "the date in bag-info.txt",
        "tag-file-mismatch",
        edit_tags=_tag("bag-info.txt", swapped(b"2026-11-20", b"2026-11-21")),
    ),
    forged(
        "H98",
        "an empty tagmanifest",
        "tag-file-mismatch",
        edit_tags=_tag("tagmanifest-sha256.txt", lambda _: b""),
    ),
    forged(
        "H98",
        "a hash in the tagmanifest",
        "tag-file-mismatch",
        edit_tags=_tag("tagmanifest-sha256.txt", lambda d: b"0" * 64 + d[64:]),
    ),
]
