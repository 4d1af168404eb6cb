"""What is in the inbox: one listing, sorted into drops, links, strays and unfinished uploads.

A name and the type that the directory itself records decide; no file is opened or followed here,
so a FIFO, a socket or a device cannot hold anything up.
"""

import os
from dataclasses import dataclass, field

from spoold.intake.names import DROPS, NameKind, classify


@dataclass(frozen=True, slots=True)
class Found:
    """A drop in the inbox: its raw name, what it claims to be, whether it is a symbolic link."""

    name: bytes
    kind: NameKind
    link: bool = False


@dataclass(slots=True)
class Listing:
    """One listing. `strays` are left where they are: foreign or reserved names, and no files."""

    drops: list[Found] = field(default_factory=list)
    strays: list[bytes] = field(default_factory=list)
    unfinished: int = 0


def list_inbox(path: bytes) -> Listing:
    """List the inbox. Raises OSError where it is missing or cannot be read."""
    listing = Listing()
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            kind = classify(name)
            if kind is NameKind.UNFINISHED:
                listing.unfinished += 1
            elif kind not in DROPS:
                listing.strays.append(name)
            elif _is_file(entry):
                listing.drops.append(Found(name, kind))
            elif entry.is_symlink():
                listing.drops.append(Found(name, kind, link=True))
            else:
                listing.strays.append(name)
    return listing


def _is_file(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:  # only where the directory does not record types, and lstat fails
        return False
