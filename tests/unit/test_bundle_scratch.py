"""Scratch files: what they hold in memory, and a full disk."""

import resource
import tracemalloc
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


def test_few_long_lines_are_not_held_in_memory(tmp_path: Path) -> None:
    lines = LineFile(tmp_path)
    tracemalloc.start()
    for number in range(64):
        lines.append(b"%d" % (number % 10) * 1024**2 + b"\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 1024**2
    assert [line[:1] for line in lines] == [b"%d" % (number % 10) for number in range(64)]
    lines.close()


@pytest.mark.usefixtures("_full_disk")
def test_giving_a_file_back_that_could_not_be_written_fails_no_more(tmp_path: Path) -> None:
    lines = LineFile(tmp_path)
    lines.append(b"x" * 99 + b"\n")
    with pytest.raises(SpooldError):
        lines.append(b"y" * 300_000 + b"\n")
    lines.close()
    sorter = LineSorter(tmp_path)
    with pytest.raises(SpooldError):
        deque((sorter.add(b"%09d" % number) for number in range(50_000)), 0)
    sorter.close()
