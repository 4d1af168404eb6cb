"""`selftest fence`: it proves what holds, notices what does not, and leaves nothing behind."""

import json
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from spoold import config, selftest
from spoold.config import Config
from spoold.queue import database
from spoold.queue.binding import bind
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from tests.conftest import wait_until
from tests.integration.queue_drops import drop, worker

JOBS = 25


@pytest.fixture
def here(spool: Spool, store: Store, conninfo: str) -> Config:
    """The configuration of a spool whose jobs are in a database that others serve."""
    bind(store.database, spool, "site-a")
    return config.load(
        spool, environment={"SPOOLD_DATABASE_URL": conninfo, "SPOOLD_SITE": "site-a"}
    )


def rows(store: Store) -> set[uuid.UUID]:
    """The spools that have rows."""
    tables = ("job", "worker", "published", "done")
    union = " union ".join(f"select spool from spoold.{table}" for table in tables)
    return {row[0] for row in store.database.connection.execute(union.encode())}


def folders(spool: Spool) -> list[Path]:
    return list(spool.folder(Folder.PRIVATE).glob("selftest.*"))


def test_e29_the_fence_holds_and_nothing_of_the_proof_is_left(
    here: Config, spool: Spool, store: Store
) -> None:
    own = drop("request-own.json")
    store.admit([own])
    begun: list[selftest.Fence] = []
    done = selftest.fence(here, JOBS, begun.append)
    assert done.problems == []
    assert done.holds
    assert begun == [done]
    assert done.results == JOBS
    assert done.claims == JOBS + done.lost > JOBS
    assert min(done.tried.values()) >= done.lost
    assert len(done.tried) == 10
    assert sum(done.accepted.values()) == 0
    assert done.renames_tried > 0
    assert done.renames_done == 0
    # The user's own job is where it was, and only it.
    assert folders(spool) == []
    assert rows(store) == {store.spool}
    job = store.get(own.id)
    assert job is not None
    assert (job.state, job.epoch) == (State.QUEUED, 0)


def test_a_hole_in_the_fence_is_noticed(
    here: Config, spool: Spool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = b"and epoch = %(epoch)s and worker = %(worker)s"
    for verb in ("progress", "retry", "defer_publishing"):
        guarded = database.QUERIES[verb]
        assert guard in guarded
        monkeypatch.setitem(database.QUERIES, verb, guarded.replace(guard, b""))
    done = selftest.fence(here, JOBS)
    assert not done.holds
    assert sum(done.accepted.values()) > 0
    assert any("stale writes were accepted" in problem for problem in done.problems)
    assert folders(spool) == []


def test_what_a_killed_proof_left_goes_with_the_next_and_a_bound_spool_never(
    here: Config, spool: Spool, store: Store
) -> None:
    left = Spool.at(spool.folder(Folder.PRIVATE) / "selftest.0123456789ab")
    left.create()
    dead = Store(store.database, left.identity().spool)
    dead.admit([drop()])
    worker(dead)
    store.admit([drop()])
    store.erase()  # refused: a tree is bound to it
    assert rows(store) == {store.spool, dead.spool}
    command = [sys.executable, "-m", "spoold", "selftest", "fence", str(spool.root)]
    process = subprocess.Popen(
        [*command, "--jobs", "100000", "--set", f"database_url={here.database_url}", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(rows(store) - {dead.spool}) == 2 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert folders(spool) == []
    assert rows(store) == {store.spool}


def test_with_too_few_jobs_it_says_that_nothing_was_proved(here: Config) -> None:
    done = selftest.fence(here, 5)
    assert not done.holds
    assert any("nothing was proved" in problem for problem in done.problems)
    assert json.dumps(done.problems)
