"""Commands that change what stands already, killed in the midst of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold import trust
from tests.bundles import Forge, check, refusal, signer, trusted
from tests.conftest import wait_until

FILES = 2000


def killed(arguments: list[str | Path], when: Callable[[], bool]) -> bool:
    """Run a command and kill it when something is true; False if it was faster."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spoold", *map(str, arguments)], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: when() or process.poll() is not None)
    finally:
        process.kill()
    return process.wait() < 0


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "a.pub"
    path.write_bytes(trust.public_pem(signer().trusted().public))
    return path


def test_a_merge_that_was_killed_leaves_whole_files_and_ends_the_same_later(
    tmp_path: Path, key: Path
) -> None:
    names = [f"f{number:04d}" for number in range(FILES)]
    bundle, target = tmp_path / "b.tar.zst", tmp_path / "target"
    bundle.write_bytes(Forge.of(dict.fromkeys(names, b"new" * 20)).build())
    target.mkdir()
    for name in names:
        (target / name).write_bytes(b"old")
    command: list[str | Path] = ["restore", bundle, "--to", target, "--conflict", "replace"]
    command += ["--key", key, "--site", "site-a"]
    was_killed = killed(command, lambda: (target / names[0]).read_bytes() != b"old")
    found = {(target / name).read_bytes() for name in names}
    assert found <= {b"old", b"new" * 20}
    assert sorted(os.listdir(target)) == names
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".target.")]
    assert was_killed is bool(left)
    for folder in left:
        assert folder.stat().st_mode & 0o077 == 0  # what was verified is still nobody else's
    done = subprocess.run([sys.executable, "-m", "spoold", *map(str, command)], check=False)
    assert done.returncode == 0
    assert {(target / name).read_bytes() for name in names} == {b"new" * 20}


def test_a_signing_that_was_killed_leaves_the_bundle_as_it_was(tmp_path: Path) -> None:
    content = os.urandom(48 * 1024 * 1024)
    bundle, key = tmp_path / "b.tar.zst", tmp_path / "b.pem"
    bundle.write_bytes(Forge.of({"random": content}).build())
    key.write_bytes(trust.private_pem(signer("site-b").private))
    key.chmod(0o600)
    before = bundle.read_bytes()

    def writing() -> bool:
        return any(
            path.name.startswith(".b.tar.zst.") and path.stat().st_size > 4096
            for path in tmp_path.iterdir()
        )

    def safely() -> bool:
        try:
            return writing()
        except FileNotFoundError:  # it got its name meanwhile
            return True

    command: list[str | Path] = ["resign", bundle, "--key", key, "--untrusted"]
    if killed(command, safely) and bundle.read_bytes() == before:
        assert refusal(before) == "accepted"
        done = subprocess.run([sys.executable, "-m", "spoold", *map(str, command)], check=False)
        assert done.returncode == 0
    keys = trusted(signer(), signer("site-b"))
    assert [key.site for key in check(bundle.read_bytes(), keys).also_signed_by] == ["site-b"]
