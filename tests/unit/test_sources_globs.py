"""Glob patterns: what they match, and that no pattern takes for ever or is no pattern at all."""

import pytest

from spoold.sources.globs import Globs


@pytest.mark.parametrize(
    ("pattern", "matched", "other"),
    [
        ("*a*b*", "xaxbx", "xbxax"),
        ("a*b/c", "axxb/c", "axx/b/c"),
        ("**/a/**/b", "x/a/a/y/b", "x/b/a"),
        ("**/a?/*.c/**", "aa/ab/d.c/e", "aa/ab/d.c"),
        ("**/**/a", "a", "b"),
        ("[a-c][!x]", "bz", "bx"),
        ("[]-]", "-", "a"),
        ("[a&&b||c--d~]", "&", "e"),
    ],
)
def test_what_a_pattern_matches(pattern: str, matched: str, other: str) -> None:
    globs = Globs([pattern])
    assert globs.match(matched, folder=False)
    assert not globs.match(other, folder=False)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 20 + "*b", "a" * 255),
        ("*" * 200 + "b", "a" * 255),
        ("**/x/" * 8 + "**/y", "x/" * 100 + "z"),
        ("**/*a*a*a/" * 8 + "**/*a*b", ("a" * 30 + "/") * 127 + "a"),
    ],
)
def test_no_pattern_takes_for_ever(pattern: str, path: str) -> None:
    assert not Globs([pattern]).match(path, folder=False)


def test_a_range_that_runs_backwards_holds_nothing() -> None:
    assert not Globs(["[z-a]"]).match("m", folder=False)
    assert Globs(["[z-am]"]).match("m", folder=False)
    assert Globs(["[!z-a]"]).match("m", folder=False)
