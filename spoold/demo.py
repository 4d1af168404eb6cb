"""`spoold demo`: the whole loop on one machine, with nothing but files, as a user would do it.

Two sites in a temporary folder, each with its own daemon. A folder is generated and requested at
the first, its bundle is carried to the second, restored there, and compared with the original;
then ordinary tools check the bundle, as far as they are installed.
"""

import filecmp
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from spoold import errors, log, postgres
from spoold.errors import Exit, SpooldError
from spoold.sinks.remove import remove_tree
from spoold.spool import Folder, Spool
from spoold.units import show_size

_DEADLINE_SECONDS: Final = 120.0
_LARGE_BYTES: Final = 50_000_000
_SMALL_FILES: Final = 300

Say = Callable[[str], None]
Status = dict[str, Any]  # a parsed status document, as a script sees it


def run(say: Say, *, keep: bool) -> Exit:
    """Show the loop, step by step; DONE only if every step held.

    `say` prints one line. With `keep` the folder is left, and said where.
    """
    log.configure(log.Level.ERROR)  # the daemons tell their logs the rest
    folder = Path(tempfile.mkdtemp(prefix="spoold-demo-"))
    started = time.monotonic()
    try:
        good = _show(folder, say)
    finally:
        if not keep:
            remove_tree(folder)
    say(f"{'all' if good else 'NOT all'} of it held, in {time.monotonic() - started:.0f} s")
    if keep:
        say(f"kept: {folder}")
    return Exit.DONE if good else Exit.FAILED


def _show(folder: Path, say: Say) -> bool:
    original = folder / "evidence" / "incident-123"
    count, size = _generate(original)
    say(f"1. {original}: {count} files, {show_size(size)}; odd names, empty ones, a symbolic link")
    with ExitStack() as stack:
        first = stack.enter_context(_site(folder, "site-a", original.parent))
        second = stack.enter_context(_site(folder, "site-b", None))
        (second.spool.root / "site-a.pub").write_bytes(first.spool.public_key.read_bytes())
        _spoold(
            "keys",
            "trust",
            str(second.spool.root / "site-a.pub"),
            "--site",
            "site-a",
            "--spool",
            str(second.spool.root),
        )
        say("2. two sites with a key each, two daemons; site-b trusts site-a's key")

        request = {
            "type": "spoold.request/1",
            "action": "bundle",
            "name": "demo",
            "sources": [{"kind": "files", "root": "evidence", "path": original.name}],
        }
        status = _drop(first, "request-demo.json", json.dumps(request).encode(), say, 3)
        bundle = first.spool.root / status["files"]["bundle"]
        say(
            f"   bundle: {bundle.name}, {show_size(status['result']['bytes'])}, "
            f"{status['result']['entries']} entries"
        )

        status = _drop(second, bundle.name, bundle, say, 4)
        restored = second.spool.root / status["result"]["restored"]
        different = list(_differences(original, restored))
        for line in different[:5]:
            say(f"   DIFFERENT: {line}")
        shown = restored.relative_to(second.spool.root)
        verdict = "different" if different else "equal"
        say(f"5. {shown} compared with the original, file by file: {verdict}")
        checked = _check_with_plain_tools(folder, bundle, first.spool.public_key, say)
    return not different and checked


@dataclass(frozen=True, slots=True)
class _Site:
    """A spool and its daemon."""

    spool: Spool
    daemon: subprocess.Popen[bytes]
    log: Path


@contextmanager
def _site(folder: Path, name: str, root: Path | None) -> Iterator[_Site]:
    """Make a site and run its daemon."""
    spool = Spool.at(folder / name)
    _spoold("init", str(spool.root), "--site", name)
    if root is not None:
        with open(spool.root / "spoold.toml", "a") as file:
            file.write(f"\n[roots]\nevidence = {json.dumps(str(root))}\n")
    log_file = spool.root / "daemon.log"
    with open(log_file, "wb") as output:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "spoold", "run", str(spool.root)],
            stderr=output,
            # Both sites at once: neither needs the port.
            env={**_environment(), "SPOOLD_HTTP_LISTEN": "", "SPOOLD_INTAKE_MIN_FREE_BYTES": "0"},
        )
    try:
        yield _Site(spool, daemon, log_file)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
        postgres.remove(spool)


def _environment() -> dict[str, str]:
    """Ours, without what configures a spool: the demo's are its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SPOOLD_")}


def _spoold(*arguments: str) -> str:
    """Run one command of the installed program."""
    done = subprocess.run(
        [sys.executable, "-m", "spoold", *arguments],
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    if done.returncode != 0:
        raise SpooldError(errors.INTERNAL, f"spoold {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _drop(site: _Site, name: str, content: bytes | Path, say: Say, step: int) -> Status:
    """Drop a file as any script would: write it aside, rename it in, poll one JSON file."""
    spool = site.spool
    inbox = spool.folder(Folder.INBOX)
    unfinished = inbox / f"{name}.part"
    if isinstance(content, bytes):
        unfinished.write_bytes(content)
    else:
        shutil.copyfile(content, unfinished)
    unfinished.rename(inbox / name)
    say(f"{step}. {name} dropped at {spool.root.name}")
    answer = spool.folder(Folder.STATUS) / f"{name}.status.json"
    deadline = time.monotonic() + _DEADLINE_SECONDS
    seen: list[str] = []
    status: Status = {}
    while time.monotonic() < deadline and site.daemon.poll() is None:
        if answer.exists():
            status = json.loads(answer.read_bytes())
            if not seen or seen[-1] != status["state"]:
                seen.append(status["state"])
            if status["final"] and not (inbox / name).exists():
                break
        time.sleep(0.02)
    else:
        said = site.log.read_text(errors="replace").strip().splitlines()[-3:]
        raise SpooldError(errors.WAIT_TIMEOUT, f"{answer} is not final: {' | '.join(said)}")
    say(f"   status: {' -> '.join(seen)}, signed by {status['site']}")
    _spoold("status", name, "--verify", "--spool", str(spool.root))
    if status["state"] != "succeeded":
        raise SpooldError(errors.INTERNAL, f"{name}: {status['error']['message']}")
    return status


def _generate(folder: Path) -> tuple[int, int]:
    """A few hundred files that are easy to get wrong; returns their number and bytes."""
    random_ = random.Random(7)  # noqa: S311  # the same files every time
    folder.mkdir(parents=True)
    names = ["plain.txt", "with space", "Umläute-ß", "emoji-🚒", "100%", "back\\slash", "new\nline"]
    for index in range(_SMALL_FILES):
        sub = folder / f"host-{index % 7}" / f"day-{index % 5}"
        sub.mkdir(parents=True, exist_ok=True)
        path = sub / f"{index:03}-{names[index % len(names)]}"
        path.write_bytes(random_.randbytes(random_.randrange(1, 20_000)))
    (folder / os.fsdecode(b"not-utf8-\xff\xfe")).write_bytes(b"a name of bytes")
    (folder / ("long-" + "x" * 250)).write_bytes(b"a name of 255 bytes")
    (folder / "empty").touch()
    (folder / "empty folder").mkdir()
    (folder / "link").symlink_to("host-1/day-1")
    with open(folder / "large.bin", "wb") as large:
        for _ in range(_LARGE_BYTES // 1_000_000):
            large.write(random_.randbytes(500_000) + b"\0" * 500_000)
    secret = folder / "read-only"
    secret.write_bytes(b"mode and time travel too")
    secret.chmod(0o440)
    os.utime(secret, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return len(files), sum(path.stat().st_size for path in files)


def _differences(one: Path, other: Path) -> Iterator[str]:
    """How two trees differ: names, kinds, content, modes, times."""
    names = {path.relative_to(one) for path in one.rglob("*")}
    for name in sorted(names ^ {path.relative_to(other) for path in other.rglob("*")}):
        yield f"{name!s:.100} is on one side only"
    for name in sorted(names):
        first, second = one / name, other / name
        if not os.path.lexists(second):
            continue
        here, there = first.lstat(), second.lstat()
        if stat.S_ISLNK(here.st_mode):
            if not second.is_symlink() or first.readlink() != second.readlink():
                yield f"{name}: another link"
        elif here.st_mode != there.st_mode or here.st_mtime_ns != there.st_mtime_ns:
            yield f"{name}: mode or time"
        elif first.is_file() and not filecmp.cmp(first, second, shallow=False):
            yield f"{name}: content"


def _check_with_plain_tools(folder: Path, bundle: Path, public_key: Path, say: Say) -> bool:
    """What a receiver without spoold would do; a tool that is missing is said, not a failure."""
    outside = folder / "plain-tools"
    outside.mkdir()
    bag = outside / bundle.name.removesuffix(".tar.zst")
    joined = (
        """jq -r '.entries.sha256 + "  entries.jsonl", .frames.sha256 + "  frames.jsonl"' """
        "manifest.json | sha256sum -c --quiet"
    )
    signature = (
        "openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 "
        f"-verify '{public_key}' -signature manifest.sig manifest.json"
    )
    steps: Sequence[tuple[str, Sequence[str], Path, str]] = (
        ("unpacked", ("tar", "zstd"), outside, f"tar --zstd -xf '{bundle}'"),
        ("signature", ("openssl",), bag, signature),
        ("payload tied to it", ("jq", "sha256sum"), bag, joined),
        ("sums", ("sha256sum",), bag, "sha256sum -c --strict --quiet manifest-sha256.txt"),
        ("bag", ("bagit.py",), bag, "bagit.py --validate ."),
    )
    # bagit.py may have been installed beside spoold.
    path = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    shown, good = [], True
    for name, tools, where, command in steps:
        missing = [tool for tool in tools if shutil.which(tool, path=path) is None]
        if missing or not where.is_dir():
            shown.append(f"{name} not checked ({', '.join(missing) or 'not unpacked'})")
            continue
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=where,
            env={**os.environ, "PATH": path},
            capture_output=True,
            check=False,
        )
        good = good and done.returncode == 0
        shown.append(f"{name} {'ok' if done.returncode == 0 else 'WRONG'}")
    say(f"6. without spoold: {', '.join(shown)}")
    return good
