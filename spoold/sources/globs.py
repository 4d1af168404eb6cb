"""Glob patterns over paths beneath a source. Pure.

A pattern matches a whole path, from the source's top on: `*` and `?` stay within a segment, `**` as
a segment stands for any number of segments (none, too), `[abc]`, `[a-z]` and `[!abc]` for one
character of a set. Case matters; a leading dot is nothing special; there is no escape but a set
(`[*]`). A pattern that matches a folder stands for all beneath it; one that ends in `/` matches
folders only.
"""

import re
from collections.abc import Iterable


def fault(pattern: str) -> str | None:
    """What is wrong with a pattern, or None."""
    body = pattern.removesuffix("/")
    if not body or "\0" in pattern:
        return "is empty or holds a NUL"
    if any("\ud800" <= character <= "\udfff" for character in pattern):
        return "holds half a character (a lone surrogate)"
    if any(segment in {"", ".", ".."} for segment in body.split("/")):
        return "is matched against paths beneath the source: no leading /, no //, . or .."
    return None


class Globs:
    """Several patterns; paths are text in which bytes that are not UTF-8 are surrogates."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = list(patterns)
        self.all = "**" in self._patterns
        self._any = _compile(self._patterns)
        self._files = _compile(item for item in self._patterns if not item.endswith("/"))

    def match(self, path: str, *, folder: bool) -> bool:
        """Whether a pattern matches this very path."""
        return (self._any if folder else self._files).fullmatch(path) is not None


def _compile(patterns: Iterable[str]) -> re.Pattern[str]:
    alternatives = [_translate(pattern.removesuffix("/")) for pattern in patterns]
    return re.compile("|".join(alternatives) or r"(?!)", re.DOTALL)


def _translate(pattern: str) -> str:
    segments = pattern.split("/")
    pieces: list[str] = []
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment == "**":
            # Matches at least something when it comes last: "a/**" is what is in a, not a itself.
            pieces.append(".+" if last else "(?:.+/)?")
        else:
            pieces.append(_segment(segment) + ("" if last else "/"))
    return f"(?:{''.join(pieces)})"


def _segment(segment: str) -> str:
    pieces = []
    position = 0
    while position < len(segment):
        character = segment[position]
        end = segment.find(
            "]", position + (3 if segment[position + 1 : position + 2] == "!" else 2)
        )
        if character == "*":
            pieces.append("[^/]*")
        elif character == "?":
            pieces.append("[^/]")
        elif character == "[" and end > 0:
            pieces.append(_set(segment[position + 1 : end]))
            position = end
        else:
            pieces.append(re.escape(character))
        position += 1
    return "".join(pieces)


def _set(body: str) -> str:
    negated = body.startswith("!")
    inner = "".join(
        character if character == "-" else re.escape(character)
        for character in body.removeprefix("!")
    )
    return f"(?:(?!/)[{'^' if negated else ''}{inner}])"
