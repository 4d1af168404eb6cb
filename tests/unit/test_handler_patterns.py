"""Globs of handlers: what they match, what they may not be, which overlap."""

import fnmatch
import time

import pytest

from spoold.handlers import Handlers
from spoold.handlers.patterns import Pattern, overlapping, problem
from spoold.intake.names import NameKind, classify
from tests.tools import handler


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("intent-*.json", b"intent-1.json", True),
        ("intent-*.json", b"intent-.json", True),
        ("intent-*.json", b"intent-a\n b.json", True),
        ("intent-*.json", b"intent-\xff.json", True),
        ("intent-*.json", b"intent-1.jsonx", False),
        ("intent-*.json", b"xintent-1.json", False),
        ("*.csv", b"a.b.csv", True),
        ("*.csv", b".csv", False),
        ("?.csv", "é.csv".encode(), True),
        ("[ab][0-9-].x", b"a7.x", True),
        ("[ab][0-9-].x", b"b-.x", True),
        ("[ab][0-9-].x", b"c7.x", False),
        ("[[].x", b"[.x", True),
        ("[]].x", b"].x", True),
        ("*a*b*.x", b"xaxbx.x", True),
        ("*a*b*.x", b"xbxax.x", False),
    ],
)
def test_a_pattern_matches_names_as_a_shell_does(pattern: str, name: bytes, matches: bool) -> None:
    assert Pattern.parse(pattern).matches(name) is matches
    text = name.decode("utf-8", "surrogateescape")
    if not text.startswith("."):
        assert fnmatch.fnmatchcase(text, pattern) is matches


def test_no_name_keeps_a_pattern_busy() -> None:
    pattern = Pattern.parse("-".join("*" * 20) + ".json")
    started = time.monotonic()
    assert not pattern.matches(b"-" * 255)
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("text", ["", "a/b", "a[b", "[!a].x", "[b-a].x", "x" * 256, "a\0"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Pattern.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "*.json",
        "req*.json",
        "request-a.json",
        "*.tar.zst",
        "*.gz",
        "x.*",
        "intent-*",
        "*.log",
        "*.lo?",
        "*.status.json",
        "intent-1.status.json",
        "*.part",
        "*~",
        ".intent-*.json",
        "intent-*~0123456789ab.json",
        "intent-~????????????.json",
    ],
)
def test_a_pattern_that_takes_what_is_not_for_it_is_refused(text: str) -> None:
    assert problem(Pattern.parse(text))


@pytest.mark.parametrize("text", ["intent-*.json", "*.csv", "intent-????.xml", "[a-q]*.json", "a"])
def test_other_patterns_are_taken(text: str) -> None:
    assert problem(Pattern.parse(text)) is None


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("intent-*.json", "intent-a*.json", True),
        ("intent-*.json", "*-1.json", True),
        ("a*.x", "*b.x", True),
        ("a*.x", "b*.x", False),
        ("a?.x", "a??.x", False),
        ("a[0-4].x", "a[5-9].x", False),
        ("a[0-5].x", "a[5-9].x", True),
        ("*.xml", "*.json", False),
    ],
)
def test_patterns_that_could_match_the_same_name_are_found(
    one: str, other: str, overlap: bool
) -> None:
    for pair in ([one, other], [other, one]):
        assert (list(overlapping(map(Pattern.parse, pair))) == [(0, 1)]) is overlap


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"intent-1.json", NameKind.HANDLED),
        (b"intent- --help\n.json", NameKind.HANDLED),
        (b"intent-1.json.status.json", NameKind.RESERVED),
        (b"intent-1.status.json", NameKind.RESERVED),
        (b"intent-1~0123456789ab.json", NameKind.RESERVED),
        (b"intent-1.json.part", NameKind.UNFINISHED),
        (b"request-1.json", NameKind.REQUEST),
        (b"intent-1.tar.zst", NameKind.BUNDLE),
        (b"other.json", NameKind.FOREIGN),
    ],
)
def test_names_are_drops_of_a_handler_where_nothing_else_claims_them_e35(
    name: bytes, kind: NameKind
) -> None:
    assert classify(name, Handlers(handler("true"))) is kind


def test_without_the_handler_its_drops_are_strays() -> None:
    assert classify(b"intent-1.json") is NameKind.FOREIGN
