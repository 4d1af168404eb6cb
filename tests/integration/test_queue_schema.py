"""The schema refuses nonsense, whoever writes it; migrations and the spool's own database."""

import os
import shutil
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from spoold.errors import SpooldError
from spoold.queue import binding
from spoold.queue.answers import Begun
from spoold.queue.binding import Mismatch
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.migrate import Migration, migrate, require_current, require_known, shipped
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.integration.queue_drops import begin_publishing, drop, end, publication, worker


@pytest.fixture(params=["18", "15"])
def postgres_version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


NONSENSE = [
    ("job_state", State.QUEUED, """state = 'waiting', outcome = '{"state": "failed"}'"""),
    ("job_running", State.QUEUED, "state = 'running', deadline_at = now()"),
    ("job_running", State.RUNNING, "claimed_at = null"),
    ("job_running", State.RUNNING, "worker = null"),
    ("job_worker", State.QUEUED, "worker = gen_random_uuid()"),
    ("job_deadline", State.RUNNING, "deadline_at = null"),
    ("job_deadline", State.QUEUED, "deadline_at = now()"),
    (
        "job_finished",
        State.PUBLISHING,
        """finished_at = now(), outcome = '{"state": "publishing"}'""",
    ),
    ("job_finished", State.SUCCEEDED, "finished_at = null"),
    ("job_final", State.SUCCEEDED, "state = 'failed'"),
    ("job_final", State.SUCCEEDED, "final_document = null"),
    ("job_outcome", State.RUNNING, """outcome = '{"state": "failed"}'"""),
    ("job_outcome", State.PUBLISHING, "outcome = null"),
    ("job_outcome_state", State.PUBLISHING, """outcome = '{"state": "queued"}'"""),
    ("job_outcome_state", State.PUBLISHING, "outcome = '{}'"),
    ("job_document", State.RUNNING, "final_document = 'x'"),
    ("job_runnable", State.QUEUED, "request_sha256 = null"),
    ("job_runnable", State.QUEUED, "action = null"),
    ("job_request", State.QUEUED, "request = '[]'"),
    ("job_attempts", State.QUEUED, "attempt = 6"),
    ("job_attempts", State.QUEUED, "attempt = -1"),
    ("job_epoch", State.QUEUED, "epoch = -1"),
    ("job_priority", State.QUEUED, "priority = 1001"),
    ("job_priority", State.QUEUED, "priority = -1"),
    ("job_rank", State.QUEUED, "rank = due_at - interval '1 s'"),
    ("job_timeout", State.QUEUED, "timeout_seconds = 0"),
    ("job_drop_name", State.QUEUED, "drop_name = ''"),
    ("job_drop_name", State.QUEUED, "drop_name = 'a/b'"),
    ("job_drop_name", State.QUEUED, r"drop_name = '\x6100'"),
    ("job_drop_sha256", State.QUEUED, "drop_sha256 = 'short'"),
    ("job_drop_bytes", State.QUEUED, "drop_bytes = -1"),
    ("job_dedup_key", State.QUEUED, "dedup_key = 'short'"),
    ("job_request_sha256", State.QUEUED, "request_sha256 = 'short'"),
    ("job_key", State.QUEUED, "request = null, request_sha256 = null, dedup_key = sha256('k')"),
    ("job_waits", State.QUEUED, "waits_for = gen_random_uuid()"),
    ("job_waits", State.SCHEDULED, "waits_for = gen_random_uuid()"),
    ("job_intake", State.QUEUED, "intake = '1'"),
    ("job_sources", State.QUEUED, "sources = '{}'"),
]


@pytest.mark.parametrize(("constraint", "state", "change"), NONSENSE)
def test_the_schema_refuses(
    shared_store: Store, constraint: str, state: State, change: str
) -> None:
    store = shared_store
    store.admit([drop()])
    (claim,) = store.claim(worker(store))
    match state:
        case State.QUEUED:
            store.release(claim)
        case State.SCHEDULED:
            store.retry(claim, {}, 60)
        case State.PUBLISHING:
            assert begin_publishing(store, claim, publication(claim)) is Begun.BEGUN
        case State.SUCCEEDED:
            end(store, claim)
        case _:
            pass
    with pytest.raises(psycopg.errors.CheckViolation) as refusal:
        store.database.connection.execute(
            f"update spoold.job set {change} where id = %s".encode(), (claim.id,)
        )
    assert refusal.value.diag.constraint_name == constraint


def test_every_check_of_the_job_table_is_tried(store: Store) -> None:
    rows = store.database.connection.execute(
        "select conname from pg_constraint"
        " where conrelid = 'spoold.job'::regclass and contype = 'c'"
    )
    tried = {constraint for constraint, _, _ in NONSENSE}
    assert {row[0] for row in rows} == tried


def test_migrating_twice_changes_nothing(empty_conninfo: str) -> None:
    database = Database(empty_conninfo, "tests")
    with pytest.raises(SpooldError, match="database-unfit"):
        require_current(database)
    assert migrate(database) == len(shipped())
    assert migrate(database) == 0
    require_current(database)
    database.close()


def test_daemons_that_start_at_once_migrate_once(empty_conninfo: str) -> None:
    applied: list[int] = []
    barrier = threading.Barrier(4)

    def start() -> None:
        database = Database(empty_conninfo, "tests")
        assert not database.connection.closed
        barrier.wait()
        applied.append(migrate(database))
        database.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [0, 0, 0, len(shipped())]


def test_a_newer_schema_is_refused(store: Store) -> None:
    newer = (*shipped(), Migration(len(shipped()) + 1, "later", b"create table spoold.later ()"))
    require_known(store.database)
    assert migrate(store.database, newer) == 1
    for refusing in (migrate, require_current, require_known):
        with pytest.raises(SpooldError, match=r"schema-newer.*this spoold knows"):
            refusing(store.database)


def test_a_schema_made_by_other_files_is_refused(store: Store) -> None:
    first, *rest = shipped()
    with pytest.raises(SpooldError, match=r"database-unfit.*differs"):
        migrate(store.database, (replace(first, sql=first.sql + b"\n"), *rest))


def test_a_migration_that_fails_leaves_the_schema_as_it_was(store: Store) -> None:
    count = len(shipped())
    broken = (
        *shipped(),
        Migration(count + 1, "good", b"create table spoold.later ()"),
        Migration(count + 2, "bad", b"create table nowhere.x ()"),
    )
    with pytest.raises(SpooldError, match="database-unfit"):
        migrate(store.database, broken)
    assert migrate(store.database) == 0
    row = store.database.connection.execute("select to_regclass('spoold.later')").fetchone()
    assert row == (None,)


def test_a_spool_is_bound_once_and_again(store: Store, spool: Spool) -> None:
    binding.check(store.database, spool)
    binding.bind(store.database, spool, "site-a")
    assert spool.identity().database is not None
    binding.bind(store.database, spool, "site-b")
    binding.check(store.database, spool)


def test_a_crash_between_both_records_is_repaired(store: Store, spool: Spool) -> None:
    before = spool.identity_file.read_bytes()
    binding.bind(store.database, spool, "site-a")
    spool.identity_file.write_bytes(before)
    binding.bind(store.database, spool, "site-a")
    assert spool.identity().database is not None


def test_e34_a_moved_spool_is_accepted_and_recorded(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    binding.bind(store.database, spool, "site-a")
    moved = Spool.at(tmp_path / "moved")
    os.rename(spool.root, moved.root)
    binding.bind(store.database, moved, "site-a")
    row = store.database.connection.execute("select path from spoold.spool").fetchone()
    assert row == (str(moved.root),)


def test_e34_a_copied_spool_is_refused(store: Store, spool: Spool, tmp_path: Path) -> None:
    binding.bind(store.database, spool, "site-a")
    copy = Spool.at(tmp_path / "copy")
    shutil.copytree(spool.root, copy.root)
    for refusing in (
        lambda: binding.bind(store.database, copy, "site-a"),
        lambda: binding.check(store.database, copy),
    ):
        with pytest.raises(SpooldError, match=rf"spool-foreign.*{spool.root}"):
            refusing()
    binding.bind(store.database, spool, "site-a")


def test_e34_a_copy_in_the_same_place_is_refused_until_adopted(
    store: Store, spool: Spool, tmp_path: Path
) -> None:
    binding.bind(store.database, spool, "site-a")
    os.rename(spool.root, tmp_path / "old")
    shutil.copytree(tmp_path / "old", spool.root)
    with pytest.raises(SpooldError, match="spool-foreign"):
        binding.bind(store.database, spool, "site-a")
    [said] = binding.bind(store.database, spool, "site-a", accept=[Mismatch.PLACE])
    assert str(spool.root) in said
    binding.check(store.database, spool)
    with pytest.raises(SpooldError, match="spool-foreign"):
        binding.check(store.database, Spool.at(tmp_path / "old"))


def test_e34_a_database_without_tables_is_not_given_any_for_a_spool_that_had_some(
    store: Store, empty_conninfo: str, spool: Spool
) -> None:
    empty = Database(empty_conninfo, "tests")
    binding.check_present(empty, spool)  # a spool that never had a database
    binding.bind(store.database, spool, "site-a")
    with pytest.raises(SpooldError, match=r"database-lost.*no tables") as refusal:
        binding.check_present(empty, spool)
    assert "adopt --new-database" in refusal.value.hint
    empty.close()


def test_e34_another_database_is_accepted_only_if_that_is_asked_for(
    store: Store, empty_conninfo: str, spool: Spool
) -> None:
    binding.bind(store.database, spool, "site-a")
    other = Database(empty_conninfo, "tests")
    migrate(other)
    with pytest.raises(SpooldError, match="spool-foreign"):
        binding.bind(other, spool, "site-a", accept=[Mismatch.PLACE])
    binding.bind(other, spool, "site-a", accept=list(Mismatch))
    binding.check(other, spool)
    with pytest.raises(SpooldError, match="spool-foreign"):
        binding.check(store.database, spool)
    other.close()


def test_e34_a_foreign_database_is_refused(store: Store, empty_conninfo: str, spool: Spool) -> None:
    binding.bind(store.database, spool, "site-a")
    foreign = Database(empty_conninfo, "tests")
    migrate(foreign)
    with pytest.raises(SpooldError, match=r"spool-foreign.*belongs to database"):
        binding.bind(foreign, spool, "site-a")
    foreign.close()


def test_twenty_spools_share_a_database_and_see_only_their_own(store: Store) -> None:
    stores = [Store(store.database, uuid.uuid4()) for _ in range(20)]
    for one in stores:
        one.admit([drop("same-name.json")])
    for one in stores:
        (claim,) = one.claim(worker(one), limit=10)
        assert claim.job.spool == one.spool
        assert one.unfinished() == 1
        assert stores[0].get(claim.id) is None or one is stores[0]
