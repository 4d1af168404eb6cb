"""H94: rows that are wrong refuse the whole bundle, with their place, and nothing changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.connections.row_types import Encoding
from spoold.errors import Ending
from tests.integration.row_merges import ALERTS, Place, alert, alerts, lines, own_schema

GOOD = alerts(3)


@pytest.fixture
def place(tmp_path: Path, shared_conninfo: str) -> Iterator[Place]:
    with own_schema(tmp_path, shared_conninfo) as place:
        place.run(f"create table alert {ALERTS}")
        place.run("insert into alert values (100, 'kept', 1, null)")
        yield place


def row(text: str) -> bytes:
    return text.encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"[1]\n", "no JSON object"),
        (b"\n", "it is empty"),
        (b'{"id":4,"host":"x","severity":1}\n', "missing: seen"),
        (lines(alert(4, more=1)), "too many: more"),
        (lines(alert(4))[:-2] + b',"id":5}\n', "twice"),
        (lines(alert(4))[:-2] + b',"\\u0069d":5}\n', "twice"),
        (lines(alert(4))[:-3] + b"\n", "at character"),
        (lines(alert(4)) * 2 + b"{", "no key"),
        (lines(alert("4")), "column id, at character 7: a string where a number"),
        (lines(alert(4, host=5)), "column host, at character 16: a number where a string"),
        (lines(alert(4, host=None)), "column host"),
        (lines(alert(4, host=["x"])), "a list or an object where a string"),
        (lines(alert(4, host=True)), "true where a string"),
        (lines(alert(4, host="a\0b")), "column host, at character 16: a NUL"),
        (row('{"id":4,"host":"\\ud800","severity":1,"seen":null}'), "a surrogate"),
        (b'{"id":4,"host":"\xff","severity":1,"seen":null}\n', "at byte 17: it is not UTF-8"),
        (row('{"id":4,"host":"a\tb","severity":1,"seen":null}'), "control character"),
        (lines(alert(2**63)), "out of range"),
        (lines(alert(4, severity=2**31)), "column severity: value"),
        (row('{"id":4,"host":"x","severity":1.5,"seen":null}'), "column severity: invalid input"),
        (row('{"id":4,"host":"x","severity":1e999999999,"seen":null}'), "column severity"),
        (row('{"id":4,"host":"x","severity":"NaN","seen":null}'), "column severity"),
        (row('{"id":4,"host":"x","severity":NaN,"seen":null}'), "NaN is no JSON"),
        (row('{"id":4,"host":"x","severity":01,"seen":null}'), "neither"),
        (lines(alert(4, seen="yesterday, about noon")), "column seen: invalid input"),
        (lines(alert(4, id=None)), "column id: null"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_h94_a_wrong_row_is_named(place: Place, line: bytes, what: str) -> None:
    place.write("a.jsonl", GOOD)
    place.write("b.jsonl", GOOD + line)
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert error.code.state is Ending.REJECTED
    number = 3 + line.count(b"\n") + (not line.endswith(b"\n"))
    assert error.message.startswith(f"b.jsonl, line {number}: ")
    assert what in error.message
    assert error.at == f"b.jsonl, line {number}"


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (lines(alert(1, more=1)), "column more"),
        (lines({"id": 1, "host": "x", 'x") values (1); drop table alert; --': 1}), "drop table"),
        (lines({"host": "x"}), "missing: id"),
        (lines({"id": 1}), "missing: host"),
        (b"{}\n", "it has no columns"),
    ],
)
def test_h94_columns_that_do_not_fit_are_named(place: Place, first: bytes, what: str) -> None:
    place.write("a.jsonl", first)
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert what in error.message


@pytest.mark.parametrize("key", [b"\\ud800", b"a\\udcffb", b"\\u0000", b"\\n"])
def test_h94_keys_that_are_no_text_are_named_all_the_same(place: Place, key: bytes) -> None:
    place.write("a.jsonl", GOOD)
    place.write("b.jsonl", b'{"id":9,"host":"x","%s":1}\n' % key)
    assert place.refusal().code.name == "rows-invalid"
    place.write("b.jsonl", GOOD + b'{"id":9,"host":"x","%s":1}\n' % key)
    assert place.refusal().code.name == "rows-invalid"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("tsvector", "'"),
        ("tsquery", "a b"),
        ("regclass", "no_such_table"),
        ("jsonpath", "$["),
        ("short", "longer"),
    ],
)
def test_h94_what_a_type_cannot_read_is_the_rows_fault(place: Place, kind: str, value: str) -> None:
    place.run(
        "create function short_only(t text) returns boolean language plpgsql as"
        " $$ begin if length(t) > 3 then raise 'too long for me'; end if; return true; end $$"
    )
    place.run("create domain short as text check (short_only(value))")
    place.run(f"create table typed (id int primary key, a {kind})")
    place.write("a.jsonl", lines({"id": 1, "a": None}, {"id": 2, "a": value}))
    error = place.refusal(table="typed")
    assert error.code.name == "rows-invalid"
    assert error.message.startswith("a.jsonl, line 2: column a: ")


def test_h94_a_line_of_a_million_columns_is_refused_early(place: Place) -> None:
    columns = b",".join(b'"%d":1' % number for number in range(1_000_000))
    place.write("a.jsonl", b"{" + columns + b"}\n")
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert "more than 1,600 columns" in error.message


def test_h94_sql_in_identifiers_is_text(place: Place) -> None:
    odd = 'a"b; drop table alert; --'
    place.run('create table odd (id int primary key, "a""b; drop table alert; --" text)')
    place.write("a.jsonl", lines({"id": 1, odd: "'); drop table alert; --"}))
    columns = {"id": Encoding.JSON, odd: Encoding.TEXT}
    place.write_schema("a.schema.json", columns, (odd,))
    assert place.counts(table="odd") == (1, 0, 0)
    assert place.run("select * from odd") == [(1, "'); drop table alert; --")]
    assert place.run("select count(*) from alert") == [(1,)]


def test_h94_more_rows_than_the_limit_are_refused(place: Place) -> None:
    place.write("a.jsonl", alerts(2))
    place.write("b.jsonl", alerts(3))
    error = place.refusal(max_rows=4)
    assert error.code.name == "rows-too-many"
    assert "b.jsonl" in error.message
    assert place.counts(max_rows=5) == (3, 2, 0)


def test_h94_a_line_that_is_too_long_is_refused(place: Place) -> None:
    place.write("a.jsonl", GOOD + lines(alert(4, host="x" * 17_000_000)))
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert "line 4: it is longer than" in error.message


ODD_SCHEMAS = {
    "no JSON": b"{",
    "not canonical": b'{ "type":"spoold.rows/1"}\n',
    "another type": b'{"type":"spoold.other/1"}\n',
    "huge": b" " * 2_000_000,
}


@pytest.mark.parametrize("content", ODD_SCHEMAS.values(), ids=ODD_SCHEMAS)
def test_h94_a_schema_entry_that_is_none_is_refused(place: Place, content: bytes) -> None:
    place.write("a.jsonl", GOOD)
    place.write("a.schema.json", content)
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert error.message.startswith("a.schema.json: ")


ALL = dict.fromkeys(("id", "host", "severity", "seen"), Encoding.JSON)


def test_h94_a_schema_entry_that_lies_is_refused(place: Place) -> None:
    place.write("a.jsonl", GOOD)
    for columns, more, what in (
        ({**ALL, "more": Encoding.JSON}, {}, "other columns than its schema"),
        ({"id": Encoding.JSON}, {}, "other columns than its schema"),
        ({**ALL, "severity": Encoding.TEXT}, {}, "column severity"),
        (ALL, {"rows": 4}, "it has 3 rows, its schema says 4"),
    ):
        place.write_schema("a.schema.json", columns, **more)
        error = place.refusal()
        assert error.code.name == "rows-invalid"
        assert what in error.message


def test_h94_two_contents_under_one_key_are_refused(place: Place) -> None:
    place.write("a.jsonl", GOOD)
    place.write("b.jsonl", lines(alert(4), alert(2, host="other")))
    for policy in ("skip", "update", "refuse"):
        error = place.refusal(on_conflict=policy)
        assert error.code.name == "rows-invalid"
        assert error.message.startswith("b.jsonl, line 2: a.jsonl, line 2 has the same key")


def test_h94_entries_of_one_sink_have_the_same_columns(place: Place) -> None:
    place.write("a.jsonl", GOOD)
    place.write("b.jsonl", lines({"id": 4, "host": "x"}))
    error = place.refusal()
    assert error.code.name == "rows-invalid"
    assert "b.jsonl: it has other columns than a.jsonl" in error.message


def test_h94_what_a_constraint_forbids_is_refused_with_its_row(place: Place) -> None:
    place.run("create table host (name text primary key)")
    place.run("insert into host select 'host-' || n from generate_series(1, 1000) n")
    place.run("insert into host values ('kept')")
    for constraint, bad in (
        ("check (severity between 0 and 4)", alert(777, severity=5)),
        ("unique (host)", alert(777, host="host-3")),
        ("foreign key (host) references host", alert(777, host="nobody")),
        ("exclude using btree (host with =)", alert(777, host="host-3")),
    ):
        place.run(f"alter table alert add constraint odd {constraint}")
        place.write("a.jsonl", alerts(500))
        rows = [alert(number) for number in range(501, 901)]
        rows[276] = bad
        place.write("b.jsonl", lines(*rows))
        error = place.refusal()
        assert error.code.name == "sink-refused"
        assert error.message.startswith("b.jsonl, line 277: ")
        assert "odd" in error.message
        place.run("alter table alert drop constraint odd")


def test_h94_what_is_deferred_is_checked_before_anybody_relies_on_it(place: Place) -> None:
    place.run("create table host (name text primary key)")
    place.run(
        "alter table alert add constraint odd foreign key (host) references host"
        " deferrable initially deferred not valid"
    )
    place.write("a.jsonl", GOOD)
    error = place.refusal()
    assert error.code.name == "sink-refused"
    assert "odd" in error.message
    assert "(host)=(host-1)" in error.message
