"""Bundles that are wrong in one thing, signed again where it is signed: each has its refusal.

The cases are in tests/hostile; here they meet the reader. Restoring them and what surrounds a
bundle: tests/integration/test_bundle_hostile_*.py.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from spoold import errors
from spoold.bundle.frames import Codec
from spoold.bundle.reader import Policy
from spoold.errors import SpooldError
from tests.bundles import (
    Forge,
    check,
    file_entry,
    frame_edges,
    refusal,
    sha256,
    signer,
    trusted,
)
from tests.hostile import CASES, HARMLESS, SURROUNDINGS
from tests.hostile.case import MIB, Case, edited

CODECS = pytest.mark.parametrize("codec", list(Codec))

# What a receiver must refuse, by row: the codes of its cases.
ROWS = {
    "H01": "not-a-bundle",
    "H02": "signature-missing",
    "H03": "signature-untrusted manifest-key signature-invalid",
    "H04": "key-role",
    "H05": "key-revoked",
    "H06": "signature-untrusted",
    "H07": "signature-untrusted",
    "H08": "signature-untrusted",
    "H09": "key-unusable",
    "H10": "signature-untrusted",
    "H11": "document-type not-canonical",
    "H12": "threshold-not-met",
    "H13": "not-canonical",
    "H14": "not-canonical",
    "H15": "not-canonical",
    "H16": "not-canonical",
    "H17": "not-canonical",
    "H18": "not-canonical",
    "H19": "head-malformed manifest-invalid",
    "H20": "member-unexpected frame-cut",
    "H21": "member-unexpected head-malformed not-a-bundle",
    "H22": "tag-file-mismatch member-header index-digest-mismatch totals-mismatch",
    "H23": "document-type field-unknown manifest-invalid",
    "H24": "member-unexpected frame-cut member-header",
    "H29": "not-addressed-here",
    "H30": "expired",
    "H33": "bundle-id-invalid manifest-invalid bundle-id-taken",
    "H34": "entry-path member-header totals-mismatch frame-cut entry-member",
    "H35": "entry-path member-header totals-mismatch frame-cut entry-member",
    "H36": "entry-path member-header",
    "H37": "entry-member member-header",
    "H38": "entry-member member-header",
    "H39": "entry-member not-canonical member-header",
    "H40": "entry-member not-canonical entry-invalid",
    "H41": "entry-path entry-invalid member-header",
    "H42": "member-header",
    "H43": "entry-member entry-invalid",
    "H44": "entry-member",
    "H45": "entry-collides",
    "H47": "entry-path entry-member entry-invalid",
    "H48": "symlink-leaves",
    "H49": "totals-mismatch frame-cut member-header entry-member",
    "H50": "member-header head-malformed totals-mismatch frame-cut",
    "H51": "member-header head-malformed totals-mismatch frame-cut",
    "H52": "member-header head-malformed",
    "H53": "member-header head-malformed",
    "H54": "member-header head-malformed totals-mismatch frame-cut",
    "H55": "member-header head-malformed",
    "H56": "member-header head-malformed totals-mismatch frame-cut",
    "H57": "member-header head-malformed totals-mismatch frame-cut",
    "H58": "member-header head-malformed totals-mismatch frame-cut",
    "H59": "member-header head-malformed totals-mismatch",
    "H60": "member-header head-malformed",
    "H61": "member-header head-malformed",
    "H62": "member-header head-malformed entry-invalid",
    "H63": "member-header head-malformed",
    "H64": "member-header head-malformed entry-chunks",
    "H65": "member-header head-malformed",
    "H66": "member-header head-malformed",
    "H67": "member-header head-malformed entry-invalid",
    "H68": "member-header head-malformed",
    "H69": "frame-digest-mismatch entry-digest-mismatch",
    "H70": "totals-mismatch frame-cut",
    "H71": "totals-mismatch frame-cut end-invalid",
    "H72": "member-header entry-digest-mismatch entry-order frame-digest-mismatch",
    "H73": "totals-mismatch frame-cut",
    "H74": "trailing-data totals-mismatch frame-cut",
    "H75": "bundle-truncated end-invalid",
    "H76": "trailing-data",
    "H77": "bundle-truncated not-a-bundle",
    "H78": "codec-mismatch frame-invalid frame-digest-mismatch",
    "H79": "pad-invalid frame-digest-mismatch not-a-bundle end-invalid frame-invalid",
    "H80": "frame-invalid",
    "H81": "frame-invalid frame-digest-mismatch",
    "H82": "frame-invalid",
    "H83": "frame-invalid",
    "H84": "frame-invalid frame-cut manifest-invalid",
    "H85": "not-a-bundle head-malformed",
    "H86": "not-a-bundle frame-digest-mismatch end-invalid frame-invalid frame-cut totals-mismatch",
    "H87": "frame-cut",
    "H88": "entry-chunks entry-digest-mismatch member-header entry-invalid",
    "H89": "quota-exceeded no-space",
    "H90": "not-a-bundle",
    "H91": "bundle-truncated frame-digest-mismatch trailing-data",
    "H93": "disk-error",
    "H94": "rows-invalid rows-too-many sink-refused",
    "H97": "frame-invalid not-a-bundle head-malformed end-invalid",
    "H98": "tag-file-mismatch",
    "H99": "entry-collides",
    "H100": "site-mismatch",
}

CASES_AND_CODECS = [
    pytest.param(case, codec, id=f"{case}-{codec}") for case in CASES for codec in case.codecs
]


@pytest.mark.parametrize(("case", "codec"), CASES_AND_CODECS)
def test_refused(case: Case, codec: Codec) -> None:
    assert refusal(case.make(codec), case.trust, case.policy) == case.code


def test_the_table_of_rows_is_that_of_the_cases() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for case in CASES:
        found[case.row].add(case.code)
    for row, codes in SURROUNDINGS.items():
        found[row] |= codes
    assert {row: set(codes.split()) for row, codes in ROWS.items()} == found


def test_every_row_is_there() -> None:
    every = {*range(1, 25), 29, 30, *range(33, 96), *range(97, 101)}
    assert {int(row[1:]) for row in (*ROWS, *HARMLESS)} == every


def test_the_table_of_errors_names_the_rows_of_each_code() -> None:
    claimed = {
        row: {code.name for code in errors.CODES.values() if row in _rows(code.cases)}
        for row in ROWS
    }
    assert claimed == {row: set(codes.split()) for row, codes in ROWS.items()}
    for code in errors.CODES.values():
        assert _rows(code.cases) <= set(ROWS), code.name


@pytest.mark.parametrize("row", [*SURROUNDINGS, *HARMLESS])
def test_rows_that_no_bundle_can_show_have_tests_of_their_own(row: str) -> None:
    tests = Path(__file__).parents[1].rglob("test_*.py")
    name = re.compile(rf"def test_\w*{row.lower()}_")
    assert any(name.search(page.read_text()) for page in tests)


def _rows(cases: str) -> set[str]:
    """`H13-H15 H20` as a set of rows."""
    rows = set()
    for part in cases.split():
        first, _, last = part.partition("-")
        if first.startswith("H"):
            numbers = range(int(first[1:]), int((last or first)[1:]) + 1)
            rows |= {f"H{number:02d}" for number in numbers}
    return rows


# --- what the cases are compared with: bundles that are good --------------------------------------


@CODECS
def test_the_forge_makes_good_bundles(codec: Codec) -> None:
    assert refusal(Forge.good(codec).build()) == "accepted"
    big = Forge.of({"big": bytes(range(256)) * 20_000, "small": b"x"}, codec=codec)
    assert refusal(big.build()) == "accepted"
    wide = Forge.of({"a": bytes(3 * MIB), "b": bytes(3 * MIB), "c": b"x"}, codec=codec)
    assert refusal(wide.build()) == "accepted"


def test_names_that_fold_together_are_fine_where_one_stands_aside() -> None:
    member = f"data/_x/{sha256(b'a.txt')}"
    forge = Forge(
        entries=[file_entry("A.txt", b"1"), file_entry("a.txt", b"2", member=member)],
        contents={"data/A.txt": b"1", member: b"2"},
    )
    assert refusal(forge.build()) == "accepted"


def test_h46_names_reserved_elsewhere_are_names() -> None:
    names = ["CON", "LPT1.txt", "NUL", "a:b", "aux", "what?"]
    assert refusal(Forge.of(dict.fromkeys(names, b"x")).build()) == "accepted"


def test_h12_two_keys_meet_a_threshold_of_two() -> None:
    other = signer("site-b")

    def add(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        further = f"signatures/{other.key_id}.sig", other.sign(members[0][1])
        return [*members[:2], further, *members[2:]]

    data = Forge.good(edit_head=add).build()
    assert refusal(data, trusted(signer(), other), Policy(threshold=2)) == "accepted"
    assert refusal(data, trusted(signer()), Policy(threshold=1)) == "accepted"


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.policy != Policy() and case.what not in ("depth", "expansion")],
    ids=str,
)
def test_h89_policy_is_asked_before_more_than_the_head_is_read(case: Case) -> None:
    for codec in case.codecs:
        data = case.make(codec)
        head = data[: frame_edges(data, codec)[1]]
        assert refusal(head, case.trust, case.policy) == case.code


def test_h29_h30_a_bundle_for_this_site_in_time_is_good() -> None:
    to_b = Forge.good(edit_manifest=edited(to=["site-a", "site-b"])).build()
    assert refusal(to_b, policy=Policy(site="site-b")) == "accepted"
    assert refusal(Forge.good().build(), policy=Policy(site="site-c")) == "accepted"


def _long(**fields: object) -> Forge:
    return Forge.good(edit_manifest=edited(**fields))


def _long_entry(**fields: object) -> Forge:
    forge = Forge.good()
    forge.entries[0].update(fields)
    return forge


@pytest.mark.parametrize(
    "forge",
    [
        _long(type="x" * 1_000_000),
        _long(**{"from": "x" * 1_000_000}),
        _long(to=["x" * 60] * 10_000),
        _long_entry(member="data/" + "x" * 1_000_000),
    ],
)
def test_a_refusal_is_short_whatever_the_sender_wrote(forge: Forge) -> None:
    with pytest.raises(SpooldError) as caught:
        check(forge.build(), None, Policy(site="site-b"))
    assert len(caught.value.message) < 2000
