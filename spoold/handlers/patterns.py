"""Globs on the names of drops: what one matches, and whether two could match the same name. Pure.

`*` stands for any characters, `?` for one, `[a-z]` for one of some; `[[]` for a bracket itself. As
in a shell a dot at the beginning is only matched by a dot.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from spoold.status import is_reserved

_MAX_LENGTH = 255

# What cp, rsync, sftp servers, browsers and editors call a file that is not whole yet.
_UNFINISHED: Final = (
    b".part",
    b".partial",
    b".filepart",
    b".tmp",
    b".swp",
    b".crdownload",
    b"~",
)


def is_unfinished(name: bytes) -> bool:
    """Whether a name is that of an upload that goes on."""
    return name.startswith(b".") or name.endswith(_UNFINISHED)


class _Any:
    """The tokens that stand for characters of any kind."""


_ONE: Final = _Any()
_MANY: Final = _Any()
_Token = frozenset[str] | _Any


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob. `matches` says yes to names that are no drops, too: they are excluded before."""

    text: str
    tokens: tuple[_Token, ...]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Raises ValueError with what is wrong."""
        if not text or "/" in text or "\0" in text:
            raise ValueError("a pattern is a file's name with wildcards, without a folder")
        if len(os.fsencode(text)) > _MAX_LENGTH:
            raise ValueError(f"it is longer than {_MAX_LENGTH} bytes, as no name is")
        return cls(text, tuple(_tokens(text)))

    def matches(self, name: bytes) -> bool:
        """Whether a name is one of this pattern's."""
        text, tokens = os.fsdecode(name), self.tokens
        if text.startswith(".") and tokens[0] != frozenset("."):
            return False
        # Not a regular expression: a hostile name could keep one busy. When the text does not go
        # on as the pattern does, the last `*` takes one character more; no earlier one need.
        position = index = 0
        star, taken = -1, 0
        while position < len(text):
            token = tokens[index] if index < len(tokens) else None
            if token is _MANY:
                star, taken = index, position
                index += 1
            elif token is _ONE or (isinstance(token, frozenset) and text[position] in token):
                position, index = position + 1, index + 1
            elif star >= 0:
                taken += 1
                position, index = taken, star + 1
            else:
                return False
        return all(token is _MANY for token in tokens[index:])

    def meets(self, other: "Pattern") -> bool:
        """Whether there is a name that both match."""
        ours, theirs = self.tokens, other.tokens
        # Pairs of positions that some name leads to.
        reached, todo = {(0, 0)}, [(0, 0)]
        while todo:
            i, j = todo.pop()
            if i == len(ours) and j == len(theirs):
                return True
            for step in _steps(ours, theirs, i, j):
                if step not in reached:
                    reached.add(step)
                    todo.append(step)
        return False

    def examples(self) -> Iterator[bytes]:
        """Names that it matches: wildcards stand for as little as they can, and for a bit more."""
        for many in ("", "a"):
            yield os.fsencode(
                "".join(
                    many if token is _MANY else "a" if isinstance(token, _Any) else min(token)
                    for token in self.tokens
                )
            )

    def stem(self) -> str:
        """What a handler of this pattern is called: `intent` of `intent-*.json`."""
        words = re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)*", self.text.lower())
        return words[0][:63] if words else ""


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "*":
            yield _MANY
        elif character == "?":
            yield _ONE
        elif character == "[":
            end = text.find("]", position + 1)
            if end < 0:
                raise ValueError("a [ without its ]")
            yield _class(text[position:end])
            position = end + 1
        else:
            yield frozenset(character)


def _class(inside: str) -> frozenset[str]:
    if inside[0] in "!^":
        raise ValueError("[!…] is not known: write which characters may stand there")
    characters: set[str] = set()
    for single, first, last in re.findall(r"(.)(?!-.)|(.)-(.)", inside, re.DOTALL):
        if single:
            characters.add(single)
        elif first > last:
            raise ValueError(f"the range {first}-{last} is empty")
        else:
            characters |= {chr(code) for code in range(ord(first), ord(last) + 1)}
    return frozenset(characters - {"/", "\0"})


def _steps(
    ours: tuple[_Token, ...], theirs: tuple[_Token, ...], i: int, j: int
) -> Iterator[tuple[int, int]]:
    one = ours[i] if i < len(ours) else None
    other = theirs[j] if j < len(theirs) else None
    if one is _MANY:
        yield i + 1, j
    if other is _MANY:
        yield i, j + 1
    if one is None or other is None:
        return
    if isinstance(one, frozenset) and isinstance(other, frozenset) and not one & other:
        return
    yield i + (one is not _MANY), j + (other is not _MANY)


# What other rules take, and a pattern can keep clear of.
_TAKEN: Final = {
    "request-*.json": "requests",
    "*.tar.zst": "bundles",
    "*.tar.gz": "bundles",
    "*.log": "the logs that spoold writes",
    **{f"*{suffix.decode()}": "unfinished uploads" for suffix in _UNFINISHED},
}
_TAKEN_PATTERNS: Final = tuple((Pattern.parse(glob), whose) for glob, whose in _TAKEN.items())


def problem(pattern: Pattern) -> str | None:
    """Why no handler may have this pattern; None where it may.

    Names that end in `.status.json`, or in `~` and 12 hex digits before the suffix, are no drops
    whatever a pattern says; one that could match nothing else is refused too.
    """
    if pattern.tokens[0] == frozenset("."):
        return "names that begin with a dot are unfinished uploads"
    for taken, whose in _TAKEN_PATTERNS:
        if pattern.meets(taken):
            return f"it could match {taken.text}, which are {whose}: write its end out"
    if any(map(is_reserved, pattern.examples())):
        return "it matches names that only answers have"
    return None


def overlapping(patterns: Iterable[Pattern]) -> Iterator[tuple[int, int]]:
    """The pairs of patterns that a name could match both of, by number."""
    listed = list(patterns)
    for second, pattern in enumerate(listed):
        for first in range(second):
            if listed[first].meets(pattern):
                yield first, second
