"""The order of entries, and that their paths can stand beside each other in one tree.

The rule is that of the format page, section 3. Memory is bounded: within a source by the depth of
paths, across sources by sorting on disk.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from spoold import canonical, errors
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.lines import parse_entry
from spoold.bundle.scratch import LineSorter
from spoold.errors import SpooldError


class PathOrder:
    """Checks the order of entries and, within each source, that paths can stand beside each other.

    In sorted order everything that begins with a path follows it directly, so the entries that are
    a prefix of the present one are a short stack, and uniqueness costs no memory. Across sources
    `check_sources` does the same, over keys that are sorted first.
    """

    def __init__(self) -> None:
        self._source: str | None = None
        self._seen: set[int] = set()
        self._last = b""
        self._stack: list[bytes] = []

    @property
    def sources(self) -> int:
        """How many sources there were so far."""
        return len(self._seen)

    def add(self, path: bytes, kind: Kind, source: str) -> None:
        """Take the next entry. Raises entry-order or entry-collides."""
        key = path + b"/" if kind is Kind.DIR else path
        if source != self._source:
            if hash(source) in self._seen:
                raise SpooldError(
                    errors.ENTRY_ORDER,
                    f"entries of {canonical.text(source[:200])} stand in two places",
                    at=canonical.text(path),
                )
            self._seen.add(hash(source))
            self._source = source
            self._stack.clear()
        elif key <= self._last:
            code = errors.ENTRY_COLLIDES if key == self._last else errors.ENTRY_ORDER
            raise SpooldError(
                code,
                f"{canonical.text(path)} follows {canonical.text(self._last)}",
                at=canonical.text(path),
            )
        self._last = key
        _stand_beside(self._stack, key)


def sort_key(entry: Entry) -> bytes:
    """A line, free of line feeds, whose order is that of the entries' paths across sources."""
    key = entry.path + b"/" if entry.kind is Kind.DIR else entry.path
    return key.hex().encode()


def check_sources(lines: Iterable[bytes], scratch: Path | None) -> None:
    """Check the lines of entries.jsonl across sources. Raises entry-collides."""
    with closing(LineSorter(scratch)) as sorter:
        for line in lines:
            sorter.add(sort_key(parse_entry(line[:-1])))
        check_sorted(iter(sorter))


def check_sorted(keys: Iterator[bytes]) -> None:
    """Check the `sort_key`s of all entries, sorted. Raises entry-collides."""
    stack: list[bytes] = []
    last = b""
    for line in keys:
        key = bytes.fromhex(line.decode())
        if key == last:
            shown = canonical.text(key.rstrip(b"/"))
            raise SpooldError(errors.ENTRY_COLLIDES, f"{shown} stands there twice", at=shown)
        last = key
        _stand_beside(stack, key)


def _stand_beside(stack: list[bytes], key: bytes) -> None:
    while stack and not key.startswith(stack[-1]):
        stack.pop()
    # What is below the top is a prefix of it too, and was held against it when it came.
    if stack and key.startswith(b"/", len(stack[-1])):
        shown = canonical.text(key.rstrip(b"/"))
        raise SpooldError(
            errors.ENTRY_COLLIDES,
            f"{canonical.text(stack[-1])} is not a folder, but {shown} needs one of that name",
            at=shown,
        )
    # A folder may be followed by what is in it: its key ends in "/".
    if not key.endswith(b"/"):
        stack.append(key)
