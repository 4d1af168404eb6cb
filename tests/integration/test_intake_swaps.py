"""Drops that change under the intake's hands: between its look, its claim and its read.

The intake runs in a process of its own that stops itself at a point of its work, as a machine that
has other things to do stops it; the test changes what lies there, and wakes it.
"""

import fcntl
import os
import signal
import socket
import stat
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from spoold import points
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from tests.faults.disks import mounted
from tests.integration.file_systems import BOTH
from tests.integration.inboxes import Inbox, one_database, opened, request

ZSTD_END = bytes.fromhex("28b52ffd6400034d00001000000100fb2b8005cdac85f0")

pytestmark = BOTH
conninfo = one_database


@pytest.fixture
def inbox(spool: Spool, store: Store) -> Iterator[Inbox]:
    with opened(spool, store) as inbox:
        yield inbox


@contextmanager
def stopped_at(inbox: Inbox, conninfo: str, point: str, held: int = 0) -> Iterator[None]:
    """An intake that stands still at a point; it goes on when the context is left.

    Then it scans once more; `held` drops must be claimed and without a row.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what is forked has no locks of ours
        child = os.fork()
    if child == 0:
        os._exit(_intake(inbox.spool, conninfo, point))
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    try:
        yield
    finally:
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == held


def _intake(spool: Spool, conninfo: str, point: str) -> int:
    try:
        inbox = Inbox(spool, Store(Database(conninfo, "swapped"), spool.identity().spool))
        points.arm(f"{point}:1:SIGSTOP")
        inbox.scan()
        return inbox.scan().held
    except BaseException:  # noqa: BLE001  # a child must not get back into the tests
        traceback.print_exc()
        return 100


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_folder(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_text("somebody's")


def put_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("put", [put_fifo, put_folder, put_socket])
def test_e16_what_is_swapped_for_a_drop_before_its_claim_is_a_stray_again(
    inbox: Inbox, conninfo: str, put: Callable[[Path], None]
) -> None:
    names = {"request-a.json", "b.tar.zst"}
    inbox.copy("request-a.json")
    inbox.copy("b.tar.zst", ZSTD_END)
    with stopped_at(inbox, conninfo, "admit.a"):
        [swapped] = [name for name in names if inbox.status(name)]  # the first to be claimed
        (inbox.path / swapped).unlink()
        put(inbox.path / swapped)
        kind = stat.S_IFMT((inbox.path / swapped).lstat().st_mode)
    assert stat.S_IFMT((inbox.path / swapped).lstat().st_mode) == kind
    if kind == stat.S_IFDIR:
        assert (inbox.path / swapped / "precious").exists()
    assert inbox.status(swapped) is None
    [other] = names - {swapped}
    assert inbox.job(other).state is State.QUEUED
    assert len(inbox.jobs()) == len(inbox.in_claimed()) == 1
    inbox.scan()
    assert inbox.intake.metrics.strays == 1


def test_e16_a_name_taken_meanwhile_lets_the_stray_come_back_under_another(
    inbox: Inbox, conninfo: str
) -> None:
    path = inbox.copy("request-a.json")
    with stopped_at(inbox, conninfo, "admit.b"):
        [claimed] = inbox.in_claimed()
        claimed.unlink()
        os.mkfifo(claimed)
        path.mkdir()
    [stray] = inbox.path.glob("stray-*")
    assert stray.is_fifo()
    assert path.is_dir()
    assert inbox.jobs() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_e16_a_stray_that_cannot_be_put_back_stops_no_other_drop(
    inbox: Inbox, conninfo: str
) -> None:
    inbox.copy("request-a.json")
    inbox.copy("request-b.json")
    with ExitStack() as covered:
        with stopped_at(inbox, conninfo, "admit.c", held=1):
            _, second = sorted(inbox.in_claimed())
            second.unlink()
            os.mkfifo(second)
            # No rename leads to another file system.
            covered.enter_context(mounted(inbox.path, "-t", "tmpfs", "tmpfs"))
        [job] = inbox.jobs()
        assert job.state is State.QUEUED
        [stray] = {"request-a.json", "request-b.json"} - {job.drop_name.decode()}
        assert second.is_fifo()
        status = inbox.status(stray)
        assert status is not None
        assert (status["state"], status["reason"]) == ("waiting", "disk")
    inbox.scan()
    assert (inbox.path / stray).is_fifo()
    assert inbox.status(stray) is None


def test_a_drop_whose_status_has_no_folder_is_held_and_not_taken_for_gone(
    inbox: Inbox, conninfo: str
) -> None:
    inbox.copy("request-a.json", request(not_before="2099-01-01T00:00:00Z"))
    folder, aside = inbox.spool.folder(Folder.STATUS), inbox.spool.root / "aside"
    with stopped_at(inbox, conninfo, "admit.b", held=1):
        folder.rename(aside)
    aside.rename(folder)
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.SCHEDULED


def test_e17_a_link_swapped_for_a_drop_is_rejected_and_not_followed(
    inbox: Inbox, conninfo: str
) -> None:
    target = inbox.elsewhere / "secret"
    target.write_bytes(request(name="secret"))
    path = inbox.copy("request-a.json")
    with stopped_at(inbox, conninfo, "admit.a"):
        path.unlink()
        path.symlink_to(target)
    assert inbox.refusal("request-a.json") == "drop-symlink"
    [claimed] = inbox.in_claimed()
    assert claimed.is_symlink()


def test_e17_a_file_swapped_for_a_link_is_a_drop_as_any_other(inbox: Inbox, conninfo: str) -> None:
    path = inbox.path / "request-a.json"
    path.symlink_to("/nowhere")
    with stopped_at(inbox, conninfo, "admit.a"):
        path.unlink()
        path.write_bytes(request(correlation_id="claimed"))
    job = inbox.job("request-a.json")
    assert (job.state, job.correlation_id) == (State.QUEUED, "claimed")


def test_e15_another_file_swapped_for_a_drop_is_read_anew(inbox: Inbox, conninfo: str) -> None:
    path = inbox.copy("request-a.json", request(correlation_id="looked at"))
    with stopped_at(inbox, conninfo, "admit.a"):
        path.unlink()
        path.write_bytes(request(correlation_id="claimed"))
    assert inbox.job("request-a.json").correlation_id == "claimed"
    [claimed] = inbox.in_claimed()
    assert claimed.read_bytes() == request(correlation_id="claimed")


def test_e27_a_drop_removed_before_its_claim_leaves_no_status(inbox: Inbox, conninfo: str) -> None:
    path = inbox.copy("request-a.json")
    with stopped_at(inbox, conninfo, "admit.a"):
        assert inbox.status("request-a.json") is not None
        path.unlink()
    assert inbox.status("request-a.json") is None
    assert inbox.jobs() == []


def test_e01_a_writer_that_comes_between_look_and_claim_is_waited_for(
    inbox: Inbox, conninfo: str
) -> None:
    path = inbox.copy("request-a.json")
    with ExitStack() as writing:
        with stopped_at(inbox, conninfo, "admit.a", held=1):
            writer = writing.enter_context(open(path, "r+b", buffering=0))
            writer.seek(0, os.SEEK_END)
            writer.write(b" ")
        status = inbox.status("request-a.json")
        assert status is not None
        assert (status["state"], status["reason"]) == ("waiting", "writer-open")
        assert inbox.jobs() == []
        writer.write(b"\n")
    inbox.admitted()
    assert inbox.job("request-a.json").drop_bytes == len(request()) + 2


def test_e01_a_lease_taken_between_look_and_claim_is_waited_for(
    inbox: Inbox, conninfo: str
) -> None:
    server = os.open(inbox.copy("request-a.json"), os.O_RDONLY)
    with stopped_at(inbox, conninfo, "admit.a", held=1):
        fcntl.fcntl(server, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    status = inbox.status("request-a.json")
    assert status is not None
    assert (status["state"], status["reason"]) == ("waiting", "writer-open")
    os.close(server)
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED
