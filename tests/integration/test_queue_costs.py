"""What a claim reads, in pages and rows: as much at any backlog, whatever the statistics say.

And what else must not go through all rows.
"""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from spoold.queue.database import QUERIES
from spoold.queue.store import Store
from tests.integration.queue_drops import worker
from tests.integration.queue_rows import LATER, insert_rows

_MORE_PAGES = 3  # of one row: both indexes are deeper


@pytest.fixture(params=["18", "15"])
def postgres_version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _explain(store: Store, me: uuid.UUID, limit: int, *, generic: bool) -> dict[str, Any]:
    """The plan of a claim with what it really read; nothing is claimed."""
    connection = store.database.connection
    values = {"spool": store.spool, "worker": me, "limit": limit}
    explain = b"explain (analyze, buffers, timing off, format json) "
    with connection.transaction(force_rollback=True):
        if not generic:
            row = connection.execute(explain + QUERIES["claim"], values).fetchone()
        else:
            names = list(values)
            statement = re.sub(
                r"%\((\w+)\)[sbt]",
                lambda found: f"${names.index(found[1]) + 1}",
                QUERIES["claim"].decode(),
            )
            connection.execute("set local plan_cache_mode = force_generic_plan")
            connection.execute(f"prepare claim (uuid, uuid, bigint) as {statement}".encode())
            execute = f"execute claim ('{store.spool}', '{me}', {limit})".encode()
            row = connection.execute(explain + execute).fetchone()
            connection.execute("deallocate claim")
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _pages(plan: dict[str, Any]) -> int:
    """What is read to find the rows; where there is room for their new versions is chance."""
    (found,) = [node for node in plan["Plans"] if node["Parent Relationship"] == "Outer"]
    return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
def test_a_claim_reads_as_much_at_any_backlog(store: Store, generic: bool) -> None:
    me = worker(store)
    limits = (1, 50)
    insert_rows(store, 1000, "queued")
    small = {limit: _pages(_explain(store, me, limit, generic=generic)) for limit in limits}
    # Statistics of a quiet hour: nothing was due. Then comes the burst; then they are made again.
    store.database.script(b"truncate spoold.job")
    insert_rows(store, 3000, "succeeded")
    insert_rows(store, 1000, "scheduled", LATER)
    store.database.script(b"analyze spoold.job")
    insert_rows(store, 3000, "queued")
    for _ in range(2):
        for limit in limits:
            plan = _explain(store, me, limit, generic=generic)
            assert _pages(plan) <= small[limit] + _MORE_PAGES * limit, plan
            used = {node["Index Name"] for node in _nodes(plan) if "Index Name" in node}
            assert used == {"job_due", "job_pkey", "worker_pkey"}
            rows = [node["Actual Rows"] * node["Actual Loops"] for node in _nodes(plan)]
            assert max(rows) <= 2 * limit  # a key may lead to an old version of the row, too
        store.database.script(b"analyze spoold.job")


@pytest.mark.parametrize("count", [1, 50])
def test_the_newest_jobs_of_names_are_found_by_indexes(store: Store, count: int) -> None:
    insert_rows(store, 6000, "succeeded")
    insert_rows(store, 3000, "queued")
    store.database.script(b"analyze spoold.job")
    names = [job.drop_name for job in store.jobs(limit=count)]
    row = store.database.connection.execute(
        b"explain (format json) " + QUERIES["newest_of"], {"spool": store.spool, "names": names}
    ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    used = {node["Index Name"] for node in _nodes(plan) if "Index Name" in node}
    assert used == {"job_name", "job_named"}, plan
    assert set(store.newest_of(names)) == set(names)


def test_old_jobs_are_pruned_in_batches_the_oldest_first(store: Store) -> None:
    insert_rows(store, 7000, "succeeded", "now() - n * interval '1 hour'")
    insert_rows(store, 10, "queued", "now() - interval '1 year'")
    # n beyond 23 hours and a little
    assert store.prunable(86400) == 6977
    some = (store.next_to_prune(86400, 3000) for _ in range(4))
    assert [store.prune(jobs) for jobs in some] == [3000, 3000, 977, 0]
    assert store.prunable(0) == 23
    assert store.unfinished() == 10


def test_dead_rows_of_the_queue_are_vacuumed_by_their_number(store: Store) -> None:
    """A share of a million finished rows would be a very long time to wait for."""
    row = store.database.connection.execute(
        "select reloptions from pg_class where oid = 'spoold.job'::regclass"
    ).fetchone()
    assert row is not None
    assert {"autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=1000"} <= set(row[0])
