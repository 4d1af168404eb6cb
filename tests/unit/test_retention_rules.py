"""Which files are due, which bundles too many, and what requests name: decisions alone."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from spoold.connections import Connections
from spoold.connections.recipes import RecipeSettings
from spoold.queue.job import Move, Publication, State
from spoold.queue.reserving import Owner, area_of, reservations
from spoold.queue.rows import from_bigint, to_bigint
from spoold.queue.tree_rows import Area, Bundle
from spoold.retention import Limits, RetentionSettings, beyond
from spoold.retention.needs import Needed, named_in
from spoold.retention.rules import rules_of

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def bundle(days: int, size: int = 10, *, pinned: bool = False) -> Bundle:
    return Bundle(
        job=uuid.uuid4(),
        bundle_id=f"demo-{days}",
        manifest_sha256=bytes(32),
        from_site="site-a",
        received=False,
        folder="processed",
        name=b"demo.tar.zst",
        bytes=size,
        entries=1,
        created_at=NOW - timedelta(days=days),
        pinned=pinned,
        removed_at=None,
    )


def days_beyond(bundles: list[Bundle], limits: Limits) -> list[str]:
    return [each.bundle_id.removeprefix("demo-") for each in beyond(bundles, limits, NOW)]


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        (Limits(), ""),
        (Limits(keep=2), "3 4"),
        (Limits(keep=9), ""),
        (Limits(max_bytes=30), "4"),
        (Limits(max_bytes=29), "3 4"),
        (Limits(max_bytes=1), "2 3 4"),
        (Limits(older_than=2 * 86400 + 1), "3 4"),
        (Limits(keep=3, older_than=86400), "2 3 4"),
    ],
)
def test_each_limit_counts_alone_and_the_newest_is_never_too_large(
    limits: Limits, gone: str
) -> None:
    assert days_beyond([bundle(days) for days in (1, 2, 3, 4)], limits) == gone.split()


def test_pinned_bundles_stay_and_fill_no_place() -> None:
    bundles = [bundle(1, pinned=True), bundle(2), bundle(3, pinned=True), bundle(4)]
    assert days_beyond(bundles, Limits(keep=1)) == ["4"]
    assert days_beyond(bundles, Limits(max_bytes=20)) == []
    assert days_beyond(bundles, Limits(older_than=1)) == ["2", "4"]


def test_what_is_kept_for_ever_has_no_rule() -> None:
    assert rules_of(RetentionSettings()) == []
    assert not RetentionSettings().anything
    only = RetentionSettings(jobs=60)
    assert only.anything
    assert rules_of(only) == []
    assert only.shortest_seconds == 60


def test_bundles_go_with_their_jobs_unless_they_have_a_rule() -> None:
    for rule in rules_of(RetentionSettings(processed=10)):
        assert rule.seconds == 10
        assert rule.goes == {Area.PROCESSED, Area.BUNDLES}
    for own in ({"bundles": 20}, {"bundles_keep": 1}, {"bundles_bytes": 1}):
        rules = rules_of(RetentionSettings(processed=10, **own))
        assert [rule.goes for rule in rules if rule.area is Area.PROCESSED] == [{Area.PROCESSED}]
        ages = [rule.seconds for rule in rules if rule.area is Area.BUNDLES]
        assert ages == ([20] if "bundles" in own else [])


@pytest.mark.parametrize(
    ("action", "drop", "state", "folder", "role", "area"),
    [
        ("bundle", b"request-a.json", "succeeded", "processed", "bundle", Area.BUNDLES),
        ("bundle", b"request-a.json", "succeeded", "processed", "drop", Area.PROCESSED),
        ("rehydrate", b"a.tar.zst", "succeeded", "processed", "drop", Area.BUNDLES),
        ("rehydrate", b"a.tar.gz", "duplicate", "processed", "drop", Area.PROCESSED),
        ("rehydrate", b"a.tar.zst", "rejected", "failed", "drop", Area.FAILED),
        ("rehydrate", b"request-a.json", "succeeded", "processed", "drop", Area.PROCESSED),
        ("rehydrate", b"a.tar.zst", "succeeded", "restored/site-b", "restored", Area.RESTORED),
        ("command", b"a.tar.zst", "succeeded", "processed", "drop", Area.PROCESSED),
    ],
)
def test_each_name_has_its_area(
    action: str, drop: bytes, state: str, folder: str, role: str, area: Area
) -> None:
    assert area_of(Owner(uuid.uuid4(), action, drop), State(state), folder, role) is area


def test_names_are_reserved_with_what_proves_whose_they_are() -> None:
    job = uuid.uuid4()
    moved = Move("drop", "", "processed", b"a", 1, (1 << 64) - 1, 3, 4)
    standing = Move("log", "", "processed", b"a.log", 1, 2, 3, 4)
    names = (("processed", b"a"), ("processed", b"a.log"), ("processed", b"gone"))
    outcome = {"state": "succeeded", "result": None, "error": None, "warnings": []}
    publication = Publication(outcome, b"", (moved,), names, (standing,))
    found = reservations([(Owner(job, "bundle", b"a"), publication)])
    assert found["owners"] == [job] * 3
    assert found["roles"] == ["drop", "log", ""]
    assert found["inodes"] == [-1, 2, None]
    assert found["mtimes"] == [4, 4, None]


@pytest.mark.parametrize("number", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_an_inode_of_64_bits_comes_back_from_the_database(number: int) -> None:
    assert -(1 << 63) <= to_bigint(number) < 1 << 63
    assert from_bigint(to_bigint(number)) == number


def test_requests_are_asked_for_all_that_they_name() -> None:
    recipe = RecipeSettings.model_validate(
        {
            "parameters": {"incident_id": "text"},
            "sources": [
                {"kind": "files", "root": "evidence", "path": "{incident_id}/logs"},
                {"kind": "postgres", "query": "alerts"},
            ],
        }
    )
    connections = Connections(recipes={"incident": recipe})
    place = {"root": "stick", "path": "a.tar.zst"}
    assert list(named_in("rehydrate", {"bundle": place}, connections)) == [("stick", "a.tar.zst")]
    sources = [{"kind": "files", "root": "evidence"}, {"kind": "http", "endpoint": "x"}]
    assert list(named_in("bundle", {"sources": sources}, connections)) == [("evidence", "")]
    asked = {"recipe": "incident", "parameters": {"incident_id": "INC-7"}}
    assert list(named_in("bundle", asked, connections)) == [("evidence", "INC-7/logs")]
    outside = {"recipe": "incident", "parameters": {"incident_id": "../x"}}
    for broken in (
        {"recipe": "other"},
        {"recipe": "incident", "parameters": {}},
        {"sources": 1},
        outside,
    ):
        assert list(named_in("bundle", broken, connections)) == []


def test_a_recipe_without_parameters_is_asked_too() -> None:
    recipe = RecipeSettings.model_validate({"sources": [{"kind": "files", "root": "evidence"}]})
    connections = Connections(recipes={"all": recipe})
    assert list(named_in("bundle", {"recipe": "all"}, connections)) == [("evidence", "")]


def test_what_is_above_in_or_itself_named_is_needed() -> None:
    needed = Needed()
    needed.add((1, 10), [(1, 9), (1, 8)])
    assert needed.holds((1, 10), [(1, 9)])
    assert needed.holds((1, 9), [(1, 8)])  # a folder that has it
    assert needed.holds((1, 11), [(1, 10), (1, 9)])  # a file in it
    assert not needed.holds((1, 11), [(1, 9), (1, 8)])  # beside it
    assert not needed.holds((2, 10), [])
