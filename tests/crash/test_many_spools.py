"""Twenty spools in one database, each with its daemon: nobody takes, moves or repairs another's."""

from collections.abc import Callable

from tests.crash.scene import Scene, bundle_drop, invalid_drop

TABLES = ("job", "worker", "done", "published")


def rows(scene: Scene) -> list[object]:
    """All that the database has of a spool."""
    found: list[object] = []
    for table in TABLES:
        query = f"select to_jsonb(t) from spoold.{table} as t where spool = %s order by t::text"
        found += scene.store.database.connection.execute(
            query.encode(), (scene.store.spool,)
        ).fetchall()
    return found


def test_twenty_spools_with_the_same_drops_share_a_database(
    make_scene: Callable[[], Scene],
) -> None:
    scenes = [make_scene() for _ in range(20)]
    for scene in scenes:
        scene.drop(bundle_drop(scene, idempotency_key="the same"))
        scene.drop(invalid_drop())
    # Three of them die in the middle, with a lease, with names, with half of the files moved.
    for scene, point in zip(scenes, ("act", "publish.2", "publish.4"), strict=False):
        scene.stop("daemon", at=point)
    for number, scene in enumerate(scenes):
        others = [other for other in scenes if other is not scene]
        before = [(rows(other), other.everything()) for other in (others[number - 1], others[0])]
        scene.finish()
        scene.check()
        after = [(rows(other), other.everything()) for other in (others[number - 1], others[0])]
        assert after == before
    assert len({job.id for scene in scenes for job in scene.jobs()}) == 40
