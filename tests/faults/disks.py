"""File systems of a test's own: one that can be full or read-only, one that can lose its power.

Mounting needs root; where that is not possible the tests that ask for a disk are skipped. What was
mounted is unmounted at the end, whatever happened.
"""

import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import wait_until

_ROOM: Final = "size=256M,nr_inodes=100000"
_EXT4_FILES: Final = 512


def _works(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run_or_skip(*command: str | Path, pass_fds: Sequence[int] = ()) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=pass_fds)
    if done.returncode != 0:
        pytest.skip(f"{command[0]} cannot be done here: {done.stderr.strip()}")


def _unmount(place: Path) -> None:
    try:
        # A process that is about to end may still have a file open.
        wait_until(lambda: _works("umount", place))
    except BaseException:
        subprocess.run(["umount", "--lazy", place], check=False)
        raise


@contextmanager
def mounted(place: Path, *options: str | Path, pass_fds: Sequence[int] = ()) -> Iterator[None]:
    """A mount for as long as the context lasts, over a file or a folder."""
    if not place.exists():
        place.mkdir()
    _run_or_skip("mount", *options, place, pass_fds=pass_fds)
    try:
        yield
    finally:
        _unmount(place)


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A tmpfs whose size can be changed while it is used."""

    place: Path

    def resize(self, *, free_bytes: int) -> None:
        """Let so many more bytes be written, in whole pages, and no more."""

        def resized() -> bool:
            status = os.statvfs(self.place)
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            pages = max(1, (used + free_bytes) // os.sysconf("SC_PAGE_SIZE"))
            return self._remount(f"size={pages * os.sysconf('SC_PAGE_SIZE')}")

        wait_until(resized)  # refused where more is used by then

    def no_more_bytes(self) -> None:
        """No page is left: nothing more can be written."""
        self.resize(free_bytes=0)

    def grow(self) -> None:
        """Room again."""
        wait_until(lambda: self._remount(_ROOM))

    def no_more_files(self) -> None:
        """No inode is left: whatever is to be made cannot be."""
        self.leave_files(0)

    def leave_files(self, count: int) -> None:
        """Let so many more files, folders and links be made, and no more."""

        def limited() -> bool:
            status = os.statvfs(self.place)
            return self._remount(f"nr_inodes={status.f_files - status.f_ffree + count}")

        wait_until(limited)

    def read_only(self) -> None:
        """Let nobody write, as a kernel does that has met a broken disk."""
        wait_until(lambda: self._remount("ro"))  # refused while a file is open for writing

    def hide(self) -> None:
        """Let an empty disk have its place, as when it was unmounted."""
        assert _works("mount", "-t", "tmpfs", "none", self.place)

    def show(self) -> None:
        """Bring it back."""
        _unmount(self.place)

    def writable(self) -> None:
        """Let everybody write again."""
        assert self._remount("rw")

    def _remount(self, options: str) -> bool:
        return _works("mount", "-o", f"remount,{options}", self.place)


@contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk]:
    """A tmpfs at `place`."""
    with mounted(place, "-t", "tmpfs", "-o", _ROOM, "none"):
        yield SmallDisk(place)


@dataclass(frozen=True, slots=True)
class SmallExt4:
    """A small ext4 file system, that somebody else's files fill."""

    place: Path

    def no_more_bytes(self) -> None:
        """No block is left: nothing more can be written."""
        with open(self._filler / "large", "wb") as large:
            size, step = 0, 1 << 20
            while step:
                if _finds_room(partial(os.posix_fallocate, large.fileno(), size, step)):
                    size += step
                else:
                    step //= 2

    def no_more_files(self) -> None:
        """No inode is left: whatever is to be made cannot be."""
        names = map(str, itertools.count())
        while _finds_room((self._filler / next(names)).touch):
            pass

    def grow(self) -> None:
        """Room again."""
        shutil.rmtree(self._filler)

    @property
    def _filler(self) -> Path:
        folder = self.place / "filler"
        folder.mkdir(exist_ok=True)
        return folder


def _finds_room(make: Callable[[], None]) -> bool:
    try:
        make()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


@contextmanager
def small_ext4(place: Path) -> Iterator[SmallExt4]:
    """An ext4 file system at `place`, in an image beside it."""
    image = place.with_name(f"{place.name}.ext4")
    image.touch()
    os.truncate(image, 16 << 20)
    _run_or_skip("mkfs.ext4", "-q", "-F", "-m", "0", "-N", str(_EXT4_FILES), image)
    with mounted(place, "-o", "loop", image):
        yield SmallExt4(place)


@dataclass(slots=True)
class FragileDisk:
    """An ext4 file system at `place` that can lose its power, as often as one likes.

    Its image stands on an XFS file system, where cloning a file is one step between two writes to
    it (ioctl_ficlonerange(2)). So a clone is what the machine's disk holds at an instant: all that
    the kernel had given to it by then, and nothing of what was only in memory. What is not tried is
    a disk that loses what it was given and not told to flush: that is between ext4 and the disk.
    """

    place: Path
    images: Path
    _cuts: int = 0

    def cut(self) -> Path:
        """The disk as a power cut would leave it now, which for this disk does not happen."""
        self._cuts += 1
        image = self.images / f"cut-{self._cuts}"
        subprocess.run(["cp", "--reflink=always", self.images / "disk", image], check=True)
        return image

    @contextmanager
    def after(self, image: Path) -> Iterator[None]:
        """Mount what a cut has left in the disk's place, which must not be mounted."""
        with mounted(self.place, "-o", "loop", image):
            yield
        image.unlink()


@contextmanager
def fragile_disk(base: Path) -> Iterator[tuple[FragileDisk, ExitStack]]:
    """Such a disk beneath `base`, mounted; closing the stack unmounts it."""
    outer, images = base / "outer.xfs", base / "images"
    disk = FragileDisk(base / "disk", images)
    outer.touch()
    os.truncate(outer, 8 << 30)
    _run_or_skip("mkfs.xfs", "-q", "-f", outer)
    with mounted(images, "-o", "loop", outer), ExitStack() as stack:
        image = images / "disk"
        image.touch()
        os.truncate(image, 512 << 20)
        _run_or_skip("mkfs.ext4", "-q", "-F", "-m", "0", image)
        stack.enter_context(mounted(disk.place, "-o", "loop", image))
        yield disk, stack
    outer.unlink()
