"""Places to put a spool: the disk that the tests run on, tmpfs, and what root can mount."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from spoold.file_systems import file_system_of
from tests.faults.disks import mounted

_MEMORY: Final = Path("/dev/shm")  # a tmpfs on every Linux
_IMAGE_BYTES: Final = 512 * 1024**2

BOTH: Final = pytest.mark.parametrize("spool", ["disk", "tmpfs"], indirect=True)
"""For tests that must hold wherever the spool is; `spool` is then such a fixture."""

ALL: Final = pytest.mark.parametrize(
    "spool",
    [
        "disk",
        "tmpfs",
        *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("XFS", "btrfs", "overlay")),
    ],
    indirect=True,
)
"""The same; at night also where an image must be made and mounted."""


class Places:
    """Folders on file systems by name, each mounted when it is first asked for."""

    def __init__(self, base: Path, ending: ExitStack) -> None:
        self._base = base
        self._ending = ending
        self._mounted: dict[str, Path] = {}

    def folder(self, kind: str) -> Path:
        """A fresh folder. Skips the test where there is no such file system."""
        if kind == "tmpfs":
            if not _MEMORY.is_dir() or file_system_of(_MEMORY).name != "tmpfs":
                pytest.skip("/dev/shm is no tmpfs")
            folder = _MEMORY / f"spoold-tests-{uuid.uuid4().hex}"
            self._ending.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder = self._mount(kind) / uuid.uuid4().hex
        folder.mkdir()
        return folder

    def _mount(self, kind: str) -> Path:
        if kind not in self._mounted:
            if os.geteuid() != 0:
                pytest.skip("only root can mount")
            make = {"XFS": _image("xfs"), "btrfs": _image("btrfs"), "overlay": _overlay}[kind]
            base = self._base / kind
            base.mkdir()
            self._mounted[kind] = self._ending.enter_context(make(base))
            assert file_system_of(self._mounted[kind]).name == kind
        return self._mounted[kind]


def _image(kind: str):  # type: ignore[no-untyped-def]  # what it returns is what `mounted` is
    @contextmanager
    def make(base: Path) -> Iterator[Path]:
        image = base / "image"
        image.touch()
        os.truncate(image, _IMAGE_BYTES)
        tool = f"mkfs.{kind}"
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
        subprocess.run([tool, "-q", image], check=True)
        with mounted(base / "place", "-o", "loop", image):
            yield base / "place"

    return make


@contextmanager
def _overlay(base: Path) -> Iterator[Path]:
    folders = [base / name for name in ("lower", "upper", "work")]
    for folder in folders:
        folder.mkdir()
    lower, upper, work = folders
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with mounted(base / "place", "-t", "overlay", "-o", options, "overlay"):
        yield base / "place"


@contextmanager
def seen_from_afar(base: Path) -> Iterator[tuple[Path, Path]]:
    """A folder, and the same through a FUSE mount: as an NFS client sees what its server has.

    What happens in the first is found in the second, but nothing tells of it: no event, no lease.
    """
    if shutil.which("bindfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("bindfs is not installed")
    server, client = base / "server", base / "client"
    server.mkdir()
    client.mkdir()
    # Without its caches the kernel asks every time.
    done = subprocess.run(
        ["bindfs", "-o", "attr_timeout=0,entry_timeout=0", server, client],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"bindfs: {done.stderr.strip()}")
    try:
        yield server, client
    finally:
        subprocess.run(["umount", "--lazy", client], check=True)
