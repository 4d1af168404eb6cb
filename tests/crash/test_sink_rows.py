"""A worker that dies when a sink's rows are committed: the next one tells what was done."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.bundles import build_tree, signer
from tests.crash.scene import BUNDLE, Scene
from tests.crash.table import FROM_SITE, Answer

SINK = ("sink.applied",)

SECTIONS = """
[databases.soc]
url = {url}

[[sinks]]
name = "alerts"
kind = "postgres"
entries = ["incident/alerts/*.jsonl"]
database = "soc"
table = "public.alert"
"""


@pytest.fixture
def alerts(module_conninfo: str) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """A table that rows go into; runs a statement there."""
    with psycopg.connect(module_conninfo, autocommit=True) as connection:
        connection.execute("create table public.alert (id int primary key, host text)")
        connection.execute("insert into public.alert values (1, 'there')")
        yield lambda statement: connection.execute(statement.encode()).fetchall()
        connection.execute("drop table public.alert")


@pytest.mark.parametrize("point", [*SINK, "act", "publish.1"])
def test_rows_are_merged_once_and_counted_once(
    make_scene: Callable[..., Scene],
    module_conninfo: str,
    alerts: Callable[[str], list[tuple[object, ...]]],
    tmp_path: Path,
    point: str,
) -> None:
    evidence = tmp_path / "evidence"
    lines = b'{"id":1,"host":"there"}\n{"id":2,"host":"a"}\n{"id":3,"host":"b"}\n'
    (evidence / "incident/alerts").mkdir(parents=True)
    (evidence / "incident/alerts/a.jsonl").write_bytes(lines)
    bundle = build_tree(evidence, tmp_path / "bundle", by=signer(FROM_SITE))
    scene = make_scene(evidence)
    with (scene.tree.root / "spoold.toml").open("a") as file:
        file.write(SECTIONS.format(url=json.dumps(module_conninfo)))
    scene.drop(Answer(BUNDLE, bundle.path.read_bytes()))
    scene.stop("daemon", at=point)
    scene.finish()
    scene.check()
    status = json.loads((scene.tree.root / f"status/{BUNDLE}.status.json").read_bytes())
    assert status["result"]["rows"] == {"inserted": 2, "skipped": 1, "conflicting": 0}
    assert alerts("select * from alert order by id") == [(1, "there"), (2, "a"), (3, "b")]
    assert alerts("select count(*) from spoold_rows.merged") == [(1,)]
    alerts("delete from spoold_rows.merged returning 1")
