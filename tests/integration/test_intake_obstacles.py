"""What keeps one drop, or all, in the inbox: the others go on, and it costs little to wait."""

import itertools
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import model_validator

from spoold import errors, postgres
from spoold.intake.loop import Intake
from spoold.intake.settings import NAME_BUSY, Reason
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from tests.faults.disks import mounted
from tests.integration.file_systems import BOTH
from tests.integration.inboxes import (
    SETTINGS,
    BundleRequest,
    Inbox,
    one_database,
    opened,
    powerless,
    request,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

NO_ROOM = replace(SETTINGS, min_free_bytes=2**60)

conninfo = one_database


def said(inbox: Inbox, name: str) -> tuple[str, str | None]:
    """State and reason in a drop's status."""
    status = inbox.status(name)
    assert status is not None, name
    return status["state"], status["reason"]


# --- one drop -------------------------------------------------------------------------------------


@as_root
def test_e26_a_drop_that_nobody_can_even_look_at_stops_nobody(spool: Spool, store: Store) -> None:
    with opened(spool, store) as inbox:
        stuck = inbox.copy("request-stuck.json")
        # As its owner mounts it who may: to all others lstat(2) answers EACCES.
        try:
            fuse = os.open("/dev/fuse", os.O_RDWR)
        except OSError:
            pytest.skip("no FUSE here")
        options = f"fd={fuse},rootmode=100000,user_id=65534,group_id=65534"
        try:
            how = ("-i", "-t", "fuse", "-o", options, "tests")
            with mounted(stuck, *how, pass_fds=[fuse]):
                with pytest.raises(PermissionError):
                    stuck.lstat()
                inbox.copy("request-good.json")
                inbox.admitted()
                assert inbox.job("request-good.json").drop_name == b"request-good.json"
                assert said(inbox, "request-stuck.json") == ("waiting", "unreadable")
        finally:
            os.close(fuse)
        inbox.admitted()


def test_e25_an_inbox_that_may_not_be_searched_is_told_of_in_each_status(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store) as inbox:
        inbox.copy("request-a.json")
        inbox.path.chmod(0o600)
        try:
            with powerless():
                assert inbox.scan().waiting == 1
        finally:
            inbox.path.chmod(0o1730)
        assert said(inbox, "request-a.json") == ("waiting", "unreadable")
        inbox.admitted()


@as_root
@BOTH
def test_drops_that_cannot_be_moved_use_up_nobodys_turn(spool: Spool, store: Store) -> None:
    with (
        opened(spool, store, replace(SETTINGS, max_drops_per_minute=3)) as inbox,
        ExitStack() as mounts,
    ):
        stuck = [inbox.copy(f"request-stuck-{number}.json") for number in range(3)]
        for path in stuck:
            mounts.enter_context(mounted(path, "--bind", path))
        inbox.scan()
        for number in range(3):
            inbox.copy(f"request-{number}.json")
        inbox.admitted(3)
        for _ in range(6):
            assert inbox.scan().waiting == 3
        for path in stuck:
            assert said(inbox, path.name) == ("waiting", "unreadable")


def test_a_drop_behind_its_own_name_is_counted(spool: Spool, store: Store) -> None:
    with opened(spool, store) as inbox:
        inbox.copy("request-a.json", request(not_before="2099-01-01T00:00:00Z"))
        inbox.admitted()
        inbox.copy("request-a.json")
        assert inbox.scan().name_busy == 1
        metrics = inbox.intake.metrics
        assert metrics.waiting[NAME_BUSY] == 1
        since = metrics.waiting_since
        assert since is not None
        inbox.scan()
        assert metrics.waiting_since == since
        (inbox.path / "request-a.json").unlink()
        inbox.scan()
        assert metrics.waiting[NAME_BUSY] == 0
        assert metrics.waiting_since is None


# --- all of them ----------------------------------------------------------------------------------


@BOTH
def test_what_waits_for_room_is_not_read_again_until_there_is_some(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store, replace(NO_ROOM, polling=True)) as inbox, ExitStack() as ending:
        inbox.scan()
        ending.enter_context(powerless())
        paths = [inbox.copy(f"request-{number}.json") for number in range(5)]
        assert inbox.scan().waiting == 5
        for path in paths:
            path.chmod(0)  # whoever reads one now says so
        assert inbox.scan().waiting == 5
        assert inbox.intake.metrics.waiting[Reason.SPACE] == 5
        assert inbox.intake.metrics.last_error is not None
        assert inbox.intake.metrics.last_error.code == errors.NO_SPACE.name
        for path in paths:
            assert said(inbox, path.name) == ("waiting", "space")
        paths[0].unlink()
        assert inbox.scan().waiting == 4
        assert inbox.status(paths[0].name) is None


@BOTH
def test_very_many_withdrawn_drops_are_taken_back_a_batch_at_a_time(
    spool: Spool, store: Store
) -> None:
    settings = replace(NO_ROOM, batch_size=10, poll_seconds=0.0)
    with opened(spool, store, settings) as inbox:
        paths = [inbox.copy(f"request-{number}.json") for number in range(35)]
        assert inbox.scan().waiting == 35
        for path in paths:
            path.unlink()
        told = []
        for _ in range(4):
            inbox.scan()
            told.append(sum(inbox.status(path.name) is not None for path in paths))
        assert told == [25, 15, 5, 0]


def test_e25_an_inbox_that_is_moved_away_while_it_is_read_takes_back_nothing(
    spool: Spool, store: Store
) -> None:
    aside = spool.root / "inbox.aside"
    inbox_path = spool.folder(Folder.INBOX)
    moved: list[Path] = []

    class Mover(BundleRequest):
        """Moves the inbox away when it is parsed, in the middle of a scan."""

        @model_validator(mode="after")
        def _move(self) -> "Mover":
            if self.name == "mover" and not moved:
                moved.append(inbox_path.rename(aside))
            return self

    with opened(spool, store) as inbox, ExitStack() as writers:
        inbox.intake = Intake(spool, store, SETTINGS, {"bundle": Mover})
        names = [f"request-{number}.json" for number in range(5)]
        for name in names:
            writers.enter_context(open(inbox.path / name, "wb", buffering=0)).write(request())
        assert inbox.scan().waiting == 5
        # One that waits stands behind the mover, or nothing would be looked for in vain.
        for number in itertools.count():
            mover = inbox.copy(f"request-mover-{number}.json", request(name="mover"))
            if os.listdir(inbox.path)[-1] != mover.name:
                break
            mover.unlink()
        inbox.scan()
        assert aside.exists()
        assert inbox.intake.metrics.inbox_missing
        inbox.path.mkdir()
        inbox.scan()
        for name in names:
            assert said(inbox, name) == ("waiting", "writer-open")
        inbox.path.rmdir()
        aside.rename(inbox.path)
        writers.close()
        inbox.admitted(6)


def test_e28_while_a_table_is_locked_drops_are_told_why_they_wait(
    spool: Spool, store: Store, conninfo: str
) -> None:
    with opened(spool, store) as inbox:
        inbox.scan()
        with postgres.connect(conninfo, "lock") as lock, lock.transaction():
            lock.execute("lock table spoold.job in access exclusive mode")
            inbox.copy("request-a.json")
            began = time.monotonic()
            assert inbox.scan().database_away
            assert time.monotonic() - began < 20  # not until the server gives up, after 30 s
            assert said(inbox, "request-a.json") == ("waiting", "database-away")
        inbox.admitted()
