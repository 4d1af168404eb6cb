"""`check` and `build` with what the configuration names: recipes, roots, parameters."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from spoold.cli import cli

CONFIGURATION = """
[roots]
evidence = "../evidence"
[recipes.incident]
parameters = { incident_id = "text", day = "date" }
[[recipes.incident.sources]]
kind = "files"
root = "evidence"
path = "{incident_id}/{day}"
into = "files"
[[recipes.incident.sources]]
kind = "files"
root = "evidence"
path = "{incident_id}"
include = ["*.txt"]
into = "notes"
"""
REQUEST = {
    "type": "spoold.request/1",
    "action": "bundle",
    "recipe": "incident",
    "parameters": {"incident_id": "INC-7", "day": "2026-11-20"},
}


@pytest.fixture(autouse=True)
def _site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SPOOLD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    run("init", "spool", "--site", "site-a", "--algorithm", "ed25519")
    with open("spool/spoold.toml", "a") as file:
        file.write(CONFIGURATION)
    day = tmp_path / "evidence/INC-7/2026-11-20"
    day.mkdir(parents=True)
    (day / "auth.log").write_text("login\n")
    (day.parent / "notes.txt").write_text("what happened\n")


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == status, result.output
    return result


def write(**fields: Any) -> str:
    Path("request-a.json").write_text(json.dumps({**REQUEST, **fields}))
    return "request-a.json"


def test_three_lines_ask_for_all_sources_of_a_recipe() -> None:
    assert json.loads(run("check", write(), "--json").stdout)["configured"] is True
    built = json.loads(run("build", write(), "-o", "out", "--json").stdout)
    assert Path(built["path"]).name.startswith("incident-")
    run("keys", "trust", "spool/site.pub", "--site", "site-a", "--spool", "spool")
    run("restore", built["path"], "--to", "back", "--spool", "spool")
    found = {"/".join(path.parts[-2:]) for path in Path("back").rglob("*") if path.is_file()}
    assert found == {"files/auth.log", "notes/notes.txt"}


@pytest.mark.parametrize(
    ("fields", "status", "code", "at", "said"),
    [
        ({"recipe": "accident"}, 1, "recipe-unknown", "recipe", "accident; there are: incident"),
        ({"parameters": {}}, 4, "parameters-invalid", "parameters", "incident_id is missing"),
        (
            {"parameters": {**REQUEST["parameters"], "days": 1}},  # type: ignore[dict-item]
            4,
            "parameters-invalid",
            "parameters",
            "days is not declared: incident_id, day",
        ),
        (
            {"parameters": {"incident_id": "INC-7", "day": "today"}},
            4,
            "parameters-invalid",
            "parameters",
            "day: ",
        ),
        (
            {"parameters": {"incident_id": "", "day": "2026-11-20"}},
            4,
            "parameters-invalid",
            "parameters.incident_id",
            "incident_id: it becomes part of a path",
        ),
    ],
)
def test_what_is_wrong_with_a_recipes_request_is_told_without_a_daemon(
    fields: dict[str, Any], status: int, code: str, at: str, said: str
) -> None:
    for command in (["check", write(**fields)], ["build", write(**fields), "-o", "out"]):
        told = run(*command, status=status).stderr
        assert f"error: {code}: " in told
        assert f"at: {at}\n" in told
        assert said in told


def test_all_unknown_names_of_a_request_are_told_at_once() -> None:
    sources = [{"kind": "files", "root": root, "path": "x"} for root in ("one", "evidence", "two")]
    request = {key: REQUEST[key] for key in ("type", "action")}
    Path("request-a.json").write_text(json.dumps({**request, "sources": sources}))
    told = run("check", "request-a.json", status=1).stderr
    assert "sources[0].root: root-unknown: one" in told
    assert "sources[2].root: root-unknown: two" in told


def test_a_bundle_to_restore_is_named_by_a_root_that_is_there() -> None:
    request = {
        "type": "spoold.request/1",
        "action": "rehydrate",
        "bundle": {"root": "sticks", "path": "demo.tar.zst"},
    }
    Path("request-a.json").write_text(json.dumps(request))
    assert "root-unknown" in run("check", "request-a.json", status=1).stderr


def test_without_a_spool_names_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(recipe="accident")
    monkeypatch.setenv("SPOOLD_SPOOL", "nowhere")
    done = run("check", file)
    assert "is not checked" in done.stderr
    assert json.loads(run("check", file, "--json").stdout)["configured"] is False
