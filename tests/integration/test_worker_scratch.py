"""Scratch folders as the fence on disk: whoever comes late finds nothing, and harms nothing."""

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from spoold.queue.job import Claim
from spoold.queue.store import Store
from spoold.sinks.remove import remove_tree
from spoold.spool import Folder, Spool
from spoold.worker import scratch
from spoold.worker.scratch import LeaseLostError
from tests.integration.inboxes import powerless
from tests.integration.queue_drops import drop, worker


@pytest.fixture
def claims(store: Store) -> list[Claim]:
    """What four workers hold, or believe to hold: the epochs 1 to 4 of one job."""
    store.admit([drop()])
    [first] = store.claim(worker(store))
    return [replace(first, epoch=epoch) for epoch in (1, 2, 3, 4)]


def folders(spool: Spool) -> dict[int, list[str]]:
    return {
        int(path.suffix[1:]): [file.name for file in path.iterdir()]
        for path in spool.folder(Folder.WORK).iterdir()
    }


def fill(folder: Path) -> None:
    (folder / "result").touch()


def test_a_new_attempt_takes_the_old_ones_folder_away(spool: Spool, claims: list[Claim]) -> None:
    old = scratch.begin(spool, claims[0])
    fill(old)
    scratch.begin(spool, claims[1])
    assert folders(spool) == {2: []}
    with pytest.raises(FileNotFoundError):
        (old / "result").rename(spool.folder(Folder.PROCESSED) / "result")


def test_a_folder_that_a_tool_has_closed_goes_too(spool: Spool, claims: list[Claim]) -> None:
    old = scratch.begin(spool, claims[0])
    old.chmod(0)
    with powerless():  # as a worker that is no root's
        scratch.begin(spool, claims[1])
    assert not old.exists()


def test_e29_who_wakes_before_its_first_step_leaves_its_successor_alone(
    spool: Spool, claims: list[Claim]
) -> None:
    """Stopped between its claim and its first step, past its lease, and woken again."""
    fill(scratch.begin(spool, claims[2]))
    for late in (scratch.begin, scratch.take_over):
        with pytest.raises(LeaseLostError):
            late(spool, claims[1])
    assert folders(spool) == {3: ["result"]}


def test_a_publication_is_taken_over_with_its_files(spool: Spool, claims: list[Claim]) -> None:
    fill(scratch.begin(spool, claims[0]))
    scratch.take_over(spool, claims[1])
    scratch.take_over(spool, claims[3])
    assert folders(spool) == {4: ["result"]}
    scratch.take_over(spool, claims[3])
    assert folders(spool) == {4: ["result"]}


def test_an_empty_folder_does_not_stand_for_one_with_files(
    spool: Spool, claims: list[Claim]
) -> None:
    fill(scratch.begin(spool, claims[0]))
    (spool.folder(Folder.WORK) / f"{claims[0].id}.2").mkdir()
    scratch.take_over(spool, claims[2])
    assert folders(spool) == {3: ["result"]}


def test_whatever_late_workers_do_at_the_same_time_a_publications_files_are_not_lost(
    spool: Spool, claims: list[Claim]
) -> None:
    """Each believes that it may take them over. The newest comes last, and finds them."""
    work = spool.folder(Folder.WORK)
    for _ in range(150):
        fill(scratch.begin(spool, claims[0]))
        others = [replace(claims[0], epoch=epoch) for epoch in range(2, 6)]
        together = threading.Barrier(len(others))

        def take_over(claim: Claim, together: threading.Barrier = together) -> None:
            together.wait()
            with suppress(LeaseLostError):
                scratch.take_over(spool, claim)

        threads = [threading.Thread(target=take_over, args=(claim,)) for claim in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        newest = scratch.take_over(spool, replace(claims[0], epoch=6))
        assert [path.name for path in newest.iterdir()] == ["result"]
        remove_tree(newest)
        assert not any(work.iterdir())
