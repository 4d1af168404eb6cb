"""What is in the inbox: one listing, sorted into drops, links, strays and unfinished uploads.

A name and the type that the directory itself records decide; no file is opened or followed here,
so a FIFO, a socket or a device cannot hold anything up.

A listing is read while it is worked through: however many files there are, the names of one batch
are in memory. What is moved out of a folder while it is read disturbs nothing: readdir(3p).
"""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from spoold.handlers import NO_HANDLERS, Handlers
from spoold.intake.names import DROPS, NameKind, classify

_MAX_STRAY_NAMES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """A drop in the inbox: its raw name, what it claims to be, whether it is a symbolic link."""

    name: bytes
    kind: NameKind
    link: bool = False


class InboxLostError(Exception):
    """The inbox could not be read to its end."""


class Listing:
    """One listing. Strays are left where they are: foreign or reserved names, and no files."""

    def __init__(self, path: bytes, handlers: Handlers = NO_HANDLERS) -> None:
        """Begin to list. Raises OSError where the inbox is missing or cannot be read."""
        self._path = path
        self._folder = _identity(path)
        self._entries = os.scandir(path)
        self._handlers = handlers
        self.drops = 0
        self.unfinished = 0
        self.strays = 0
        self.stray_names: list[bytes] = []
        """The first of them."""

    def batches(self, size: int) -> Iterator[list[Found]]:
        """The drops, so many at a time; once. Counts grow on the way. Raises InboxLostError."""
        batch: list[Found] = []
        with closing(self._entries):
            for found in self._found():
                batch.append(found)
                if len(batch) >= size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def require_in_place(self) -> None:
        """Raise InboxLostError where another folder, or none, has the inbox's name now.

        What could not be found since is then no proof that somebody has taken it back.
        """
        try:
            folder = _identity(self._path)
        except OSError as error:
            raise InboxLostError(str(error)) from error
        if folder != self._folder:
            raise InboxLostError(f"{os.fsdecode(self._path)} is another folder now")

    def _found(self) -> Iterator[Found]:
        while True:
            try:
                entry = next(self._entries, None)
            except OSError as error:
                raise InboxLostError(str(error)) from error
            if entry is None:
                return
            found = self._sort(entry)
            if found is not None:
                yield found

    def _sort(self, entry: "os.DirEntry[bytes]") -> Found | None:
        kind = classify(entry.name, self._handlers)
        if kind is NameKind.UNFINISHED:
            self.unfinished += 1
            return None
        if kind in DROPS:
            link = entry.is_symlink()
            if link or _is_file(entry):
                self.drops += 1
                return Found(entry.name, kind, link)
        self.strays += 1
        if len(self.stray_names) < _MAX_STRAY_NAMES:
            self.stray_names.append(entry.name)
        return None


def _identity(path: bytes) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _is_file(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:  # only where the directory does not record types, and lstat fails
        return False
