"""E34: the database is restored from a backup that is older than the tree, or is empty.

What has its signed final status on disk is final with the same document, what has not begins anew,
and nothing has two results. The rows are rolled back to how they were at one moment, after the
processes were stopped for good at a later one, or had finished.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spoold.spool import Folder
from tests.conftest import wait_until
from tests.crash.scene import (
    DROP,
    Answer,
    Scene,
    bundle_drop,
    duplicate_of,
    failing_drop,
    invalid_drop,
    restore_drop,
)
from tests.sites import request

TABLES = ("job", "worker", "done", "published", "bundle")
FINISHED = "finished"
FEW = ("publish.4", FINISHED)
"""The points of every kind; the others only of one, but for every night."""


class Backup:
    """A spool's rows as they are now."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._name = uuid.uuid4().hex
        for table in TABLES:
            self._run(
                f"create table public.{table}_{self._name} as select * from spoold.{table} "
                f"where spool = '{scene.store.spool}'"
            )

    def restore(self) -> None:
        """Make them so again. What nobody can have seen may be made anew, and otherwise."""
        for table in TABLES:
            self._run(f"delete from spoold.{table} where spool = '{self._scene.store.spool}'")
            self._run(f"insert into spoold.{table} select * from public.{table}_{self._name}")
        self._scene.promised = {
            uuid.UUID(json.loads(content)["job_id"]): content for content in finals(self._scene)
        }

    def _run(self, statement: str) -> None:
        self._scene.store.database.connection.execute(statement.encode())


def finals(scene: Scene) -> Iterator[bytes]:
    """The final status documents that can be seen in the tree."""
    for folder in (Folder.STATUS, Folder.PROCESSED, Folder.FAILED):
        for path in scene.tree.folder(folder).glob("*.status.json"):
            content = path.read_bytes()
            if b'"final":true' in content:
                yield content


def nothing_yet(scene: Scene) -> None:
    """Before the drop was admitted."""


def admitted(scene: Scene) -> None:
    """The row is queued."""
    assert scene.run("intake") == 0


def running(scene: Scene) -> None:
    """The row is under a lease, of a worker that is dead by now."""
    scene.stop("daemon", at="act")


KINDS: dict[str, Callable[[Scene], Answer]] = {
    "bundle": bundle_drop,
    "rehydrate": restore_drop,
    "rejected": lambda scene: invalid_drop(),
    "failed": lambda scene: failing_drop(),
}
POINTS = ("publish.2", "publish.3", "publish.4", "publish.5", "publish.6", FINISHED)


def cases() -> Iterator[Any]:
    for kind in KINDS:
        for moment in (nothing_yet, admitted, running):
            if moment is running and kind in {"rejected", "failed"}:
                continue  # there it never gets as far as to act
            for point in POINTS:
                marks = [] if kind == "bundle" or point in FEW else [pytest.mark.nightly]
                yield pytest.param(kind, moment, point, marks=marks)


@pytest.mark.parametrize(("kind", "moment", "point"), list(cases()))
def test_e34_an_older_database_follows_what_is_on_disk(
    scene: Scene, kind: str, moment: Callable[[Scene], None], point: str
) -> None:
    scene.drop(KINDS[kind](scene))
    moment(scene)
    backup = Backup(scene)
    if point == FINISHED:
        scene.finish()
    else:
        scene.stop("daemon", at=point)
    before = scene.everything()
    backup.restore()
    scene.finish()
    if not scene.jobs():  # what was answered, and is in no row, is left as it is
        assert moment is nothing_yet
        assert point in {"publish.6", FINISHED}
        assert scene.everything() == before
    else:
        scene.check()


def test_e34_a_live_status_that_a_full_disk_cut_off_is_no_result(scene: Scene) -> None:
    scene.drop(bundle_drop(scene))
    backup = Backup(scene)
    scene.stop("daemon", at="publish.3")  # the results have left, the drop has not
    [scratch] = scene.tree.folder(Folder.WORK).iterdir()
    (scratch / "live.tmp").write_bytes(b'{"type":')
    backup.restore()
    scene.finish()
    assert scene.jobs()
    scene.check()


def test_e34_a_bundle_that_was_restored_stays_restored(scene: Scene) -> None:
    first = restore_drop(scene)
    scene.drop(first)
    admitted(scene)
    backup = Backup(scene)
    scene.finish()
    backup.restore()
    scene.finish()
    scene.drop(duplicate_of(first, "again.tar.zst"))
    scene.finish()
    scene.check()


def test_e34_the_answer_of_a_later_drop_of_that_name_stays(scene: Scene) -> None:
    scene.drop(bundle_drop(scene))
    admitted(scene)
    backup = Backup(scene)
    scene.finish()
    scene.drop(bundle_drop(scene))
    scene.finish()
    before = scene.everything()
    backup.restore()
    scene.finish()
    [job] = scene.jobs()  # the later one has no row any more, and needs none
    assert scene.everything() == before
    assert job.final_document == (scene.tree.root / f"processed/{DROP}.status.json").read_bytes()
    scene.drop(bundle_drop(scene))  # and there is nothing in the way of a third
    scene.finish()
    assert [job.state for job in scene.jobs()] == ["succeeded", "succeeded"]


def test_e34_a_job_that_was_cancelled_since_does_not_wait_for_its_time(scene: Scene) -> None:
    content = json.dumps(request(not_before="2099-01-01T00:00:00Z")).encode()
    scene.drop(Answer(DROP, content, "cancelled", "cancelled"))
    admitted(scene)
    backup = Backup(scene)
    assert scene.run("command", "cancel", DROP) == 0
    scene.finish()
    backup.restore()
    scene.finish()
    scene.check()


def test_e34_names_that_were_changed_after_the_backup_win(scene: Scene) -> None:
    scene.drop(bundle_drop(scene))
    scene.stop("daemon", at="publish.4.synced")
    backup = Backup(scene)  # the row is being published, under the drop's own name
    scene.put_foreign(f"processed/{DROP}.status.json")
    scene.finish()
    before = scene.everything()
    backup.restore()
    scene.finish()
    scene.check()
    assert scene.everything() == before


def test_e34_what_an_older_job_stands_in_the_way_of_is_published_after_it(scene: Scene) -> None:
    scene.drop(bundle_drop(scene))
    admitted(scene)
    backup = Backup(scene)
    scene.finish()
    scene.drop(bundle_drop(scene))
    scene.stop("daemon", at="publish.4")
    backup.restore()
    scene.finish()
    assert len(scene.jobs()) == 1
    scene.finish()  # the next start
    scene.check()


def test_e34_a_row_that_fell_behind_under_a_running_worker_is_claimed_until_it_has_caught_up(
    scene: Scene,
) -> None:
    """A server took over that had not heard of the latest claims, and no daemon was restarted."""
    scene.drop(bundle_drop(scene))
    admitted(scene)
    [job] = scene.jobs()
    assert scene.store.raise_epoch(job.id, 1)
    (scene.tree.folder(Folder.WORK) / f"{job.id}.3").mkdir()
    work_until_final(scene)
    [job] = scene.jobs()
    assert (job.state, job.attempt) == ("succeeded", 1)
    scene.check()


def test_e34_a_publication_that_fell_behind_under_a_running_worker_goes_on(scene: Scene) -> None:
    scene.drop(bundle_drop(scene))
    scene.stop("daemon", at="publish.3")
    [job] = scene.jobs()
    work = scene.tree.folder(Folder.WORK)
    (work / f"{job.id}.{job.epoch}").rename(work / f"{job.id}.{job.epoch + 3}")
    scene.store.database.connection.execute("update spoold.job set worker = null")
    scene.store.database.connection.execute("delete from spoold.worker")
    work_until_final(scene)
    scene.check()


def work_until_final(scene: Scene) -> None:
    """A worker as often as it takes, and nobody who looks at the tree before."""

    def final() -> bool:
        assert scene.run("worker") == 0
        scene.store.promote()
        return all(job.state.final for job in scene.jobs())

    wait_until(final)
