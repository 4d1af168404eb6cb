"""Retention stopped for good at each of its steps: the next round ends it, and nothing lies."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoold.queue.catalogue import Catalogue
from spoold.queue.placed import Places
from spoold.queue.tree_rows import Area
from spoold.spool import Folder
from tests.crash.scene import (
    BUNDLE,
    DROP,
    Scene,
    bundle_drop,
    failing_drop,
    restore_drop,
)
from tests.sites import request

RETAIN = ("retain.renamed", "retain.synced", "retain.given-up", "retain.rows")
ALL = {
    "SPOOLD_RETENTION_PROCESSED": "1s",
    "SPOOLD_RETENTION_FAILED": "1s",
    "SPOOLD_RETENTION_STATUS": "1s",
    "SPOOLD_RETENTION_RESTORED": "1s",
    "SPOOLD_RETENTION_JOBS": "1s",
}


def backdate(scene: Scene, days: int = 10) -> None:
    """Let all that is finished have finished long ago."""
    connection = scene.store.database.connection
    for table, column in (
        ("job", "finished_at"),
        ("published", "at"),
        ("bundle", "created_at"),
    ):
        connection.execute(
            f"update spoold.{table} set {column} = {column} - make_interval(days => %s)"
            " where spool = %s".encode(),
            (days, scene.store.spool),
        )


def names(scene: Scene, *folders: Folder) -> set[str]:
    return {
        str(path.relative_to(scene.tree.root))
        for folder in folders or (Folder.PROCESSED, Folder.FAILED, Folder.STATUS)
        for path in scene.tree.folder(folder).iterdir()
        if path.name != ".spoold.json"
    }


def placed(scene: Scene) -> set[str]:
    return {
        f"{one.folder}/{os.fsdecode(one.name)}"
        for page in Places(scene.store).all()
        for one in page
    }


def retain(scene: Scene, **environment: str) -> None:
    assert scene.run("retention", **environment) == 0, scene.said()


def three(scene: Scene) -> None:
    """A bundle made, one restored, a failure; all of it long ago."""
    scene.drop(bundle_drop(scene))
    scene.drop(restore_drop(scene))
    scene.drop(failing_drop())
    scene.finish()
    backdate(scene)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("point", RETAIN)
def test_stopped_at_a_step_the_next_round_ends_it(scene: Scene, point: str, count: int) -> None:
    three(scene)
    before = names(scene)
    status = scene.run("retention", stop_at=f"{point}:{count}", **ALL)
    assert status in ({-9} if count == 1 else {0, -9}), scene.said()
    # A name that is free has no file any more, and what is there has its name still.
    assert names(scene) <= placed(scene)
    assert names(scene) <= before
    retain(scene, **ALL)
    scene.finish()
    assert names(scene) == set()
    assert list(scene.tree.folder(Folder.RESTORED).glob("*/*")) == []
    assert placed(scene) == set()
    assert scene.store.jobs() == []
    assert list(Catalogue(scene.store).newest()) == []
    assert list(scene.tree.folder(Folder.TRASH).iterdir()) == []


def test_everything_of_a_job_goes_and_its_names_are_free_again(scene: Scene) -> None:
    three(scene)
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    assert names(scene, Folder.PROCESSED) == set()
    assert len(names(scene, Folder.FAILED)) == 2
    assert len(names(scene, Folder.STATUS)) == 3
    assert len(list(scene.tree.folder(Folder.RESTORED).glob("*/*"))) == 1
    assert len(scene.store.jobs()) == 3
    scene.drop(bundle_drop(scene))
    scene.finish()
    assert f"processed/{DROP}" in names(scene)


def test_what_is_not_due_stays(scene: Scene) -> None:
    three(scene)
    everything = names(scene)
    retain(scene, **dict.fromkeys(ALL, "30d"))
    assert names(scene) == everything
    assert len(scene.store.jobs()) == 3


def test_bundles_with_a_rule_of_their_own_go_by_that(scene: Scene) -> None:
    three(scene)
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d", SPOOLD_RETENTION_BUNDLES="30d")
    left = names(scene, Folder.PROCESSED)
    assert len(left) == 2
    assert f"processed/{BUNDLE}" in left
    retain(scene, SPOOLD_RETENTION_BUNDLES_KEEP="1")
    [kept] = names(scene, Folder.PROCESSED)
    [bundle] = Catalogue(scene.store).newest()
    assert kept == f"processed/{os.fsdecode(bundle.name)}"
    # Without a rule of its own it goes with what is processed, though all else of it has gone.
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    assert names(scene, Folder.PROCESSED) == set()


def test_rows_may_go_before_files_which_then_go_by_their_own_time(scene: Scene) -> None:
    three(scene)
    retain(scene, SPOOLD_RETENTION_JOBS="1d")
    assert scene.store.jobs() == []
    assert names(scene) <= placed(scene)
    again = failing_drop()
    scene.drop(again)
    scene.finish()  # its name is taken still
    assert len(names(scene, Folder.FAILED)) == 4
    retain(scene, SPOOLD_RETENTION_FAILED="1d", SPOOLD_RETENTION_PROCESSED="1d")
    assert names(scene, Folder.PROCESSED) == set()
    assert len(names(scene, Folder.FAILED)) == 2


def test_foreign_files_links_and_what_was_changed_stay(scene: Scene, tmp_path: Path) -> None:
    three(scene)
    processed = scene.tree.folder(Folder.PROCESSED)
    outside = tmp_path / "outside"
    outside.write_text("somebody else's")
    (processed / "foreign.txt").write_text("somebody else's")
    changed = processed / DROP
    changed.write_text("changed since")
    bundle = processed / BUNDLE
    bundle.unlink()
    bundle.symlink_to(outside)
    [restored] = scene.tree.folder(Folder.RESTORED).glob("*/*")
    restored.rename(tmp_path / "moved")
    restored.symlink_to(tmp_path / "moved")
    answer = scene.tree.folder(Folder.STATUS) / f"{DROP}.status.json"
    answer.unlink()
    answer.write_text('{"job_id":"of another","final":true}')
    retain(scene, **ALL)
    assert names(scene) == {
        "processed/foreign.txt",
        f"processed/{DROP}",
        f"processed/{BUNDLE}",
        f"status/{DROP}.status.json",
    }
    assert outside.read_text() == "somebody else's"
    assert bundle.is_symlink()
    assert restored.is_symlink()
    assert any((tmp_path / "moved").iterdir())
    assert placed(scene) == set()


def test_a_consumer_that_has_a_file_open_reads_it_to_its_end(scene: Scene) -> None:
    three(scene)
    with open(scene.tree.folder(Folder.PROCESSED) / BUNDLE, "rb") as file:
        retain(scene, **ALL)
        assert file.read() == scene.bundle


def test_what_a_consumer_has_fetched_frees_its_name_and_fills_no_place(scene: Scene) -> None:
    three(scene)
    newest, other = Catalogue(scene.store).newest()
    (scene.tree.root / newest.folder / os.fsdecode(newest.name)).unlink()
    retain(scene, SPOOLD_RETENTION_BUNDLES_KEEP="1")
    assert list(Catalogue(scene.store).newest()) == [other]
    assert (scene.tree.root / other.folder / os.fsdecode(other.name)).exists()


@pytest.mark.parametrize("where", ["bundle", "sources", "whole"])
def test_what_an_unfinished_request_names_stays_until_it_is_final(scene: Scene, where: str) -> None:
    three(scene)
    roots = {"SPOOLD_ROOTS_OWN": str(scene.tree.folder(Folder.PROCESSED))}
    later: dict[str, Any] = {"not_before": "2099-01-01T00:00:00Z"}
    match where:
        case "bundle":
            content = {
                "type": "spoold.request/1",
                "action": "rehydrate",
                "bundle": {"root": "own", "path": BUNDLE},
                **later,
            }
        case "sources":
            source = {"kind": "files", "root": "own", "path": BUNDLE}
            content = {**request(**later), "sources": [source]}
        case _:
            content = {**request(**later), "sources": [{"kind": "files", "root": "own"}]}
    name = "request-later.json"
    (scene.tree.folder(Folder.INBOX) / name).write_text(json.dumps(content))
    assert scene.run("intake", **roots) == 0
    retain(scene, **ALL, **roots)
    left = names(scene, Folder.PROCESSED)
    expected = {BUNDLE, f"{BUNDLE}.status.json"}
    if where == "whole":
        assert len(left) == 5
    else:
        assert left == {f"processed/{each}" for each in expected}
    assert scene.run("command", "cancel", name) == 0
    scene.finish()
    retain(scene, **ALL, **roots)
    assert not {f"processed/{each}" for each in expected} & names(scene)


def test_a_pinned_bundle_stays_with_its_request_and_its_status(scene: Scene) -> None:
    three(scene)
    [made] = [bundle for bundle in Catalogue(scene.store).newest() if not bundle.received]
    assert scene.run("command", "bundles", "pin", made.bundle_id[-12:]) == 0, scene.said()
    retain(scene, **ALL, SPOOLD_RETENTION_BUNDLES="1d")
    assert names(scene, Folder.PROCESSED) == {
        f"processed/{name}" for name in (made.name.decode(), DROP, f"{DROP}.status.json")
    }
    assert scene.run("command", "bundles", "delete", made.bundle_id) == 1
    assert "bundle-pinned" in scene.said()
    assert scene.run("command", "bundles", "unpin", made.bundle_id) == 0
    assert scene.run("command", "bundles", "delete", made.bundle_id) == 0, scene.said()
    found = Catalogue(scene.store).find(made.bundle_id)
    assert found.removed_at is not None
    assert f"processed/{made.name.decode()}" not in names(scene)


def test_a_duplicate_keeps_the_result_that_its_answer_names(scene: Scene) -> None:
    first = bundle_drop(scene, "request-first.json", idempotency_key="once")
    scene.drop(first)
    scene.finish()
    backdate(scene)
    scene.drop(bundle_drop(scene, "request-second.json", idempotency_key="once"))
    scene.finish()
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    assert "processed/request-first.json" in names(scene)
    backdate(scene)
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    assert names(scene, Folder.PROCESSED) == set()


def test_a_newer_answer_of_the_same_name_is_not_the_older_ones_to_remove(scene: Scene) -> None:
    scene.drop(failing_drop(DROP))
    scene.finish()
    backdate(scene)
    scene.drop(bundle_drop(scene))
    scene.finish()
    retain(scene, **{**ALL, "SPOOLD_RETENTION_STATUS": "1d", "SPOOLD_RETENTION_PROCESSED": "1d"})
    document = json.loads((scene.tree.folder(Folder.STATUS) / f"{DROP}.status.json").read_bytes())
    assert document["state"] == "succeeded"
    assert names(scene, Folder.FAILED) == set()


def test_an_older_database_brings_nothing_back_and_loses_nothing(
    make_scene: Callable[..., Scene],
) -> None:
    """E34: what stands on disk stays answered; what was removed since frees its names."""
    from tests.crash.test_older_database import Backup  # noqa: PLC0415  # it collects tests

    scene = make_scene()
    three(scene)
    backup = Backup(scene)
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    backup.restore()
    scene.drop(bundle_drop(scene, "request-new.json"))
    scene.finish()
    assert len(names(scene, Folder.STATUS)) == 4
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    assert not [name for name in placed(scene) if DROP in name and name.startswith("processed")]
    assert "processed/request-new.json" in names(scene)


def test_an_older_database_does_not_have_a_newer_jobs_files_removed(
    make_scene: Callable[..., Scene],
) -> None:
    """E34: the name was removed, and taken by a job that the rows have forgotten."""
    from tests.crash.test_older_database import Backup  # noqa: PLC0415  # it collects tests

    scene = make_scene()
    three(scene)
    backup = Backup(scene)
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    scene.drop(bundle_drop(scene))
    scene.finish()
    newer = names(scene, Folder.PROCESSED)
    assert len(newer) == 3
    backup.restore()
    scene.finish()
    retain(scene, **ALL)
    assert names(scene, Folder.PROCESSED) == newer
    assert f"status/{DROP}.status.json" in names(scene)
    # None of it is anybody's by now.
    assert not newer & placed(scene)


def test_the_catalogue_tells_what_was_made_and_received(scene: Scene) -> None:
    three(scene)
    received, made = sorted(Catalogue(scene.store).newest(), key=lambda each: not each.received)
    assert (received.received, received.from_site) == (True, "site-b")
    assert received.bytes == len(scene.bundle)
    assert (made.received, made.from_site) == (False, "site-a")
    job = scene.store.get(made.job)
    assert job is not None
    assert job.outcome is not None
    result = job.outcome["result"]
    assert isinstance(result, dict)
    assert made.manifest_sha256.hex() == result["manifest_sha256"]
    assert (made.bytes, made.entries) == (result["bytes"], result["entries"])
    assert f"{made.bundle_id}.tar.zst" == result["bundle"]
    for text in (made.bundle_id, made.bundle_id[-12:], made.bundle_id[:-5], str(made.job)):
        assert Catalogue(scene.store).find(text) == made
    areas = {one.area for page in Places(scene.store).all() for one in page}
    assert areas == set(Area)


def test_a_duplicate_names_no_result_that_was_removed(scene: Scene) -> None:
    scene.drop(bundle_drop(scene, "request-first.json", idempotency_key="once"))
    scene.finish()
    backdate(scene)
    retain(scene, SPOOLD_RETENTION_PROCESSED="1d")
    scene.drop(bundle_drop(scene, "request-second.json", idempotency_key="once"))
    scene.finish()
    path = scene.tree.folder(Folder.STATUS) / "request-second.json.status.json"
    document = json.loads(path.read_bytes())
    assert document["state"] == "duplicate"
    assert document["result"]["stands"] is None


def test_a_row_goes_only_after_the_names_of_its_lost_files_be_it_due_only_now(
    scene: Scene,
) -> None:
    scene.drop(bundle_drop(scene))
    scene.finish()
    backdate(scene)
    first = placed(scene)
    scene.drop(bundle_drop(scene, "request-later.json", idempotency_key="later"))
    scene.finish()
    scene.suspend("retention", at="retain.rows", SPOOLD_RETENTION_JOBS="1d")
    for name in placed(scene) - first:
        (scene.tree.root / name).unlink()
    backdate(scene)
    assert scene.forks.wake() == 0
    assert scene.store.jobs() == []
    assert placed(scene) == first
