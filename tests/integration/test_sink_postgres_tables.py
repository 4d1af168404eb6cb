"""The postgres sink and its table: what it is, who else writes it, and who may."""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from spoold.errors import SpooldError
from tests.conftest import wait_until
from tests.integration.row_merges import ALERTS, Place, alert, alerts, lines, own_schema


@pytest.fixture
def place(tmp_path: Path, shared_conninfo: str) -> Iterator[Place]:
    with own_schema(tmp_path, shared_conninfo) as place:
        place.run(f"create table alert {ALERTS}")
        place.write("a.jsonl", alerts(3))
        yield place


@pytest.fixture
def user(place: Place) -> Iterator[str]:
    """The conninfo of a user who may nothing yet but see the schema."""
    name = f"user_{uuid.uuid4().hex[:12]}"
    place.run(f"create role {name} login password 'secret-word'")
    place.run(f"grant usage on schema {place.schema} to {name}")
    yield make_conninfo(place.conninfo, user=name, password="secret-word")
    place.run(f"drop owned by {name}")
    place.run(f"drop role {name}")


@pytest.mark.parametrize(
    ("statement", "settings", "what"),
    [
        ("", {"table": "nothing"}, "there is no such table"),
        ("create view seen as select * from alert", {"table": "seen"}, "it is a view"),
        ("create table bare (id int)", {"table": "bare"}, "it has no primary key"),
        ("", {"key": ["host"]}, "no unique index has the key host"),
        ("create unique index on alert (host) where id > 5", {"key": ["host"]}, "no unique index"),
        ("create unique index on alert (lower(host))", {"key": ["host"]}, "no unique index"),
        ("alter table alert add unique (host) deferrable", {"key": ["host"]}, "no unique index"),
        ("", {"key": ["nothing"]}, "it has no column nothing"),
        ("", {"columns": {"id": "id", "x": "nothing"}}, "it has no column nothing"),
        ("", {"columns": {"host": "host"}}, "no column of a bundle goes into id"),
        (
            "alter table alert drop seen, add seen int generated always as (1) stored",
            {},
            "takes no values",
        ),
        ("alter table alert alter id add generated always as identity", {}, "takes no values"),
        ("create rule r as on insert to alert do instead nothing", {}, "3 rows are not in"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_that_cannot_be_merged_into_is_refused(
    place: Place, statement: str, settings: dict[str, object], what: str
) -> None:
    if statement:
        place.run(statement)
    error = place.refusal(**settings)
    assert error.code.name == "sink-refused"
    assert what in error.message
    assert not error.transient


def test_another_unique_index_may_be_the_key(place: Place) -> None:
    place.run("create unique index on alert (host, severity)")
    place.run("insert into alert values (70, 'host-2', 3, null)")
    report = place.merge(key=["severity", "host"])
    assert report["rows"] == {"inserted": 2, "skipped": 0, "conflicting": 1}
    assert report["conflicts"] == [{"entry": "a.jsonl", "line": 2, "key": ["host-2", "3"]}]


def test_a_null_in_the_key_is_refused(place: Place) -> None:
    place.run("create table loose (a int unique, b int)")
    place.write("a.jsonl", lines({"a": 1, "b": 1}, {"a": None, "b": 2}))
    error = place.refusal(table="loose", key=["a"])
    assert error.code.name == "rows-invalid"
    assert error.message.startswith("a.jsonl, line 2: column a: null")


def test_a_key_is_equal_as_its_index_says(place: Place) -> None:
    place.run("create table sum (n numeric primary key, what text)")
    place.run("insert into sum values (1.00, 'one'), (2, 'two'), (3, 'three')")
    place.write("a.jsonl", b'{"n":1.0,"what":"one"}\n{"n":2,"what":"2"}\n{"n":3,"what":"three"}\n')
    report = place.merge(table="sum")
    assert report["rows"] == {"inserted": 0, "skipped": 1, "conflicting": 2}
    report = place.merge(table="sum", on_conflict="update")
    assert report["rows"] == {"inserted": 0, "skipped": 1, "conflicting": 0, "updated": 2}
    assert place.run("select n::text, what from sum order by n") == [
        ("1.0", "one"),
        ("2", "2"),
        ("3", "three"),
    ]


def test_types_without_equality_are_compared(place: Place) -> None:
    place.run("create table odd (id int primary key, p point, j json, x text[])")
    place.write("a.jsonl", lines({"id": 1, "p": "(1,2)", "j": {"a": 1}, "x": "{a,NULL}"}))
    assert place.counts(table="odd") == (1, 0, 0)
    assert place.counts(table="odd") == (0, 1, 0)
    place.run("update odd set p = '(1,3)'")
    assert place.counts(table="odd") == (0, 0, 1)


def test_partitions_take_their_rows(place: Place) -> None:
    place.run("create table parts (id bigint primary key, host text) partition by range (id)")
    place.run("create table low partition of parts for values from (0) to (3)")
    place.run("create table high partition of parts for values from (3) to (100)")
    place.write("a.jsonl", lines(*({"id": n, "host": f"h{n}"} for n in range(1, 6))))
    assert place.counts(table="parts") == (5, 0, 0)
    place.run("update parts set host = 'x' where id in (2, 4)")
    assert place.counts(table="parts") == (0, 3, 2)
    assert place.merge(table="parts", on_conflict="update")["rows"]["updated"] == 2  # type: ignore[index,call-overload]
    assert place.run("select count(*) from high where host like 'h%'") == [(3,)]
    place.write("a.jsonl", lines({"id": 1, "host": "h1"}, {"id": 100, "host": "h"}))
    error = place.refusal(table="parts")
    assert error.message.startswith("a.jsonl, line 2: ")
    assert "no partition" in error.message


def test_tables_that_inherit_are_others(place: Place) -> None:
    place.run("create table child () inherits (alert)")
    place.run("insert into child values (1, 'other', 1, null)")
    assert place.counts() == (3, 0, 0)
    assert place.counts() == (0, 3, 0)


TRIGGER = """
create function {0}.act() returns trigger language plpgsql as $$ begin {1} end $$;
create trigger act {2} on alert for each row execute function {0}.act()
"""


def test_triggers_run(place: Place) -> None:
    place.run("create table noted (id bigint)")
    body = f"insert into {place.schema}.noted values (new.id); return new;"
    place.run(TRIGGER.format(place.schema, body, "after insert"))
    assert place.counts() == (3, 0, 0)
    assert place.run("select count(*) from noted") == [(3,)]


@pytest.fixture
def lowering(place: Place) -> None:
    """A trigger that changes new rows; of a bundle of eleven, one row stands there already."""
    place.run("insert into alert values (1, 'host-1', 3, null)")
    body = "new.host := lower(new.host); return new;"
    place.run(TRIGGER.format(place.schema, body, "before insert"))
    place.write("a.jsonl", lines(alert(1), *(alert(n, host=f"HOST-{n}") for n in range(2, 12))))


@pytest.mark.usefixtures("lowering")
@pytest.mark.parametrize("policy", ["skip", "update", "refuse"])
def test_new_rows_that_a_trigger_changes_are_in_no_conflict(place: Place, policy: str) -> None:
    report = place.merge(on_conflict=policy)
    updated = {"updated": 0} if policy == "update" else {}
    assert report["rows"] == {"inserted": 10, "skipped": 1, "conflicting": 0, **updated}
    assert "conflicts" not in report
    found = place.run("select id, host from alert order by id")
    assert found == [(number, f"host-{number}") for number in range(1, 12)]


@pytest.mark.usefixtures("lowering")
def test_only_what_stood_there_before_is_in_conflict(place: Place) -> None:
    place.run("update alert set severity = 9")
    error = place.refusal(on_conflict="refuse")
    assert error.code.name == "rows-conflict"
    assert error.message.startswith("a.jsonl, line 1: ")
    report = place.merge(on_conflict="skip")
    assert report["rows"] == {"inserted": 10, "skipped": 0, "conflicting": 1}
    assert report["conflicts"] == [{"entry": "a.jsonl", "line": 1, "key": ["1"]}]
    place.run("delete from alert where id > 1")
    rows: Any = place.merge(on_conflict="update")["rows"]
    assert rows == {"inserted": 10, "updated": 1, "skipped": 0, "conflicting": 0}
    found = place.run("select id, host, severity from alert order by id")
    assert found == [(number, f"host-{number}", 3) for number in range(1, 12)]


@pytest.mark.usefixtures("lowering")
def test_equal_new_rows_are_one_whatever_a_trigger_makes_of_them(place: Place) -> None:
    place.write("b.jsonl", lines(alert(11, host="HOST-11"), alert(12, host="HOST-12")))
    assert place.counts(on_conflict="refuse") == (11, 2, 0)
    place.write("b.jsonl", lines(alert(13, host="HOST-13"), alert(13, host="Host-13")))
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert error.message.startswith("b.jsonl, line 2: b.jsonl, line 1 has the same key")


def test_what_a_trigger_does_to_rows_that_stood_there_hides_no_conflict(place: Place) -> None:
    place.run("insert into alert values (1, 'mine', 3, null)")
    body = f"update {place.schema}.alert set host = 'host-1' where id = 1; return new;"
    place.run(TRIGGER.format(place.schema, body, "before insert"))
    assert place.refusal(on_conflict="refuse").code.name == "rows-conflict"


def test_of_rows_that_stand_there_already_a_trigger_takes_away_only_new_ones(place: Place) -> None:
    place.run("insert into alert values (1, 'host-1', 3, null)")
    body = "if new.id = 2 then return null; end if; return new;"
    place.run(TRIGGER.format(place.schema, body, "before insert"))
    error = place.refusal()
    assert error.code.name == "sink-refused"
    assert error.message.startswith("1 rows are not in ")


def test_what_a_trigger_refuses_is_named(place: Place) -> None:
    body = "if new.id = 2 then raise exception 'not this one'; end if; return new;"
    place.run(TRIGGER.format(place.schema, body, "before insert"))
    error = place.refusal()
    assert error.code.name == "sink-refused"
    assert error.message.startswith("a.jsonl, line 2: ")
    assert "not this one" in error.message


def test_what_an_update_may_not_do_is_named(place: Place) -> None:
    place.merge()
    place.run("update alert set severity = 1")
    body = "if new.id = 3 then raise exception 'not this one'; end if; return new;"
    place.run(TRIGGER.format(place.schema, body, "before update"))
    error = place.refusal(on_conflict="update")
    assert error.message.startswith("a.jsonl, line 3: ")


def test_rows_that_a_trigger_takes_away_refuse_all(place: Place) -> None:
    body = "if new.id = 2 then return null; end if; return new;"
    place.run(TRIGGER.format(place.schema, body, "before insert"))
    error = place.refusal()
    assert error.code.name == "sink-refused"
    assert error.message.startswith("1 rows are not in ")


def test_rows_that_an_update_leaves_as_they_were_refuse_all(place: Place) -> None:
    place.run("insert into alert values (1, 'other'), (2, 'other')")
    place.write("a.jsonl", lines(alert(1), alert(2), alert(2), alert(3)))
    place.run(TRIGGER.format(place.schema, "return null;", "before update"))
    error = place.refusal(on_conflict="update")
    assert error.code.name == "sink-refused"
    assert error.message.startswith("2 rows are not updated in ")
    place.run("drop trigger act on alert")
    rows: Any = place.merge(on_conflict="update")["rows"]
    assert rows == {"inserted": 1, "updated": 2, "skipped": 1, "conflicting": 0}


def test_rows_that_refer_to_later_ones_are_merged(place: Place) -> None:
    place.run("create table tree (id int primary key, above int references tree)")
    place.write("a.jsonl", lines({"id": 1, "above": 2}, {"id": 2, "above": None}))
    assert place.counts(table="tree") == (2, 0, 0)
    place.write("a.jsonl", lines({"id": 3, "above": 4}, {"id": 4, "above": 5}))
    error = place.refusal(table="tree")
    assert error.code.name == "sink-refused"
    assert "(above)=(5)" in error.message


def test_who_may_not_is_told_what_to_grant(place: Place, user: str) -> None:
    error = place.refusal(conninfo=user)
    assert error.code.name == "sink-refused"
    assert "permission denied for table alert" in error.message or "spoold_rows" in error.message
    assert "secret-word" not in error.message
    assert "GRANT" in error.hint


def test_who_may_merge_merges_and_no_more(place: Place, user: str) -> None:
    place.merge()  # as the owner, who makes the tables of the ledger
    name = psycopg.conninfo.conninfo_to_dict(user)["user"]
    place.run(f"grant select, insert on alert to {name}")
    place.run(f"grant usage on schema spoold_rows to {name}")
    place.run(f"grant select, insert on spoold_rows.merged, spoold_rows.merged_entry to {name}")
    place.write("a.jsonl", alerts(5))
    assert place.counts(conninfo=user) == (2, 3, 0)
    place.run("update alert set severity = 9 where id = 1")
    error = place.refusal(conninfo=user, on_conflict="update")
    assert error.code.name == "sink-refused"
    assert "permission denied" in error.message


def test_a_ledger_that_may_not_be_written_is_told_before_anything_is_done(
    place: Place, user: str
) -> None:
    place.merge()
    name = psycopg.conninfo.conninfo_to_dict(user)["user"]
    place.run(f"grant select, insert on alert to {name}")
    place.run(f"grant usage on schema spoold_rows to {name}")
    place.run(f"grant select on spoold_rows.merged, spoold_rows.merged_entry to {name}")
    error = place.refusal(conninfo=user)
    assert error.code.name == "sink-refused"
    assert "GRANT SELECT, INSERT ON spoold_rows.merged" in error.hint


def test_without_the_ledger_who_may_not_make_it_is_told_the_sql(place: Place, user: str) -> None:
    place.run("drop schema if exists spoold_rows cascade")
    error = place.refusal(conninfo=user)
    assert error.code.name == "sink-refused"
    assert "spoold_rows.merged" in error.message
    assert "SOURCES.md" in error.hint


def test_rows_that_row_level_security_refuses_or_hides(place: Place, user: str) -> None:
    place.merge()
    name = psycopg.conninfo.conninfo_to_dict(user)["user"]
    place.run(f"grant select, insert on alert to {name}")
    place.run(f"grant usage on schema spoold_rows to {name}")
    place.run(f"grant select, insert on spoold_rows.merged, spoold_rows.merged_entry to {name}")
    place.run("alter table alert enable row level security")
    place.run("create policy most on alert for select using (id > 1)")
    place.run("create policy low on alert for insert with check (id < 5)")
    place.write("a.jsonl", lines(alert(2), alert(4)))
    assert place.counts(conninfo=user) == (1, 1, 0)
    place.write("a.jsonl", lines(alert(3), alert(6)))
    error = place.refusal(conninfo=user)
    assert error.code.name == "sink-refused"
    assert error.message.startswith("a.jsonl, line 2: ")
    place.write("a.jsonl", lines(alert(1)))
    assert place.refusal(conninfo=user).code.name == "sink-refused"
    place.run(f"grant update on alert to {name}")
    place.run("create policy high on alert for update using (id > 2)")
    place.write("a.jsonl", lines(alert(2, host="other"), alert(3, host="other")))
    error = place.refusal(conninfo=user, on_conflict="update")
    assert error.message.startswith("1 rows are not updated in ")


def test_a_server_that_is_away_is_tried_again(place: Place) -> None:
    error = place.refusal(conninfo="host=127.0.0.1 port=1 user=x dbname=x")
    assert error.code.name == "sink-away"
    assert error.transient


def test_a_wrong_password_is_told_without_it(place: Place, user: str) -> None:
    error = place.refusal(conninfo=make_conninfo(user, password="wrong-word"))
    assert "wrong-word" not in error.message + error.hint


def test_a_plan_whose_connection_is_cut_cannot_be_applied(place: Place) -> None:
    with place.plan() as plan:
        place.run(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'spoold' and datname = current_database()"
            " and state = 'idle in transaction'"
        )
        with pytest.raises(SpooldError) as caught:
            plan.apply()
        assert caught.value.code.name == "sink-away"
    assert place.counts() == (3, 0, 0)


def test_a_lock_of_others_is_waited_for_and_then_told(place: Place) -> None:
    with place.connect() as other, other.transaction():
        other.execute("insert into alert values (2, 'mine', 1, null)")
        before = time.monotonic()
        with (
            pytest.raises(SpooldError) as caught,
            place.plan(database={"lock_timeout_seconds": 0.3}),
        ):
            pass
        assert time.monotonic() - before < 5
        assert caught.value.transient
    assert place.counts() == (2, 0, 1)


def test_what_others_commit_meanwhile_is_seen(place: Place) -> None:
    found = []

    def merge() -> None:
        found.append(place.counts())

    with place.connect() as other, other.transaction():
        other.execute("insert into alert values (2, 'mine', 1, null), (3, 'host-3', 3, null)")
        thread = threading.Thread(target=merge)
        thread.start()
        wait_until(lambda: place.run("select 1 from pg_locks where not granted") != [])
    thread.join()
    assert found == [(1, 1, 1)]


def test_two_attempts_at_once_merge_once_and_report_the_same(place: Place) -> None:
    job = uuid.uuid4()
    found = []
    with place.plan(job) as first:
        second = threading.Thread(target=lambda: found.append(place.merge(job)))
        second.start()
        wait_until(lambda: place.run("select 1 from pg_locks where not granted") != [])
        first.apply()
    second.join()
    assert found == [first.report]
    assert first.report["rows"] == {"inserted": 3, "skipped": 0, "conflicting": 0}


def test_the_second_of_two_plans_reports_what_the_first_has_committed(place: Place) -> None:
    place.merge()
    job = uuid.uuid4()
    place.run("update alert set severity = 1 where id = 2")
    with place.plan(job) as first, place.plan(job) as second:
        place.run("update alert set severity = 3 where id = 2")
        first.apply()
        second.apply()
        assert second.report == first.report
        second.apply()
    assert place.run("select count(*) from spoold_rows.merged where job_id = %s", str(job)) == [
        (1,)
    ]


class LostError(Exception):
    pass


def test_a_lost_lease_ends_what_the_server_does(place: Place) -> None:
    body = "perform pg_sleep(20); return new;"
    place.run(TRIGGER.format(place.schema, body, "before insert"))
    busy = "select 1 from pg_stat_activity where query like 'insert into%' and state = 'active'"

    def check() -> None:
        if place.run(busy):
            raise LostError

    place.checks = check
    before = time.monotonic()
    with pytest.raises(LostError), place.plan():
        pass
    assert time.monotonic() - before < 10
    wait_until(lambda: not place.run(busy))
    assert place.run("select count(*) from alert") == [(0,)]


def test_a_value_that_the_server_refuses_early_is_named_in_a_long_entry(place: Place) -> None:
    place.write("a.jsonl", lines(alert(0, severity=2**40)) + alerts(100_000))
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert error.message.startswith("a.jsonl, line 1: column severity: ")
