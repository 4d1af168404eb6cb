"""spool-layout/ and the systemd unit against the code; as a script it renews what can be."""

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships none
import pytest
from click.testing import CliRunner

from spoold import schemas
from spoold.actions import MODELS, command
from spoold.cli import cli
from spoold.config import load, template
from spoold.config.sections import Workers
from spoold.errors import Exit
from spoold.handlers.arguments import plain
from spoold.intake.names import DROPS, NameKind, classify
from spoold.intake.request import parse
from spoold.spool import TREE, Spool

LAYOUT = Path(__file__).parents[2] / "spool-layout"
PAGE = LAYOUT / "README.md"
CONFIGURATION = LAYOUT / "spoold.toml"
UNIT = LAYOUT.parent / "systemd" / "spoold.service"
EXAMPLES = sorted((LAYOUT / "examples").glob("*.json"))
HANDLERS = LAYOUT / "examples" / "handlers"

_TREE = re.compile(r"(<!-- generated: tree -->\n).*?(<!-- end -->\n)", re.DOTALL)


def tree() -> str:
    """The table of spool.py."""
    rows = [f"| `{node.folder}/` | {node.mode:04o} | {node.purpose} |" for node in TREE]
    return "\n".join(["| folder | mode | for |", "|---|---|---|", *rows]) + "\n"


def schema_file(name: str) -> Path:
    """Where the schema of a document is kept."""
    return LAYOUT / "schemas" / f"{name}.schema.json"


def shown(schema: object) -> str:
    """A schema as it is kept: indented, so that changes can be read."""
    return json.dumps(schema, indent=2, ensure_ascii=True) + "\n"


def test_the_page_shows_the_tree() -> None:
    page = PAGE.read_text()
    changed = _TREE.sub(lambda match: f"{match[1]}{tree()}{match[2]}", page)
    assert page == changed, "run python tests/unit/test_layout.py"


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_schemas_are_those_that_spoold_prints(name: str) -> None:
    printed = CliRunner().invoke(cli, ["schema", name]).stdout_bytes
    kept = schema_file(name).read_text()
    assert json.loads(kept) == json.loads(printed), "run python tests/unit/test_layout.py"
    assert kept == shown(json.loads(printed))
    jsonschema.Draft202012Validator.check_schema(json.loads(kept))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid_drops(path: Path) -> None:
    assert classify(path.name.encode()) is NameKind.REQUEST
    parse(path.read_bytes(), MODELS)
    schema = json.loads(schema_file("request").read_text())
    jsonschema.validate(json.loads(path.read_text()), schema, jsonschema.Draft202012Validator)
    assert CliRunner().invoke(cli, ["check", str(path)]).exit_code == 0


def test_the_handlers_of_the_examples_are_complete(tmp_path: Path) -> None:
    spool = Spool.at(tmp_path)
    sections = (HANDLERS / "handlers.toml").read_text()
    (tmp_path / "spoold.toml").write_text(
        'site = "site-a"\n' + sections.replace("/usr/local/lib/spoold", str(HANDLERS))
    )
    config = load(spool, environment={"PATH": "/usr/bin:/bin"})
    assert config.warnings == ()
    tools = {str(plain(handler.command[0])) for handler in config.handlers}
    known = {HANDLERS / name for name in ("handlers.toml", "intent.schema.json", "intent-1.json")}
    assert {Path(tool) for tool in tools} == set(HANDLERS.iterdir()) - known
    intent = config.handlers.of_drop(b"intent-1.json")
    assert intent is not None
    command.check(intent, b"intent-1.json", (HANDLERS / "intent-1.json").read_bytes())


def test_the_configuration_is_the_one_that_init_writes() -> None:
    assert CONFIGURATION.read_text() == template("site-a"), "run python tests/unit/test_layout.py"


def test_the_full_example_has_every_field_of_a_bundle_request() -> None:
    full = json.loads((LAYOUT / "examples" / "request-full.json").read_text())
    # a signature of nobody would have it refused, and a recipe stands in place of sources
    assert {*full, "signatures", "recipe", "parameters"} == set(MODELS["bundle"].model_fields)


def test_tmpfiles_make_the_tree(tmp_path: Path) -> None:
    lines = [
        line.split()
        for line in (LAYOUT / "tmpfiles.d" / "spoold.conf").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    top = "/var/spool/spoold"
    assert lines[0] == ["d", top, "0755", "spoold", "spoold", "-"]
    assert [(path, mode) for _, path, mode, *_ in lines[1:]] == [
        (f"{top}/{node.folder}", f"{node.mode:04o}") for node in TREE
    ]
    assert {(kind, *rest) for kind, _, _, *rest in lines} == {("d", "spoold", "spoold", "-")}
    # and `init` makes the same
    spool = Spool.at(tmp_path / "spool")
    spool.create()
    for node in TREE:
        assert stat.S_IMODE(spool.folder(node.folder).stat().st_mode) == node.mode


def test_the_unit_fits_the_program(tmp_path: Path) -> None:
    unit = UNIT.read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    top = "/var/spool/spoold"
    assert settings["ExecStart"] == f"/opt/spoold/bin/spoold run {top}"
    assert settings["ReadWritePaths"] == top
    assert settings["RestartPreventExitStatus"].split() == [
        str(Exit.USAGE.value),
        str(Exit.CONFIGURATION.value),
    ]
    stopping = Workers().drain_seconds + 60  # the embedded server is given a minute
    assert int(settings["TimeoutStopSec"]) > stopping
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    copy = tmp_path / UNIT.name
    copy.write_text(unit.replace("/opt/spoold/bin/spoold", shutil.which("true") or "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert UNIT.name not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def test_names_that_the_page_calls_drops_are_drops_and_others_are_not() -> None:
    page = PAGE.read_text()
    rows = dict(
        re.findall(
            r"^\| (`.*?) \| (a request|a bundle|an unfinished|never a drop)", page, re.MULTILINE
        )
    )
    kinds = {
        "a request": {NameKind.REQUEST},
        "a bundle": {NameKind.BUNDLE},
        "an unfinished": {NameKind.UNFINISHED},
        "never a drop": {NameKind.RESERVED},
    }
    assert set(rows.values()) == set(kinds)
    for names, meaning in rows.items():
        for pattern in re.findall("`([^`]+)`", names):
            if "*" in pattern:
                assert classify(pattern.replace("*", "x").encode()) in kinds[meaning], pattern
    assert {NameKind.REQUEST, NameKind.BUNDLE, NameKind.HANDLED} == DROPS
    assert "| what a `[[handlers]]` pattern says |" in page


def _renew() -> None:
    for name, make in schemas.SCHEMAS.items():
        schema_file(name).write_text(shown(make()))
    CONFIGURATION.write_text(template("site-a"))
    PAGE.write_text(_TREE.sub(lambda match: f"{match[1]}{tree()}{match[2]}", PAGE.read_text()))


if __name__ == "__main__":
    _renew()
