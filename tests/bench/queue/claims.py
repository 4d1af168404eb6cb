"""What a claim costs beside many other rows, against a queue that holds no more than is claimed."""

import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from psycopg import sql
from psycopg.conninfo import make_conninfo

from spoold import postgres
from spoold.queue.database import Database
from spoold.queue.migrate import migrate
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.integration.queue_rows import LATER, insert_rows

BATCHES: Final = (1, 50)
_CLAIMS: Final = {1: 200, 50: 20}  # of one round


class Beside(NamedTuple):
    """How many other rows there are."""

    due: int = 0
    scheduled: int = 0
    finished: int = 0

    def __str__(self) -> str:
        parts = [f"{count:,} {name}" for name, count in self._asdict().items() if count]
        return ", ".join(parts) or "empty"


EMPTY: Final = Beside()
SCENARIOS: Final = (
    EMPTY,
    Beside(due=10_000),
    Beside(due=200_000),
    Beside(scheduled=100_000),
    Beside(finished=1_000_000),
    Beside(200_000, 100_000, 1_000_000),
)


@dataclass
class Queue:
    """A database with its rows; the seconds of each claim so far, by how many were claimed."""

    beside: Beside
    store: Store
    worker: uuid.UUID
    seconds: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in BATCHES})

    def median(self, batch: int) -> float:
        """Seconds of one claim."""
        return statistics.median(self.seconds[batch])


def run(folder: Path, programs: Path | None, *, scale: float, rounds: int) -> list[Queue]:
    """All scenarios on one server, in turns; `scale` makes the others fewer."""
    with _server(folder, programs) as conninfo:
        queues = [_fill(conninfo, number, beside, scale) for number, beside in enumerate(SCENARIOS)]
        for number in range(rounds):
            # There and back again: whatever drifts meets the first and the last alike.
            for queue in queues if number % 2 == 0 else reversed(queues):
                _round(queue)
        for queue in queues:
            queue.store.database.close()
        return queues


def _round(queue: Queue) -> None:
    store = queue.store
    insert_rows(store, sum(batch * count for batch, count in _CLAIMS.items()), "queued", "now()")
    for batch, count in _CLAIMS.items():
        for _ in range(count):
            begin = time.perf_counter()
            claims = store.claim(queue.worker, batch)
            queue.seconds[batch].append(time.perf_counter() - begin)
            assert len(claims) == batch
    # What was claimed goes, and what it leaves: each round begins as the first.
    store.database.script(b"delete from spoold.job where worker is not null")
    store.database.script(b"vacuum spoold.job")


def _fill(conninfo: str, number: int, beside: Beside, scale: float) -> Queue:
    name = f"queue_{number}"
    with postgres.connect(conninfo, "spoold bench") as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    database = Database(make_conninfo(conninfo, dbname=name), "spoold bench")
    migrate(database)
    store = Store(database, uuid.uuid4())
    insert_rows(store, round(beside.finished * scale), "succeeded")
    insert_rows(store, round(beside.scheduled * scale), "scheduled", LATER)
    insert_rows(store, round(beside.due * scale), "queued")
    database.script(b"vacuum analyze spoold.job")
    database.script(b"checkpoint")
    worker = uuid.uuid4()
    store.register_worker(worker, "bench", 1, "0")
    return Queue(beside, store, worker)


@contextmanager
def _server(folder: Path, programs: Path | None) -> Iterator[str]:
    spool = Spool.at(folder / f"claims-{uuid.uuid4().hex[:6]}")
    spool.create()
    server = postgres.ensure_running(spool, programs=programs)
    try:
        yield server.conninfo
    finally:
        server.stop_if_last()
        postgres.remove(spool)
