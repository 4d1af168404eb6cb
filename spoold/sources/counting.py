"""Counts what a walk will find, for progress: files are looked at, only folders are opened.

Not guaranteed: the numbers of the walk itself, which comes later. What is unreadable is left out.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias

from spoold.sources.roots import FOLDER_FLAGS

_MAX_DEPTH: Final = 128  # no path in a bundle is deeper

# Of a path beneath the source, whether it is a folder, and whether the folder above is taken:
# whether it is taken itself; None: left out with all beneath it.
Takes: TypeAlias = Callable[[bytes, bool, bool], bool | None]


class _Level(NamedTuple):
    descriptor: int
    under: bytes
    folders: list[tuple[bytes, bool]]  # names that are still to be entered, whether taken


class Counter:
    """Counts the `bytes` of the files in one open folder."""

    def __init__(self, takes: Takes | None) -> None:
        self._takes = takes  # None: everything is taken
        self.bytes = 0

    def count(self, top: int, *, taken: bool) -> None:
        """Add what is in a folder. Raises OSError where that one cannot be listed."""
        folders = self._scan(top, b"", taken=taken)
        stack = [_Level(os.dup(top), b"", folders)]
        try:
            while stack:
                level = stack[-1]
                if not level.folders or len(stack) > _MAX_DEPTH:
                    os.close(stack.pop().descriptor)
                    continue
                name, taken = level.folders.pop()
                under = level.under + name + b"/"
                try:
                    descriptor = os.open(name, FOLDER_FLAGS, dir_fd=level.descriptor)
                except OSError:
                    continue
                stack.append(_Level(descriptor, under, []))
                with suppress(OSError):
                    stack[-1].folders.extend(self._scan(descriptor, under, taken=taken))
        finally:
            for level in stack:
                os.close(level.descriptor)

    def _scan(self, descriptor: int, under: bytes, *, taken: bool) -> list[tuple[bytes, bool]]:
        folders = []
        with os.scandir(descriptor) as found:
            for item in found:
                is_folder = item.is_dir(follow_symlinks=False)
                here: bool | None = taken
                if self._takes is not None:
                    here = self._takes(under + os.fsencode(item.name), is_folder, taken)
                if is_folder and here is not None:
                    folders.append((os.fsencode(item.name), here))
                elif here and item.is_file(follow_symlinks=False):
                    try:
                        self.bytes += item.stat(follow_symlinks=False).st_size
                    except OSError:
                        continue
        return folders
