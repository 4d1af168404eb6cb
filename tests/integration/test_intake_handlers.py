"""Drops of handlers on their way in: known by name, bounded, hashed, copied, one row like any."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator

import pytest

from spoold.handlers import NO_HANDLERS, Handlers
from spoold.intake.settings import Idempotency, IntakeSettings
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.integration.inboxes import SETTINGS, Inbox, opened
from tests.tools import handler

HANDLERS = Handlers(
    handler("true", max_bytes=100, max_attempts=2, timeout_seconds=7),
    handler("true", name="words", pattern="words-*.txt"),
)


def settings(**changes: object) -> IntakeSettings:
    return dataclasses.replace(SETTINGS, handlers=HANDLERS, **changes)


@pytest.fixture
def inbox(spool: Spool, store: Store) -> Iterator[Inbox]:
    with opened(spool, store, settings()) as inbox:
        yield inbox


def test_a_handlers_drop_becomes_a_job_of_its_own_inode(inbox: Inbox) -> None:
    path = inbox.move("intent-1.json", b"anything")
    with open(path, "ab") as writer:  # the dropper keeps it open
        inode = path.stat().st_ino
    os.link(path, inbox.elsewhere / "kept")
    inbox.admitted()
    job = inbox.job("intent-1.json")
    assert (job.action, job.request, job.state) == ("command", {"handler": "intent"}, State.QUEUED)
    assert job.drop_sha256 == hashlib.sha256(b"anything").digest()
    assert (job.drop_bytes, job.max_attempts, job.timeout_seconds) == (8, 2, 67)
    assert job.dedup_key is None
    [claimed] = inbox.in_claimed()
    assert claimed.stat().st_ino != inode
    assert claimed.read_bytes() == b"anything"
    assert writer.closed


def test_other_names_stay_as_strays_and_requests_are_requests(inbox: Inbox) -> None:
    for name in ("other-1.json", "intent-1.xml", "intent-1.json.status.json"):
        inbox.move(name, b"x")
    inbox.move("intent-1~0123456789ab.json", b"x")
    inbox.move("request-1.json")
    inbox.admitted()
    inbox.scan()
    assert [job.drop_name for job in inbox.jobs()] == [b"request-1.json"]
    assert inbox.intake.metrics.strays == 4


def test_a_copied_json_drop_proves_itself_and_others_rest(inbox: Inbox) -> None:
    inbox.copy("intent-1.json", b'{"a": 1.5}')
    inbox.copy("intent-2.json", b'{"a": 1.5')
    inbox.copy("intent-3.json", b"15")  # it might go on
    inbox.copy("words-1.txt", b"{}")
    inbox.scan()
    assert [job.drop_name for job in inbox.jobs()] == [b"intent-1.json"]
    inbox.admitted(3)
    assert {job.intake["method"] for job in inbox.jobs()} == {"no-writer", "settled"}


def test_too_large_empty_and_linked_ones_are_rejected_e17_e21(inbox: Inbox) -> None:
    inbox.move("intent-1.json", b"x" * 101)
    inbox.move("intent-2.json", b"")
    (inbox.path / "intent-3.json").symlink_to("/etc/passwd")
    inbox.admitted(3)
    assert inbox.refusal("intent-1.json") == "drop-too-large"
    assert inbox.refusal("intent-2.json") == "drop-empty"
    assert inbox.refusal("intent-3.json") == "drop-symlink"
    assert not [name for name in os.listdir(inbox.claimed) if name.endswith(".own")]


def test_equal_content_is_done_once_by_each_handler_where_content_is_the_key(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store, settings(idempotency=Idempotency.CONTENT)) as inbox:
        inbox.move("intent-1.json", b"same")
        inbox.admitted()
        inbox.finish("intent-1.json")
        inbox.move("intent-2.json", b"same")
        inbox.move("words-1.txt", b"same")
        inbox.move("intent-3.json", b"other")
        inbox.admitted(3)
        outcome = inbox.job("intent-2.json").outcome
        assert outcome is not None
        assert outcome["state"] == "duplicate"
        assert inbox.job("words-1.txt").state is State.QUEUED
        assert inbox.job("intent-3.json").state is State.QUEUED


def test_one_whose_handler_went_between_claim_and_row_is_rejected(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store, settings()) as inbox:
        inbox.move("intent-1.json", b"x")
        store.database.close()
        inbox.admitted()
        job = inbox.job("intent-1.json")
        # as if the daemon had died before the row was there
        store.database.connection.execute("delete from spoold.job where id = %s", [job.id])
        queued = inbox.status("intent-1.json")
    assert queued is not None
    with opened(spool, store, dataclasses.replace(SETTINGS, handlers=NO_HANDLERS)) as inbox:
        inbox.admitted()
        assert inbox.refusal("intent-1.json") == "handler-unknown"
