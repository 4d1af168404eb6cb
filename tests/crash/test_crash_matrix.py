"""Stopped for good at each point of a job's life, then repaired: one answer, nothing stray.

A kind is a way that a job can end; `KINDS` says which points it passes. Each test stops one
process at one point, and fails if it was not stopped there; then an unarmed daemon repairs what it
finds, and the table of DESIGN's third section must hold.
"""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spoold.points import POINTS
from spoold.queue.database import Database
from spoold.queue.store import Store
from spoold.spool import Folder
from tests.crash.scene import (
    BUNDLE,
    DROP,
    Scene,
    bundle_drop,
    duplicate_of,
    failing_drop,
    invalid_drop,
    restore_drop,
)
from tests.crash.table import FROM_SITE, Answer
from tests.crash.test_retention import RETAIN
from tests.crash.test_sink_rows import SINK
from tests.sites import request

# --- the kinds --------------------------------------------------------------------------------


def bundled(scene: Scene) -> None:
    scene.drop(bundle_drop(scene))


def rehydrated(scene: Scene) -> None:
    scene.drop(restore_drop(scene))


def linked(scene: Scene) -> None:
    """A bundle that its dropper has by another name still."""
    scene.drop(restore_drop(scene))
    (scene.scratch / "another-name").hardlink_to(scene.tree.folder(Folder.INBOX) / BUNDLE)


def rejected(scene: Scene) -> None:
    scene.drop(invalid_drop())


def failed(scene: Scene) -> None:
    scene.drop(failing_drop())


def duplicate(scene: Scene) -> None:
    """A key that was done before."""
    first = bundle_drop(scene, "request-first.json", idempotency_key="once")
    scene.drop(first)
    scene.finish()
    scene.drop(duplicate_of(first, DROP))


def restored_twice(scene: Scene) -> None:
    """A bundle that was restored before, which only its head tells."""
    first = restore_drop(scene)
    scene.drop(first)
    scene.finish()
    scene.drop(duplicate_of(first, "again.tar.zst"))


def cancelled(scene: Scene) -> None:
    """Before its time had come."""
    content = json.dumps(request(not_before="2099-01-01T00:00:00Z")).encode()
    scene.drop(Answer(DROP, content, "cancelled", "cancelled"))
    assert scene.run("intake") == 0
    assert scene.run("command", "cancel", DROP) == 0


def cancelled_at_work(scene: Scene) -> None:
    """When its worker had died, and nobody had noticed."""
    scene.drop(Answer(DROP, json.dumps(request()).encode(), "cancelled", "cancelled"))
    scene.stop("daemon", at="act")
    assert scene.run("command", "cancel", DROP) == 0


def taken_name(scene: Scene) -> None:
    """Somebody puts a file where the status is to be, when the drop has moved already."""
    scene.drop(bundle_drop(scene))
    scene.stop("daemon", at="publish.4.synced")
    scene.put_foreign(f"processed/{DROP}.status.json")


@dataclass(frozen=True)
class Kind:
    """How to bring a scene to where a daemon has the rest to do, and what it passes then."""

    prepare: Callable[[Scene], None]
    passes: tuple[str, ...]


ADMIT = tuple(name for name in POINTS if name.startswith("admit."))
PUBLISH = tuple(name for name in POINTS if name.startswith("publish.") and name[8].isdigit())
DECIDED = ("claim", "scratch", *PUBLISH)
"""What is left of a job whose outcome is known when it is claimed."""

KINDS = {
    "bundle": Kind(bundled, (*ADMIT, "claim", "scratch", "act", *PUBLISH)),
    "rehydrate": Kind(rehydrated, (*ADMIT, "claim", "scratch", "key", "act", *PUBLISH)),
    "linked": Kind(linked, ("own",)),
    "rejected": Kind(rejected, (*ADMIT, *DECIDED)),
    "failed": Kind(failed, ("admit.f", *DECIDED)),
    "duplicate": Kind(duplicate, ("admit.f", *DECIDED)),
    "restored-twice": Kind(restored_twice, DECIDED),
    "cancelled": Kind(cancelled, DECIDED),
    "cancelled-at-work": Kind(cancelled_at_work, ("leave", "trash", *DECIDED)),
    "taken-name": Kind(
        taken_name, ("rescue.publishing", "take_over", "publish.taken-back", "publish.renamed")
    ),
}

AFTER = {
    "adopt": "admit.d",
    "disown": "claim",
    "leave": "scratch",
    "rescue": "scratch",
    "promote": "act",
    "trash": "act",
    "rescue.publishing": "publish.2",
    "take_over": "publish.3",
}
"""Points that only a repair passes, and where to stop before, so that there is one."""


ALIKE = {"failed", "restored-twice", "cancelled-at-work"}
"""Kinds whose publication is like others'."""


def cases() -> Iterator[Any]:
    """Each point that a kind passes; every night also those between the steps, for most kinds."""
    for kind, described in KINDS.items():
        for point in described.passes:
            between = point.endswith((".synced", ".linked")) and kind not in {"bundle", "rehydrate"}
            repeated = kind in ALIKE and point in {"publish.1", "publish.3", "publish.5"}
            marks = [pytest.mark.nightly] if between or repeated else []
            yield pytest.param(kind, point, marks=marks)


@pytest.mark.parametrize(("kind", "point"), list(cases()))
def test_stopped_at_a_point_it_has_one_answer(scene: Scene, kind: str, point: str) -> None:
    KINDS[kind].prepare(scene)
    scene.stop("daemon", at=point)
    scene.finish()
    scene.check()


@pytest.mark.parametrize("kind", ["bundle", "rehydrate"])
@pytest.mark.parametrize("point", AFTER)
def test_stopped_while_it_repairs_it_has_one_answer(scene: Scene, kind: str, point: str) -> None:
    KINDS[kind].prepare(scene)
    scene.stop("daemon", at=AFTER[point])
    scene.stop("daemon", at=point)
    scene.finish()
    scene.check()


# --- the other processes ----------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "scratch", "publish.1"])
def test_a_command_stopped_when_it_has_cancelled_leaves_a_cancelled_job(
    scene: Scene, before: str
) -> None:
    content = json.dumps(request()).encode()
    scene.drop(Answer(DROP, content, "cancelled", "cancelled"))
    if before:
        scene.stop("daemon", at=before)
    else:
        assert scene.run("intake") == 0
    scene.stop("command", "cancel", DROP, at="cancel")
    scene.finish()
    scene.check()


AGAIN = {"again.copied": False, "again.named": True, "again": True}
"""The points of a retry, and whether the job is on its way by then."""


@pytest.mark.parametrize(("point", "admitted"), AGAIN.items())
def test_a_command_stopped_while_it_retries_makes_a_new_job_or_none(
    scene: Scene, point: str, admitted: bool
) -> None:
    answer = failing_drop(DROP)
    scene.drop(answer)
    scene.finish()
    scene.stop("command", "retry", DROP, at=point)
    if admitted:  # under another name: the old answer stays
        scene.answers.append(answer)
    scene.finish()
    scene.check()


@pytest.mark.parametrize("point", AGAIN)
def test_an_intake_that_starts_beside_a_retry_leaves_it_its_copy(scene: Scene, point: str) -> None:
    answer = failing_drop(DROP)
    scene.drop(answer)
    scene.finish()
    [first] = scene.jobs()
    scene.suspend("command", "retry", DROP, at=point)
    assert scene.run("intake") == 0
    assert scene.forks.wake() == 0, scene.said()
    _, again = scene.jobs()
    assert again.retry_of == first.id
    scene.answers.append(answer)
    scene.finish()
    scene.check()


HAS_FAILED = ("live", "retry")
WAITS = ("live", "wait_for")


@pytest.mark.parametrize("point", HAS_FAILED)
def test_stopped_when_an_attempt_has_failed_it_is_tried_again(scene: Scene, point: str) -> None:
    folder = scene.evidence / "fs" / "inotify"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes").write_text("what happened\n")
    content = json.dumps(request("fs/inotify")).encode()
    scene.drop(Answer(DROP, content, bundled=folder))
    assert scene.run("intake") == 0
    # For this worker its files grow while they are read: those of /proc are said to be empty.
    scene.stop("worker", at=point, SPOOLD_ROOTS_EVIDENCE="/proc/sys")
    scene.finish()
    scene.check()


@pytest.mark.parametrize("point", WAITS)
def test_stopped_when_it_waits_for_another_it_becomes_its_duplicate(
    scene: Scene, point: str
) -> None:
    first = restore_drop(scene)
    scene.drop(first)
    scene.stop("daemon", at="publish.2")
    scene.drop(duplicate_of(first, "again.tar.zst"))
    assert scene.run("intake") == 0
    scene.stop("worker", at=point)
    scene.finish()
    scene.check()


HELD_UP = {"postpone": {"SPOOLD_INTAKE_MIN_FREE_BYTES": "4PiB"}, "defer": {}}
"""Points of a job that something else stands in the way of, and what the worker is told."""


@pytest.mark.parametrize(("point", "told"), HELD_UP.items())
def test_stopped_when_something_is_in_the_way_it_goes_on_once_that_is_gone(
    scene: Scene, point: str, told: dict[str, str]
) -> None:
    in_the_way = scene.tree.folder(Folder.RESTORED) / FROM_SITE
    scene.drop(restore_drop(scene))
    assert scene.run("intake") == 0
    in_the_way.write_text("where a folder is to be")
    scene.stop("worker", at=point, **told)
    in_the_way.unlink()
    scene.finish()
    [job] = scene.jobs()
    assert job.attempt == 1
    scene.check()


def test_a_job_that_ends_its_worker_at_every_attempt_fails_and_others_go_on(scene: Scene) -> None:
    """E32"""
    content = json.dumps(request()).encode()
    scene.drop(Answer(DROP, content, "failed", "worker-lost"))
    for _ in range(3):
        scene.stop("daemon", at="act")
    scene.drop(bundle_drop(scene, "request-other.json"))
    scene.finish()
    scene.check()


# --- beside an attempt that takes its time ----------------------------------------------------

BESIDE = ("live", "progress", "release")


@pytest.mark.parametrize("point", BESIDE)
def test_stopped_beside_a_slow_attempt_all_have_one_answer(
    make_scene: Callable[..., Scene], tmp_path: Path, point: str
) -> None:
    slow, quick = tmp_path / "evidence" / "slow", tmp_path / "evidence" / "incident-123"
    for folder in (slow, quick):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"done soon")
    (slow / "file").write_bytes(random.Random(1).randbytes(20_000_000))
    scene = make_scene(tmp_path / "evidence")
    # So many small ones that the worker claims several at once; then it finds the slow one.
    for number in range(20):
        scene.drop(bundle_drop(scene, f"request-{number}0.json"))
    slowly = {"compression": {"codec": "zstd", "level": 19}, "threads": 1}
    content = json.dumps(request("slow", priority=501, **slowly)).encode()
    scene.drop(Answer(DROP, content, bundled=slow))
    for number in range(20):
        content = json.dumps(request(priority=502)).encode()
        scene.drop(Answer(f"request-{number}1.json", content, bundled=quick))
    assert scene.run("intake") == 0
    with calling_all_workers(scene):
        scene.stop("worker", at=point)
    (slow / "file").write_bytes(b"done soon")
    scene.finish()
    scene.check()


@contextmanager
def calling_all_workers(scene: Scene) -> Iterator[None]:
    """Have them beat, and tell how far they are, again and again: by themselves they take 5 s."""
    ended = threading.Event()

    def call() -> None:
        database = Database(scene.environment["SPOOLD_DATABASE_URL"], "tests")
        store = Store(database, scene.store.spool)
        while not ended.wait(0.02):
            for worker in store.workers():
                database.connection.execute(
                    "select pg_notify('spoold_gone', %s)", (str(worker.id),)
                )
        database.close()

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_no_point_is_left_out() -> None:
    passed = {point for kind in KINDS.values() for point in kind.passes}
    elsewhere = {"cancel", *RETAIN, *SINK}
    assert passed | {*AFTER, *AGAIN, *HAS_FAILED, *HELD_UP, *WAITS, *BESIDE, *elsewhere} == set(
        POINTS
    )


# --- several jobs in one step -----------------------------------------------------------------


@pytest.mark.parametrize(
    "point",
    [
        *("admit.a:4", "admit.b:3", "admit.d", "admit.e.named:3", "admit.f", "act:2"),
        *("publish.2", "publish.3:2", "publish.4:5", "publish.5:2", "publish.6:5", "publish.7"),
    ],
)
def test_stopped_in_the_midst_of_many_each_has_one_answer(scene: Scene, point: str) -> None:
    for number in range(5):
        scene.drop(bundle_drop(scene, f"request-{number}.json"))
    scene.drop(invalid_drop())
    scene.drop(failing_drop())
    scene.drop(restore_drop(scene))
    scene.stop("daemon", at=point)
    scene.finish()
    scene.check()


# --- a crash during the repair ----------------------------------------------------------------

WORK = ("claim", "scratch", "key", "act", *PUBLISH)
DEAD = ("disown", "leave", "rescue", "rescue.publishing", "promote", "trash")
OTHER_NAMES = ("publish.taken-back", "publish.renamed")


def second_points(first: str) -> tuple[str, ...]:
    """What may be on the way of a repair."""
    if first in ADMIT:
        return (*ADMIT, "adopt", *WORK)
    if first in PUBLISH[1:]:
        return (*DEAD, "take_over", "claim", "scratch", *PUBLISH[1:])
    return (*DEAD, "take_over", *WORK, *OTHER_NAMES)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kind", "first"), [(kind, point) for kind in KINDS for point in KINDS[kind].passes]
)
def test_stopped_again_during_the_repair_it_has_one_answer(
    make_scene: Callable[..., Scene], kind: str, first: str
) -> None:
    reached = set()
    for second in second_points(first):
        scene = make_scene()
        KINDS[kind].prepare(scene)
        scene.stop("daemon", at=first)
        if scene.may_stop("daemon", at=second):
            reached.add(second)
        scene.finish()
        scene.check()
        scene.store.database.close()  # there are as many as the server has connections
    assert reached >= passed_again(kind, first), "the repair went another way"


def passed_again(kind: str, first: str) -> set[str]:
    """What a repair must pass, whatever else it does."""
    passes = KINDS[kind].passes
    later = passes[passes.index(first) + 1 :]
    if first == "publish.7":
        return set()
    if first in PUBLISH[1:]:
        # Once the status has left it, scratch is empty, and there is nothing to take over.
        if first in {"publish.6", "publish.6.synced"}:  # not even the folder is there
            return {"disown", *PUBLISH[2:]}
        emptied = first.startswith("publish.5")
        return {"rescue.publishing", *PUBLISH[2:]} | (set() if emptied else {"take_over"})
    return set(later)
