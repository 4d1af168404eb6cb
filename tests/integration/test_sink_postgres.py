"""The postgres sink: rows into a table, each once, all or none, and said exactly."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from spoold.connections.row_types import Encoding
from spoold.sinks.sink import Sink
from tests.contracts.sink import SinkContract
from tests.integration.row_merges import ALERTS, Place, alert, alerts, lines, own_schema


@pytest.fixture
def place(tmp_path: Path, shared_conninfo: str) -> Iterator[Place]:
    with own_schema(tmp_path, shared_conninfo) as place:
        place.run(f"create table alert {ALERTS}")
        yield place


class TestRows(SinkContract):
    files: ClassVar[dict[str, bytes]] = {"alerts/a.jsonl": alerts(3)}
    refused: ClassVar[dict[str, bytes]] = {"alerts/a.jsonl": b"no row\n"}

    @pytest.fixture
    def sink(self, place: Place) -> Sink:
        place.run("insert into alert values (2, 'mine', 1, null)")
        return place.sink(name=place.schema)  # jobs of the contract have the same ids

    @pytest.fixture
    def state(self, place: Place) -> Callable[[], object]:
        return place.contents


def rows(place: Place) -> list[Any]:
    return place.run("select id, host, severity from alert order by id")


def test_rows_are_inserted_once_and_then_skipped(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    assert place.counts() == (3, 0, 0)
    assert rows(place) == [(1, "host-1", 3), (2, "host-2", 3), (3, "host-3", 3)]
    assert place.counts() == (0, 3, 0)
    place.write("alerts/b.jsonl", lines(alert(4)))
    assert place.counts() == (1, 3, 0)


def test_a_plan_that_is_not_applied_changes_nothing(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    with place.plan() as plan:
        assert plan.report["rows"] == {"inserted": 3, "skipped": 0, "conflicting": 0}
        assert rows(place) == []
    assert rows(place) == []
    assert place.counts() == (3, 0, 0)


def test_other_content_under_a_key_is_told_and_stays(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    place.run("insert into alert values (2, 'mine', 1, null), (3, 'host-3', 3, null)")
    report = place.merge()
    assert report["rows"] == {"inserted": 1, "skipped": 1, "conflicting": 1}
    assert report["conflicts"] == [{"entry": "alerts/a.jsonl", "line": 2, "key": ["2"]}]
    assert rows(place)[1] == (2, "mine", 1)


def test_other_content_is_updated_where_that_is_wanted(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    place.run("insert into alert values (2, 'mine', 1, now()), (3, 'host-3', 3, null)")
    report = place.merge(on_conflict="update")
    assert report["rows"] == {"inserted": 1, "skipped": 1, "conflicting": 0, "updated": 1}
    assert rows(place)[1] == (2, "host-2", 3)
    assert place.merge(on_conflict="update")["rows"] == {
        "inserted": 0,
        "skipped": 3,
        "conflicting": 0,
        "updated": 0,
    }


def test_other_content_refuses_all_where_that_is_wanted(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(4))
    place.run("insert into alert values (2, 'mine', 1, null), (4, 'too', 1, null)")
    error = place.refusal(on_conflict="refuse")
    assert error.code.name == "rows-conflict"
    assert "alerts/a.jsonl, line 2, and 1 more rows" in error.message
    assert error.at == "alerts/a.jsonl, line 2"


def test_a_job_that_has_merged_reports_the_same_again(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    place.run("insert into alert values (2, 'mine', 1, null)")
    job = uuid.uuid4()
    first = place.merge(job)
    place.run("delete from alert")
    assert place.merge(job) == first
    assert rows(place) == []
    assert place.counts() == (3, 0, 0)


def test_the_ledger_says_which_entries_a_job_has_merged(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    place.write("alerts/b.jsonl", b"")
    place.write("alerts/c.jsonl", lines(alert(4), alert(5)))
    job = uuid.uuid4()
    assert place.counts(job) == (5, 0, 0)
    assert place.run(
        "select bundle_id, site, target, inserted, updated, skipped, conflicting"
        " from spoold_rows.merged where job_id = %s and sink = 'alerts'",
        str(job),
    ) == [("demo-0123456789ab", "site-b", f"{place.schema}.alert", 5, 0, 0, 0)]
    assert place.run(
        "select entry, rows from spoold_rows.merged_entry where job_id = %s order by 1", str(job)
    ) == [("alerts/a.jsonl", 3), ("alerts/b.jsonl", 0), ("alerts/c.jsonl", 2)]


def test_entries_that_look_alike_have_each_their_row_in_the_ledger(place: Place) -> None:
    place.write("a\\x01.jsonl", alerts(1))
    place.write("a\x01.jsonl", lines(alert(2), alert(3)))
    job = uuid.uuid4()
    assert place.counts(job) == (3, 0, 0)
    assert place.run(
        "select entry, rows from spoold_rows.merged_entry where job_id = %s order by 2", str(job)
    ) == [(r"a\\x01.jsonl", 1), (r"a\x01.jsonl", 2)]


def test_columns_go_where_the_mapping_says(place: Place) -> None:
    place.write("a.jsonl", lines({"ID": 7, "who": "x", "how bad": 2}))
    mapping = {"ID": "id", "who": "host", "how bad": "severity"}
    assert place.counts(columns=mapping) == (1, 0, 0)
    assert rows(place) == [(7, "x", 2)]


def test_columns_that_no_row_has_take_their_defaults(place: Place) -> None:
    place.run("alter table alert alter severity set default 9")
    place.write("a.jsonl", lines({"id": 1, "host": "x"}))
    assert place.counts() == (1, 0, 0)
    assert rows(place) == [(1, "x", 9)]
    place.run("update alert set severity = 1")
    assert place.counts() == (0, 1, 0)


def test_the_schema_entry_says_how_values_are_encoded(place: Place) -> None:
    place.run("create table doc (id int primary key, body jsonb, tags text[])")
    content = lines(
        {"id": 1, "body": "null", "tags": '{a,"b c"}'}, {"id": 2, "body": None, "tags": None}
    )
    place.write("d.jsonl", content)
    columns = {"id": Encoding.JSON, "body": Encoding.TEXT, "tags": Encoding.TEXT}
    place.write_schema("d.schema.json", columns, rows=2)
    assert place.counts(table="doc") == (2, 0, 0)
    assert place.run("select body::text, tags from doc order by id") == [
        ("null", ["a", "b c"]),
        (None, None),
    ]


def test_without_a_schema_entry_json_columns_take_json(place: Place) -> None:
    place.run("create table doc (id int primary key, body jsonb)")
    place.write("d.jsonl", b'{"id": 1, "body": {"a": [1, "\\u00e9\\n"]}}\n{"id":2,"body":"x"}')
    assert place.counts(table="doc") == (2, 0, 0)
    assert place.run("select body from doc order by id") == [({"a": [1, "é\n"]},), ("x",)]


def test_a_bundle_without_rows_merges_none(place: Place) -> None:
    place.write("alerts/a.jsonl", b"")
    assert place.counts() == (0, 0, 0)


def test_equal_rows_of_a_bundle_are_one(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(2))
    place.write("alerts/b.jsonl", alerts(3))
    assert place.counts() == (3, 2, 0)


def test_bytes_and_rows_are_counted(place: Place) -> None:
    content = alerts(3000)
    place.write("alerts/a.jsonl", content)
    place.merge()
    assert sum(size for size, _ in place.counted) == len(content)
    assert sum(count for _, count in place.counted) == 3000
    assert len(place.counted) > 1


def test_rows_are_read_whatever_the_mode_of_their_file(place: Place) -> None:
    place.write("alerts/a.jsonl", alerts(3))
    delivery = place.delivery()
    (delivery.tree / "alerts/a.jsonl").chmod(0)
    (delivery.tree / "alerts").chmod(0)
    with closing(place.sink().plan(delivery)) as plan:
        assert plan.report["rows"] == {"inserted": 3, "skipped": 0, "conflicting": 0}
