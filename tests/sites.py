"""The installed program as its users meet it, but for `prepared`: processes, files, exit statuses.

A Site is one spool with its daemon. Nothing here looks into `.spoold` but to see that it is empty.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from spoold import postgres
from spoold.cli import cli
from spoold.spool import Spool

Status = dict[str, Any]

DEADLINE_SECONDS = 90.0


def spoold(
    *arguments: str | Path, check: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command of the installed program."""
    done = subprocess.run(
        [sys.executable, "-m", "spoold", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def prepared(*arguments: str | Path) -> None:
    """Run `init` or `keys trust` within this process, where they are not what is tested.

    A second less each time. (Most other commands would set up this process's log.)
    """
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.exit_code == 0, f"{arguments}: {done.output}"


@dataclass
class Site:
    """One spool, its roots, and its daemons."""

    root: Path
    name: str
    environment: dict[str, str] = field(default_factory=dict)
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def log(self) -> str:
        return (self.root / "daemon.log").read_text(errors="replace")

    def process(self, *arguments: str, command: str = "run") -> subprocess.Popen[bytes]:
        """Start a daemon, or a worker, in a process group of its own."""
        with open(self.root / "daemon.log", "ab") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "spoold", command, str(self.root), *arguments],
                stderr=log,
                stdout=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        self.daemons.append(daemon)
        return daemon

    def start(self) -> subprocess.Popen[bytes]:
        """Start a daemon; drops may come at once, they wait for it."""
        return self.process()

    def stop(self, daemon: subprocess.Popen[bytes] | None = None) -> int:
        """SIGTERM, and its exit status."""
        daemon = daemon or self.daemons[-1]
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
        status = daemon.wait(DEADLINE_SECONDS)
        self.daemons.remove(daemon)
        return status

    def run_once(self) -> int:
        """`run --once`, and its exit status."""
        daemon = self.process("--once")
        status = daemon.wait(DEADLINE_SECONDS)
        self.daemons.remove(daemon)
        return status

    def drop(self, name: str | bytes, content: bytes | str | dict[str, Any] | Path) -> None:
        """Drop a file the safe way: written aside, renamed into the inbox."""
        name = os.fsdecode(name)
        aside = self.root / f".aside.{uuid.uuid4().hex}"
        if isinstance(content, Path):
            shutil.copyfile(content, aside)
        else:
            if isinstance(content, dict):
                content = json.dumps(content)
            aside.write_bytes(content.encode() if isinstance(content, str) else content)
        aside.rename(self.inbox / name)

    def status_path(self, name: str) -> Path:
        return self.root / "status" / f"{name}.status.json"

    def final(self, name: str, deadline_seconds: float = DEADLINE_SECONDS) -> Status:
        """Poll the one path that a script polls, until the drop is gone and its status final."""
        end = time.monotonic() + deadline_seconds
        path = self.status_path(name)
        while time.monotonic() < end:
            if path.exists() and not os.path.lexists(self.inbox / name):
                status: Status = json.loads(path.read_bytes())
                if status["final"]:
                    return status
            time.sleep(0.02)
        shown = path.read_text() if path.exists() else "no status"
        raise AssertionError(f"{name} is not final: {shown}\n{self.log[-5000:]}")

    def final_after(self, name: str, job_id: str) -> Status:
        """The final status of a newer job of the same drop name."""
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end:
            status = self.final(name)
            if status["job_id"] != job_id:
                return status
            time.sleep(0.02)
        raise AssertionError(f"{name} has no newer status\n{self.log[-5000:]}")

    def verified(self, name: str) -> None:
        """The program itself says that the status is signed by this site."""
        spoold("status", name, "--verify", "--spool", self.root)

    def leftovers(self) -> list[str]:
        """What stands where nothing should once all jobs are final."""
        folders = ("inbox", ".spoold/work", ".spoold/claimed")
        return [str(path) for name in folders for path in (self.root / name).iterdir()]

    def end(self) -> None:
        for daemon in list(self.daemons):
            if daemon.poll() is None:
                self.stop(daemon)
        # As root the embedded server keeps its data outside the spool.
        postgres.remove(Spool.at(self.root))


@contextmanager
def sites_in(
    folder: Path, databases: Callable[[], AbstractContextManager[str]] | None = None
) -> Iterator[Callable[..., Site]]:
    """Make sites in a folder; their daemons are ended with the context.

    Each has an embedded server, which takes a second to make and start; or, where `databases` gives
    them, a database of a server that runs, but for sites made with `embedded=True`.
    """
    sites: list[Site] = []

    def make(
        name: str = "site-a",
        roots: dict[str, Path] | None = None,
        algorithm: str = "ed25519",  # an RSA key takes seconds to make
        embedded: bool = False,
        **keys: Any,
    ) -> Site:
        root = folder / name
        prepared("init", root, "--site", name, "--algorithm", algorithm)
        if databases and not embedded and "database_url" not in keys:
            url = ending.enter_context(databases())
            given = (root / "spoold.toml").read_text()
            (root / "spoold.toml").write_text(f"database_url = {json.dumps(url)}\n{given}")
        environment = {
            "SPOOLD_HTTP_LISTEN": "",
            "SPOOLD_INTAKE_MIN_FREE_BYTES": "0",
            "SPOOLD_INTAKE_SETTLE_SECONDS": "0.5",
            "SPOOLD_WORKERS_COUNT": "1",  # each takes a second to start
        }
        for key, value in keys.items():
            environment[f"SPOOLD_{key.upper()}"] = str(value)
        if roots:
            with open(root / "spoold.toml", "a") as file:
                file.write("\n[roots]\n")
                for key, path in roots.items():
                    file.write(f"{key} = {json.dumps(str(path))}\n")
        site = Site(root, name, environment)
        sites.append(site)
        return site

    with ExitStack() as ending:
        try:
            yield make
        finally:
            for site in sites:
                site.end()


@pytest.fixture
def make_site(
    tmp_path: Path, databases: Callable[[], AbstractContextManager[str]]
) -> Iterator[Callable[..., Site]]:
    """Make sites; their daemons are ended after the test."""
    with sites_in(tmp_path, databases) as make:
        yield make


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A root with a small folder to bundle."""
    return make_evidence(tmp_path / "evidence")


def make_evidence(root: Path) -> Path:
    """Make such a root."""
    folder = root / "incident-123" / "logs"
    folder.mkdir(parents=True)
    (folder / "auth.log").write_bytes(b"login failed\n" * 1000)
    (folder / "empty").touch()
    (root / "incident-123" / "notes.txt").write_text("what happened\n")
    return root


def request(path: str = "incident-123", **fields: Any) -> dict[str, Any]:
    """A request for a bundle of a folder beneath the root `evidence`."""
    return {
        "type": "spoold.request/1",
        "action": "bundle",
        "name": "demo",
        "sources": [{"kind": "files", "root": "evidence", "path": path}],
        **fields,
    }


def trust(receiver: Site, sender: Site) -> None:
    """The receiver trusts the sender's key."""
    prepared(
        "keys", "trust", sender.root / "site.pub", "--site", sender.name, "--spool", receiver.root
    )


def run_tool(*command: str | Path, cwd: Path | None = None) -> None:
    """Run one of the ordinary tools that a receiver without spoold has."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout!r}{done.stderr!r}"


def needs(*tools: str) -> Sequence[pytest.MarkDecorator]:
    """Skip where an ordinary tool is not installed."""
    return [
        pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
        for tool in tools
    ]
