"""The catalogue and retention against real rows and files: what they read, and older tables."""

import base64
import json
import os
import subprocess
import threading
import uuid
from dataclasses import replace
from typing import Any

import pytest

from spoold.connections import NO_CONNECTIONS
from spoold.errors import SpooldError
from spoold.queue.catalogue import Catalogue
from spoold.queue.database import QUERIES, Database
from spoold.queue.migrate import migrate, shipped
from spoold.queue.placed import Places
from spoold.queue.store import Store
from spoold.queue.tree_rows import Area
from spoold.retention import Remover, Retention, RetentionSettings, prune_jobs, removing
from spoold.spool import Folder, Spool
from spoold.worker import scratch
from tests.integration.queue_drops import drop, end, worker
from tests.integration.queue_rows import insert_rows

DAY = 86400


@pytest.fixture(params=["18", "15"])
def postgres_version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def insert_placed(store: Store) -> None:
    """For each finished job its drop and its answer, and every tenth made a bundle."""
    store.database.script(
        b"""
        insert into spoold.published
          (spool, folder, name, job, role, area, inode, size, mtime_ns, at)
        select spool, 'processed', drop_name || sql.part, id, sql.role, sql.area, 1, 1, 1,
          finished_at
        from spoold.job cross join (values (''::bytea, 'drop', 'processed'),
          ('.status.json'::bytea, 'status', 'processed')) as sql(part, role, area)
        where spool = %(spool)s and finished_at is not null
        """,
        {"spool": store.spool},
    )
    store.database.script(
        b"""
        insert into spoold.bundle (spool, job, bundle_id, manifest_sha256, from_site, received,
          folder, name, bytes, entries, created_at)
        select spool, id, 'demo-' || right(replace(id::text, '-', ''), 12), sha256('x'), 'site-a',
          false, 'processed', drop_name, 10, 1, finished_at
        from spoold.job where spool = %(spool)s and finished_at is not null
        """,
        {"spool": store.spool},
    )
    store.database.script(b"analyze spoold.published, spoold.bundle, spoold.job")


def read(store: Store, statement: str, **parameters: object) -> int:
    """How many pages a statement touches; nothing is changed."""
    connection = store.database.connection
    with connection.transaction(force_rollback=True):
        row = connection.execute(
            b"explain (analyze, buffers, timing off, format json) " + QUERIES[statement],
            {"spool": store.spool, **parameters},
        ).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_what_is_asked_again_and_again_reads_little_of_many_rows(store: Store) -> None:
    insert_rows(store, 20_000, "succeeded", "now() - n * interval '1 minute'")
    insert_placed(store)
    first, last = uuid.UUID(int=0), uuid.UUID(int=(1 << 128) - 1)
    nothing_due = {"area": "processed", "seconds": 30 * DAY, "after": "-infinity", "job": first}
    assert read(store, "due", **nothing_due, limit=500) < 20
    assert read(store, "due", **{**nothing_due, "seconds": DAY}, limit=100) < 60
    newest = {"before": "infinity", "job": last, "limit": 100}
    assert read(store, "bundles", **newest) < 200
    assert read(store, "bundles_from", **newest, site="site-a") < 200
    assert read(store, "bundles_from", **newest, site="nobody") < 20
    some = next(iter(Catalogue(store).newest()))
    called = {"text": some.bundle_id, "job": None, "limit": 5}
    assert read(store, "bundles_called", **called) < 30
    assert read(store, "bundles_ending", text=some.bundle_id[-12:], limit=5) < 30
    begun = some.bundle_id[:-3]
    assert read(store, "bundles_beginning", text=begun, beyond=f"{begun}z", limit=5) < 30
    jobs = [job for page in Places(store).due(Area.PROCESSED, 13 * DAY) for job in page][:200]
    held = {"jobs": jobs, "texts": [str(job) for job in jobs], "seconds": DAY}
    assert read(store, "held", **held) < 5 * len(jobs)
    assert read(store, "placed", jobs=jobs, areas=["processed"]) < 20 * len(jobs)
    assert read(store, "next_to_prune", seconds=30 * DAY, limit=5000) < 20


def test_finishing_a_job_that_made_no_bundle_costs_no_further_statement(store: Store) -> None:
    me = worker(store)
    store.admit([drop("request-a.json")])
    [claim] = store.claim(me)
    end(store, claim)
    assert list(Catalogue(store).newest()) == []


def test_old_rows_are_pruned_in_batches_and_names_go_with_their_files(
    store: Store, spool: Spool
) -> None:
    insert_rows(store, 6000, "succeeded", "now() - interval '1 day' - n * interval '1 minute'")
    insert_placed(store)
    [kept] = store.jobs(limit=1)
    path = os.path.join(os.fsencode(spool.folder(Folder.PROCESSED)), kept.drop_name)
    with open(path, "wb") as file:
        file.write(b"here")
    assert [prune_jobs(spool, store, DAY) for _ in range(3)] == [5000, 1000, 0]
    [left] = [one for page in Places(store).all() for one in page]
    assert (left.name, left.job) == (kept.drop_name, kept.id)
    # It is another file than the one that was published: the name goes, the file stays.
    settings = RetentionSettings(processed=DAY)
    done = Retention(spool, store, settings, NO_CONNECTIONS).round()
    assert done.removed.foreign == 1
    assert list(Places(store).all()) == []
    assert os.path.exists(path)


def test_one_process_at_a_time_removes(store: Store, spool: Spool) -> None:
    retention = Retention(spool, store, RetentionSettings(processed=DAY), NO_CONNECTIONS)
    with removing(spool), pytest.raises(SpooldError, match="retention-busy"):
        retention.round()
    retention.round()


def test_where_a_folder_is_missing_nothing_is_taken_for_gone(store: Store, spool: Spool) -> None:
    insert_rows(store, 3, "succeeded", "now() - interval '2 days'")
    insert_placed(store)
    processed = spool.folder(Folder.PROCESSED)
    aside = processed.rename(processed.with_name("aside"))
    Retention(spool, store, RetentionSettings(processed=DAY), NO_CONNECTIONS).round()
    assert len([one for page in Places(store).all() for one in page]) == 6
    processed.symlink_to(aside)
    Retention(spool, store, RetentionSettings(processed=DAY), NO_CONNECTIONS).round()
    assert len([one for page in Places(store).all() for one in page]) == 6


def test_what_cannot_be_removed_from_the_trash_stops_nothing_else(
    store: Store, spool: Spool
) -> None:
    trash = spool.folder(Folder.TRASH)
    (trash / "file").write_text("on its way out")
    stuck = trash / "a-stuck"
    stuck.mkdir()
    (stuck / "file").write_text("stuck")
    chattr = ["chattr", "+i", stuck / "file"]
    if subprocess.run(chattr, check=False, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("no immutable files here")
    try:
        scratch.sweep(spool, store)
        assert [path.name for path in trash.iterdir()] == ["a-stuck"]
    finally:
        subprocess.run(["chattr", "-i", stuck / "file"], check=True)
    scratch.sweep(spool, store)
    assert list(trash.iterdir()) == []


def test_finished_jobs_of_before_are_in_the_catalogue_and_their_names_have_areas(
    empty_conninfo: str,
) -> None:
    database = Database(empty_conninfo, "tests")
    migrate(database, shipped()[:1])
    spool = uuid.uuid4()
    jobs = {"bundle": uuid.uuid4(), "rehydrate": uuid.uuid4()}
    results = {
        "bundle": {
            "bundle": "demo-0123456789ab.tar.zst",
            "bytes": 5,
            "manifest_sha256": "ab" * 32,
            "entries": 2,
        },
        "rehydrate": {
            "bundle_id": "other-0123456789ac",
            "from": "site-b",
            "bytes": 7,
            "manifest_sha256": "cd" * 32,
            "entries": 3,
        },
    }
    files = {
        "bundle": [("drop", "request-a.json"), ("bundle", "demo-0123456789ab.tar.zst")],
        "rehydrate": [("drop", "other.tar.zst")],
    }
    for action, job in jobs.items():
        _insert_finished(database, spool, job, action, results[action], files[action])
    assert migrate(database) == len(shipped()) - 1
    store = Store(database, spool)
    received, made = sorted(Catalogue(store).newest(), key=lambda each: not each.received)
    assert (made.bundle_id, made.job, made.bytes) == ("demo-0123456789ab", jobs["bundle"], 9)
    assert (received.from_site, received.name) == ("site-b", b"other.tar.zst")
    found = {
        (f"{one.folder}/{one.name.decode()}", one.area, one.inode)
        for page in Places(store).all()
        for one in page
    }
    assert found == {
        ("processed/request-a.json", Area.PROCESSED, (1 << 64) - 1),
        ("processed/demo-0123456789ab.tar.zst", Area.BUNDLES, (1 << 64) - 1),
        ("processed/other.tar.zst", Area.BUNDLES, (1 << 64) - 1),
        ("status/request-a.json.status.json", Area.STATUS, None),
        ("status/other.tar.zst.status.json", Area.STATUS, None),
    }
    database.close()


def _insert_finished(
    database: Database,
    spool: uuid.UUID,
    job: uuid.UUID,
    action: str,
    result: dict[str, object],
    files: list[tuple[str, str]],
) -> None:
    """A row as the first version of the tables had it."""
    sources = [
        {
            "role": role,
            "source": "",
            "folder": "processed",
            "name": base64.b64encode(name.encode()).decode(),
            "device": 1,
            "inode": (1 << 64) - 1,
            "size": 9,
        }
        for role, name in files
    ]
    outcome = {"state": "succeeded", "result": result, "error": None, "warnings": []}
    database.script(
        b"""
        insert into spoold.job (id, spool, drop_name, drop_bytes, action, request, request_sha256,
          priority, due_at, rank, state, max_attempts, timeout_seconds, intake, finished_at,
          outcome, final_document, sources)
        values (%(job)s, %(spool)s, %(drop)s, 9, %(action)s, %(request)s::jsonb, sha256('x'), 500,
          now(), now(), 'succeeded', 5, 60, '{}', now(), %(outcome)s::jsonb, 'x',
          %(sources)s::jsonb)
        """,
        {
            "job": job,
            "spool": spool,
            "drop": files[0][1].encode(),
            "action": action,
            "request": "{}" if action == "bundle" else None,
            "outcome": json.dumps(outcome),
            "sources": json.dumps(sources),
        },
    )
    for _, name in files:
        database.script(
            b"insert into spoold.published (spool, folder, name, job)"
            b" values (%(spool)s, 'processed', %(name)s, %(job)s)",
            {"spool": spool, "name": name.encode(), "job": job},
        )


def test_what_is_put_in_the_place_of_a_file_in_that_instant_is_never_lost(
    store: Store, spool: Spool
) -> None:
    insert_rows(store, 400, "succeeded", "now() - interval '2 days'")
    insert_placed(store)
    processed = spool.folder(Folder.PROCESSED)
    places = Places(store)
    own, foreign = [], []
    for page in places.all():
        for one in page:
            path = processed / os.fsdecode(one.name)
            if one.role != "drop":
                continue
            path.write_text("the request")
            status = path.lstat()
            inode, size, time = status.st_ino, status.st_size, status.st_mtime_ns
            own.append(replace(one, inode=inode, size=size, mtime_ns=time))
            foreign.append((spool.root / f"aside-{path.name}", path))
    places.found_again(own)
    for aside, path in foreign:
        aside.write_text(f"{path.name} of somebody else")

    def swap() -> None:
        for aside, path in foreign:
            aside.rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    done = Remover(spool, places).remove(own)
    thread.join()
    assert done.failed == 0
    left = {path.read_text() for path in processed.iterdir()}
    assert left == {f"{path.name} of somebody else" for _, path in foreign}
    assert list(spool.folder(Folder.TRASH).iterdir()) == []


def test_a_result_that_is_a_folder_goes_with_all_that_is_in_it(store: Store, spool: Spool) -> None:
    insert_rows(store, 1, "succeeded", "now() - interval '2 days'")
    [job] = store.jobs()
    folder = spool.folder(Folder.PROCESSED) / "intent-1"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_text("a result")
    (folder / "deep").chmod(0o555)
    store.database.script(
        b"insert into spoold.published (spool, folder, name, job, role, area, inode, size, at)"
        b" values (%(spool)s, 'processed', 'intent-1', %(job)s, 'result', 'processed', %(inode)s,"
        b" 1, now() - interval '2 days')",
        {"spool": store.spool, "job": job.id, "inode": folder.lstat().st_ino},
    )
    done = Retention(spool, store, RetentionSettings(processed=DAY), NO_CONNECTIONS).round()
    assert done.removed.files == {Area.PROCESSED: 1}
    assert list(spool.folder(Folder.PROCESSED).iterdir()) == []
    assert list(spool.folder(Folder.TRASH).iterdir()) == []
