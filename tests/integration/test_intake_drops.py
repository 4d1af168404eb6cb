"""One drop of each kind: what becomes of it, in rows, files and statuses."""

import fcntl
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import model_validator

from spoold.intake.loop import Intake
from spoold.intake.settings import Idempotency, WriterCheck
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Status
from tests.conftest import wait_until
from tests.integration.file_systems import ALL
from tests.integration.inboxes import (
    SETTINGS,
    BundleRequest,
    Inbox,
    one_database,
    opened,
    powerless,
    request,
)

ZSTD_END = bytes.fromhex("28b52ffd6400034d00001000000100fb2b8005cdac85f0")

pytestmark = ALL
conninfo = one_database


@pytest.fixture
def inbox(spool: Spool, store: Store) -> Iterator[Inbox]:
    with opened(spool, store) as inbox:
        inbox.scan()
        yield inbox


def test_a_copied_request_is_a_job_at_once(inbox: Inbox) -> None:
    inbox.copy("request-a.json", request(priority=3, correlation_id="c", timeout="1m"))
    report = inbox.scan()
    assert (report.claimed, report.admitted, report.dry) == (1, 1, False)
    assert inbox.scan().dry
    job = inbox.job("request-a.json")
    assert job.state is State.QUEUED
    assert (job.priority, job.correlation_id, job.timeout_seconds) == (3, "c", 60)
    assert job.intake["method"] == "no-writer"
    assert not list(inbox.path.iterdir())
    [claimed] = inbox.in_claimed()
    assert claimed.name == f"{job.id}.request-a.json"
    status = inbox.status("request-a.json")
    assert status is not None
    assert (status["state"], status["job_id"], status["final"]) == ("queued", str(job.id), False)
    assert status["intake"] == job.intake


def test_e03_a_moved_request_is_known_by_its_event(inbox: Inbox) -> None:
    for number in range(3):
        inbox.move(f"request-{number}.json")
    # the hints themselves
    wait_until(lambda: len(inbox.intake._watch._hints) == 3)
    inbox.admitted(3)
    for number in range(3):
        assert inbox.job(f"request-{number}.json").intake == {
            "found_by": "event",
            "method": "moved",
        }
    assert inbox.intake.metrics.found_by_event == 3


def test_e01_a_file_being_written_waits_and_says_so(inbox: Inbox) -> None:
    content = request(labels={"filler": "x" * 900})
    with open(inbox.path / "request-slow.json", "wb", buffering=0) as writer:
        for start in range(0, len(content), 100):
            writer.write(content[start : start + 100])
            assert inbox.scan().claimed == 0
            status = inbox.status("request-slow.json")
            assert status is not None
            assert (status["state"], status["reason"]) == ("waiting", "writer-open")
            assert status["job_id"] is None
    inbox.admitted()
    assert inbox.job("request-slow.json").drop_bytes == len(content)
    assert inbox.job("request-slow.json").intake["method"] == "no-writer"


def test_e01_a_file_that_a_file_server_has_to_itself_is_waited_for(inbox: Inbox) -> None:
    path = inbox.copy("request-a.json")
    server = os.open(path, os.O_RDONLY)
    fcntl.fcntl(server, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # an oplock, to smbd
    assert inbox.scan().claimed == 0
    status = inbox.status("request-a.json")
    assert status is not None
    assert (status["state"], status["reason"]) == ("waiting", "writer-open")
    os.close(server)
    inbox.admitted()


def test_e01_a_writer_is_still_seen_after_a_move(inbox: Inbox) -> None:
    source = inbox.elsewhere / "half"
    with open(source, "wb", buffering=0) as writer:
        writer.write(request()[:20])
        source.rename(inbox.path / "request-a.json")
        inbox.scan_until(lambda report: report.waiting == 1)
        assert inbox.store.unfinished() == 0
        status = inbox.status("request-a.json")
        assert status is not None
        assert (status["state"], status["reason"]) == ("waiting", "writer-open")
        writer.write(request()[20:])
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED
    status = inbox.status("request-a.json")
    assert status is not None
    assert status["state"] == "queued"


def test_e02_a_writer_that_closes_and_opens_again_is_waited_for(inbox: Inbox) -> None:
    """What a virus scanner or a resumed upload looks like: closed, and yet not whole."""
    content = request()
    path = inbox.copy("request-a.json", content[:30])
    report = inbox.scan()
    assert (report.claimed, report.settling) == (0, 1)
    with open(path, "ab", buffering=0) as writer:
        writer.write(content[30:60])
        assert inbox.scan().waiting == 1
    assert inbox.scan().settling == 1  # its rest has begun anew
    with open(path, "ab") as writer:
        writer.write(content[60:])
    inbox.admitted()
    assert inbox.job("request-a.json").intake["method"] == "no-writer"
    [claimed] = inbox.in_claimed()
    assert claimed.read_bytes() == content


def test_e02_whole_and_closed_is_enough_though_it_is_opened_again_for_reading(inbox: Inbox) -> None:
    with open(inbox.copy("request-a.json"), "rb"):
        inbox.admitted()


def test_e04_half_a_request_settles_and_is_rejected(inbox: Inbox) -> None:
    inbox.copy("request-half.json", request()[:-10])
    report = inbox.scan()
    assert (report.claimed, report.settling) == (0, 1)
    inbox.admitted()
    assert inbox.refusal("request-half.json") == "request-truncated"
    assert inbox.job("request-half.json").intake["method"] == "settled"


def test_e04_a_half_file_that_goes_on_is_taken_whole(inbox: Inbox) -> None:
    path = inbox.copy("request-half.json", request()[:-10])
    assert inbox.scan().settling == 1
    path.write_bytes(request())
    inbox.admitted()
    assert inbox.job("request-half.json").state is State.QUEUED


def test_e04_a_writer_that_stays_has_its_file_taken_away(spool: Spool, store: Store) -> None:
    settings = replace(SETTINGS, incomplete_seconds=0.3)
    with (
        opened(spool, store, settings) as inbox,
        open(inbox.path / "request-open.json", "wb", buffering=0) as writer,
    ):
        writer.write(request())
        assert inbox.scan().waiting == 1
        inbox.admitted()
        assert inbox.refusal("request-open.json") == "incomplete"
        [claimed] = inbox.in_claimed()
        assert claimed.stat().st_ino == os.fstat(writer.fileno()).st_ino  # moved, not copied


def test_e04_a_file_server_that_keeps_a_file_to_itself_has_it_taken_away(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store, replace(SETTINGS, incomplete_seconds=0.3)) as inbox:
        server = os.open(inbox.copy("request-a.json"), os.O_RDONLY)
        fcntl.fcntl(server, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert inbox.scan().waiting == 1
        inbox.admitted()
        os.close(server)
        assert inbox.refusal("request-a.json") == "incomplete"


def test_e04_a_bundle_without_its_end_settles_first(inbox: Inbox) -> None:
    inbox.copy("half.tar.zst", b"half")
    inbox.copy("whole.tar.zst", b"whole" + ZSTD_END)
    report = inbox.scan()
    assert (report.admitted, report.settling) == (1, 1)
    job = inbox.job("whole.tar.zst")
    assert (job.action, job.request, job.drop_sha256) == ("rehydrate", None, None)
    assert job.state is State.QUEUED
    inbox.admitted()
    assert inbox.job("half.tar.zst").intake["method"] == "settled"


def test_e12_the_same_name_waits_for_its_turn(inbox: Inbox) -> None:
    inbox.copy("request-a.json", request(correlation_id="first"))
    inbox.admitted()
    first = inbox.job("request-a.json")
    inbox.copy("request-a.json", request(correlation_id="second"))
    report = inbox.scan()
    assert (report.claimed, report.name_busy) == (0, 1)
    assert (inbox.path / "request-a.json").exists()
    status = inbox.status("request-a.json")
    assert status is not None
    assert status["job_id"] == str(first.id)  # the waiting one has none of its own
    inbox.finish("request-a.json")
    inbox.admitted()
    second = inbox.job("request-a.json")
    assert (second.correlation_id, second.id == first.id) == ("second", False)


def test_e14_a_corrected_file_of_the_same_name_is_a_new_job(inbox: Inbox) -> None:
    inbox.copy("request-a.json", b'{"type": 1}')
    inbox.admitted()
    assert inbox.refusal("request-a.json") == "request-invalid"
    inbox.finish("request-a.json")
    inbox.copy("request-a.json")
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED


def test_a_request_for_later_says_when_it_is_due(inbox: Inbox) -> None:
    for name, move in (("request-copied.json", inbox.copy), ("request-moved.json", inbox.move)):
        move(name, request(not_before="2099-01-01T00:00:00Z"))
        inbox.admitted()
        status = inbox.status(name)
        assert status is not None
        assert (status["state"], status["final"]) == ("scheduled", False)
        assert status["next_attempt_at"] == "2099-01-01T00:00:00.000Z"
        assert status["job_id"] == str(inbox.job(name).id)
        assert inbox.job(name).state is State.SCHEDULED
    inbox.copy("request-past.json", request(not_before="2001-01-01T00:00:00Z"))
    inbox.admitted()
    status = inbox.status("request-past.json")
    assert status is not None
    assert status["state"] == "queued"


def test_a_timeout_is_at_most_the_configured_one(spool: Spool, store: Store) -> None:
    with opened(spool, store, replace(SETTINGS, timeout_seconds=60)) as inbox:
        for name, timeout in (("less", "30s"), ("most", 60), ("more", "2m"), ("none", None)):
            inbox.copy(f"request-{name}.json", request(timeout=timeout))
        inbox.admitted(4)
        jobs = {
            name: inbox.job(f"request-{name}.json") for name in ("less", "most", "more", "none")
        }
    assert [job.timeout_seconds for job in jobs.values()] == [30, 60, 60, 60]
    # A status says what became of it, whatever else it says.
    warnings = {name: Status.of(job, job.state).warnings for name, job in jobs.items()}
    assert warnings.pop("more") == (
        "a timeout of 120 s is asked for; 60 s is the most here: [workers] timeout_seconds",
    )
    assert not any(warnings.values())


def test_e13_the_same_key_waits_then_is_a_duplicate(inbox: Inbox) -> None:
    for name in ("a", "b"):
        inbox.copy(f"request-{name}.json", request(idempotency_key="k"))
        inbox.admitted()
    assert inbox.job("request-b.json").waits_for == inbox.job("request-a.json").id
    inbox.copy("request-other.json", request(idempotency_key="k", name="other"))
    inbox.admitted()
    assert inbox.refusal("request-other.json") == "idempotency-key-reused"
    inbox.finish("request-a.json")
    inbox.copy("request-c.json", request(idempotency_key="k"))
    inbox.admitted()
    for name in ("request-b.json", "request-c.json"):
        outcome = inbox.job(name).outcome
        assert outcome is not None
        assert outcome["state"] == "duplicate"


def test_e13_without_a_key_equal_requests_are_two_jobs(inbox: Inbox) -> None:
    inbox.copy("request-a.json")
    inbox.copy("request-b.json")
    inbox.admitted(2)
    assert inbox.job("request-b.json").waits_for is None


def test_e13_by_setting_the_content_is_the_key(spool: Spool, store: Store) -> None:
    settings = replace(SETTINGS, idempotency=Idempotency.CONTENT)
    with opened(spool, store, settings) as inbox:
        inbox.copy("request-a.json", b'{"type":"spoold.request/1","action":"bundle","sources":[]}')
        inbox.admitted()
        inbox.copy("request-b.json", b'{"action":"bundle","sources":[],"type":"spoold.request/1"}')
        inbox.admitted()
        assert inbox.job("request-b.json").waits_for == inbox.job("request-a.json").id


def test_e15_what_was_parsed_is_what_is_kept(inbox: Inbox) -> None:
    source = inbox.elsewhere / "kept"
    source.write_bytes(request(name="parsed"))
    os.link(source, inbox.path / "request-a.json")  # E18: the dropper keeps a name of the inode
    inbox.admitted()
    source.write_bytes(request(name="changed later"))
    [claimed] = inbox.in_claimed()
    assert claimed.read_bytes() == request(name="parsed")
    assert claimed.stat().st_ino != source.stat().st_ino
    assert not list(inbox.claimed.glob(".*.own"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
def test_e15_a_request_of_another_user_is_copied_and_no_wider(inbox: Inbox) -> None:
    path = inbox.copy("request-a.json")
    path.chmod(0o660)
    os.chown(path, 12345, 12345)
    inode = path.stat().st_ino
    inbox.admitted()
    [claimed] = inbox.in_claimed()
    status = claimed.stat()
    assert (status.st_uid, status.st_mode & 0o777, status.st_ino == inode) == (0, 0o640, False)


def test_e18_a_request_with_another_name_is_copied(inbox: Inbox) -> None:
    source = inbox.elsewhere / "kept"
    source.write_bytes(request())
    os.link(source, inbox.path / "request-a.json")
    inbox.admitted()
    [claimed] = inbox.in_claimed()
    assert claimed.stat().st_nlink == source.stat().st_nlink == 1


def test_e16_strays_stay_where_they_are_and_stop_nobody(inbox: Inbox) -> None:
    os.mkfifo(inbox.path / "request-fifo.json")
    (inbox.path / "request-folder.json").mkdir()
    (inbox.path / "notes.txt").touch()
    here = os.getcwd()
    os.chdir(inbox.path)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("request-socket.json")
            inbox.copy("request-a.json")
            inbox.admitted()
    finally:
        os.chdir(here)
    assert inbox.intake.metrics.strays == 4
    assert len(list(inbox.path.iterdir())) == 4
    assert inbox.status("request-fifo.json") is None


def test_e17_a_link_is_rejected_and_its_target_untouched(inbox: Inbox) -> None:
    target = inbox.elsewhere / "target"
    target.write_bytes(request())
    (inbox.path / "request-out.json").symlink_to(target)
    (inbox.path / "request-dangling.json").symlink_to("/nowhere")
    (inbox.path / "loop.tar.zst").symlink_to("loop.tar.zst")
    inbox.admitted(3)
    for name in ("request-out.json", "request-dangling.json", "loop.tar.zst"):
        assert inbox.refusal(name) == "drop-symlink"
    assert target.read_bytes() == request()
    assert all(path.is_symlink() for path in inbox.in_claimed())


def test_e19_unfinished_names_are_counted_and_left(inbox: Inbox) -> None:
    suffixes = ("part", "partial", "filepart", "tmp", "swp", "crdownload")
    names = [f"request-a.json.{suffix}" for suffix in suffixes]
    names += [".hidden", ".sftpgo-upload.x.case.tar.zst", ".request-a.json.Xy12", "a.tar.zst~"]
    for name in names:
        inbox.copy(name)
    assert inbox.scan().drops == 0
    assert inbox.intake.metrics.unfinished == len(names)
    assert inbox.intake.metrics.strays == 0
    assert {path.name for path in inbox.path.iterdir()} == set(names)
    (inbox.path / "request-a.json.part").rename(inbox.path / "request-a.json")
    inbox.admitted()


@pytest.mark.parametrize(
    "name",
    [
        b"request-\xff\xfe.json",
        b"request-a\nb\tc\x01.json",
        b"request-" + b"x" * 242 + b".json",
        b"request-" + b"\xff" * 242 + b".json",
        b"request- spaces .json",
        "request-größe \U0001f600.json".encode(),
        b"-rf.tar.zst",
        b"request-a\\x41.json",
        b'request-"quoted".json',
    ],
)
def test_e20_any_name_is_taken_and_kept_byte_for_byte(inbox: Inbox, name: bytes) -> None:
    content = b"x" + ZSTD_END if name.endswith(b".zst") else request()
    inbox.copy(name, content)
    inbox.admitted()
    job = inbox.job(name)
    assert job.drop_name == name
    assert job.state is State.QUEUED
    status = inbox.status(name)
    assert status is not None
    assert status["job_id"] == str(job.id)


def test_e21_limits_come_before_reading(spool: Spool, store: Store) -> None:
    settings = replace(SETTINGS, max_request_bytes=1000, max_bundle_bytes=5000)
    with opened(spool, store, settings) as inbox:
        padding = 1000 - len(request(name=""))
        inbox.copy("request-limit.json", request(name="x" * padding)[:1000])
        inbox.copy("request-over.json", request() + b" " * 1000)
        inbox.copy("request-huge.json", b"")
        os.truncate(inbox.path / "request-huge.json", 2**40)
        inbox.copy("over.tar.zst", b"x" * 5000 + ZSTD_END)
        inbox.copy("huge.tar.zst", b"")
        os.truncate(inbox.path / "huge.tar.zst", 2**40)
        inbox.copy("request-one.json", b"1")
        inbox.copy("request-empty.json", b"")
        inbox.copy("empty.tar.zst", b"")
        inbox.admitted(8)
        assert inbox.refusal("request-over.json") == "request-too-large"
        assert inbox.refusal("request-huge.json") == "request-too-large"
        assert inbox.refusal("over.tar.zst") == "bundle-too-large"
        assert inbox.refusal("huge.tar.zst") == "bundle-too-large"
        assert inbox.refusal("request-one.json") == "request-invalid"
        assert inbox.refusal("request-empty.json") == "drop-empty"
        assert inbox.refusal("empty.tar.zst") == "drop-empty"
        assert inbox.job("request-empty.json").intake["method"] == "settled"
        assert inbox.job("request-huge.json").drop_sha256 is None


@pytest.mark.parametrize(
    ("content", "code", "at"),
    [
        (b"[" * 90_000 + b"]" * 90_000, "request-invalid", "line 1, column 9"),
        (b"[" + b"{}," * 60_000 + b"{}]", "request-invalid", None),
        (request()[:-1] + b',"priority":' + b"9" * 5000 + b"}", "request-invalid", "line 1"),
        (request()[:-1] + b',"type":"x"}', "request-invalid", "line 1, column 114"),
        (request()[:-1] + b',"priority":NaN}', "request-invalid", "line 1"),
        (b"\xef\xbb\xbf" + request(), "request-invalid", "line 1, column 1"),
        (b'{"type":"\xff"}', "request-not-json", "line 1, column 10"),
        (request(name="\ud800"), "request-invalid", "line 1"),
        (request(name="a\x00b"), "request-invalid", "line 1"),
        (request(name="a\x01b"), "request-invalid", "name"),
    ],
)
def test_e22_hostile_json_is_rejected_with_its_place(
    inbox: Inbox, content: bytes, code: str, at: str | None
) -> None:
    inbox.copy("request-a.json", content)
    inbox.admitted()
    assert inbox.refusal("request-a.json") == code
    outcome = inbox.job("request-a.json").outcome
    assert outcome is not None
    error = outcome["error"]
    assert isinstance(error, dict)
    assert (error["at"] is None) if at is None else str(error["at"]).startswith(at)


def test_e35_a_name_that_could_pass_for_an_answer_is_a_stray(inbox: Inbox) -> None:
    names = ("request-x.json.status.json", "x.log", "request-x~0123456789ab.json")
    for name in names:
        inbox.copy(name)
    assert inbox.scan().drops == 0
    assert inbox.intake.metrics.strays == 3
    assert not any(inbox.status_path(name).exists() for name in names)
    assert len(list(inbox.path.iterdir())) == 3


def test_e16_e35_each_stray_is_told_of_once(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox.copy("notes.txt")
    for _ in range(3):
        inbox.scan()
    assert capsys.readouterr().out.count("intake.stray") == 1


def test_e31_a_fault_of_ours_in_one_request_costs_that_one_alone(
    spool: Spool, store: Store
) -> None:
    class Faulty(BundleRequest):
        @model_validator(mode="after")
        def _fail(self) -> "Faulty":
            if self.name == "trap":
                raise RuntimeError("a fault of ours")
            return self

    with opened(spool, store) as inbox:
        intake = Intake(spool, store, SETTINGS, {"bundle": Faulty})
        inbox.copy("request-trap.json", request(name="trap"))
        inbox.copy("request-a.json")
        wait_until(lambda: intake.scan_once().dry)
        assert inbox.refusal("request-trap.json") == "internal-error"
        assert inbox.job("request-a.json").state is State.QUEUED
        inbox.move("request-b.json")
        wait_until(lambda: b"request-b.json" in intake._watch._hints)
        assert intake.scan_once().admitted == 1
        assert inbox.job("request-b.json").intake["found_by"] == "event"
        intake.close()


def test_e26_an_unreadable_file_waits_with_the_fix(inbox: Inbox) -> None:
    path = inbox.copy("request-a.json")
    path.chmod(0)
    inbox.copy("request-b.json")
    with powerless():
        report = inbox.scan()
    assert (report.admitted, report.waiting) == (1, 1)
    status = inbox.status("request-a.json")
    assert status is not None
    assert (status["reason"], status["error"]["code"]) == ("unreadable", "drop-unreadable")
    path.chmod(0o600)
    with powerless():
        inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED


def test_e26_an_unreadable_file_is_rejected_in_the_end(spool: Spool, store: Store) -> None:
    with opened(spool, store, replace(SETTINGS, incomplete_seconds=0.3)) as inbox:
        inbox.scan()
        inbox.copy("request-a.json").chmod(0)
        with powerless():
            assert inbox.scan().waiting == 1
            inbox.admitted()
        assert inbox.refusal("request-a.json") == "drop-unreadable"


def test_e26_a_read_only_inbox_is_reported_and_tried_again(inbox: Inbox) -> None:
    inbox.copy("request-a.json")
    inbox.path.chmod(0o555)
    with powerless():
        assert inbox.scan().waiting == 1
    status = inbox.status("request-a.json")
    assert status is not None
    assert status["reason"] == "unreadable"
    assert "cannot be moved" in status["error"]["message"]
    with powerless():
        assert inbox.scan().waiting == 1
    assert inbox.status("request-a.json") == status  # and says so as long as it is so
    inbox.path.chmod(0o1730)
    inbox.admitted()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give a file away")
def test_e26_where_a_file_of_another_user_cannot_be_leased_rest_decides(inbox: Inbox) -> None:
    os.chown(inbox.copy("request-a.json"), 12345, 12345)
    with powerless():
        assert inbox.scan().settling == 1
        inbox.admitted()
    assert inbox.job("request-a.json").intake["method"] == "settled"
    [claimed] = inbox.in_claimed()
    assert claimed.stat().st_uid == 0  # a copy: the dropper could still write to his inode


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to make a file immutable")
def test_e26_a_drop_that_no_rename_moves_stops_no_other_and_says_why(
    inbox: Inbox,
) -> None:
    path = inbox.copy("request-a.json")
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode != 0:
        pytest.skip("no immutable files here")
    try:
        inbox.copy("request-b.json")
        inbox.admitted()
        for _ in range(2):
            assert inbox.scan().waiting == 1
            status = inbox.status("request-a.json")
            assert status is not None
            assert (status["state"], status["reason"]) == ("waiting", "unreadable")
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    inbox.admitted()
    assert {job.state for job in inbox.jobs()} == {State.QUEUED}


def test_e27_a_drop_that_vanishes_is_forgotten_with_its_status(inbox: Inbox) -> None:
    with open(inbox.path / "request-a.json", "wb") as writer:
        inbox.scan()
        assert inbox.status("request-a.json") is not None
        os.unlink(inbox.path / "request-a.json")
        del writer
        report = inbox.scan()
    assert report.drops == 0
    assert inbox.status("request-a.json") is None


def test_e39_queued_replaces_yesterdays_final_before_the_drop_leaves(inbox: Inbox) -> None:
    inbox.copy("request-a.json")
    inbox.admitted()
    inbox.finish("request-a.json")
    status = inbox.status("request-a.json")
    assert status is not None
    assert status["final"]
    inbox.copy("request-a.json")
    inbox.admitted()
    status = inbox.status("request-a.json")
    assert status is not None
    assert (status["final"], status["state"]) == (False, "queued")
    assert status["job_id"] == str(inbox.job("request-a.json").id)


def test_e39_the_last_final_returns_when_the_next_drop_is_withdrawn(inbox: Inbox) -> None:
    inbox.copy("request-a.json")
    inbox.admitted()
    final = inbox.finish("request-a.json")
    path = inbox.path / "request-a.json"
    with open(path, "wb"):
        inbox.scan()
        status = inbox.status("request-a.json")
        assert status is not None
        assert status["state"] == "waiting"
        path.unlink()
        inbox.scan()
    beside = inbox.spool.folder(Folder.PROCESSED) / "request-a.json.status.json"
    assert inbox.status_path("request-a.json").read_bytes() == final
    assert inbox.status_path("request-a.json").samefile(beside)
    beside.unlink()
    inbox.status_path("request-a.json").unlink()
    with open(path, "wb"):
        inbox.scan()
        path.unlink()
        inbox.scan()
    assert inbox.status_path("request-a.json").read_bytes() == final  # from the row


def test_where_leases_are_not_asked_rest_alone_decides(spool: Spool, store: Store) -> None:
    settings = replace(SETTINGS, writer_check=WriterCheck.SETTLE, settle_seconds=0.4)
    with opened(spool, store, settings) as inbox:
        with open(inbox.path / "request-a.json", "wb", buffering=0) as writer:
            writer.write(request())
            assert inbox.scan().settling == 1
            writer.write(b" ")
            assert inbox.scan().settling == 1
        inbox.admitted()
        assert inbox.job("request-a.json").intake["method"] == "settled"


def test_below_the_floor_of_free_space_drops_wait(spool: Spool, store: Store) -> None:
    with opened(spool, store, replace(SETTINGS, min_free_bytes=2**60)) as inbox:
        inbox.copy("request-a.json")
        assert inbox.scan().waiting == 1
        status = inbox.status("request-a.json")
        assert status is not None
        assert (status["reason"], status["error"]["code"]) == ("space", "no-space")
    with opened(spool, store) as inbox:
        inbox.admitted()


def test_a_file_that_no_job_has_is_not_taken_for_a_claim(inbox: Inbox) -> None:
    odd = inbox.claimed / "odd"
    odd.touch()
    foreign = inbox.claimed / f"{uuid.uuid4()}"
    foreign.touch()
    assert inbox.scan().held == 0
    assert odd.exists()
    assert foreign.exists()


def test_statuses_are_world_readable_and_temporary_files_gone(inbox: Inbox) -> None:
    inbox.copy("request-a.json")
    inbox.admitted()
    assert inbox.status_path("request-a.json").stat().st_mode & 0o777 == 0o644
    assert {path.name[:1] for path in Path(inbox.claimed).iterdir()} <= set("0123456789abcdef")
