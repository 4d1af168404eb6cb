"""Counts what files have that a bundle does not carry, so that nobody is surprised later."""

import os
import stat
from dataclasses import dataclass, field
from typing import Final

from spoold.bundle.entry import clamp_mtime

_BLOCK_BYTES: Final = 512  # the unit of st_blocks


@dataclass(slots=True)
class NotCarried:
    """What was met and has no place in a bundle."""

    sparse: int = 0
    hard_links: int = 0
    attributes: int = 0
    lists: int = 0
    others: int = 0
    times: int = 0
    links_out: int = 0
    _watch_attributes: bool = field(default=True)

    def look(self, descriptor: int, status: os.stat_result) -> None:
        """Count what a file or folder has that is not carried."""
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            self.hard_links += 1
        if status.st_blocks * _BLOCK_BYTES < status.st_size and _has_hole(descriptor, status):
            self.sparse += 1
        mtime_ns = status.st_mtime_ns
        if clamp_mtime(mtime_ns) != mtime_ns:
            self.times += 1
        if self._watch_attributes:
            try:
                names = os.listxattr(descriptor)
            except OSError:
                self._watch_attributes = False
                return
            if names:
                acl = any(name.startswith("system.posix_acl_") for name in names)
                self.lists += acl
                self.attributes += any(not name.startswith("system.posix_acl_") for name in names)

    def warnings(self) -> list[str]:
        """A sentence for each kind there was."""
        sentences = (
            (self.others, "FIFOs, sockets or devices were left out"),
            (self.sparse, "sparse files are carried in full"),
            (self.hard_links, "files have further hard links: each is carried by itself"),
            (self.attributes, "files or folders have extended attributes: not carried"),
            (self.lists, "files or folders have access control lists: not carried"),
            (self.links_out, "symbolic links lead out of it: see [restore] links at the receiver"),
            (self.times, "times outside 1653 to 2286 are carried as the nearest"),
        )
        return [f"{count} {sentence}" for count, sentence in sentences if count]


def _has_hole(descriptor: int, status: os.stat_result) -> bool:
    # Fewer blocks than bytes may be compression, or a small file that is stored in its inode.
    if not stat.S_ISREG(status.st_mode):
        return False
    try:
        hole = os.lseek(descriptor, 0, os.SEEK_HOLE)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        return False
    return hole < status.st_size
