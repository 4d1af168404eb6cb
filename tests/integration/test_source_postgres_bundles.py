"""Rows in bundles, by the action itself: one snapshot, whole or not at all, and where it failed."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from spoold import errors
from spoold.actions import ACTIONS
from spoold.actions.context import ActionSettings, Context, Outcome
from spoold.bundle.entry import Entry
from spoold.bundle.reader import BundleReader, Policy, verify_head
from spoold.connections import Connections
from spoold.connections.parameters import ParameterType, parse
from spoold.connections.row_types import RowSchema
from spoold.errors import SpooldError
from spoold.sources.source import Gathering
from spoold.status import Progress
from tests.bundles import restore, signer, trusted
from tests.integration.rows import Rows, content, documents, opened, read, rows_in


@pytest.fixture
def rows(shared_conninfo: str) -> Iterator[Rows]:
    with rows_in(shared_conninfo) as rows:
        yield rows


@pytest.fixture(scope="module")
def one(module_conninfo: str) -> Iterator[Rows]:
    with rows_in(module_conninfo) as rows:
        yield rows


def bundle(
    scratch: Path,
    connections: Connections,
    *sources: dict[str, Any],
    report: Callable[[Progress], None] = lambda _: None,
    **fields: Any,
) -> Outcome:
    """One attempt of a request for these sources."""
    scratch.mkdir(exist_ok=True)
    return ACTIONS["bundle"].run(
        Context(
            request={
                "type": "spoold.request/1",
                "action": "bundle",
                "name": "demo",
                "sources": list(sources),
                **fields,
            },
            request_sha256=bytes(32),
            digits="0123456789ab",
            drop=scratch / "no-drop",
            scratch=scratch,
            settings=ActionSettings(connections=connections),
            signer=signer(),
            trust=trusted(),
            report=report,
            take_key=lambda key, content: None,
        )
    )


def built(scratch: Path, outcome: Outcome) -> Path:
    return scratch / outcome.made[0].source


def entries(path: Path) -> list[Entry]:
    with open(path, "rb") as file, BundleReader(file) as reader:
        head = verify_head(reader.read_head(), trusted(), Policy())
        return list(reader.read_index(head, Policy()).entries())


def asks(query: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "postgres", "query": query, **fields}


def test_rows_travel_in_a_bundle(rows: Rows, tmp_path: Path) -> None:
    rows.execute("create table alert (id int primary key, note text)")
    rows.execute("insert into alert select n, repeat('é', n) from generate_series(1, 2000) n")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.txt").write_text("a")
    made = rows.connections(
        {"alerts": {"table": "alert"}, "few": "select id from alert where id < 3 order by id"}
    )
    connections = Connections(
        roots={"evidence": tmp_path / "root"}, databases=made.databases, queries=made.queries
    )
    before = datetime.now(UTC) - timedelta(seconds=10)
    outcome = bundle(
        tmp_path / "scratch",
        connections,
        asks("alerts", into="rows of/soc"),
        {"kind": "files", "root": "evidence"},
        asks("few"),
        chunk_size=1024 * 1024,
    )
    assert not outcome.warnings
    path = built(tmp_path / "scratch", outcome)
    found = {entry.path: entry for entry in entries(path)}
    assert sorted(found) == [
        b"a.txt",
        b"rows of/soc/alerts.jsonl",
        b"rows of/soc/alerts.schema.json",
        b"rows/few.jsonl",
        b"rows/few.schema.json",
    ]
    lines = found[b"rows of/soc/alerts.jsonl"]
    assert len(lines.chunks) > 1
    assert (lines.media_type, lines.source) == ("application/x-ndjson", "postgres:alerts")
    taken = datetime.fromtimestamp(lines.mtime_ns / 1e9, UTC)
    assert before < taken < datetime.now(UTC) + timedelta(seconds=10)
    tree = tmp_path / "restored"
    with open(path, "rb") as file:
        restore(file, tree, trusted(), Policy())
    restored = (tree / "rows of" / "soc" / "alerts.jsonl").read_bytes()
    assert [line["id"] for line in documents(restored)] == list(range(1, 2001))
    schema = RowSchema.decode((tree / "rows of" / "soc" / "alerts.schema.json").read_bytes())
    assert (schema.rows, schema.key) == (2000, ("id",))
    assert (tree / "rows" / "few.jsonl").read_bytes() == b'{"id":1}\n{"id":2}\n'


def test_all_queries_of_a_request_see_one_instant(rows: Rows) -> None:
    rows.execute("create table t as select n as id from generate_series(1, 10) n")
    queries = {"first": "table t", "second": "select count(*) from t", "third": {"table": "t"}}
    with Gathering(rows.connections(queries)) as gathering:
        assert read(gathering, "first")[1].rows == 10
        rows.execute("delete from t where id > 5")
        rows.execute("insert into t select generate_series(100, 200)")
        assert read(gathering, "second")[0] == b'{"count":10}\n'
        assert read(gathering, "third")[1].rows == 10
    with Gathering(rows.connections(queries)) as gathering:
        assert read(gathering, "second")[0] == b'{"count":106}\n'


def test_no_bundle_is_left_of_rows_that_end_in_an_error(one: Rows, tmp_path: Path) -> None:
    connections = one.connections(
        {
            "good": "select 1 as x",
            "zero": "select n, repeat('x', 1000) as v, 1 / (n - 9000) as z"
            " from generate_series(1, 10000) n",
            "many": {"sql": "select n from generate_series(1, 100000) n", "max_rows": 99_999},
        }
    )
    for query, code in (("zero", errors.QUERY_FAILED), ("many", errors.ROWS_TOO_MANY)):
        for on_error in ("fail", "skip"):
            with pytest.raises(SpooldError) as caught:
                bundle(
                    tmp_path / "scratch",
                    connections,
                    asks("good"),
                    asks(query),
                    on_error=on_error,
                    chunk_size=1024 * 1024,
                )
            assert caught.value.code is code
            assert caught.value.at == "sources[1].query"
            assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "code", "at"),
    [
        (asks("missing"), errors.QUERY_UNKNOWN, "sources[0].query"),
        (asks("typed"), errors.PARAMETERS_INVALID, "sources[0].parameters"),
        (
            asks("typed", parameters={"n": "1", "more": 1}),
            errors.PARAMETERS_INVALID,
            "sources[0].parameters",
        ),
    ],
)
def test_what_is_wrong_with_a_source_is_told_with_its_place(
    one: Rows, tmp_path: Path, source: dict[str, Any], code: errors.Code, at: str
) -> None:
    connections = one.connections(
        {"typed": {"sql": "select %(n)s as n", "parameters": {"n": "integer"}}}
    )
    with pytest.raises(SpooldError) as caught:
        bundle(tmp_path / "scratch", connections, source)
    assert (caught.value.code, caught.value.at) == (code, at)


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": "a.b"},
        {"query": ""},
        {"query": "q", "sql": "select 1"},
        {"query": "q", "into": ""},
        {"query": "q", "into": "/abs"},
        {"query": "q", "into": "a/../b"},
        {"query": "q", "into": "\ud800"},
        {"query": "q", "parameters": {"a": [1]}},
        {"query": "q", "parameters": {"a": 1.5}},
        {"query": "q", "parameters": {"a b": 1}},
    ],
)
def test_specs_are_strict(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        bundle(tmp_path / "scratch", Connections(), {"kind": "postgres", **wrong})


VALUES = {
    "text": ["", "'; drop table t; --", "\\", "\\'", "%s %(n)s {x}", "$1", "é\u2028\U0001f600"],
    "integer": [0, -5, 2**63 - 1],
    "numeric": ["1.50", "-1e-10", 7],
    "boolean": [True, False],
    "date": ["2026-11-20"],
    "timestamp": ["2026-11-20T10:00:00.000001+05:45"],
    "uuid": ["00000000-0000-0000-0000-00000000000a"],
}
_COLUMNS = {"integer": "bigint", "timestamp": "timestamptz"}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_of_a_request_is_only_a_value(one: Rows, kind: str) -> None:
    column = _COLUMNS.get(kind, kind)
    for value in VALUES[kind]:
        expected = parse(ParameterType(kind), value)
        one.execute(f"create table v as select %s::{column} as v, 1 as other", expected)
        one.execute("insert into v values (null, 2)")
        query = {
            "sql": "select other, %(n)s as said, '%%' as mark from v where v = %(n)s",
            "parameters": {"n": kind},
        }
        lines, _ = one.export(query, n=value)
        (found,) = documents(lines)
        assert (found["other"], found["mark"]) == (1, "%")
        if kind == "text":
            assert found["said"] == value
        one.execute("drop table v")


def test_rows_and_bytes_are_counted_as_they_come(one: Rows, tmp_path: Path) -> None:
    told: list[Progress] = []
    many = "select n, repeat('x', 1000) as v from generate_series(1, 20000) n"
    outcome = bundle(
        tmp_path / "scratch",
        one.connections({"many": many}),
        asks("many"),
        chunk_size=1024 * 1024,
        report=told.append,
    )
    assert outcome.result["entries"] == 2
    counts = [progress.rows_done for progress in told]
    assert counts == sorted(counts)
    assert counts[-1] == 20_000
    assert len(set(counts)) > 20
    assert {progress.source for progress in told} >= {"postgres:many"}
    assert all(progress.bytes_total is None for progress in told[:-1])


def test_a_query_may_be_asked_twice_in_a_request(one: Rows, tmp_path: Path) -> None:
    query = {"sql": "select %(n)s as n", "parameters": {"n": "integer"}}
    connections = one.connections({"q": query})
    twice = [asks("q", parameters={"n": n}, into=f"rows/{n}") for n in (1, 2)]
    outcome = bundle(tmp_path / "scratch", connections, *twice)
    found = entries(built(tmp_path / "scratch", outcome))
    assert {entry.source for entry in found} == {"postgres:q", "postgres:q (2)"}
    with pytest.raises(SpooldError) as caught:
        bundle(tmp_path / "other", connections, twice[0], twice[0])
    assert caught.value.code.name == "sources-collide"


def test_a_row_larger_than_any_batch_comes_whole(one: Rows) -> None:
    with Gathering(one.connections({"big": "select repeat('ab', 20000000) as v"})) as gathering:
        lines, schema = (
            content(entry, size=100_000) for entry in opened(gathering, "big", {}).entries()
        )
    assert json.loads(lines) == {"v": "ab" * 20_000_000}
    assert RowSchema.decode(schema).rows == 1
