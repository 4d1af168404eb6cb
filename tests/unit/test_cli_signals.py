"""What ends a command by a signal: nothing half made is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spoold import trust
from tests.bundles import Forge, file_entry, signer
from tests.conftest import wait_until


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_restore_that_is_ended_leaves_nothing(tmp_path: Path, number: str, status: int) -> None:
    contents = {f"data/{name}": os.urandom(2_000_000) for name in "abcdefghijklmnop"}
    entries = [file_entry(path.removeprefix("data/"), each) for path, each in contents.items()]
    bundle = Forge(entries=entries, contents=contents).build()
    public = tmp_path / "a.pub"
    public.write_bytes(trust.public_pem(signer().trusted().public))
    place = tmp_path / "place"
    place.mkdir()
    command = [sys.executable, "-m", "spoold", "restore", "-", "--to", str(place / "r")]
    with subprocess.Popen(
        [*command, "--key", str(public), "--site", "site-a"],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(bundle[: len(bundle) * 7 // 8])
        process.stdin.flush()
        wait_until(lambda: any(place.rglob("a")))  # it is at work, and waits for more
        process.send_signal(signal.Signals[number])
        assert process.wait(60) == status
    assert list(place.iterdir()) == []


# As a library that calls back into Python: what a handler raises there is printed, and lost.
LOADING = """
import os, signal, sys
from spoold import cli

class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "spoold.config.sections":
            Swallows()

sys.meta_path.insert(0, Finder())
cli.main()
"""


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_daemon_or_worker_that_still_loads_ends_at_once(tmp_path: Path, command: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LOADING, command, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (143, "")
