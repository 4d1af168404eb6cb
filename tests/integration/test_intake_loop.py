"""The intake over time: bursts, crashes, two of them, a database that goes and comes."""

import fcntl
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spoold import postgres
from spoold.file_lock import shared
from spoold.intake.settings import WatchMode
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Spool
from spoold.status import status_name
from tests.conftest import wait_until
from tests.integration.file_systems import BOTH
from tests.integration.inboxes import SETTINGS, Inbox, opened, request


@pytest.fixture
def inbox(spool: Spool, store: Store) -> Iterator[Inbox]:
    with opened(spool, store) as inbox:
        yield inbox


@contextmanager
def running(inbox: Inbox) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=inbox.intake.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        inbox.intake.wake()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def reader(conninfo: str, spool: Spool) -> Iterator[Store]:
    """A second connection, for the test's own thread."""
    store = Store(Database(conninfo, "tests"), spool.identity().spool)
    yield store
    store.database.close()


@BOTH
@pytest.mark.parametrize("how", ["copy", "move"])
def test_e05_e06_a_burst_of_2000_files_is_taken_whole(
    spool: Spool, store: Store, reader: Store, how: str
) -> None:
    # Without a rescan: an event that comes during a listing must lead to the next one.
    settings = replace(SETTINGS, rescan_seconds=3600.0)
    with opened(spool, store, settings) as inbox, running(inbox):
        drop = inbox.copy if how == "copy" else inbox.move
        for number in range(2000):
            drop(f"request-{number}.json")
        wait_until(lambda: reader.unfinished() == 2000, 60)
    jobs = reader.jobs(limit=3000)
    assert {job.drop_name for job in jobs} == {b"request-%d.json" % n for n in range(2000)}
    assert len(jobs) == 2000
    assert not list(inbox.path.iterdir())
    assert len(inbox.in_claimed()) == 2000


@BOTH
def test_e08_a_backlog_is_the_same_scan(inbox: Inbox) -> None:
    for number in range(600):
        inbox.copy(f"request-{number}.json")
    report = inbox.scan()
    assert (report.drops, report.claimed, report.admitted) == (600, 600, 600)
    assert {str(job.intake["found_by"]) for job in inbox.jobs()} == {"scan"}


def test_an_idle_intake_takes_a_drop_within_a_moment(inbox: Inbox, reader: Store) -> None:
    settings = replace(SETTINGS, rescan_seconds=3600.0)
    with opened(inbox.spool, inbox.store, settings) as idle, running(idle):
        wait_until(lambda: idle.intake.metrics.scans > 0)
        slowest = 0.0
        for number in range(20):
            name = f"request-{number}.json"
            started = time.monotonic()
            (idle.move if number % 2 else idle.copy)(name)
            wait_until(lambda name=name: reader.find_name(name.encode()) is not None)
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 1.0  # not the next rescan
        assert idle.intake.metrics.mode is WatchMode.EVENTS


def test_a_hard_link_is_noticed_without_a_rescan(inbox: Inbox, reader: Store) -> None:
    settings = replace(SETTINGS, rescan_seconds=3600.0)
    with opened(inbox.spool, inbox.store, settings) as idle, running(idle):
        wait_until(lambda: idle.intake.metrics.scans > 0)
        source = idle.elsewhere / "source"
        source.write_bytes(request())
        os.link(source, idle.path / "request-a.json")
        wait_until(lambda: reader.find_name(b"request-a.json") is not None, 5)


def test_e07_polling_takes_drops_too(inbox: Inbox, reader: Store) -> None:
    settings = replace(SETTINGS, polling=True, rescan_seconds=3600.0)
    with opened(inbox.spool, inbox.store, settings) as polled, running(polled):
        wait_until(lambda: polled.intake.metrics.scans > 0)
        polled.move("request-a.json")
        wait_until(lambda: reader.find_name(b"request-a.json") is not None)
    assert polled.intake.metrics.mode is WatchMode.POLLING
    assert polled.intake.metrics.found_by_scan == 1


# Claims what is in the inbox; the insert meets a lock, and there the process is killed.
_VICTIM = """
import sys, uuid
from spoold.queue.database import Database
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.integration.inboxes import Inbox
spool = Spool.at(sys.argv[1])
inbox = Inbox(spool, Store(Database(sys.argv[2], "victim"), spool.identity().spool))
inbox.scan()
"""


def waiting(lock: psycopg.Connection) -> list[int]:
    """The server's processes that wait for a lock in this database."""
    # Not pg_stat_activity: within a transaction it stays as it is first seen.
    rows = lock.execute(
        "select pid from pg_locks join pg_database on pg_database.oid = database"
        " where datname = current_database() and not granted"
    )
    return [pid for (pid,) in rows]


@BOTH
def test_e09_killed_between_claim_and_row_it_is_admitted_under_the_same_id(
    spool: Spool, conninfo: str, store: Store
) -> None:
    names = [b"request-a.json", b"request-" + "ü".encode() * 120 + b".json", b"b.tar.zst"]
    with opened(spool, store) as inbox:
        inbox.copy(names[0], request(correlation_id="mine"))
        inbox.copy(names[1])
        inbox.copy(names[2], bytes.fromhex("28b52ffd6400034d00001000000100fb2b8005cdac85f0"))
        with (
            postgres.connect(conninfo, "lock") as lock,
            lock.transaction(),
            subprocess.Popen([sys.executable, "-c", _VICTIM, str(spool.root), conninfo]) as victim,
        ):
            lock.execute("lock table spoold.job in share mode")  # reads go on, inserts wait
            wait_until(lambda: waiting(lock))
            victim.kill()
            victim.wait()
        assert store.jobs() == []
        claimed = {path.name[:36] for path in inbox.in_claimed()}
        assert claimed
        inbox.scan_until(lambda _: store.unfinished() == 3)
        jobs = {job.drop_name: job for job in inbox.jobs()}
        assert set(jobs) == set(names)
        assert claimed <= {str(job.id) for job in jobs.values()}
        assert jobs[names[0]].correlation_id == "mine"
        assert {job.state for job in jobs.values()} == {State.QUEUED}
        assert len(inbox.in_claimed()) == 3
        assert not list(inbox.path.iterdir())


# Takes drops in until it is killed.
_TAKER = _VICTIM.replace("inbox.scan()", "import threading; inbox.intake.run(threading.Event())")


@BOTH
def test_e09_killed_at_any_moment_each_drop_is_one_job(
    spool: Spool, conninfo: str, reader: Store, store: Store
) -> None:
    chance = random.Random(9)
    names = []
    with opened(spool, store) as inbox:
        for turn in range(8):
            for number in range(150):
                names.append(f"request-{turn}-{number}.json")
                inbox.copy(names[-1], request(correlation_id=names[-1]))
            before = reader.unfinished()
            with subprocess.Popen(
                [sys.executable, "-c", _TAKER, str(spool.root), conninfo]
            ) as taker:
                wait_until(lambda before=before: reader.unfinished() > before)
                with suppress(subprocess.TimeoutExpired):
                    taker.wait(chance.uniform(0, 0.1))
                taker.kill()
        inbox.scan_until(lambda _: reader.unfinished() == len(names))
        jobs = inbox.jobs()
        assert sorted(str(job.correlation_id) for job in jobs) == sorted(names)
        assert len(inbox.in_claimed()) == len(names)
        for job in jobs:
            status = inbox.status(job.drop_name)
            assert status is not None
            assert status["job_id"] == str(job.id)
        assert not list(inbox.claimed.glob(".*.own"))


def test_e09_a_claimed_file_with_a_row_is_left_alone(inbox: Inbox) -> None:
    inbox.copy("request-a.json")
    inbox.admitted()
    with opened(inbox.spool, inbox.store) as second:
        inbox.intake.close()
        assert second.scan().held == 0
        assert len(second.jobs()) == 1


def test_e09_a_file_that_appears_in_claimed_is_adopted(spool: Spool, store: Store) -> None:
    with opened(spool, store, replace(SETTINGS, reconcile_seconds=0.0)) as inbox:
        inbox.scan()
        job_id = uuid.uuid4()
        (inbox.claimed / f"{job_id}.request-a.json").write_bytes(request())
        assert inbox.scan().admitted == 1
        assert inbox.job("request-a.json").id == job_id


def test_e09_what_a_command_puts_into_claimed_is_its_own_until_it_has_ended(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store, replace(SETTINGS, reconcile_seconds=0.0)) as inbox:
        inbox.scan()
        job_id = uuid.uuid4()
        copy = inbox.claimed / f".{uuid.uuid4()}.own"
        with shared(inbox.claimed):
            (inbox.claimed / f"{job_id}.request-a.json").write_bytes(request())
            copy.write_bytes(request())
            for _ in range(3):
                report = inbox.scan()
                assert (report.admitted, report.held, copy.exists()) == (0, 0, True)
        with open(copy, "rb") as writer:  # a command that still writes it
            fcntl.flock(writer, fcntl.LOCK_EX)
            inbox.admitted()
            inbox.scan()
            assert copy.exists()
        assert inbox.job("request-a.json").id == job_id
        wait_until(lambda: bool(inbox.scan()) and not copy.exists())


def test_a_turn_that_stands_by_counts_and_is_dry(inbox: Inbox, spool: Spool, store: Store) -> None:
    inbox.scan()
    with opened(spool, store) as other:
        report = other.scan()
        assert (report.standing_by, report.dry) == (True, True)
        assert other.intake.metrics.scans == 1


@BOTH
def test_e11_of_two_intakes_one_stands_by_and_takes_over(
    inbox: Inbox, spool: Spool, conninfo: str, reader: Store
) -> None:
    other_store = Store(Database(conninfo, "tests"), spool.identity().spool)
    with opened(spool, other_store) as other, running(other):
        wait_until(lambda: other.intake.metrics.scans > 0)
        with running(inbox):
            for number in range(5):
                inbox.move(f"request-{number}.json")
            wait_until(lambda: reader.unfinished() == 5)
            wait_until(lambda: inbox.intake.metrics.standing_by)
            assert len(reader.jobs()) == 5
    with running(inbox):  # the first has ended
        inbox.move("request-5.json")
        wait_until(lambda: reader.unfinished() == 6)
    assert not inbox.intake.metrics.standing_by
    assert len(reader.jobs()) == 6
    other_store.database.close()


@contextmanager
def database_away(conninfo: str) -> Iterator[None]:
    """Nobody gets into this database, and who is in is thrown out."""
    name = str(conninfo_to_dict(conninfo)["dbname"])
    with postgres.connect(make_conninfo(conninfo, dbname="postgres"), "tests") as server:
        server.execute(f'alter database "{name}" with allow_connections false')
        server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
        )
        try:
            yield
        finally:
            server.execute(f'alter database "{name}" with allow_connections true')


def test_e28_without_a_database_drops_wait_and_are_taken_when_it_is_back(
    inbox: Inbox, conninfo: str
) -> None:
    inbox.copy("request-old.json")
    inbox.admitted()
    old = inbox.status_path("request-old.json").read_bytes()
    with database_away(conninfo):
        inbox.copy("request-a.json")
        inbox.copy("request-old.json")
        report = inbox.scan()
        assert (report.claimed, report.database_away) == (0, True)
        assert (inbox.path / "request-a.json").exists()
        status = inbox.status("request-a.json")
        assert status is not None
        assert (status["state"], status["reason"]) == ("waiting", "database-away")
        # It may be that an unfinished job has this name: its status is not ours to write.
        assert inbox.status_path("request-old.json").read_bytes() == old
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED
    report = inbox.scan()
    assert (report.name_busy, report.database_away) == (1, False)


def test_e28_a_connection_lost_during_admission_admits_once(
    spool: Spool, conninfo: str, store: Store
) -> None:
    with opened(spool, store) as inbox:
        inbox.scan()
        for number in range(20):
            inbox.copy(f"request-{number}.json")
        with postgres.connect(conninfo, "lock") as lock, lock.transaction():
            lock.execute("lock table spoold.job in share mode")
            scanning = threading.Thread(target=inbox.scan)
            scanning.start()
            wait_until(lambda: waiting(lock))
            for pid in waiting(lock):
                lock.execute("select pg_terminate_backend(%s)", (pid,))
            scanning.join(20)
        assert inbox.intake.report.held == 20
        assert inbox.intake.report.database_away
        inbox.scan_until(lambda report: report.held == 0)
        assert len(inbox.jobs()) == 20
        assert len(inbox.in_claimed()) == 20


def test_e38_one_that_is_bad_among_99_good_ones(inbox: Inbox, conninfo: str) -> None:
    for number in range(97):
        inbox.copy(f"request-{number}.json")
    inbox.copy("request-nul.json", request(name="a\x00b"))
    inbox.copy("request-surrogate.json", request(name="\udc00"))
    inbox.copy("request-poison.json", request(correlation_id="poison"))
    with psycopg.connect(conninfo, autocommit=True) as connection:  # what only the server refuses
        connection.execute(
            "alter table spoold.job add constraint poison check (correlation_id <> 'poison')"
        )
    report = inbox.scan()
    assert report.admitted == 100
    for name in ("nul", "surrogate"):
        assert inbox.refusal(f"request-{name}.json") == "request-invalid"
    assert inbox.refusal("request-poison.json") == "drop-refused"
    assert sum(job.state is State.QUEUED for job in inbox.jobs()) == 97


@BOTH
def test_e12_a_name_that_became_busy_meanwhile_is_kept_and_taken_later(
    inbox: Inbox, conninfo: str
) -> None:
    inbox.scan()
    inbox.copy("request-a.json", request(correlation_id="first"))
    inbox.admitted()
    # As after a crash: claimed under an id of its own, while the other is unfinished.
    job_id = uuid.uuid4()
    path = inbox.claimed / f"{job_id}.request-a.json"
    path.write_bytes(request(correlation_id="second"))
    before = inbox.status_path("request-a.json").read_bytes()
    inbox.intake.close()
    with opened(inbox.spool, inbox.store) as again:
        assert again.scan().held == 1
        assert again.status_path("request-a.json").read_bytes() == before
        first = again.job("request-a.json")
        final = again.finish("request-a.json")
        assert again.status_path("request-a.json").read_bytes() == final
        again.scan_until(lambda report: report.held == 0)
        second = again.job("request-a.json")
        assert (second.id, second.correlation_id) == (job_id, "second")
        assert second.id != first.id
        status = again.status("request-a.json")
        assert status is not None
        assert (status["state"], status["job_id"]) == ("queued", str(job_id))


@BOTH
def test_e25_an_inbox_that_goes_and_comes_is_watched_again(inbox: Inbox, reader: Store) -> None:
    settings = replace(SETTINGS, rescan_seconds=3600.0)
    away = inbox.spool.root / "away"
    with opened(inbox.spool, inbox.store, settings) as watched, running(watched):
        wait_until(lambda: watched.intake.metrics.scans > 0)
        watched.path.rename(away)
        wait_until(lambda: watched.intake.metrics.inbox_missing)
        (away / "request-a.json").write_bytes(request())
        away.rename(watched.path)
        wait_until(lambda: reader.find_name(b"request-a.json") is not None)
        wait_until(lambda: not watched.intake.metrics.inbox_missing)
        watched.path.rename(away)
        watched.path.mkdir(mode=0o1730)  # another folder under the name
        watched.move("request-b.json")
        wait_until(lambda: reader.find_name(b"request-b.json") is not None)


@BOTH
def test_e27_e39_files_that_come_and_go_leave_no_lie(inbox: Inbox, reader: Store) -> None:
    """Drops removed at random moments: each is a job, or has no status at all."""
    names = [f"request-{number}.json" for number in range(300)]
    with running(inbox):
        for name in names:
            path = inbox.copy(name)
            with suppress(FileNotFoundError):
                path.unlink()

        def settled() -> bool:
            known = {job.drop_name for job in reader.jobs(limit=1000)}
            told = {path.name for path in inbox.status_path("x").parent.iterdir()}
            return told == {os.fsdecode(status_name(name)) for name in known}

        wait_until(settled)
    assert inbox.intake.metrics.errors == 0


@BOTH
def test_e36_writers_that_open_at_any_moment_do_no_harm(inbox: Inbox, reader: Store) -> None:
    """Files opened for writing again and again while they are looked at and claimed."""
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            for path in inbox.path.glob("request-*.json"):
                with suppress(OSError), open(path, "r+b") as file:
                    file.read(1)

    disturbers = [threading.Thread(target=disturb) for _ in range(2)]
    with running(inbox):
        for thread in disturbers:
            thread.start()
        try:
            for number in range(200):
                inbox.copy(f"request-{number}.json")
            wait_until(lambda: reader.unfinished() == 200, 60)
        finally:
            stop.set()
            for thread in disturbers:
                thread.join()
    jobs = reader.jobs(limit=1000)
    assert len(jobs) == 200
    assert all(job.state is State.QUEUED for job in jobs)
