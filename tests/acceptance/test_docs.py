"""The pages as their readers meet them: every shell block runs as written, in order."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold import postgres
from spoold.metrics import RUNNING_BYTES, RUNNING_ENTRIES, RUNNING_RATE, RUNNING_ROWS
from spoold.spool import Spool
from tests.conftest import wait_until
from tests.sites import DEADLINE_SECONDS, Site, request

TOP = Path(__file__).parents[2]
README = TOP / "README.md"

_BLOCK = re.compile(r"(<!-- not run: [a-z ]+ -->\n)?^```(?:sh|bash)\n(.*?)^```$", re.M | re.S)
_FAMILY = re.compile(r"^# TYPE (\S+) ", re.MULTILINE)
_TOOLS = ("bash", "jq", "openssl", "tar", "zstd", "sha256sum")


def blocks() -> list[str]:
    """The shell blocks that can be run anywhere."""
    return [content for skipped, content in _BLOCK.findall(README.read_text()) if not skipped]


def programs(folder: Path) -> str:
    """A PATH with `spoold`, and with `bagit.py` where that is installed."""
    folder.mkdir()
    program = folder / "spoold"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spoold "$@"\n')
    program.chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_the_two_commands_are_the_first_blocks() -> None:
    first, second, *_ = [content for _, content in _BLOCK.findall(README.read_text())]
    assert first == (
        "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/spoold demo\n"
    )
    assert second == (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' "
        "&& .venv/bin/python -m pytest\n"
    )


def test_every_block_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    for tool in _TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    found = blocks()
    assert len(_BLOCK.findall(README.read_text())) - len(found) == 4
    work = tmp_path / "work"
    work.mkdir()
    path = programs(tmp_path / "bin")
    assert shutil.which("bagit.py", path=path), "bagit is a development dependency"
    # A daemon that a failed block leaves behind ends with the shell.
    script = "set -euo pipefail; trap 'kill ${daemon:-} 2>/dev/null || true; wait' EXIT\n"
    with open(tmp_path / "output", "w+b") as output:
        done = subprocess.run(
            ["bash", "-c", script + "\n".join(found)],
            cwd=work,
            env={**os.environ, "PATH": path, "SPOOLD_INTAKE_MIN_FREE_BYTES": "0"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=2 * DEADLINE_SECONDS,
            check=False,
        )
        output.seek(0)
        said = output.read().decode(errors="replace")
    try:
        assert done.returncode == 0, said
        assert "Verified OK" in said
        assert "would restore" in said
        assert "accepted: " in said
        assert (work / "site-d" / "restored" / "site-a").is_dir()
        assert not (work / "site-c").exists()
    finally:
        for spool in map(Spool.at, work.glob("site-?")):
            if spool.exists():
                postgres.remove(spool)


def test_the_metrics_and_health_pages_are_those_that_the_readme_names(
    make_site: Callable[..., Site], evidence: Path
) -> None:
    port = free_port()
    site = make_site(roots={"evidence": evidence})
    site.environment["SPOOLD_HTTP_LISTEN"] = f"127.0.0.1:{port}"
    site.start()
    site.drop("request-later.json", request(not_before="2100-01-01T00:00:00Z"))
    wait_until(lambda: '"scheduled"' in page(port, "/metrics"), DEADLINE_SECONDS)

    metrics = page(port, "/metrics")
    shown = {name if not name.endswith("_created") else "" for name in _FAMILY.findall(metrics)} - {
        ""
    }
    section = README.read_text().partition("<!-- metrics -->")[2].partition("<!-- end -->")[0]
    documented = dict(re.findall(r"`(spoold_\w+)(?:\{([^}]*)\})?`", section))
    running = {RUNNING_BYTES, RUNNING_ROWS, RUNNING_ENTRIES, RUNNING_RATE}  # here none runs
    assert set(documented) == shown | {measure.name for measure in running}
    for name, labels in documented.items():
        for sample in re.findall(rf"^{name}(?:_count)?\{{(.*)\}} ", metrics, re.MULTILINE):
            assert set(re.findall(r'(\w+)="', sample)) == set(labels.split(","))

    assert page(port, "/livez") == "alive\n"
    wait_until(lambda: page(port, "/readyz") == "ready\n", DEADLINE_SECONDS)
    assert set(json.loads(page(port, "/healthz"))) == {"healthy", "checks"}


def page(port: int, path: str) -> str:
    """A page of the health server; empty while it does not answer with success."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
