"""An inbox with its intake, driven scan by scan; drops, statuses and rows to look at."""

import ctypes
import json
import os
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from spoold.actions.request import Envelope
from spoold.intake.loop import Intake
from spoold.intake.settings import IntakeSettings, ScanReport
from spoold.queue.answers import Begun
from spoold.queue.job import Claim, Job, Move, Publication, State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host, Status, status_name
from tests.conftest import wait_until


@pytest.fixture
def one_database(module_conninfo: str) -> str:
    """For a module's `conninfo`: its many small tests have each a spool of their own in it."""
    return module_conninfo


class BundleRequest(Envelope):
    action: Literal["bundle"]
    sources: list[dict[str, str]]


MODELS = {"bundle": BundleRequest}
# Short times, and no floor: what is tested is the order of things.
SETTINGS = IntakeSettings(
    "site-a",
    "host-a",
    settle_seconds=0.2,
    rescan_seconds=1.0,
    poll_seconds=0.05,
    patience_seconds=0.0,
    min_free_bytes=0,
)


def request(**changes: object) -> bytes:
    """An ordinary request."""
    document = {
        "type": "spoold.request/1",
        "action": "bundle",
        "sources": [{"kind": "files", "root": "evidence", "path": "x"}],
        **changes,
    }
    return json.dumps(document).encode()


class Inbox:
    """One spool's inbox and the intake that scans it."""

    def __init__(self, spool: Spool, store: Store, settings: IntakeSettings = SETTINGS) -> None:
        self.spool = spool
        self.store = store
        self.path = spool.folder(Folder.INBOX)
        self.claimed = spool.folder(Folder.CLAIMED)
        self.elsewhere = spool.root / "elsewhere"
        self.elsewhere.mkdir(exist_ok=True)
        self.intake = Intake(spool, store, settings, MODELS)

    def copy(self, name: str | bytes, content: bytes | None = None) -> Path:
        """What `cp` does."""
        path = self.path / os.fsdecode(name)
        path.write_bytes(request() if content is None else content)
        return path

    def move(self, name: str | bytes, content: bytes | None = None) -> Path:
        """What `mv` does."""
        source = self.elsewhere / "source"
        source.write_bytes(request() if content is None else content)
        path = self.path / os.fsdecode(name)
        source.rename(path)
        return path

    def scan(self) -> ScanReport:
        return self.intake.scan_once()

    def scan_until(self, predicate: Callable[[ScanReport], bool]) -> ScanReport:
        """Scan again and again until a report is as expected."""
        wait_until(lambda: predicate(self.scan()))
        return self.intake.report

    def admitted(self, count: int = 1) -> None:
        """Scan until so many more are admitted."""
        goal = self.intake.metrics.admitted + count
        self.scan_until(lambda _: self.intake.metrics.admitted >= goal)

    def job(self, name: str | bytes) -> Job:
        job = self.store.find_name(os.fsencode(name))
        assert job is not None, name
        return job

    def jobs(self) -> list[Job]:
        return self.store.jobs(limit=100_000)

    def refusal(self, name: str | bytes) -> str:
        """The code with which a drop was rejected."""
        outcome = self.job(name).outcome
        assert outcome is not None
        assert outcome["state"] == "rejected"
        error = outcome["error"]
        assert isinstance(error, dict)
        return str(error["code"])

    def status_path(self, name: str | bytes) -> Path:
        return self.spool.folder(Folder.STATUS) / os.fsdecode(status_name(os.fsencode(name)))

    def status(self, name: str | bytes) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = json.loads(self.status_path(name).read_bytes())
        except FileNotFoundError:
            return None
        return document

    def in_claimed(self) -> list[Path]:
        return [path for path in self.claimed.iterdir() if not path.name.startswith(".")]

    def finish(self, name: str | bytes, state: State = State.SUCCEEDED) -> bytes:
        """Do what a worker does, up to the final status; returns the final document."""
        worker = uuid.uuid4()
        self.store.register_worker(worker, "host-a 1", os.getpid(), "1")
        drop = os.fsencode(name)
        while True:
            claims = self.store.claim(worker, 1) or self.store.claim_publishing(worker, 1)
            for claim in claims:
                if claim.job.drop_name == drop:
                    return self._publish(claim, state)
            assert claims, name

    def _publish(self, claim: Claim, state: State) -> bytes:
        job = claim.job
        ending = state if job.outcome is None else State(str(job.outcome["state"]))
        folder = Folder.PROCESSED if ending is State.SUCCEEDED else Folder.FAILED
        drop = os.fsdecode(job.drop_name)
        document = Status.of(job, ending).document(Host("site-a", "host-a"))
        document["files"] = {"drop": f"{folder}/{drop}"}
        content = json.dumps({**document, "signatures": []}).encode() + b"\n"
        [claimed] = [path for path in self.in_claimed() if path.name.startswith(str(job.id))]
        status = claimed.lstat()
        move = Move(
            "drop",
            str(claimed.relative_to(self.spool.root)),
            folder,
            job.drop_name,
            status.st_dev,
            status.st_ino,
            status.st_size,
        )
        outcome = {"state": ending.value, "result": None, "error": None, "warnings": []}
        publication = Publication(outcome, content, (move,), ((folder, job.drop_name),))
        begin = (
            self.store.begin_publishing
            if job.state is State.RUNNING
            else self.store.amend_publishing
        )
        assert begin([(claim, publication)]) == [Begun.BEGUN]
        claimed.rename(self.spool.folder(folder) / drop)
        beside = self.spool.folder(folder) / os.fsdecode(status_name(job.drop_name))
        beside.write_bytes(content)
        link = self.spool.folder(Folder.WORK) / "link"
        os.link(beside, link)
        link.rename(self.status_path(job.drop_name))
        assert self.store.finish([claim], {}) == {claim.id}
        return content


@contextmanager
def opened(spool: Spool, store: Store, settings: IntakeSettings = SETTINGS) -> Iterator[Inbox]:
    """An inbox whose intake is closed at the end."""
    inbox = Inbox(spool, store, settings)
    try:
        yield inbox
    finally:
        inbox.intake.close()


_CAPABILITIES_VERSION = 0x20080522
# CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_LEASE: what makes root blind to modes and owners.
_POWERS = 1 << 1 | 1 << 2 | 1 << 28


@contextmanager
def powerless() -> Iterator[None]:
    """Let modes and owners count for this thread even where root runs the tests (capset(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    effective, *others = struct.unpack("6I", data.raw)
    assert libc.capset(header, struct.pack("6I", effective & ~_POWERS, *others)) == 0
    try:
        yield
    finally:
        assert libc.capset(header, struct.pack("6I", effective, *others)) == 0
