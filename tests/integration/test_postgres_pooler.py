"""PgBouncer with transaction pooling between us and the server: all works, and polls."""

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from spoold import postgres
from spoold.errors import SpooldError
from spoold.queue.database import Database
from spoold.queue.job import RetryPolicy
from spoold.queue.listen import Channel, Listener
from spoold.queue.store import Store
from tests.integration.queue_drops import drop, end, worker

POLICY = RetryPolicy(base_seconds=0.01, cap_seconds=0.02)


@pytest.fixture
def store(pooled_conninfo: str) -> Iterator[Store]:
    """A queue whose every statement goes through the pooler."""
    store = Store(Database(pooled_conninfo, "tests"), uuid.uuid4())
    yield store
    store.database.close()


def one(connection: psycopg.Connection[tuple[object, ...]], query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_pooler_is_found_out_and_keeps_no_session_of_ours(
    conninfo: str, pooled_conninfo: str
) -> None:
    with postgres.connect(conninfo, "tests") as direct:
        assert not postgres.is_pooled(direct)
        postgres.check_external(direct)
        assert one(direct, "select current_setting('lock_timeout')") == "30s"
    with postgres.connect(pooled_conninfo, "tests") as pooled:
        assert postgres.is_pooled(pooled)
        postgres.check_external(pooled)
        changed = pooled.execute("select name from pg_settings where source = 'session'").fetchall()
        assert changed == [("application_name",)]  # the pooler itself sets it for each client


def test_a_listener_behind_a_pooler_waits_and_leaves_nothing_behind(
    conninfo: str, pooled_conninfo: str
) -> None:
    spool = uuid.uuid4()
    listener = Listener(pooled_conninfo, Channel.JOBS, spool)
    began = time.monotonic()
    assert not listener.wait(0.05)
    assert time.monotonic() - began >= 0.05
    reading, writing = os.pipe()
    os.write(writing, b"x")
    assert not listener.wait(60, reading)
    assert time.monotonic() - began < 30
    os.close(reading)
    os.close(writing)
    with postgres.connect(pooled_conninfo, "tests") as pooled:
        assert one(pooled, "select count(*) from pg_listening_channels()") == 0
    with postgres.connect(conninfo, "tests") as direct:
        listened = one(
            direct,
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and query ilike 'listen%'",
        )
    assert listened == 0


def test_many_workers_share_few_sessions_and_every_job_is_done_once(
    store: Store, pooled_conninfo: str
) -> None:
    jobs = 120
    for _ in range(jobs // 40):
        store.admit([drop() for _ in range(40)])
    done: list[uuid.UUID] = []

    def work() -> None:
        own = Store(Database(pooled_conninfo, "tests"), store.spool)
        me = worker(own)
        while claims := own.claim(me, 3):
            for claim in claims:
                assert own.progress(claim, {"phase": "read"})
                end(own, claim)
                done.append(claim.id)
        own.leave(me)
        own.database.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Counter(done).values()) == {1}
    assert len(done) == jobs
    assert store.unfinished() == 0


def test_a_lost_worker_is_found_though_the_poolers_sessions_are_young(
    store: Store, conninfo: str
) -> None:
    lease = 0.3
    store.admit([drop()])
    me = worker(store)
    (claim,) = store.claim(me)
    with postgres.connect(conninfo, "tests") as direct:
        direct.execute("update spoold.worker set seen_at = now() - interval '1 day'")
        # The pooler opens another session when the next statement comes.
        direct.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    end_at = time.monotonic() + 10
    rescued = store.rescue(lease, POLICY)
    while not rescued and time.monotonic() < end_at:
        rescued = store.rescue(lease, POLICY)
    assert [job.id for job in rescued] == [claim.id]


@pytest.mark.parametrize("through", ["database_url", "PGOPTIONS"])
def test_options_that_a_pooler_refuses_are_a_fault_of_the_configuration(
    pooled_conninfo: str, through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "-c lock_timeout=3s"
    if through == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", options)
    else:
        pooled_conninfo = make_conninfo(pooled_conninfo, options=options)
    with pytest.raises(SpooldError, match=r"config-invalid.*startup parameter: options") as refusal:
        postgres.connect(pooled_conninfo, "tests")
    assert "ALTER ROLE" in refusal.value.hint


def test_a_pooled_server_whose_default_loses_commits_is_refused(
    conninfo: str, make_pooled: Callable[..., str]
) -> None:
    with postgres.connect(conninfo, "tests") as direct:
        name = direct.info.dbname
        direct.execute(
            f'alter role spoold in database "{name}" set synchronous_commit = off'.encode()
        )
    with postgres.connect(conninfo, "tests") as direct:
        postgres.check_external(direct)  # here every session of ours sets it
    with (
        postgres.connect(make_pooled(conninfo), "tests") as pooled,
        pytest.raises(SpooldError, match=r"database-unfit.*synchronous_commit is off") as refusal,
    ):
        postgres.check_external(pooled)
    assert "ALTER ROLE" in refusal.value.hint
