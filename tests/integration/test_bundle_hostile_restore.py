"""Restoring what a receiver must refuse: nothing of it is left, nothing else is touched."""

import errno
import gzip
import io
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold.bundle.frames import Codec
from spoold.bundle.reader import BundleReader, Discard, Policy, open_bundle, verify, verify_head
from spoold.errors import SpooldError
from spoold.trust import load_signer
from tests.bundles import (
    FRAME,
    Collect,
    Forge,
    frame_edges,
    listing,
    restore,
    tar_member,
    trusted,
    zstd_frame,
)
from tests.hostile import CASES
from tests.hostile.case import MIB
from tests.sites import Site, trust

ROWS = list(dict.fromkeys(case.row for case in CASES))


def _surroundings(base: Path) -> Path:
    """A quarantine with something beside it, and what a bundle might want to reach."""
    (base / "store" / "quarantine").mkdir(parents=True)
    (base / "store" / "other").mkdir()
    (base / "store" / "other" / "kept").write_text("kept")
    (base / "store" / "way out").symlink_to(base / "store" / "other")
    (base / "scratch").mkdir()
    return base / "store" / "quarantine"


@pytest.mark.parametrize("row", ROWS)
def test_a_refused_bundle_leaves_nothing(row: str, tmp_path: Path) -> None:
    quarantine = _surroundings(tmp_path)
    before = _seen(tmp_path)
    cases = [(case, codec) for case in CASES if case.row == row for codec in case.codecs]
    for case, codec in cases:
        with pytest.raises(SpooldError) as refused:
            restore(
                io.BytesIO(case.make(codec)),
                quarantine / "restored",
                case.trust,
                case.policy,
                scratch=tmp_path / "scratch",
            )
        assert refused.value.code.name == case.code, (str(case), codec)
        assert refused.value.hint
        assert _seen(tmp_path) == before, (str(case), codec)


def _seen(base: Path) -> list[tuple[str, ...]]:
    """Everything but the times of folders, in which something may have come and gone."""
    return [
        (path, mode, "" if content == "/" else time, content)
        for path, mode, time, content in listing(base)
    ]


# --- while it is read -----------------------------------------------------------------------------


def _read_while(path: Path, data: bytes, change: Callable[[Path], None]) -> str:
    """Verify a file that changes when its head has been read."""
    path.write_bytes(data)
    with open_bundle(path) as file, BundleReader(file, threads=1) as reader:
        head = verify_head(reader.read_head(), trusted(), Policy())
        change(path)
        try:
            reader.read_payload(reader.read_index(head, Policy()), Discard())
        except SpooldError as error:
            return error.code.name
    return "accepted"


@pytest.mark.parametrize("codec", list(Codec))
def test_h91_a_bundle_that_changes_while_it_is_read(codec: Codec, tmp_path: Path) -> None:
    data = Forge.of({"a": os.urandom(3 * MIB), "b": os.urandom(3 * MIB)}, codec=codec).build()

    def grow(path: Path) -> None:
        with open(path, "ab") as file:
            file.write(b"more")

    def shrink(path: Path) -> None:
        os.truncate(path, len(data) - 100)

    def change(path: Path) -> None:
        with open(path, "r+b") as file:
            file.seek(frame_edges(data, codec)[-2] + 1000)
            file.write(b"changed")

    path = tmp_path / "bundle"
    assert _read_while(path, data, lambda _: None) == "accepted"
    assert _read_while(path, data, grow) == "trailing-data"
    assert _read_while(path, data, shrink) == "bundle-truncated"
    assert _read_while(path, data, change) == "frame-digest-mismatch"
    # One that is replaced under its name is read to its end as it was.
    assert _read_while(path, data, lambda path: path.unlink()) == "accepted"


class FailingDisk(io.BytesIO):
    """A medium that is pulled after some bytes; before, it gives a few at a time."""

    def __init__(self, data: bytes, good: int) -> None:
        super().__init__(data)
        self._good = good

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._good:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        wanted = len(self.getvalue()) if size is None or size < 0 else size
        return super().read(min(wanted, 1000, self._good - self.tell()))


@pytest.mark.parametrize("codec", list(Codec))
def test_h93_a_medium_that_is_pulled_is_no_verdict_on_the_bundle(
    codec: Codec, tmp_path: Path
) -> None:
    data = Forge.good(codec).build()
    found = Collect()
    verify(FailingDisk(data, len(data) + 1), trusted(), Policy(), visitor=found, threads=1)
    assert found.files[b"a.txt"] == b"alpha\n"
    for good in (*frame_edges(data, codec), 3, 700, len(data) - 1, len(data)):
        with pytest.raises(SpooldError) as failed:
            restore(FailingDisk(data, good), tmp_path / "restored", trusted(), Policy())
        assert failed.value.code.name == "disk-error"
        assert failed.value.code.transient
        assert not list(tmp_path.iterdir())


# --- what a bundle may hold -----------------------------------------------------------------------


def test_h93_a_file_that_cannot_be_opened_is_no_verdict_on_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(Forge.good().build())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(SpooldError) as caught:
            open_bundle(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.code.name == "disk-error"
    for name in ("missing", "bundle/inside"):
        with pytest.raises(SpooldError) as caught:
            open_bundle(tmp_path / name)
        assert caught.value.code.name == "source-missing"
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        with pytest.raises(SpooldError) as caught:
            open_bundle(address)
    assert caught.value.code.name == "not-a-bundle"


@pytest.mark.parametrize("codec", list(Codec))
def test_h95_archives_in_the_payload_are_files_like_any_other(codec: Codec, tmp_path: Path) -> None:
    contents = {
        "bundle.tar.zst": Forge.good().build(),
        "escape.tar": tar_member(b"../../escaped", b"x") + bytes(1024),
        "bomb.gz": gzip.compress(bytes(16 * MIB)),
        "bomb.zst": zstd_frame(bytes(4 * FRAME)),
        "request-1.json": b'{"type":"spoold.request/1","action":"bundle"}',
    }
    data = Forge.of(dict(sorted(contents.items())), codec=codec).build()
    restored = tmp_path / "quarantine"
    restore(io.BytesIO(data), restored, trusted(), Policy())
    assert {path.name: path.read_bytes() for path in restored.rglob("*")} == contents
    assert [path.name for path in tmp_path.iterdir()] == ["quarantine"]


def test_h92_two_names_of_one_file_are_one_bundle(make_site: Callable[..., Site]) -> None:
    sender, receiver = make_site("site-a"), make_site("site-b")
    trust(receiver, sender)
    aside = receiver.root / "aside"
    aside.write_bytes(_bundle_of(sender))
    for name in ("one.tar.zst", "two.tar.zst"):
        os.link(aside, receiver.inbox / name)
    aside.unlink()
    receiver.start()
    states = {name: receiver.final(name) for name in ("one.tar.zst", "two.tar.zst")}
    assert sorted(status["state"] for status in states.values()) == ["duplicate", "succeeded"]
    restored = list((receiver.root / "restored").glob("*/*"))
    assert len(restored) == 1
    assert (restored[0] / "a.txt").read_bytes() == b"alpha\n"


def _bundle_of(site: Site) -> bytes:
    """The usual good bundle, signed by a site's own key."""
    path = next(path for path in (site.root / ".spoold" / "keys").iterdir() if path.is_file())
    return Forge.good(by=load_signer(path, site.name)).build()
