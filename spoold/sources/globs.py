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
        self.empty = not self._patterns
        self._any = _compile(self._patterns)
        self._files = _compile(item for item in self._patterns if not item.endswith("/"))

    def match(self, path: str, *, folder: bool) -> bool:
        """Whether a pattern matches this very path."""
        return (self._any if folder else self._files).fullmatch(path) is not None

    def cover(self, path: str, *, folder: bool) -> bool:
        """Whether a pattern matches this path, or a folder that it stands in."""
        if self.match(path, folder=folder):
            return True
        cuts = (at for at, character in enumerate(path) if character == "/")
        return any(self.match(path[:cut], folder=True) for cut in cuts)


def _compile(patterns: Iterable[str]) -> re.Pattern[str]:
    alternatives = [_translate(pattern.removesuffix("/")) for pattern in patterns]
    return re.compile("|".join(alternatives) or r"(?!)", re.DOTALL)


def _translate(pattern: str) -> str:
    """A regular expression that takes time in proportion to pattern and path, not more.

    What stands between two `**`, and between two `*` of a segment, is of fixed length: the first
    place where it fits is as good as any later one, so it is never looked for again (`(?>…)`).
    """
    first, *others = _split(pattern.split("/"), "**")
    if not others:
        return f"(?:{_segments(first)})"
    *middle, last = others
    pieces = [_segments(first) + "/" if first else ""]
    pieces += [f"(?>(?:[^/]+/)*?{_segments(block)}/)" for block in middle if block]
    # Matches at least something when it comes last: "a/**" is what is in a, not a itself.
    pieces.append(f"(?:.+/)?{_segments(last)}" if last else ".+")
    return f"(?:{''.join(pieces)})"


def _segments(segments: list[str]) -> str:
    return "/".join(map(_segment, segments))


def _segment(segment: str) -> str:
    first, *others = _split(_characters(segment), "*")
    if not others:
        return "".join(first)
    *middle, last = map("".join, others)
    pieces = [f"(?>[^/]*?{run})" for run in middle if run]
    return "".join((*first, *pieces, "[^/]*", last))


def _characters(segment: str) -> list[str]:
    """What matches one character each, and `*`."""
    found = []
    position = 0
    while position < len(segment):
        character = segment[position]
        end = segment.find(
            "]", position + (3 if segment[position + 1 : position + 2] == "!" else 2)
        )
        if character == "*":
            found.append("*")
        elif character == "?":
            found.append("[^/]")
        elif character == "[" and end > 0:
            found.append(_set(segment[position + 1 : end]))
            position = end
        else:
            found.append(re.escape(character))
        position += 1
    return found


def _split(items: list[str], at: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for item in items:
        if item == at:
            parts.append([])
        else:
            parts[-1].append(item)
    return parts


def _set(body: str) -> str:
    """A set; a range that runs backwards holds nothing."""
    characters = body.removeprefix("!")
    inner = ""
    position = 0
    while position < len(characters):
        first, last = characters[position], characters[position + 2 : position + 3]
        if characters[position + 1 : position + 2] == "-" and last:
            if first <= last:
                inner += f"{re.escape(first)}-{re.escape(last)}"
            position += 3
        else:
            inner += re.escape(first)
            position += 1
    if body.startswith("!"):
        return f"[^/{inner}]"
    return f"(?:(?!/)[{inner}])" if inner else "(?!)"
