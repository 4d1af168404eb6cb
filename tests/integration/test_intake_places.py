"""Where the inbox lies and how it is watched: no events, lost events, mounts that come and go."""

import ctypes
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from spoold.file_systems import FileSystem
from spoold.intake.settings import IntakeSettings, WatchMode
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from tests.conftest import wait_until
from tests.faults.disks import SmallDisk, SmallExt4, mounted, small_disk, small_ext4
from tests.integration.file_systems import BOTH, Places, seen_from_afar
from tests.integration.inboxes import SETTINGS, Inbox, one_database, opened, request

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
# What is not told of is not found by an ordinary rescan: that would prove nothing.
PATIENT = replace(SETTINGS, rescan_seconds=3600.0)

conninfo = one_database


@pytest.fixture
def reader(conninfo: str, spool: Spool) -> Iterator[Store]:
    """A second connection, for the test's own thread."""
    store = Store(Database(conninfo, "tests"), spool.identity().spool)
    yield store
    store.database.close()


@contextmanager
def running(spool: Spool, store: Store, settings: IntakeSettings = PATIENT) -> Iterator[Inbox]:
    """An intake in a thread of its own, once it has looked for the first time."""
    stop = threading.Event()
    with opened(spool, store, settings) as inbox:
        thread = threading.Thread(target=inbox.intake.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: inbox.intake.metrics.scans > 0)
            yield inbox
        finally:
            stop.set()
            inbox.intake.wake()
            thread.join(20)
            assert not thread.is_alive()


def taken(reader: Store, *names: str) -> None:
    """Wait until all of these are jobs."""
    wait_until(lambda: all(reader.find_name(name.encode()) is not None for name in names))


_NO_NAMESPACE = 77
_CLONE_NEWUSER = 0x10000000  # linux/sched.h


@contextmanager
def forked(act: Callable[[], None], *, namespace: bool = False) -> Iterator[int]:
    """A process that does something, until the context is left; its id."""
    begin, go = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what is forked has no locks of ours
        child = os.fork()
    if child == 0:
        try:
            if namespace and ctypes.CDLL(None).unshare(_CLONE_NEWUSER) != 0:
                os._exit(_NO_NAMESPACE)
            os.write(begin[1], b"!")
            os.read(go[0], 1)
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # a child must not get back into the tests
            traceback.print_exc()
        os._exit(1)
    try:
        os.close(begin[1])
        if os.read(begin[0], 1) and namespace:
            _map_users(child)
        os.write(go[1], b"!")
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        for descriptor in (begin[0], *go):
            os.close(descriptor)


def _map_users(child: int) -> None:
    """All users as they are where that is allowed, else this one: user_namespaces(7)."""
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        every = "0 0 4294967295" if os.geteuid() == 0 else f"{own} {own} 1"
        if kind == "gid" and os.geteuid() != 0:
            Path(f"/proc/{child}/setgroups").write_text("deny")
        Path(f"/proc/{child}/{kind}_map").write_text(every)


def at_rest(inbox: Inbox) -> None:
    """Wait until only an event makes it look again: what comes then is found by that."""
    for _ in range(2):  # the first may be under way already
        seen = inbox.intake.metrics.scans
        inbox.intake.wake()
        wait_until(lambda seen=seen: inbox.intake.metrics.scans > seen)
    watch = inbox.intake._watch
    wait_until(lambda: inbox.intake.report.dry and not watch.wake.is_set() and not watch.pending())


# --- no events ----------------------------------------------------------------------------------


def network(_: object) -> FileSystem:
    """What statfs(2) says of a mount from another host."""
    return FileSystem("NFS", network=True)


@BOTH
def test_e07_a_network_file_system_is_polled_without_being_asked_for_leases(
    spool: Spool, store: Store, reader: Store
) -> None:
    with running(spool, store, replace(PATIENT, file_system=network)) as inbox:
        assert inbox.intake.metrics.mode is WatchMode.POLLING
        assert inbox.intake.metrics.mode_reason.startswith("NFS")
        inbox.move("request-moved.json")
        with open(inbox.path / "request-slow.json", "wb", buffering=0) as writer:
            writer.write(request()[:20])
            writer.write(request()[20:])
            taken(reader, "request-moved.json", "request-slow.json")  # open, and nobody can know
    for name in ("request-moved.json", "request-slow.json"):
        assert inbox.job(name).state is State.QUEUED
        assert inbox.job(name).intake == {"found_by": "scan", "method": "settled"}
    assert inbox.intake.metrics.methods == {"moved": 0, "no-writer": 0, "settled": 2}
    assert inbox.intake.metrics.scan_seconds > 0


@pytest.mark.parametrize("kind", ["disk", "tmpfs"])
def test_e07_what_another_host_drops_is_found_though_nothing_tells_of_it(
    tmp_path: Path, places: Places, conninfo: str, kind: str
) -> None:
    with seen_from_afar(tmp_path if kind == "disk" else places.folder(kind)) as (server, client):
        spool = Spool.at(client / "spool")
        spool.create()
        store = Store(Database(conninfo, "tests"), spool.identity().spool)
        reader = Store(Database(conninfo, "tests"), spool.identity().spool)
        with running(spool, store, replace(PATIENT, settle_seconds=0.4)) as inbox:
            assert inbox.intake.metrics.mode is WatchMode.POLLING
            there = server / "spool" / "inbox"
            with open(there / "request-slow.json", "wb", buffering=0) as writer:
                for byte in request()[:10]:  # never at rest for long
                    writer.write(bytes([byte]))
                    seen = inbox.intake.metrics.scans
                    wait_until(lambda seen=seen: inbox.intake.metrics.scans > seen)
                writer.write(request()[10:])
            (there / "request-fast.json").write_bytes(request())
            taken(reader, "request-slow.json", "request-fast.json")
        assert {job.state for job in reader.jobs()} == {State.QUEUED}
        store.database.close()
        reader.database.close()


@BOTH
@pytest.mark.parametrize("limit", ["instances", "watches"])
def test_e07_where_inotify_is_used_up_the_inbox_is_polled_until_there_is_room(
    spool: Spool, conninfo: str, limit: str
) -> None:
    def in_a_namespace() -> None:
        # Limits of a user namespace of its own: nobody else on this machine is touched.
        allowed = Path(f"/proc/sys/user/max_inotify_{limit}")
        allowed.write_text("0")
        store, reader = (Store(Database(conninfo, "few"), spool.identity().spool) for _ in range(2))
        with running(spool, store, replace(PATIENT, rearm_seconds=0.2)) as inbox:
            metrics = inbox.intake.metrics
            assert metrics.mode is WatchMode.POLLING
            assert "limit reached" in metrics.mode_reason
            inbox.move("request-polled.json")
            taken(reader, "request-polled.json")
            allowed.write_text("100")
            wait_until(lambda: metrics.mode is WatchMode.EVENTS)
            at_rest(inbox)
            inbox.move("request-told.json")
            taken(reader, "request-told.json")
        assert inbox.job("request-polled.json").intake["found_by"] == "scan"
        assert inbox.job("request-told.json").intake["found_by"] == "event"

    with forked(in_a_namespace, namespace=True) as child:
        _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == _NO_NAMESPACE:
        pytest.skip("no user namespaces here")
    assert os.waitstatus_to_exitcode(status) == 0


@BOTH
def test_no_dropper_can_take_the_name_that_events_are_tried_with(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store) as inbox:
        # Once it was this one, and whoever took it had the inbox polled.
        inbox.copy(f".touch.{os.getpid()}.event.tmp", b"")
        inbox.scan()
        assert inbox.intake.metrics.mode is WatchMode.EVENTS


# --- lost events --------------------------------------------------------------------------------


@BOTH
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_e31_a_watch_whose_thread_dies_is_made_anew(
    spool: Spool, store: Store, reader: Store
) -> None:
    with running(spool, store) as inbox:
        watching = inbox.intake._watch._reader
        assert watching is not None
        folder = os.open(inbox.path, os.O_RDONLY | os.O_DIRECTORY)
        os.dup2(folder, watching._inotify_fd)  # reading it fails from now on
        os.close(folder)
        inbox.move("request-a.json")  # of which the kernel still tells the old one
        taken(reader, "request-a.json")
        wait_until(lambda: not watching.is_alive())
        wait_until(lambda: inbox.intake._watch._reader not in {None, watching})
        at_rest(inbox)
        inbox.move("request-b.json")
        taken(reader, "request-b.json")
    assert inbox.job("request-b.json").intake["found_by"] == "event"


@BOTH
def test_e05_drops_whose_events_the_kernel_threw_away_are_taken(
    spool: Spool, store: Store, conninfo: str
) -> None:
    queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queued > 100_000:
        pytest.skip("too many events to fill the queue with")

    def run() -> None:
        store = Store(Database(conninfo, "forked"), spool.identity().spool)
        Inbox(spool, store, PATIENT).intake.run(threading.Event())

    with opened(spool, store) as inbox, forked(run) as child:
        inbox.move("request-first.json")
        taken(store, "request-first.json")
        os.kill(child, signal.SIGSTOP)
        # A stray, renamed back and forth: nothing but events, until the queue is full.
        here, there = inbox.path / "a", inbox.path / "b"
        here.touch()
        for _ in range(queued // 2 + 100):
            here.rename(there)
            there.rename(here)
        names = [f"request-{number}.json" for number in range(50)]
        for name in names:
            inbox.move(name)
        os.kill(child, signal.SIGCONT)
        taken(store, *names)
        found_by = {str(inbox.job(name).intake["found_by"]) for name in names}
        assert found_by == {"scan"}
        later = (f"request-later-{number}.json" for number in range(1000))

        def told_again() -> bool:
            name = next(later)
            inbox.move(name)
            taken(store, name)
            return inbox.job(name).intake["found_by"] == "event"

        wait_until(told_again)  # once it has caught up


# --- an inbox that goes -------------------------------------------------------------------------


@BOTH
def test_e25_an_inbox_that_is_removed_and_made_again_is_watched_again(
    spool: Spool, store: Store, reader: Store
) -> None:
    with running(spool, store) as inbox:
        inbox.path.rmdir()
        wait_until(lambda: inbox.intake.metrics.inbox_missing)
        inbox.path.mkdir(mode=0o1730)
        inbox.move("request-a.json")
        taken(reader, "request-a.json")
        wait_until(lambda: inbox.intake.metrics.mode is WatchMode.EVENTS)
        at_rest(inbox)
        inbox.move("request-b.json")
        taken(reader, "request-b.json")
    assert inbox.job("request-b.json").intake["found_by"] == "event"


@BOTH
def test_e25_a_link_in_the_place_of_the_inbox_is_no_inbox(
    spool: Spool, store: Store, reader: Store, tmp_path: Path
) -> None:
    elsewhere, aside = tmp_path / "elsewhere", spool.root / "aside"
    elsewhere.mkdir()
    elsewhere.joinpath("request-theirs.json").write_bytes(request())
    with running(spool, store) as inbox:
        inbox.path.rename(aside)
        inbox.path.symlink_to(elsewhere)
        wait_until(lambda: inbox.intake.metrics.inbox_missing)
        scans = inbox.intake.metrics.scans
        wait_until(lambda: inbox.intake.metrics.scans > scans)
        assert [path.name for path in elsewhere.iterdir()] == ["request-theirs.json"]
        inbox.path.unlink()
        aside.rename(inbox.path)
        inbox.move("request-a.json")
        taken(reader, "request-a.json")


@BOTH
@as_root
@pytest.mark.parametrize("polling", [False, True])
def test_e25_what_is_mounted_over_the_inbox_is_noticed_and_nothing_is_lost(
    spool: Spool, store: Store, reader: Store, polling: bool
) -> None:
    with running(spool, store, replace(PATIENT, polling=polling)) as inbox:
        metrics = inbox.intake.metrics
        writer = open(inbox.path / "request-below.json", "wb", buffering=0)  # noqa: SIM115
        wait_until(lambda: metrics.waiting["writer-open"] == 1)
        with mounted(inbox.path, "-t", "tmpfs", "tmpfs"):
            wait_until(lambda: metrics.inbox_foreign)
            inbox.path.joinpath("request-above.json").write_bytes(request())
            wait_until(lambda: metrics.waiting["unreadable"] == 1)
            status = inbox.status("request-above.json")
            assert status is not None
            assert "cannot be moved out of the inbox" in status["error"]["message"]
            # Vanishing is not deletion.
            status = inbox.status("request-below.json")
            assert status is not None
            assert status["reason"] == "writer-open"
            assert (inbox.path / "request-above.json").exists()
        writer.write(request())
        writer.close()
        taken(reader, "request-below.json")
        wait_until(lambda: not metrics.inbox_foreign)
        assert reader.find_name(b"request-above.json") is None


@BOTH
@as_root
def test_e33_a_folder_of_the_spool_on_another_file_system_is_a_fault(spool: Spool) -> None:
    from spoold.spool import faults  # noqa: PLC0415

    for folder in (Folder.PROCESSED, Folder.INBOX):
        with mounted(spool.folder(folder), "-t", "tmpfs", "tmpfs"):
            [fault] = [fault for fault in faults(spool) if fault.fatal]
            assert fault.path == spool.folder(folder)
            assert "one file system" in fault.fix
        # A bind mount has the same device, and no rename all the same.
        with mounted(spool.folder(folder), "--bind", spool.folder(folder)):
            assert {fault.path for fault in faults(spool)} == {spool.folder(folder)}


# --- a full disk --------------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("kind", [small_disk, small_ext4])
@pytest.mark.parametrize("scarce", ["bytes", "files"])
def test_e23_on_a_full_disk_drops_wait_and_go_on_by_themselves(
    tmp_path: Path,
    conninfo: str,
    kind: Callable[[Path], AbstractContextManager[SmallDisk | SmallExt4]],
    scarce: str,
) -> None:
    with kind(tmp_path / "small") as disk:
        spool = Spool.at(disk.place / "spool")
        spool.create()
        store = Store(Database(conninfo, "tests"), spool.identity().spool)
        with opened(spool, store) as inbox:
            inbox.scan()
            for number in range(5):
                inbox.move(f"request-{number}.json")
            if scarce == "bytes":
                disk.no_more_bytes()
            else:
                disk.no_more_files()
            report = inbox.scan()
            assert (report.claimed, report.waiting) == (0, 5)
            assert len(list(inbox.path.iterdir())) == 5
            assert inbox.jobs() == []
            disk.grow()
            inbox.admitted(5)
            assert {job.state for job in inbox.jobs()} == {State.QUEUED}
        store.database.close()


# --- time ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("when", [0, 4_000_000_000])
def test_e24_a_drop_rests_by_our_clock_whatever_its_times_say(
    spool: Spool, store: Store, when: int
) -> None:
    with opened(spool, store) as inbox:
        path = inbox.copy("request-half.json", request()[:-1])  # `cp -p` of an old file, say
        os.utime(path, (when, when))
        assert inbox.scan().settling == 1
        path.write_bytes(request()[:-2])
        os.utime(path, (when, when))  # only its size tells that it was written to
        assert inbox.scan().settling == 1
        inbox.admitted()
        assert inbox.job("request-half.json").intake["method"] == "settled"
