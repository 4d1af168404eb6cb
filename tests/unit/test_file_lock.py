"""The lock of a file or a folder: one holder, and nobody kept out by who made it."""

import os
from pathlib import Path

import pytest

from spoold.file_lock import FileLock, alone, shared


def test_one_holds_it_until_it_lets_go(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.acquire()
    assert one.acquire()
    assert not other.acquire()
    one.release()
    assert other.acquire()
    other.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_is_its_folders_owners(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.release()
    assert (tmp_path / "lock").stat().st_uid == 65534


def test_who_shares_a_folder_lets_nobody_be_alone_there(tmp_path: Path) -> None:
    with shared(tmp_path), shared(tmp_path), alone(tmp_path) as nobody_else:
        assert not nobody_else
    with alone(tmp_path) as nobody_else:
        assert nobody_else
        with alone(tmp_path) as another:
            assert not another
