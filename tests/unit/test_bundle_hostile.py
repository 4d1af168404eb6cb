"""Bundles that are wrong in one thing, signed again where it is signed: each has its refusal."""

import datetime
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa

from spoold import trust
from spoold.bundle.frames import END_FRAME, Codec
from spoold.bundle.reader import Policy
from spoold.trust import Algorithm, Role, Trust, TrustedKey
from tests.bundles import (
    BUNDLE_ID,
    FRAME,
    Document,
    Forge,
    canonical,
    file_entry,
    frame_edges,
    gzip_frame,
    plain_entry,
    refusal,
    sha256,
    signer,
    tar_header,
    tar_member,
    trusted,
    zstd_frame,
)

CODECS = pytest.mark.parametrize("codec", list(Codec))
PREFIX = f"{BUNDLE_ID}/"
MIB = 1024 * 1024


def edited(**fields: Any) -> Callable[[Document], Document]:
    return lambda manifest: {**manifest, **fields}


def without(*fields: str) -> Callable[[Document], Document]:
    return lambda manifest: {k: v for k, v in manifest.items() if k not in fields}


def first(**changes: Any) -> Callable[[list[bytes]], list[bytes]]:
    """Another header for the first payload member."""
    name, content = f"{PREFIX}data/a.txt".encode(), b"alpha\n"
    return lambda members: [tar_member(name, content, **changes), *members[1:]]


def inserted(header: bytes) -> Callable[[list[bytes]], list[bytes]]:
    """A member more, before the others."""
    return lambda members: [header, *members]


@CODECS
def test_the_forge_makes_good_bundles(codec: Codec) -> None:
    assert refusal(Forge.good(codec).build()) == "accepted"
    big = Forge.of({"big": bytes(range(256)) * 20_000, "small": b"x"}, codec=codec)
    assert refusal(big.build()) == "accepted"


# --- signature and manifest -----------------------------------------------------------------------


def _raw_rsa(private: rsa.RSAPrivateKey, how: rsa_padding.AsymmetricPadding) -> Any:
    return lambda content: private.sign(content, how, hashes.SHA256())


def _rsa() -> tuple[rsa.RSAPrivateKey, trust.Signer]:
    by = signer("site-r", Algorithm.RSA)
    assert isinstance(by.private, rsa.RSAPrivateKey)
    return by.private, by


@pytest.mark.parametrize(
    ("case", "how"),
    [
        ("H06 salt 0", rsa_padding.PSS(rsa_padding.MGF1(hashes.SHA256()), 0)),
        ("H06 salt 20", rsa_padding.PSS(rsa_padding.MGF1(hashes.SHA256()), 20)),
        (
            "H06 salt maximum",
            rsa_padding.PSS(rsa_padding.MGF1(hashes.SHA256()), rsa_padding.PSS.MAX_LENGTH),
        ),
        ("H07 PKCS#1 v1.5", rsa_padding.PKCS1v15()),
        ("H08 MGF1-SHA1", rsa_padding.PSS(rsa_padding.MGF1(hashes.SHA1()), 32)),
    ],
)
def test_h06_h07_h08_other_paddings_are_not_signatures(
    case: str, how: rsa_padding.AsymmetricPadding
) -> None:
    private, by = _rsa()
    forge = Forge.good(by=by)
    assert refusal(forge.build(), trusted(by)) == "accepted"
    forge.sign = _raw_rsa(private, how)
    assert refusal(forge.build(), trusted(by)) == "signature-untrusted", case


def test_h02_h03_h04_h05_who_has_signed() -> None:
    by = signer()
    good = by.trusted()
    roleless = TrustedKey(
        good.key_id, good.site, good.algorithm, frozenset({Role.STATUS}), False, good.public
    )
    revoked = TrustedKey(good.key_id, good.site, good.algorithm, good.roles, True, good.public)
    data = Forge.good().build()
    assert refusal(Forge.good(sign=lambda _: b"").build()) == "signature-missing"
    assert refusal(data, trusted(signer("site-b"))) == "signature-untrusted"
    assert refusal(data, Trust([roleless])) == "key-role"
    assert refusal(data, Trust([revoked])) == "key-revoked"


def test_h02_a_head_without_its_signature() -> None:
    forge = Forge.good(edit_head=lambda members: [members[0], *members[2:]])
    assert refusal(forge.build()) == "signature-missing"


def test_h12_a_threshold_counts_each_key_once() -> None:
    a, b, stranger = signer("site-a"), signer("site-b"), signer("site-x")
    both = Policy(threshold=2)

    def signed_by(*others: trust.Signer, damage: bool = False) -> bytes:
        def add(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
            content = members[0][1]
            extra = sorted(
                (f"signatures/{one.key_id}.sig", one.sign(content + b"x" * damage))
                for one in others
            )
            return [*members[:2], *extra, *members[2:]]

        return Forge.good(edit_head=add).build()

    assert refusal(signed_by(b), trusted(a, b), both) == "accepted"
    assert refusal(signed_by(a), trusted(a, b), both) == "threshold-not-met"
    assert refusal(signed_by(stranger), trusted(a, b), both) == "threshold-not-met"
    assert refusal(signed_by(stranger), trusted(a)) == "accepted"
    assert refusal(signed_by(b, damage=True), trusted(a, b)) == "signature-invalid"


MANIFESTS: list[tuple[str, dict[str, Any], str]] = [
    (
        "H10 edited after signing",
        {
            "edit_head": lambda members: [
                (members[0][0], members[0][1].replace(b'"demo"', b'"Demo"')),
                *members[1:],
            ]
        },
        "signature-untrusted",
    ),
    ("H11 another type", {"edit_manifest": edited(type="spoold.status/1")}, "document-type"),
    ("H23 a newer type", {"edit_manifest": edited(type="spoold.manifest/2")}, "document-type"),
    ("H23 an unknown field", {"edit_manifest": edited(more=1)}, "field-unknown"),
    ("H32 requires", {"edit_manifest": edited(requires=[])}, "field-unknown"),
    ("H28 previous", {"edit_manifest": edited(previous="x")}, "field-unknown"),
    ("H31 volume", {"edit_manifest": edited(volume=1)}, "field-unknown"),
    ("a field is missing", {"edit_manifest": without("producer")}, "manifest-invalid"),
    ("a field is null", {"edit_manifest": edited(not_after=None)}, "manifest-invalid"),
    ("a boolean is no integer", {"edit_manifest": edited(chunk_size=True)}, "manifest-invalid"),
    ("chunk size", {"edit_manifest": edited(chunk_size=MIB - 1)}, "manifest-invalid"),
    (
        "level",
        {"edit_manifest": edited(compression={"codec": "zstd", "level": 20})},
        "manifest-invalid",
    ),
    ("time", {"edit_manifest": edited(created_at="2026-13-01T00:00:00Z")}, "manifest-invalid"),
    (
        "time without Z",
        {"edit_manifest": edited(created_at="2026-01-01T00:00:00+00:00")},
        "manifest-invalid",
    ),
    ("labels", {"edit_manifest": edited(labels={"a": 1})}, "manifest-invalid"),
    ("labels", {"edit_manifest": edited(labels=[])}, "manifest-invalid"),
    ("skipped alone", {"edit_manifest": edited(skipped=[])}, "manifest-invalid"),
    (
        "skipped",
        {"edit_manifest": edited(skipped=[{"path": "a"}], skipped_count=1)},
        "manifest-invalid",
    ),
    (
        "H13 duplicate key",
        {"edit_manifest_bytes": lambda data: data.replace(b'{"algo', b'{"to":[],"algo')},
        "not-canonical",
    ),
    (
        "H14 a space",
        {"edit_manifest_bytes": lambda data: data.replace(b":", b": ", 1)},
        "not-canonical",
    ),
    ("H14 BOM", {"edit_manifest_bytes": lambda data: b"\xef\xbb\xbf" + data}, "not-canonical"),
    ("H14 CRLF", {"edit_manifest_bytes": lambda data: data[:-1] + b"\r\n"}, "not-canonical"),
    ("H14 no final LF", {"edit_manifest_bytes": lambda data: data[:-1]}, "not-canonical"),
    (
        "H14 escape",
        {"edit_manifest_bytes": lambda data: data.replace(b'"demo"', b'"dem\\u006f"')},
        "not-canonical",
    ),
    (
        "H15 float",
        {"edit_manifest_bytes": lambda data: data.replace(b'"level":3', b'"level":3.0')},
        "not-canonical",
    ),
    (
        "H15 NaN",
        {"edit_manifest_bytes": lambda data: data.replace(b'"level":3', b'"level":NaN')},
        "not-canonical",
    ),
    (
        "H15 1e400",
        {"edit_manifest_bytes": lambda data: data.replace(b'"level":3', b'"level":1e400')},
        "not-canonical",
    ),
    ("H15 2^53", {"edit_manifest": edited(chunk_size=2**53)}, "not-canonical"),
    (
        "H16 100,000 deep",
        {"edit_manifest_bytes": lambda _: b"[" * 100_000 + b"]" * 100_000},
        "not-canonical",
    ),
    ("H16 depth 9", {"edit_manifest": edited(labels=[[[[[[[[1]]]]]]]])}, "not-canonical"),
    (
        "H17 5,000 digits",
        {"edit_manifest_bytes": lambda data: data.replace(b'"level":3', b'"level":' + b"3" * 5000)},
        "not-canonical",
    ),
    ("H18 lone surrogate", {"edit_manifest": edited(name="\ud800")}, "not-canonical"),
    ("H18 DEL", {"edit_manifest": edited(name="\x7f")}, "not-canonical"),
    ("H18 control", {"edit_manifest": edited(name="\x85")}, "not-canonical"),
    (
        "H18 UTF-8",
        {"edit_manifest_bytes": lambda data: data.replace(b'"demo"', b'"\xff"')},
        "not-canonical",
    ),
    ("another key id", {"edit_manifest": edited(key_id="0" * 64)}, "manifest-key"),
    ("another algorithm", {"edit_manifest": edited(algorithm="rsa-pss-sha256")}, "manifest-key"),
    ("an unknown algorithm", {"edit_manifest": edited(algorithm="none")}, "manifest-invalid"),
    ("H100 from another site", {"edit_manifest": edited(**{"from": "site-b"})}, "site-mismatch"),
    ("H100 from no site", {"edit_manifest": edited(**{"from": "../../etc"})}, "site-mismatch"),
    ("H33 id", {"edit_manifest": edited(bundle_id="other")}, "bundle-id-invalid"),
    ("H33 id too long", {"edit_manifest": edited(bundle_id="a" * 101)}, "manifest-invalid"),
    ("H33 folder", {"bundle_id": "UPPER"}, "bundle-id-invalid"),
    (
        "H78 codec",
        {"edit_manifest": edited(compression={"codec": "gzip", "level": 6})},
        "codec-mismatch",
    ),
    ("H89 bytes", {"totals": {"bytes": 10**15}}, "quota-exceeded"),
    ("totals files", {"totals": {"files": 2}}, "totals-mismatch"),
    ("totals raw", {"totals": {"raw": 512}}, "totals-mismatch"),
    ("content hash", {"edit_manifest": edited(content_sha256="0" * 64)}, "totals-mismatch"),
]


@pytest.mark.parametrize(("case", "changes", "code"), MANIFESTS, ids=[m[0] for m in MANIFESTS])
def test_manifests(case: str, changes: dict[str, Any], code: str) -> None:
    policy = Policy(max_bytes=10**12)
    assert refusal(Forge.good(**changes).build(), policy=policy) == code, case


def test_policy_is_asked_before_anything_more_is_read() -> None:
    now = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
    to_b = Forge.good(edit_manifest=edited(to=["site-b"])).build()
    old = Forge.good(edit_manifest=edited(not_after="2026-11-20T12:00:00Z")).build()
    good = Forge.good().build()
    for data, policy, code in (
        (to_b, Policy(site="site-c"), "not-addressed-here"),
        (to_b, Policy(site="site-b"), "accepted"),
        (old, Policy(now=now), "expired"),
        (old, Policy(now=now - datetime.timedelta(days=1)), "accepted"),
        (good, Policy(site="site-c"), "accepted"),
        (good, Policy(max_bytes=100), "quota-exceeded"),
        (good, Policy(max_entries=4), "quota-exceeded"),
        (good, Policy(free_bytes=100), "no-space"),
        (good, Policy(codec=Codec.GZIP), "codec-mismatch"),
        (good, Policy(max_depth=1), "quota-exceeded"),
        (good, Policy(max_depth=2), "accepted"),
        (good, Policy(max_expansion=1), "quota-exceeded"),
    ):
        assert refusal(data, policy=policy) == code
        if code != "accepted" and policy.max_depth is None and policy.max_expansion is None:
            # The same verdict where nothing but the head is there.
            head = frame_edges(data, Codec.ZSTD)[1]
            assert refusal(data[:head], policy=policy) == code, "H89"


# --- the head ------------------------------------------------------------------------------------

HEADS: list[tuple[str, dict[str, Any], str]] = [
    ("H01 another first member", {"edit_head": lambda m: [m[2], *m]}, "not-a-bundle"),
    ("H20 a second manifest", {"edit_head": lambda m: [m[0], *m]}, "member-unexpected"),
    ("H20 a second manifest last", {"edit_head": lambda m: [*m, m[0]]}, "member-unexpected"),
    (
        "H21 an extra member",
        {"edit_head": lambda m: [*m, ("readme.txt", b"")]},
        "member-unexpected",
    ),
    ("H24 fetch.txt", {"edit_head": lambda m: [*m, ("fetch.txt", b"x")]}, "member-unexpected"),
    (
        "H33 a second folder",
        {"edit_head": lambda m: [*m[:3], ("!other/bag-info.txt", b""), m[4]]},
        "bundle-id-invalid",
    ),
    ("order", {"edit_head": lambda m: [*m[:2], m[3], m[2], m[4]]}, "member-unexpected"),
    ("a member is missing", {"edit_head": lambda m: m[:4]}, "head-malformed"),
    (
        "17 signatures",
        {
            "edit_head": lambda m: [
                *m[:2],
                *((f"signatures/{n:064x}.sig", b"x") for n in range(17)),
                *m[2:],
            ]
        },
        "head-malformed",
    ),
    (
        "signatures unsorted",
        {
            "edit_head": lambda m: [
                *m[:2],
                *((f"signatures/{n:064x}.sig", b"x") for n in (2, 1)),
                *m[2:],
            ]
        },
        "member-unexpected",
    ),
    (
        "H98 bagit.txt",
        {"edit_tags": lambda t: {**t, "bagit.txt": t["bagit.txt"].replace(b"1.0", b"0.9")}},
        "tag-file-mismatch",
    ),
    (
        "H98 bag-info.txt",
        {"edit_tags": lambda t: {**t, "bag-info.txt": t["bag-info.txt"] + b"\n"}},
        "tag-file-mismatch",
    ),
    (
        "H98 tagmanifest",
        {"edit_tags": lambda t: {**t, "tagmanifest-sha256.txt": b""}},
        "tag-file-mismatch",
    ),
    (
        "H50 a symlink in the head",
        {"edit_head_raw": lambda raw: raw + tar_header(PREFIX.encode() + b"x", 0, at_156=b"2")},
        "head-malformed",
    ),
    (
        "H67 a mode in the head",
        {"edit_head_raw": lambda raw: _reheaded(raw, at_100=b"0000755\0")},
        "head-malformed",
    ),
    ("H68 padding in the head", {"edit_head_raw": lambda raw: raw[:-1] + b"x"}, "head-malformed"),
    ("end blocks in the head", {"edit_head_raw": lambda raw: raw + bytes(1024)}, "head-malformed"),
    ("nothing but zeros", {"edit_head_raw": lambda _: bytes(1024)}, "not-a-bundle"),
]


def _reheaded(raw: bytes, **changes: Any) -> bytes:
    name = f"{PREFIX}manifest.json".encode()
    return tar_header(name, int(raw[124:135], 8), **changes) + raw[512:]


@CODECS
@pytest.mark.parametrize(("case", "changes", "code"), HEADS, ids=[h[0] for h in HEADS])
def test_heads(case: str, changes: dict[str, Any], code: str, codec: Codec) -> None:
    assert refusal(Forge.good(codec, **changes).build()) == code, case


# --- headers of members ---------------------------------------------------------------------------

HEADERS: list[tuple[str, dict[str, bytes]]] = [
    ("H34 ../", {"at_0": b"../../../../etc/passwd"}),
    ("H35 absolute", {"at_0": b"/"}),
    ("H36 //", {"at_16": b"//"}),
    ("H40 invalid UTF-8", {"at_20": b"\xff"}),
    ("H41 bytes after NUL", {"at_90": b"x"}),
    ("H42 a prefix", {"at_345": b"../.."}),
    ("H50 symlink", {"at_156": b"2", "at_157": b"/etc/passwd"}),
    ("H51 hard link", {"at_156": b"1", "at_157": b"x"}),
    ("H52 character device", {"at_156": b"3"}),
    ("H52 block device", {"at_156": b"4"}),
    ("H53 FIFO", {"at_156": b"6"}),
    ("H54 directory", {"at_156": b"5"}),
    ("H55 contiguous", {"at_156": b"7"}),
    ("H55 NUL", {"at_156": b"\0"}),
    ("H55 unknown", {"at_156": b"Z"}),
    ("H56 pax x", {"at_156": b"x"}),
    ("H57 pax g", {"at_156": b"g"}),
    ("H58 GNU L", {"at_156": b"L"}),
    ("H58 GNU K", {"at_156": b"K"}),
    ("H59 GNU sparse", {"at_156": b"S"}),
    ("H60 V", {"at_156": b"V"}),
    ("H60 M", {"at_156": b"M"}),
    ("H60 D", {"at_156": b"D"}),
    ("H60 X", {"at_156": b"X"}),
    ("H61 base-256", {"at_124": b"\x80" + bytes(10) + b"\x06"}),
    ("H62 negative", {"at_124": b"-0000000006\0"}),
    ("H63 spaces", {"at_124": b"          6 "}),
    ("H63 not octal", {"at_124": b"0000000009\0\0"}),
    ("H64 8 GiB", {"at_124": b"77777777777\0"}),
    ("H66 GNU magic", {"at_257": b"ustar  \0"}),
    ("H66 v7", {"at_257": bytes(8)}),
    ("H67 setuid", {"at_100": b"0004755\0"}),
    ("H67 uid", {"at_108": b"0001750\0"}),
    ("H67 mtime", {"at_136": b"00000000001\0"}),
    ("H67 uname", {"at_265": b"root"}),
    ("H67 linkname", {"at_157": b"x"}),
    ("H67 tail", {"at_500": b"x"}),
]


@pytest.mark.parametrize(("case", "changes"), HEADERS, ids=[h[0] for h in HEADERS])
def test_headers_have_one_form(case: str, changes: dict[str, bytes]) -> None:
    assert refusal(Forge.good(edit_members=first(**changes)).build()) == "member-header", case


def test_h65_a_wrong_checksum_in_a_header() -> None:
    def damage(members: list[bytes]) -> list[bytes]:
        block = bytearray(members[1])
        block[150] ^= 1
        return [members[0], bytes(block), *members[2:]]

    assert refusal(Forge.good(edit_members=damage).build()) == "member-header"


def test_h68_padding_that_is_not_zero() -> None:
    forge = Forge.good(edit_members=lambda m: [m[0][:-1] + b"\x01", *m[1:]])
    assert refusal(forge.build()) == "member-header"


@pytest.mark.parametrize("name", ["../x", "/x", "x/../../y", "fetch.txt", "data/../../x"])
def test_h34_h49_a_member_more_in_the_payload(name: str) -> None:
    extra = tar_member(name.encode(), b"x")
    assert refusal(Forge.good(edit_members=inserted(extra)).build()) == "totals-mismatch"


# --- entries --------------------------------------------------------------------------------------


def entry_changed(position: int, **changes: Any) -> bytes:
    forge = Forge.good()
    forge.entries[position] = {
        name: value
        for name, value in {**forge.entries[position], **changes}.items()
        if value is not None
    }
    return forge.build()


@pytest.mark.parametrize(
    ("case", "changes", "code"),
    [
        ("H34", {"path": "../a.txt"}, "entry-path"),
        ("H35", {"path": "/etc/passwd"}, "entry-path"),
        ("H36", {"path": "./a.txt"}, "entry-path"),
        ("H37 backslash needs its own member", {"path": "C:\\a.txt"}, "entry-member"),
        ("H37 UNC", {"path": "\\\\host\\share"}, "entry-member"),
        ("H38 leading dash", {"path": "-a.txt"}, "entry-member"),
        ("H39 newline", {"path": None, "path_b64": "YQo="}, "entry-member"),
        ("H39 newline in clear", {"path": "a\nb"}, "not-canonical"),
        ("H40", {"path": None, "path_b64": "/w=="}, "entry-member"),
        ("H41 NUL", {"path": None, "path_b64": "YQBi"}, "entry-path"),
        ("member elsewhere", {"member": "data/b.txt"}, "entry-member"),
        ("member outside data", {"member": "../../x"}, "entry-member"),
        ("H67 mode above 0777", {"mode": 0o4755}, "entry-invalid"),
        ("H69 another hash", {"sha256": "0" * 64}, "tag-file-mismatch"),
        ("H64 another size", {"size": 2**33}, "entry-chunks"),
        ("size", {"size": 7}, "member-header"),
        ("H23 field", {"owner": "root"}, "field-unknown"),
        ("null", {"member": None, "uid": None}, "entry-invalid"),
        ("H88 chunks of a small file", {"chunks": [{"sha256": "0" * 64, "size": 6}]},
         "entry-chunks"),
    ],
)  # fmt: skip
def test_entries(case: str, changes: dict[str, Any], code: str) -> None:
    found = refusal(entry_changed(0, **changes))
    # A hash or size that the members do not have shows up in whichever check comes first.
    expected = {code, "entry-digest-mismatch"} if code == "tag-file-mismatch" else {code}
    assert found in expected, case


def test_h43_h44_members_that_fold_together() -> None:
    for one, other in (("A.txt", "a.txt"), ("Cafe\u0301", "Caf\u00e9")):
        assert refusal(Forge.of({one: b"1", other: b"2"}).build()) == "entry-member"


def test_h43_the_same_names_with_the_member_that_the_rule_gives_are_fine() -> None:
    member = f"data/_x/{sha256(b'a.txt')}"
    forge = Forge(
        entries=[file_entry("A.txt", b"1"), file_entry("a.txt", b"2", member=member)],
        contents={"data/A.txt": b"1", member: b"2"},
    )
    assert refusal(forge.build()) == "accepted"


@pytest.mark.parametrize(
    "others",
    [
        [file_entry("a", b"x"), file_entry("a/b", b"x")],
        [plain_entry("a", "symlink", target="/etc"), file_entry("a/b", b"x")],
        [file_entry("a", b"x"), file_entry("a", b"x")],
        [plain_entry("a", "dir"), plain_entry("a", "dir"), file_entry("b", b"x")],
        [file_entry("a", b"x"), file_entry("a", b"x", source="other")],
        [plain_entry("a", "symlink", target="b"), file_entry("a/b", b"x", source="other")],
    ],
)
def test_h45_h73_h99_entries_that_cannot_stand_beside_each_other(others: list[Document]) -> None:
    files = [entry for entry in others if entry["kind"] == "file"]
    seen: dict[str, bytes] = {}
    for entry in files:
        name = f"data/{entry['path']}"
        if name in seen:
            name = f"data/_x/{sha256(entry['path'].encode())}"
            entry["member"] = name
        if name.startswith("data/a/") and "data/a" in seen:
            name = f"data/_x/{sha256(entry['path'].encode())}"
            entry["member"] = name
        seen[name] = b"x"
    assert refusal(Forge(entries=others, contents=seen).build()) == "entry-collides"


def test_h72_entries_out_of_order() -> None:
    assert refusal(Forge.of({"b": b"1", "a": b"2"}).build()) == "entry-order"


def test_h86_an_index_without_files() -> None:
    forge = Forge(entries=[plain_entry("a", "dir")], contents={})
    assert refusal(forge.build()) == "totals-mismatch"


# --- members and frames ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("H70 missing", lambda m: m[:-1]),
        ("H71 extra", lambda m: [*m, tar_member(f"{PREFIX}data/zz".encode(), b"x")]),
        ("H73 twice", lambda m: [m[0], *m]),
    ],
)
def test_members_more_or_less(case: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    data = Forge.good(edit_members=change).build()
    assert refusal(data) == "totals-mismatch", case
    forge = Forge.good(edit_members=change, totals={"raw": 12_800})
    assert refusal(forge.build()) in {"frame-cut", "totals-mismatch"}, case


def test_h72_members_swapped() -> None:
    forge = Forge.of({"a": b"same size", "b": b"other one"}, edit_members=lambda m: m[::-1])
    assert refusal(forge.build()) == "member-header"


def test_contents_swapped_between_members() -> None:
    forge = Forge.of({"a": b"1", "b": b"2"})
    names = [tar_member(f"{PREFIX}data/{n}".encode(), c) for n, c in (("a", b"2"), ("b", b"1"))]
    forge.edit_members = lambda _: names
    assert refusal(forge.build()) == "entry-digest-mismatch"


def test_h69_a_content_that_is_not_the_signed_one() -> None:
    big = bytes(5 * MIB)
    forge = Forge.of({"a": b"alpha", "big": big})

    def change(members: list[bytes]) -> list[bytes]:
        return [members[0], members[1][:-1024] + b"x" + members[1][-1023:]]

    forge.edit_members = change
    assert refusal(forge.build()) == "entry-digest-mismatch"


def _chunked(order: list[int], sizes: list[int] | None = None, whole: str = "") -> Forge:
    content = b"".join(bytes([n]) * MIB for n in range(1, 3)) + b"\x03" * 10
    pieces = [content[at : at + MIB] for at in range(0, len(content), MIB)]
    chunks = [{"sha256": sha256(p), "size": len(p)} for p in pieces]
    if sizes:
        chunks = [{**chunk, "size": size} for chunk, size in zip(chunks, sizes, strict=True)]
    entry = file_entry("big", content, chunks=[chunks[n] for n in order])
    if whole:
        entry["sha256"] = whole
    contents = {f"data/big.{at:06d}.chunk": pieces[n] for at, n in enumerate(order)}
    return Forge(chunk_size=MIB, entries=[entry], contents=contents)


def test_a_chunked_file_is_fine() -> None:
    assert refusal(_chunked([0, 1, 2]).build()) == "accepted"


@pytest.mark.parametrize(
    ("case", "forge", "code"),
    [
        ("H88 missing", _chunked([0, 1]), "entry-chunks"),
        ("H88 twice", _chunked([0, 1, 1, 2]), "entry-chunks"),
        ("H88 swapped", _chunked([1, 0, 2]), "entry-digest-mismatch"),
        ("H88 out of order", _chunked([2, 0, 1]), "entry-chunks"),
        ("H88 joined hash", _chunked([0, 1, 2], whole="0" * 64), "entry-digest-mismatch"),
        ("H88 sizes", _chunked([0, 1, 2], [MIB, MIB - 1, 11]), "entry-chunks"),
    ],
)
def test_h88_chunks(case: str, forge: Forge, code: str) -> None:
    assert refusal(forge.build()) == code, case


def _two_frames(**changes: Any) -> Forge:
    return Forge.of({"a": bytes(3 * MIB), "b": bytes(3 * MIB), "c": b"x"}, **changes)


@pytest.mark.parametrize(
    ("case", "cut"),
    [
        ("one a member", lambda frames: _resplit(frames, [3 * MIB + 512] * 2)),
        ("not greedy", lambda frames: _resplit(frames, [3 * MIB + 512])),
        ("mid-member", lambda frames: _resplit(frames, [MIB, 4 * MIB])),
        ("H86 tiny", lambda frames: _resplit(frames, [512] * 100)),
    ],
)
def test_h87_frames_cut_otherwise(case: str, cut: Callable[[list[bytes]], list[bytes]]) -> None:
    assert refusal(_two_frames().build()) == "accepted"
    data = _two_frames(edit_payload=cut).build()
    assert refusal(data) == ("accepted" if case == "not greedy" else "frame-cut"), case
    assert refusal(Forge.good(edit_index_frames=lambda f: _resplit(f, [512])).build()) in {
        "frame-cut",
    }


def _resplit(frames: list[bytes], sizes: list[int]) -> list[bytes]:
    raw = b"".join(frames)
    pieces, position = [], 0
    for size in sizes:
        pieces.append(raw[position : position + size])
        position += size
    return [piece for piece in [*pieces, raw[position:]] if piece]


@pytest.mark.parametrize(
    ("case", "compress"),
    [
        ("H80 no checksum", lambda raw: zstd_frame(raw, write_checksum=False)),
        ("no content size", lambda raw: zstd_frame(raw, write_content_size=False)),
        ("H78 the other codec", gzip_frame),
        ("H84 a bomb", lambda raw: zstd_frame(bytes(2 * FRAME))),
        ("H84 shorter", lambda raw: zstd_frame(raw[:-512])),
        ("H86 an empty frame behind", lambda raw: zstd_frame(raw) + zstd_frame(b"")),
        ("H79 a skippable frame behind", lambda raw: zstd_frame(raw) + b"\x50\x2a\x4d\x18\0\0\0\0"),
        ("a byte behind", lambda raw: zstd_frame(raw) + b"x"),
    ],
)  # fmt: skip
def test_h80_h84_frames_signed_but_outside_the_profile(
    case: str, compress: Callable[[bytes], bytes]
) -> None:
    assert refusal(Forge.good(compress=compress).build()) == "frame-invalid", case


def test_h97_unused_bits_of_a_signed_frame() -> None:
    def set_bit(frames: list[bytes]) -> list[bytes]:
        return [frame[:4] + bytes([frame[4] | 0x10]) + frame[5:] for frame in frames]

    assert refusal(Forge.good(edit_packed=set_bit).build()) == "frame-invalid"


def test_h84_a_frame_line_above_what_a_frame_may_be() -> None:
    lines: Callable[[list[bytes]], list[bytes]] = lambda _: [  # noqa: E731
        canonical({"raw": 2**40, "sha256": "0" * 64, "size": 10})
    ]
    assert refusal(Forge.good(edit_frame_lines=lines).build()) == "frame-cut"


@CODECS
def test_h22_the_payload_manifest_disagrees(codec: Codec) -> None:
    forge = Forge.good(codec, edit_digests=lambda data: data.replace(b"a", b"b", 1))
    assert refusal(forge.build()) == "tag-file-mismatch"
    forge = Forge.good(codec, edit_digests=lambda data: data + b"\n")
    assert refusal(forge.build()) in {"member-header", "tag-file-mismatch", "frame-cut"}


def test_index_members_more_or_other() -> None:
    name = f"{PREFIX}fetch.txt".encode()
    more = Forge.good(edit_index=lambda m: [*m, tar_member(name, b"")])
    assert refusal(more.build()) == "frame-cut"
    swapped = Forge.good(edit_index=lambda m: [m[1], m[0], m[2]])
    assert refusal(swapped.build()) == "member-header"


# --- the stream -----------------------------------------------------------------------------------


def _padded(change: Callable[[bytes], bytes]) -> bytes:
    data = Forge.good().build()
    edges = frame_edges(data, Codec.ZSTD)
    pad = next(at for at in edges if data[at : at + 4] == b"\x50\x2a\x4d\x18")
    after = edges[edges.index(pad) + 1]
    return data[:pad] + change(data[pad:after]) + data[after:]


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("not zero", lambda pad: pad[:-1] + b"\x01"),
        ("another magic", lambda pad: b"\x51" + pad[1:]),
        ("wrong length", lambda pad: pad[:4] + b"\0\0\0\0"),
        ("none", lambda pad: b""),
        ("twice", lambda pad: pad + pad),
        ("4096 more", lambda pad: pad[:4] + (len(pad) + 4088).to_bytes(4, "little") + bytes(
            len(pad) - 8 + 4096)),
    ],
)  # fmt: skip
def test_h79_padding(case: str, change: Callable[[bytes], bytes]) -> None:
    assert refusal(_padded(change)) in {"pad-invalid", "frame-digest-mismatch"}, case


@CODECS
@pytest.mark.parametrize(
    ("case", "change", "codes"),
    [
        ("H76 a byte", lambda d, e: d + b"x", {"trailing-data"}),
        ("H76 zeros", lambda d, e: d + bytes(512), {"trailing-data"}),
        ("H75 end twice", lambda d, e: d + e, {"trailing-data"}),
        ("H74 a whole bundle behind", lambda d, e: d + d, {"trailing-data"}),
        ("H75 no end", lambda d, e: d[: -len(e)], {"bundle-truncated"}),
        ("H75 half an end", lambda d, e: d[:-5], {"bundle-truncated"}),
        ("H75 another end", lambda d, e: d[: -len(e)] + e[:-1] + b"x", {"end-invalid"}),
        ("H77 one byte less", lambda d, e: d[:-1], {"bundle-truncated"}),
        ("H77 nothing", lambda d, e: b"", {"not-a-bundle"}),
    ],
)
def test_the_end(
    case: str, change: Callable[[bytes, bytes], bytes], codes: set[str], codec: Codec
) -> None:
    data = Forge.good(codec).build()
    assert refusal(change(data, END_FRAME[codec])) in codes, case


@CODECS
def test_h77_cut_at_every_frame_edge(codec: Codec) -> None:
    data = Forge.of({"a": bytes(3 * MIB), "b": bytes(3 * MIB)}, codec=codec).build()
    edges = frame_edges(data, codec)
    assert len(edges) >= 5
    for edge in edges[1:]:
        for cut in (edge - 1, edge, edge + 1):
            assert refusal(data[:cut]) == "bundle-truncated"


@CODECS
def test_frames_left_out_swapped_or_doubled(codec: Codec) -> None:
    data = Forge.of({"a": bytes(3 * MIB), "b": bytes(3 * MIB)}, codec=codec).build()
    edges = [*frame_edges(data, codec), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    for number in range(len(pieces)):
        left_out = pieces[:number] + pieces[number + 1 :]
        doubled = pieces[: number + 1] + pieces[number:]
        assert refusal(b"".join(left_out)) not in {"accepted", "internal-error"}
        assert refusal(b"".join(doubled)) not in {"accepted", "internal-error"}
    swapped = [*pieces[:-3], pieces[-2], pieces[-3], pieces[-1]]
    assert refusal(b"".join(swapped)) == "frame-digest-mismatch"
