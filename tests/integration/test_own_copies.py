"""A bundle with other hard links becomes a file of our own, and costs no more than it is worth."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.actions import rehydrate
from spoold.actions.context import ActionSettings, Context
from spoold.canonical import Document
from spoold.errors import Ending, SpooldError
from tests.bundles import Forge, signer, trusted
from tests.faults.disks import SmallDisk, small_disk

MIB = 1024 * 1024
HUGE = 1_000_000_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


def linked(folder: Path, content: bytes, size: int | None = None) -> Path:
    """A drop that its dropper has by another name still; what is beyond its content is a hole."""
    mine, drop = folder / "mine", folder / "demo.tar.zst"
    mine.write_bytes(content)
    os.truncate(mine, len(content) if size is None else size)
    os.link(mine, drop)
    return drop


def restored(drop: Path, min_free_bytes: int = 0) -> Document:
    scratch = drop.parent / "scratch"
    scratch.mkdir()
    context = Context(
        request=None,
        request_sha256=None,
        digits="0" * 12,
        drop=drop,
        scratch=scratch,
        settings=ActionSettings(min_free_bytes=min_free_bytes),
        signer=signer("site-b"),
        trust=trusted(),
        report=lambda progress: None,
        take_key=lambda key, content: None,
    )
    return rehydrate.run(context).result


def refusal(drop: Path) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        restored(drop)
    assert caught.value.code.state is Ending.REJECTED
    return caught.value


def test_a_bundle_with_other_names_is_restored_from_a_copy_of_its_own(tmp_path: Path) -> None:
    bundle = Forge.good().build()
    drop = linked(tmp_path, bundle)
    drop.chmod(0o664)
    assert restored(drop)["bundle_id"] == "demo-0123456789ab"
    assert not drop.samefile(tmp_path / "mine")
    assert drop.read_bytes() == bundle
    assert drop.stat().st_mode & 0o777 == 0o644


def test_what_is_no_bundle_is_refused_without_a_copy(tmp_path: Path) -> None:
    drop = linked(tmp_path, b"", HUGE)
    assert refusal(drop).code.name == "not-a-bundle"
    assert drop.samefile(tmp_path / "mine")
    assert os.listdir(tmp_path / "scratch") == []


def test_a_bundle_of_nobody_who_is_trusted_is_refused_without_a_copy(tmp_path: Path) -> None:
    drop = linked(tmp_path, Forge.good(by=signer("site-c")).build(), HUGE)
    assert refusal(drop).code.name == "signature-untrusted"
    assert drop.samefile(tmp_path / "mine")


def test_holes_are_copied_as_holes(tmp_path: Path) -> None:
    drop = linked(tmp_path, Forge.good().build(), HUGE)
    with open(tmp_path / "mine", "r+b") as file:
        file.seek(HUGE // 2)
        file.write(b"content")
    assert refusal(drop).code.name == "trailing-data"
    assert not drop.samefile(tmp_path / "mine")
    found = drop.stat()
    assert (found.st_size, found.st_nlink) == (HUGE, 1)
    assert found.st_blocks * 512 < MIB
    with open(drop, "rb") as file:
        file.seek(HUGE // 2)
        assert file.read(8) == b"content\0"


def test_a_copy_waits_for_room_where_there_may_be_some(disk: SmallDisk) -> None:
    (disk.place / "other").write_bytes(bytes(8 * MIB))
    drop = linked(disk.place, Forge.good().build() + bytes(MIB))
    disk.resize(free_bytes=MIB // 2)
    with pytest.raises(SpooldError) as caught:
        restored(drop)
    assert caught.value.code.name == "no-space"


def test_what_its_disk_can_never_hold_twice_does_not_wait_for_room(disk: SmallDisk) -> None:
    drop = linked(disk.place, Forge.good().build() + bytes(MIB))
    disk.resize(free_bytes=MIB // 2)
    refused = refusal(drop)
    assert refused.code.name == "drop-hard-links"
    assert "`mv`" in refused.hint
