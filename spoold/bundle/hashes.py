"""A set of 64-bit hashes that takes 16 to 32 bytes for each: a set of integers takes 80. Pure.

Open addressing, linear probing, doubled when it is half full; nothing is ever removed.
"""

from array import array
from typing import Final

_FIRST_SLOTS: Final = 1024
_EMPTY: Final = 0


class Hashes:
    """Remembers what `hash` returned. Zero is taken for one: they cannot be told apart."""

    def __init__(self) -> None:
        self._slots = array("q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __contains__(self, key: int) -> bool:
        key = key or 1
        return self._slots[self._place(key)] == key

    def __len__(self) -> int:
        return self._count

    def add(self, key: int) -> None:
        """Remember a hash."""
        if 2 * self._count >= len(self._slots):
            self._grow()
        key = key or 1
        at = self._place(key)
        self._count += self._slots[at] == _EMPTY
        self._slots[at] = key

    def _place(self, key: int) -> int:
        """Where the key stands, or is to stand."""
        slots = self._slots
        mask = len(slots) - 1
        at = key & mask
        while slots[at] not in (key, _EMPTY):
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("q", bytes(16 * len(old)))
        for key in old:
            if key != _EMPTY:
                self._slots[self._place(key)] = key
