"""A worker that is stopped past its lease, and wakes when its job is somebody else's (E29).

It is stopped at each point of its work in turn. Meanwhile others finish the job, and a newer drop
of the same name; then it goes on as if nothing had happened: it must change nothing.
"""

import threading
from typing import Any

import pytest

from spoold.points import POINTS
from spoold.queue.job import RetryPolicy
from tests.conftest import wait_until
from tests.crash.scene import Scene, bundle_drop, restore_drop

PUBLISH = [name for name in POINTS if name.startswith("publish.") and name[8] in "34567"]


def cases(*always: str) -> list[Any]:
    """These points, and every night those of publishing too."""
    nightly = [name for name in PUBLISH if name not in always]
    return [*always, *(pytest.param(name, marks=pytest.mark.nightly) for name in nightly)]


@pytest.mark.parametrize("point", cases("claim", "scratch", "act", "publish.2", "publish.4"))
def test_e29_who_wakes_during_an_attempt_changes_nothing(scene: Scene, point: str) -> None:
    scene.drop(bundle_drop(scene))
    assert scene.run("intake") == 0
    scene.suspend("worker", at=point)
    outlive(scene)


@pytest.mark.parametrize("point", cases("claim", "take_over", "publish.5"))
def test_e29_who_wakes_during_a_publication_changes_nothing(scene: Scene, point: str) -> None:
    scene.drop(bundle_drop(scene))
    scene.stop("daemon", at="publish.2")
    rescue(scene)
    scene.suspend("worker", at=point)
    outlive(scene)


@pytest.mark.parametrize("point", ["claim", "scratch", "publish.2"])
def test_e29_who_wakes_before_anybody_goes_on_leaves_what_is_to_be_published(
    scene: Scene, point: str
) -> None:
    scene.drop(bundle_drop(scene))
    scene.stop("daemon", at="publish.2")
    rescue(scene)
    scene.suspend("worker", at=point)
    deafen(scene)
    sleeper = rescue(scene)
    wake(scene, sleeper)
    scene.finish()
    scene.check()


def test_e29_who_wakes_while_another_works_says_nothing_of_its_own_failure(scene: Scene) -> None:
    scene.drop(restore_drop(scene))
    assert scene.run("intake") == 0
    # As good as a full disk, for this worker.
    scene.suspend("worker", at="claim", SPOOLD_INTAKE_MIN_FREE_BYTES="1024TiB")
    deafen(scene)
    sleeper = rescue(scene)
    scene.store.promote()
    scene.suspend("worker", at="act")
    before = scene.everything()
    wake(scene, sleeper)
    assert scene.everything() == before
    assert scene.forks.wake() == 0
    scene.finish()
    scene.check()


def outlive(scene: Scene) -> None:
    """Do the sleeper's work, and more under the same name; wake it; nothing may have changed."""
    deafen(scene)
    sleeper = rescue(scene)
    scene.finish()
    scene.drop(bundle_drop(scene))
    scene.finish()
    before = scene.everything()
    wake(scene, sleeper)
    assert scene.everything() == before
    scene.finish()  # it sweeps
    scene.check()


def deafen(scene: Scene) -> None:
    """Cut the connection on which it would hear that its job is gone."""
    scene.store.database.connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name = 'spoold listen'"
    )


def rescue(scene: Scene) -> str:
    """What happens when a worker's lease is over, now; its id."""
    [worker] = scene.store.workers()
    scene.store.leave(worker.id)
    scene.store.rescue(3600.0, RetryPolicy(0.0, 0.0))
    return str(worker.id)


def wake(scene: Scene, worker: str) -> None:
    """Let it go on; only when it has done what it could have done, it is called."""
    connection = scene.store.database.connection
    said = scene.said().count("attempt.finished")
    woken = threading.Thread(target=scene.forks.wake)
    woken.start()
    wait_until(lambda: not woken.is_alive() or scene.said().count("attempt.finished") > said)

    def gone() -> bool:
        connection.execute("select pg_notify('spoold_gone', %s)", (worker,))
        return not woken.is_alive()

    wait_until(gone)
    woken.join()
