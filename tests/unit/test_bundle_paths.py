"""Member names and the order of entries: the rules of the format page, one by one."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoold import errors
from spoold.bundle.entry import Kind
from spoold.bundle.order import PathOrder, check_sorted
from spoold.bundle.paths import (
    MemberNames,
    fold,
    path_fault,
    ustar_split,
    valid_bundle_id,
)
from spoold.bundle.unicode14 import unassigned
from spoold.errors import SpooldError

ORDINARY = ["a", "a/b.txt", "ä/ü ö.txt", "a b", ".hidden", "日本/語", "😀", "a.chunk.txt", "x_x/y"]
AWKWARD = [
    b"100%",
    b"back\\slash",
    b"new\nline",
    b"return\r",
    b"tab\t",
    b"esc\x1b[0m",
    b"\x7f",
    b"ends in space ",
    "ends in no-break space\u00a0".encode(),
    "line\u2028separator".encode(),
    "next\u0085line".encode(),
    b"-dash",
    b"a/-dash",
    b"_x/y",
    b"_X/y",
    b"_x",
    b"a.chunk",
    b"a.CHUNK/b",
    "a.chun\u212a".encode(),  # KELVIN SIGN folds to k
    b"\xff\xfe",
    b"a/\xed\xa0\x80",  # a surrogate in UTF-8's clothes
    "\u0378".encode(),  # not assigned
    "\U0001fae8".encode(),  # assigned in Unicode 15
]


@pytest.mark.parametrize("path", ORDINARY)
def test_an_ordinary_path_is_its_own_member(path: str) -> None:
    assert MemberNames("id").propose(path.encode(), chunked=False) == f"data/{path}"


@pytest.mark.parametrize("path", AWKWARD)
def test_an_awkward_path_travels_under_its_hash(path: bytes) -> None:
    member = MemberNames("id").propose(path, chunked=False)
    assert member.startswith("data/_x/")
    assert len(member) == len("data/_x/") + 64


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "A"),
        ("caf\u00e9", "cafe\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("dir/a", "DIR/b"),
        ("a", "A/b"),
        ("a/b", "A"),
    ],
)
def test_h43_h44_names_that_fold_together_do_not_meet(first: str, second: str) -> None:
    names = MemberNames("id")
    assert names.propose(first.encode(), chunked=False) == f"data/{first}"
    names.commit()
    assert names.propose(second.encode(), chunked=False).startswith("data/_x/")


def test_a_proposed_name_that_was_not_taken_is_free_again() -> None:
    names = MemberNames("id")
    names.propose(b"dir/a", chunked=False)
    assert names.propose(b"DIR/a", chunked=False) == "data/DIR/a"


def test_a_name_in_a_known_folder_needs_that_folders_spelling() -> None:
    names = MemberNames("id")
    for path in (b"x/y/1", b"x/y/2", b"z"):
        assert names.propose(path, chunked=False) == "data/" + path.decode()
        names.commit()
    assert names.propose(b"x/Y/3", chunked=False).startswith("data/_x/")
    assert names.propose(b"x/y/3", chunked=False) == "data/x/y/3"


def test_a_chunk_suffix_counts_for_what_fits() -> None:
    path = b"n" * (100 - len("id/data/"))
    assert MemberNames("id").propose(path, chunked=False) == "data/" + path.decode()
    long = b"d" * 200 + b"/" + b"n" * 100
    assert MemberNames("id").propose(long, chunked=False).startswith("data/_x/")
    edge = b"d" * 90 + b"/" + b"n" * 100
    assert MemberNames("id").propose(edge, chunked=False) == "data/" + edge.decode()
    assert MemberNames("id").propose(edge, chunked=True).startswith("data/_x/")


def test_a_long_name_is_split_at_the_leftmost_slash_that_fits() -> None:
    assert ustar_split(b"a" * 100) == (b"", b"a" * 100)
    assert ustar_split(b"p/q/" + b"n" * 98) == (b"p", b"q/" + b"n" * 98)
    assert ustar_split(b"p" * 155 + b"/" + b"n" * 100) == (b"p" * 155, b"n" * 100)
    assert ustar_split(b"p" * 156 + b"/" + b"n" * 100) is None
    assert ustar_split(b"p/" + b"n" * 101) is None


@pytest.mark.parametrize(
    "path",
    [
        *(b"", b"/a", b"a/", b"a//b", b".", b"a/../b", b"..", b"./a", b"a\0b", b"a" * 256),
        b"/".join([b"a"] * 129),
        b"/".join([b"a" * 200] * 21),
    ],
)
def test_h34_h36_h41_h47_a_path_that_no_entry_may_have(path: bytes) -> None:
    assert path_fault(path)


def test_the_longest_paths_are_allowed() -> None:
    assert path_fault(b"/".join([b"a" * 255] * 16)) is None
    assert path_fault(b"/".join([b"a"] * 128)) is None


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *(("a", True), ("demo-5f21", True), ("a" * 100, True), ("a" * 101, False), ("", False)),
        *(("-a", False), ("A", False), ("a_b", False), ("x-tagmanifest-1", False)),
    ],
)
def test_h33_bundle_ids(text: str, valid: bool) -> None:
    assert valid_bundle_id(text) is valid


def test_folding_is_the_same_for_a_whole_path_and_its_segments() -> None:
    path = "\u00c4\u0345/\u0391\u0399\u0345/\u00df"
    assert fold(path) == "/".join(map(fold, path.split("/")))


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="needs a Unicode 14 Python")
def test_the_table_is_that_of_unicode_14() -> None:
    for code in range(0x110000):
        character = chr(code)
        assert (unassigned().search(character) is not None) == (
            unicodedata.category(character) == "Cn"
        ), hex(code)


def _order(*entries: tuple[bytes, Kind, str]) -> str:
    order = PathOrder()
    try:
        for path, kind, source in entries:
            order.add(path, kind, source)
    except SpooldError as error:
        return error.code.name
    return "good"


@pytest.mark.parametrize(
    ("entries", "verdict"),
    [
        ([(b"a", Kind.FILE, "s"), (b"b", Kind.FILE, "s")], "good"),
        ([(b"a-b", Kind.FILE, "s"), (b"a", Kind.DIR, "s"), (b"a/c", Kind.FILE, "s")], "good"),
        ([(b"b", Kind.FILE, "s"), (b"a", Kind.FILE, "s")], "entry-order"),
        ([(b"a", Kind.FILE, "s"), (b"a", Kind.FILE, "s")], "entry-collides"),
        ([(b"a", Kind.FILE, "s"), (b"a", Kind.DIR, "s")], "entry-collides"),
        (
            [(b"a", Kind.FILE, "s"), (b"a-b", Kind.FILE, "s"), (b"a/b", Kind.FILE, "s")],
            "entry-collides",
        ),
        ([(b"a", Kind.SYMLINK, "s"), (b"a/b", Kind.FILE, "s")], "entry-collides"),
        ([(b"b", Kind.FILE, "s"), (b"a", Kind.FILE, "t")], "good"),
        ([(b"a", Kind.FILE, "s"), (b"b", Kind.FILE, "t"), (b"c", Kind.FILE, "s")], "entry-order"),
    ],
)
def test_h45_h72_h73_h99_order_and_ancestors(
    entries: list[tuple[bytes, Kind, str]], verdict: str
) -> None:
    assert _order(*entries) == verdict


@pytest.mark.parametrize("keys", [[b"a", b"a"], [b"a", b"a-", b"a/b"], [b"a", b"a/"]])
def test_collisions_across_sources_are_found_in_sorted_keys(keys: list[bytes]) -> None:
    with pytest.raises(SpooldError) as caught:
        check_sorted(iter(sorted(key.hex().encode() for key in keys)))
    assert caught.value.code is errors.ENTRY_COLLIDES


@given(
    st.sets(
        st.tuples(
            st.lists(st.sampled_from([b"a", b"aa", b"a-", b"a0", b"b"]), min_size=1, max_size=3),
            st.booleans(),
        ).map(lambda pair: b"/".join(pair[0]) + b"/" * pair[1])
    )
)
def test_h45_what_stands_in_a_files_place_is_found_whatever_stands_between(
    keys: set[bytes],
) -> None:
    wrong = any(
        other.startswith(key + b"/") for key in keys if not key.endswith(b"/") for other in keys
    )
    refused = False
    try:
        check_sorted(iter(sorted(key.hex().encode() for key in keys)))
    except SpooldError as error:
        refused = error.code is errors.ENTRY_COLLIDES
    assert refused == wrong


def test_paths_that_begin_alike_cost_no_more_than_others() -> None:
    def seconds(chain: bool) -> float:
        order, above = PathOrder(), b""
        for _ in range(15):
            for count in range(1, 250 if chain else 2):
                order.add(above + b"y" * count, Kind.FILE, "test")
            above += b"y" * 250 + b"/"
        start = time.process_time()
        for number in range(2_000):
            order.add(above + b"z%07d" % number, Kind.FILE, "test")
        return time.process_time() - start

    usual = min(seconds(chain=False) for _ in range(3))
    assert seconds(chain=True) < 20 * usual + 0.1
