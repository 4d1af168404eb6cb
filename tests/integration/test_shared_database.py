"""Many spools in one database: what one does, or what becomes of it, is nothing to the others."""

import shutil
import uuid
from pathlib import Path

import pytest

from spoold.queue.answers import Key
from spoold.queue.database import Database
from spoold.queue.job import RetryPolicy, State
from spoold.queue.listen import Channel, Listener
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.integration.inboxes import opened
from tests.integration.queue_drops import begin_publishing, digest, drop, end, publication, worker

POLICY = RetryPolicy(base_seconds=0.01, cap_seconds=0.02)
TABLES = ("job", "worker", "done", "published")


@pytest.fixture
def store(shared_store: Store) -> Store:
    return shared_store


def rows(store: Store) -> list[object]:
    """All that the database has of a spool, to the byte."""
    found: list[object] = []
    for table in TABLES:
        query = f"select to_jsonb(t) from spoold.{table} as t where spool = %s order by t::text"
        found += store.database.connection.execute(query.encode(), (store.spool,)).fetchall()
    return found


def neglected(store: Store) -> Store:
    """A spool that nobody looks after: due, lost, waiting and old jobs, and a worker long dead."""
    dead = worker(store)
    store.admit([drop("request-lost.json")])
    store.claim(dead)
    store.admit([drop("request-publishing.json")])
    [publishing] = store.claim(dead)
    begin_publishing(store, publishing, publication(publishing))
    store.admit([drop("request-old.json", dedup_key=digest("key"))])
    end(store, store.claim(dead)[0])
    store.admit([drop("request-late.json", max_attempts=1), drop("request-due.json")])
    for name, state in (("request-late.json", "running"), ("request-due.json", "scheduled")):
        claimed = ", worker = %(worker)s, claimed_at = now(), deadline_at = now(), epoch = 1"
        store.database.connection.execute(
            f"update spoold.job set state = '{state}', due_at = now() - interval '1 hour'"
            f"{claimed + ', attempt = 1' if state == 'running' else ''}"
            " where spool = %(spool)s and drop_name = %(name)s".encode(),
            {"spool": store.spool, "worker": dead, "name": name.encode()},
        )
    for table, change in (
        ("worker", "seen_at = now() - interval '1 day'"),
        ("job", "finished_at = finished_at - interval '1 year'"),
    ):
        statement = f"update spoold.{table} set {change} where spool = %s"
        store.database.connection.execute(statement.encode(), (store.spool,))
    return store


def test_the_maintenance_of_one_spool_leaves_the_others_alone(
    store: Store, shared_conninfo: str
) -> None:
    others = [neglected(Store(store.database, uuid.uuid4())) for _ in range(2)]
    before = [rows(other) for other in others]
    own = neglected(Store(Database(shared_conninfo, "tests"), store.spool))
    me = worker(own)
    assert own.promote() == 1
    assert len(own.rescue(0.0, POLICY)) == 3
    old = [job for one in (own, *others) for job in one.next_to_prune(60)]
    assert len(old) == 3
    assert own.prune(old) == 1
    assert {row.id for row in own.workers()} == {me}
    for claim in own.claim(me, 10):
        own.cancel(claim.id)
    own.disown(me)
    own.leave(me)
    assert own.forget(digest("key")) is not None
    assert [rows(other) for other in others] == before
    own.database.close()


def test_nothing_can_be_done_to_a_job_by_way_of_another_spool(store: Store) -> None:
    other = Store(store.database, uuid.uuid4())
    store.admit([drop("request-a.json", dedup_key=digest("key"))])
    [claim] = store.claim(worker(store))
    before = rows(store)
    assert other.get(claim.id) is None
    assert other.existing([claim.id]) == {}
    assert other.find_short(claim.job.short_id) == []
    assert other.find_name(b"request-a.json") is None
    assert other.jobs() == []
    assert not other.forget_job(claim.id)
    assert not other.raise_epoch(claim.id, 99)
    assert other.hasten([claim.id]) == 0
    assert other.beat(claim.worker) is None
    other.leave(claim.worker)
    other.disown(claim.worker)
    assert rows(store) == before


def test_names_and_keys_belong_to_a_spool(store: Store) -> None:
    spools = [store, *(Store(store.database, uuid.uuid4()) for _ in range(2))]
    for one in spools:
        [answer] = one.admit([drop("request-a.json", dedup_key=digest("key"))])
        assert answer.verdict == "admitted"
    for one in spools:
        me = worker(one)
        [claim] = one.claim(me)
        assert one.take_key(claim, digest("key"), claim.job.request_sha256 or b"").verdict in {
            Key.TAKEN,
            Key.OTHER,
        }
        end(one, claim)
    for one in spools:
        [answer] = one.admit([drop("request-b.json", dedup_key=digest("key"))])
        assert answer.verdict == "duplicate"
        holder = one.published_by("processed", b"request-a.json")
        assert holder is not None
        assert one.get(holder.job) is not None


def test_twenty_listeners_are_woken_by_their_own_spool_only(
    store: Store, shared_conninfo: str
) -> None:
    stores = [Store(store.database, uuid.uuid4()) for _ in range(20)]
    listeners = [Listener(shared_conninfo, Channel.JOBS, one.spool) for one in stores]
    for listener in listeners:
        assert not listener.wait(0)
    stores[3].admit([drop()])
    assert listeners[3].wait(10)
    store.database.connection.execute("select pg_notify('spoold_job', 'flush')")
    assert [number for number, one in enumerate(listeners) if one.wait(0.01)] == []
    for listener in listeners:
        listener.close()


def test_drops_of_a_copied_spool_get_ids_of_their_own(
    spool: Spool, shared_conninfo: str, tmp_path: Path
) -> None:
    store = Store(Database(shared_conninfo, "tests"), spool.identity().spool)
    copied = Spool.at(tmp_path / "copy")
    with opened(spool, store) as inbox:
        inbox.copy("request-a.json")
        inbox.admitted()
        job = inbox.job("request-a.json")
        shutil.copytree(spool.root, copied.root)
        copied.identity_file.unlink()
        copied.create()
        clone = Store(store.database, copied.identity().spool)
        with opened(copied, clone) as other:
            other.admitted()
            own = other.job("request-a.json")
            assert own.id != job.id
            assert [path.name for path in other.in_claimed()] == [f"{own.id}.request-a.json"]
            status = other.status("request-a.json")
            assert status is not None
            assert status["job_id"] == str(own.id)
            assert own.request == job.request
            assert other.scan().dry
        assert [path.name for path in inbox.in_claimed()] == [f"{job.id}.request-a.json"]
        assert inbox.job("request-a.json").state is State.QUEUED
    store.database.close()
