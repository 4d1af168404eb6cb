"""`[[handlers]]` in the configuration: what is taken, and every mistake with its line."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from spoold import config, errors
from spoold.cli import cli
from spoold.config.handlers import HandlerSection
from spoold.daemon.wiring import action_settings
from spoold.errors import SpooldError
from spoold.handlers import Handler, Limits, Mode
from spoold.spool import Spool

PORCH = 'pattern = "intent-*.json"\ncommand = ["/bin/true", "{file}", "{out}"]\n'


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool.at(tmp_path / "spool")


def write(spool: Spool, text: str) -> Path:
    path = spool.root / "spoold.toml"
    path.write_text(f'site = "site-a"\n{text}')
    return path


def load(spool: Spool, text: str) -> config.Config:
    write(spool, text)
    return config.load(spool, environment={"PATH": os.environ["PATH"]})


def only(spool: Spool, text: str) -> Handler:
    [handler] = load(spool, f"[[handlers]]\n{text}").handlers
    return handler


def refusal(spool: Spool, text: str) -> str:
    with pytest.raises(SpooldError) as caught:
        load(spool, text)
    assert caught.value.code is errors.CONFIG_INVALID
    return caught.value.message


def test_pattern_and_command_are_enough(spool: Spool) -> None:
    handler = only(spool, PORCH)
    assert (handler.name, handler.mode, handler.schema) == ("intent", Mode.DIRECT, None)
    assert (handler.timeout_seconds, handler.max_attempts) == (21600, 5)
    assert handler.limits == Limits()
    assert (handler.success_codes, handler.retry_codes) == ({0}, {75})
    assert (handler.environment, handler.variables, handler.user) == ((), {}, None)
    assert handler.max_bytes == 16 * 1024**2
    assert handler.working_directory is None


def test_every_key_reaches_the_handler(spool: Spool) -> None:
    (spool.root / "intent.json").write_text('{"type": "object"}')
    text = """\
name = "porch"
pattern = "intent-*.json"
command = ["true", "--site={json.site}", "{{{name}}}"]
mode = "structured"
schema = "intent.json"
timeout = "2m"
environment = ["HTTPS_PROXY"]
set = { MODE = "batch" }
success_codes = [0, 3]
retry_codes = [4]
memory = "512MiB"
cpu_seconds = 30
open_files = 64
processes = 8
output_bytes = "64KiB"
result_bytes = "1MiB"
working_directory = "/srv/porch"
user = "nobody"
max_bytes = "4KiB"
max_attempts = 2
"""
    handler = only(spool, text)
    keys = {field.alias or name for name, field in HandlerSection.model_fields.items()}
    assert {line.partition(" ")[0] for line in text.splitlines()} == keys
    assert (handler.name, handler.mode) == ("porch", Mode.STRUCTURED)
    assert handler.schema is not None
    assert (handler.timeout_seconds, handler.max_attempts, handler.max_bytes) == (120, 2, 4096)
    assert handler.limits == Limits(512 * 1024**2, 30, 64, 8, 65536, 1024**2)
    assert (handler.environment, handler.variables) == (("HTTPS_PROXY",), {"MODE": "batch"})
    assert (handler.success_codes, handler.retry_codes) == ({0, 3}, {4})
    assert (handler.working_directory, handler.user) == ("/srv/porch", "nobody")


def test_mistakes_are_told_with_their_lines(spool: Spool) -> None:
    path = write(
        spool,
        """\
[[handlers]]
pattern = "*.json"
command = ["true"]
[[handlers]]
patern = "x-*.json"
command = "true {file}"
environment = ["SPOOLD_DATABASE_URL", "A B"]
timeout = "soon"
success_codes = [256]
""",
    )
    message = refusal(spool, path.read_text().partition("\n")[2])
    for line, key, text in (
        (3, "handlers.0.pattern", "it could match request-*.json"),
        (6, "handlers.1.patern", "did you mean handlers.1.pattern?"),
        (5, "handlers.1.pattern", "required"),
        (7, "handlers.1.command", "list"),
        (8, "handlers.1.environment.0", "not passed on"),
        (8, "handlers.1.environment.1", "pattern"),
        (9, "handlers.1.timeout", "no duration"),
        (10, "handlers.1.success_codes.0", "255"),
    ):
        found = [each for each in message.splitlines() if f"{path}:{line}: {key}: " in each]
        assert len(found) == 1, (key, message)
        assert text in found[0], found


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('command = ["true", "{fil}"]', 3, "there is no placeholder {fil}"),
        ('command = ["true", "{json.a}"]', 3, 'needs mode = "structured"'),
        ('command = ["{file}"]', 3, "the program itself is not filled in"),
        ('command = ["./true"]', 3, "write the whole path"),
        ('command = ["sh", "-c", "cat {file}"]', 3, "sh could run it"),
        ('command = [""]', 3, "no name"),
        ('command = ["true"]\nuser = "no-such-user"', 4, "there is no user no-such-user"),
        ('command = ["true"]\nschema = "gone.json"', 4, "No such file"),
        ('command = ["true"]\nschema = "spoold.toml"', 4, "Expecting value"),
        ('command = ["true"]\nschema = "bad.json"', 4, "only references within it"),
        ('command = ["true"]\nschema = "astray.json"', 4, "refers to #/gone, which leads nowhere"),
        ('command = ["true"]\ntimeout = "7d"', 4, "more than [workers] timeout_seconds"),
        ('command = ["true"]\nsuccess_codes = [75]', 2, "means success already"),
        ('command = ["true"]\nworking_directory = "tmp"', 4, "whole path"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    spool: Spool, text: str, line: int, what: str
) -> None:
    (spool.root / "astray.json").write_text('{"items": {"$ref": "#/gone"}}')
    (spool.root / "bad.json").write_text('{"$ref": "https://example.org/x"}')
    message = refusal(spool, f'[[handlers]]\n{text}\npattern = "intent-*.json"\n')
    assert f"{spool.root}/spoold.toml:{line}: " in message
    assert what in message


def test_handlers_that_could_both_take_a_drop_are_refused(spool: Spool) -> None:
    one = f"[[handlers]]\n{PORCH}"
    message = refusal(spool, one + one.replace("intent-*", "intent-a*"))
    assert ":6: handlers.1.pattern: a name could match both intent-*.json and" in message


def test_handlers_of_one_name_are_refused(spool: Spool) -> None:
    one = f"[[handlers]]\n{PORCH}"
    message = refusal(spool, one + one.replace("json", "xml"))
    assert "another handler is called intent already" in message


def test_one_bracket_is_one_too_few(spool: Spool) -> None:
    assert "write [[handlers]]" in refusal(spool, f"[handlers]\n{PORCH}")


@pytest.mark.parametrize("program", ["/nowhere/porch", "porch-that-is-missing"])
def test_a_program_that_is_not_there_yet_is_a_warning(spool: Spool, program: str) -> None:
    loaded = load(spool, "[[handlers]]\n" + PORCH.replace("/bin/true", program))
    [warning] = loaded.warnings
    assert f"{spool.root}/spoold.toml:4: handlers.0.command: {program} is no program" in warning


def test_a_program_is_looked_for_where_the_tool_would(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "porch").write_text("#!/bin/sh\n")
    (tmp_path / "porch").chmod(0o755)
    text = PORCH.replace("/bin/true", "porch") + f'set = {{ PATH = "{tmp_path}" }}\n'
    assert load(spool, f"[[handlers]]\n{text}").warnings == ()


def test_the_actions_get_the_handlers(spool: Spool) -> None:
    loaded = load(spool, f"[[handlers]]\n{PORCH}")
    assert action_settings(loaded).handlers.named("intent") is not None


def test_config_shows_handlers_as_they_are_written(spool: Spool) -> None:
    spool.create()
    path = write(spool, f'[[handlers]]\n{PORCH}set = {{ A = "b" }}\n')
    done = CliRunner().invoke(cli, ["config", str(spool.root), "--json"])
    values = json.loads(done.stdout)["values"]
    assert values["handlers.intent.command"] == {
        "value": ["/bin/true", "{file}", "{out}"],
        "origin": {"kind": "file", "where": f"{path}:4"},
    }
    shown = CliRunner().invoke(cli, ["config", str(spool.root)], env={"COLUMNS": "200"}).stdout
    assert '["/bin/true", "{file}", "{out}"]' in shown
    assert '{ A = "b" }' in shown
