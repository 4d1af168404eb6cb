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
        slots = self._slots
        key = key or 1
        mask = len(slots) - 1
        at = key & mask
        while (found := slots[at]) != _EMPTY:
            if found == key:
                return True
            at = (at + 1) & mask
        return False

    def __len__(self) -> int:
        return self._count

    def add(self, key: int) -> None:
        """Remember a hash."""
        if 2 * self._count >= len(self._slots):
            self._grow()
        key = key or 1
        if self._insert(key):
            self._count += 1

    def _insert(self, key: int) -> bool:
        slots = self._slots
        mask = len(slots) - 1
        at = key & mask
        while (found := slots[at]) != _EMPTY:
            if found == key:
                return False
            at = (at + 1) & mask
        slots[at] = key
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("q", bytes(16 * len(old)))
        for key in old:
            if key != _EMPTY:
                self._insert(key)
