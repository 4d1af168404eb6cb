"""A hundred writers at once, slow ones and fast ones: no half file is ever taken."""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spoold.bundle.frames import END_FRAME, Codec
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.conftest import wait_until
from tests.integration.file_systems import BOTH
from tests.integration.inboxes import SETTINGS, Inbox, opened, request

# A rest is a guess, and is left out: a slow writer must be seen, not outwaited.
_PATIENT = replace(SETTINGS, settle_seconds=3600.0, patience_seconds=1.0)


@pytest.fixture
def reader(conninfo: str, spool: Spool) -> Iterator[Store]:
    """A second connection, for the test's own thread."""
    store = Store(Database(conninfo, "tests"), spool.identity().spool)
    yield store
    store.database.close()


@dataclass
class Writers:
    """Threads that drop until the time is over; `sizes` is what each name must have."""

    inbox: Path
    aside: Path
    sizes: dict[bytes, int]
    end: float

    def run(self, number: int) -> None:
        """One writer: a tenth are slow, and write in pieces over up to a second."""
        chance = random.Random(number)
        count = 0
        while time.monotonic() < self.end or not count:
            name, content = self._drop(number, count, chance)
            count += 1
            write = chance.choice([self._write, self._write, self._move, self._append])
            write(name, content, 0.02 * chance.random() if number % 10 == 0 else 0.0)
            self.sizes[name.encode()] = len(content)
            time.sleep(chance.uniform(0.0, 0.2))

    @staticmethod
    def _drop(number: int, count: int, chance: random.Random) -> tuple[str, bytes]:
        stem = f"{number}-{count}"
        if chance.random() < 0.3:
            # Each piece ends like a bundle: only the writer tells that it is none yet.
            pieces = [os.urandom(200) + END_FRAME[Codec.ZSTD] for _ in range(chance.randint(1, 20))]
            return f"{stem}.tar.zst", b"".join(pieces)
        padding = " " * chance.randint(0, 3000)
        content = json.loads(request(correlation_id=stem))
        return f"request-{stem}.json", json.dumps(content).encode() + padding.encode()

    def _write(self, name: str, content: bytes, pause: float) -> None:
        with open(self.inbox / name, "wb", buffering=0) as file:
            self._pieces(file.write, content, pause)

    def _append(self, name: str, content: bytes, pause: float) -> None:
        """Made as an empty file first, as some copiers do."""
        with open(self.inbox / name, "xb", buffering=0) as file:
            time.sleep(pause)
            self._pieces(file.write, content, pause)

    def _move(self, name: str, content: bytes, pause: float) -> None:
        aside = self.aside / name
        with open(aside, "wb", buffering=0) as file:
            self._pieces(file.write, content, pause)
        aside.rename(self.inbox / name)

    @staticmethod
    def _pieces(write: Callable[[bytes], object], content: bytes, pause: float) -> None:
        for start in range(0, len(content), 100):
            write(content[start : start + 100])
            if pause:
                time.sleep(pause)


def taken_whole(inbox: Inbox, reader: Store, seconds: float) -> int:
    """Let a hundred writers drop for so long; returns how many drops there were."""
    writers = Writers(inbox.path, inbox.elsewhere, {}, time.monotonic() + seconds)
    stop = threading.Event()
    intake = threading.Thread(target=inbox.intake.run, args=(stop,))
    intake.start()
    threads = [threading.Thread(target=writers.run, args=(number,)) for number in range(100)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: reader.unfinished() == len(writers.sizes), 60)
    finally:
        stop.set()
        inbox.intake.wake()
        intake.join(20)
    jobs = reader.jobs(limit=100_000)
    assert {job.drop_name: job.drop_bytes for job in jobs} == writers.sizes
    assert len(jobs) == len(writers.sizes)
    assert {job.state for job in jobs} == {State.QUEUED}
    sizes = {path.name[37:].encode(): path.stat().st_size for path in inbox.in_claimed()}
    assert sizes == writers.sizes
    assert not list(inbox.path.iterdir())
    return len(jobs)


@BOTH
def test_e01_of_a_hundred_writers_no_half_file_is_taken(
    spool: Spool, store: Store, reader: Store
) -> None:
    with opened(spool, store, _PATIENT) as inbox:
        assert taken_whole(inbox, reader, 1.0) >= 100


@pytest.mark.nightly
@BOTH
def test_e01_of_a_hundred_writers_no_half_file_is_taken_in_a_minute(
    spool: Spool, store: Store, reader: Store
) -> None:
    with opened(spool, store, _PATIENT) as inbox:
        assert taken_whole(inbox, reader, 60.0) >= 1000
