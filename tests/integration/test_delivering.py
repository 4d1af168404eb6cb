"""A restored bundle goes to several sinks: all of them or none, and each once."""

import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from spoold import errors, points
from spoold.actions import rehydrate
from spoold.actions.context import ActionSettings, Context
from spoold.canonical import Document
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings
from spoold.connections.row_types import Column, Encoding, RowSchema
from spoold.errors import SpooldError
from spoold.sinks.sink import Delivery, SinkSettings, kinds
from spoold.status import Progress
from tests.bundles import Forge, signer, trusted
from tests.contracts.sink import listing
from tests.integration.row_merges import ALERTS, Place, alert, alerts, both_sinks, lines, own_schema

FILES = {"alerts/a.jsonl": alerts(5), "artifacts/x": b"x", "notes": b"n"}


@dataclass
class Site:
    """A site with a table and a store, and jobs that restore one bundle."""

    place: Place
    folder: Path
    job: str = field(default_factory=lambda: str(uuid.uuid4()))
    told: list[Progress] = field(default_factory=list)
    more: tuple[SinkSettings, ...] = ()

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def attempt(
        self,
        files: Mapping[str, bytes] = FILES,
        *,
        dry_run: bool = False,
        only: list[str] | None = None,
    ) -> Document:
        """One attempt at the job; its result."""
        here = self.folder / f"attempt-{uuid.uuid4().hex}"
        (here / "scratch").mkdir(parents=True)
        (here / "demo.tar.zst").write_bytes(Forge.of(dict(sorted(files.items()))).build())
        request = {
            "type": "spoold.request/1",
            "action": "rehydrate",
            "bundle": {"root": "here", "path": "demo.tar.zst"},
            "dry_run": dry_run,
            **({} if only is None else {"only": only}),
        }
        sinks = (*both_sinks(self.place, self.store), *self.more)
        connections = Connections(
            roots={"here": here}, databases={"soc": DatabaseSettings(url=self.place.conninfo)}
        )
        outcome = rehydrate.run(
            Context(
                request=request,
                request_sha256=None,
                digits="0" * 12,
                drop=here / "request.json",
                scratch=here / "scratch",
                settings=ActionSettings(connections=connections, sinks=sinks),
                signer=signer("site-b"),
                trust=trusted(),
                report=self.told.append,
                take_key=lambda key, content: None,
                job_id=self.job,
            )
        )
        return outcome.result

    def state(self) -> tuple[Any, Any]:
        """What others see of both places."""
        return self.place.contents(), listing(self.store)


@pytest.fixture
def site(tmp_path: Path, module_conninfo: str) -> Iterator[Site]:
    (tmp_path / "store").mkdir()
    with own_schema(tmp_path, module_conninfo) as place:
        place.run(f"create table alert {ALERTS}")
        yield Site(place, tmp_path)


def counts(result: Document) -> list[Any]:
    sinks: Any = result["sinks"]
    return [sink.get("rows") or sink["files"] for sink in sinks]


INSERTED = {"inserted": 5, "skipped": 0, "conflicting": 0}
STORED = {"stored": 1, "present": 0, "skipped": 0, "replaced": 0}


def test_each_sink_takes_its_entries_and_says_what_it_did(site: Site) -> None:
    result = site.attempt()
    assert counts(result) == [INSERTED, STORED]
    assert result["rows"] == INSERTED
    assert list(listing(site.store)) == ["artifacts/x"]
    phases = [(told.phase, told.source) for told in site.told]
    assert ("plan", "alerts") in phases
    assert ("apply", "artifacts") in phases


def test_a_sink_of_which_the_bundle_has_nothing_is_left_out(site: Site) -> None:
    result: Any = site.attempt({"artifacts/x": b"x", "notes": b"n"})
    assert [sink["name"] for sink in result["sinks"]] == ["artifacts"]
    assert "sinks" not in site.attempt({"notes": b"n"})


def test_a_dry_run_tells_the_same_counts_and_changes_nothing(site: Site) -> None:
    before = site.state()
    result = site.attempt(dry_run=True)
    assert counts(result) == [INSERTED, STORED]
    assert result["dry_run"] is True
    assert site.state() == before


def test_rows_of_a_part_are_read_as_their_schema_says(site: Site) -> None:
    site.place.run("drop table alert")
    site.place.run("create table alert (id bigint primary key, doc jsonb)")
    columns = (Column("id", "bigint", Encoding.JSON), Column("doc", "jsonb", Encoding.TEXT))
    schema = RowSchema("alerts", columns, rows=1).encode()
    files = {
        **FILES,
        "alerts/a.jsonl": lines({"id": 1, "doc": '{"a": 1}'}),
        "alerts/a.schema.json": schema,
        "alerts/b.schema.json": schema,
        "alerts/notes.schema.json": b"no schema of rows",
    }
    result = site.attempt(files, only=["alerts/*.jsonl"])
    assert result["rows"] == {"inserted": 1, "skipped": 0, "conflicting": 0}
    assert site.place.run("select doc from alert") == [({"a": 1},)]
    # The rows, and what says how to read them; no other schema.
    assert (result["entries"], result["bytes"]) == (
        2,
        len(files["alerts/a.jsonl"]) + len(schema),
    )


def test_a_schema_alone_is_no_part_that_was_asked_for(site: Site) -> None:
    with pytest.raises(SpooldError) as caught:
        site.attempt({"alerts/a.schema.json": b"{}", "notes": b"n"}, only=["alerts/*.jsonl"])
    assert caught.value.code is errors.NOTHING_TO_RESTORE


def test_what_one_sink_refuses_none_has_taken(site: Site) -> None:
    (site.store / "artifacts").mkdir()
    (site.store / "artifacts" / "x").write_bytes(b"other")
    before = site.state()
    with pytest.raises(SpooldError) as caught:
        site.attempt()
    assert caught.value.code is errors.ARTIFACT_CONFLICT
    assert site.state() == before

    (site.store / "artifacts" / "x").unlink()
    before = site.state()
    with pytest.raises(SpooldError) as caught:
        site.attempt({**FILES, "alerts/b.jsonl": lines(alert(9, more=1))})
    assert caught.value.code.name == "rows-invalid"
    assert site.state() == before


def test_an_attempt_that_dies_between_two_sinks_is_finished_by_the_next(site: Site) -> None:
    child = os.fork()
    if child == 0:  # pragma: no cover
        points.arm("sink.applied")
        site.attempt()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(site.place.run("select * from alert")) == 5
    assert listing(site.store) == {}
    assert counts(site.attempt()) == [INSERTED, STORED]
    assert len(site.place.run("select * from alert")) == 5
    assert counts(site.attempt()) == [INSERTED, {**STORED, "stored": 0, "present": 1}]


class Telling:
    """A sink of another package, which does nothing and says what it is to say."""

    Settings = SinkSettings
    report: Document

    @classmethod
    def open(cls, settings: SinkSettings, connections: Connections) -> "Telling":
        return cls()

    def plan(self, delivery: Delivery) -> "Telling":
        return self

    def apply(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def telling(site: Site, monkeypatch: pytest.MonkeyPatch) -> type[Telling]:
    monkeypatch.setitem(kinds(), "telling", Telling)
    site.more = (SinkSettings(name="teller", kind="telling", entries=["notes"]),)
    return Telling


@pytest.mark.parametrize(
    "said",
    [0.5, 2**53, float("nan"), "a\nb", b"x", {"a b": 1}, {1: 1}, {"a": {"b": {"c": {"d": {}}}}}],
)
def test_a_report_that_no_status_can_hold_is_found_before_anything_is_applied(
    site: Site, telling: type[Telling], said: Any
) -> None:
    telling.report = {"said": said}
    before = site.state()
    with pytest.raises(SpooldError) as caught:
        site.attempt()
    assert "sink teller: its report" in caught.value.message
    assert site.state() == before


def test_a_report_without_a_count_counts_none(site: Site, telling: type[Telling]) -> None:
    telling.report = {"rows": {"inserted": 2, "taken": 3}}
    assert site.attempt()["rows"] == {**INSERTED, "inserted": 7}
