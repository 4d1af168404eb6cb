"""Where a key stands in a TOML text: `tomllib` forgets it, and a mistake wants its line.

Pure. A scanner for headers and keys, no parser: it runs only over text that `tomllib` accepted, so
what looks like a key outside a multi-line string is one.
"""

import re
from collections.abc import Iterator, Mapping

Key = tuple[str, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\s*({_DOTTED})\s*\]")
_ARRAY_HEADER = re.compile(rf"\s*\[\[\s*({_DOTTED})\s*\]\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")
_FENCE = re.compile(r'"""|' + "'''")


def key_lines(text: str) -> dict[Key, int]:
    """The line, counted from 1, of each table and key. Array tables have their index as a part."""
    lines: dict[Key, int] = {}
    table: Key = ()
    counts: dict[Key, int] = {}
    for number, line in _outside_strings(text):
        if match := _ARRAY_HEADER.match(line):
            name = _inside(counts, _split(match[1]))
            table = (*name, str(counts.get(name, 0)))
            counts[name] = counts.get(name, 0) + 1
            lines.setdefault(table, number)
        elif match := _HEADER.match(line):
            table = _inside(counts, _split(match[1]))
            lines.setdefault(table, number)
        elif match := _ASSIGNMENT.match(line):
            key = (*table, *_split(match[1]))
            for end in range(len(table) + 1, len(key) + 1):
                lines.setdefault(key[:end], number)
    return lines


def line_of(lines: Mapping[Key, int], key: Key) -> int | None:
    """The line of a key, else of the nearest table around it."""
    for end in range(len(key), 0, -1):
        if (line := lines.get(key[:end])) is not None:
            return line
    return None


def _inside(counts: Mapping[Key, int], name: Key) -> Key:
    """A table's place: where its name goes through an array of tables, in the last of them."""
    place: Key = ()
    for number, part in enumerate(name):
        place = (*place, part)
        if number < len(name) - 1 and place in counts:
            place = (*place, str(counts[place] - 1))
    return place


def _split(dotted: str) -> Key:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _outside_strings(text: str) -> Iterator[tuple[int, str]]:
    fence: str | None = None  # the quotes that end the multi-line string we are in
    for number, line in enumerate(text.splitlines(), 1):
        if fence is None:
            yield number, line
        for match in _FENCE.finditer(line):
            if fence is None:
                fence = match[0]
            elif fence == match[0]:
                fence = None
