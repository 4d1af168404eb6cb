"""Scratch files on a full disk."""

import resource
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.bundle.scratch import LineFile, LineSorter
from spoold.errors import SpooldError


@pytest.fixture
def _full_disk() -> Iterator[None]:
    """Files that cannot grow: the one full disk that needs no root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("_full_disk")
def test_giving_a_file_back_that_could_not_be_written_fails_no_more(tmp_path: Path) -> None:
    lines = LineFile(tmp_path)
    lines.append(b"x" * 99 + b"\n")
    lines.append(b"y" * 300_000 + b"\n")
    with pytest.raises(SpooldError):
        lines.reopened()
    lines.close()
    sorter = LineSorter(tmp_path)
    with pytest.raises(SpooldError):
        deque((sorter.add(b"%09d" % number) for number in range(50_000)), 0)
    sorter.close()
