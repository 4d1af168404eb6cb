"""The page's recipes for droppers, run as they stand, by somebody who may drop and nothing else.

scp, sftp and ssh reach their "host" through a program that plays the network and OpenSSH's server
side on this machine.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from spoold.cli import cli
from spoold.intake.settings import WriterCheck
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from tests.integration.inboxes import SETTINGS, Inbox, opened, request
from tests.integration.test_intake_drops import ZSTD_END

PAGE = Path(__file__).parents[2] / "spool-layout" / "README.md"
SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")
DROPPER = 65534  # nobody: sftp-server wants to know the user
GROUP = 23456

_NETWORK = """#!/bin/sh
# ssh [options] host [command]: the command, or the sftp subsystem, runs here.
subsystem=
while [ $# -gt 0 ]; do
    case $1 in
        -s) subsystem=yes; shift ;;
        --) shift; break ;;
        -[lopiFJ]) shift 2 ;;
        -*) shift ;;
        *) break ;;
    esac
done
shift
[ -z "$subsystem" ] || exec {server}
exec sh -c "$*"
"""


def recipes() -> dict[str, str]:
    """The shell blocks beneath "How to drop", by the tool that each begins with."""
    section = PAGE.read_text().partition("## How to drop")[2].partition("\n## ")[0]
    found = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    names = [block.split(" ", 1)[0] for block in found]
    return {
        f"{name}-{names[:number].count(name)}": block
        for number, (name, block) in enumerate(zip(names, found, strict=True))
    }


RECIPES = {name: block for name, block in recipes().items() if "$stick" not in block}


@pytest.fixture
def inbox(public_folder: Path, store: Store) -> Iterator[Inbox]:
    """An inbox that a dropper of its group can reach."""
    spool = Spool.at(public_folder / "spool")
    spool.create()
    if os.geteuid() == 0:
        os.chown(spool.folder(Folder.INBOX), -1, GROUP)
        spool.folder(Folder.INBOX).chmod(0o1730)
    with opened(spool, store) as inbox:
        inbox.scan()
        yield inbox


@pytest.fixture
def desk(public_folder: Path) -> Path:
    """A folder of the dropper's, on the spool's file system, with what is to be dropped."""
    desk = public_folder / "desk"
    desk.mkdir()
    (desk / "request-demo.json").write_bytes(request())
    programs = desk / "bin"
    programs.mkdir()
    network = programs / "network"
    network.write_text(_NETWORK.replace("{server}", str(SFTP_SERVER)))
    for tool in ("ssh", "scp", "sftp"):
        real = shutil.which(tool)
        if real is None:
            continue
        (programs / tool).write_text(
            f'#!/bin/sh\nexec {network} "$@"\n'
            if tool == "ssh"
            else f'#!/bin/sh\nexec {real} -S {network} "$@"\n'
        )
    for program in programs.iterdir():
        program.chmod(0o755)
    if os.geteuid() == 0:
        for path in (desk, desk / "request-demo.json"):
            os.chown(path, DROPPER, DROPPER)
    return desk


def begin(desk: Path, inbox: Inbox, script: str) -> subprocess.Popen[bytes]:
    """Run a script as a dropper, in its folder."""
    user = (
        ["setpriv", "--reuid", str(DROPPER), "--regid", str(DROPPER), "--groups", str(GROUP)]
        if os.geteuid() == 0
        else []
    )
    return subprocess.Popen(
        [*user, "sh", "-euc", f"umask 022\n{script}"],
        cwd=desk,
        env={
            "PATH": f"{desk / 'bin'}:{os.environ['PATH']}",
            "HOME": str(desk),
            "RSYNC_RSH": str(desk / "bin" / "network"),
            "inbox": str(inbox.path),
            "host": "partner@site-a",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def taken_meanwhile(process: subprocess.Popen[bytes], inbox: Inbox) -> None:
    """Scan until the dropper is done, and its drop is taken."""

    def done() -> bool:
        inbox.scan()
        return process.poll() is not None

    inbox.scan_until(lambda _: done())
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    assert process.returncode == 0, output
    inbox.scan_until(lambda _: inbox.intake.metrics.admitted >= 1)


def require(script: str) -> None:
    for tool in ("rsync", "scp", "sftp", "ssh"):
        if re.search(rf"\b{tool}\b", script) and not (shutil.which(tool) and SFTP_SERVER.exists()):
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")


def test_there_is_a_recipe_for_each_tool() -> None:
    assert set(RECIPES) == {"cp-0", "cp-1", "mv-0", "rsync-0", "scp-0", "sftp-0"}
    page = PAGE.read_text()
    for name in ("WinSCP", "FileZilla", "Windows over SMB", "A USB stick"):
        assert f"**{name}**" in page


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_one_job_of_the_whole_file(inbox: Inbox, desk: Path, name: str) -> None:
    script = RECIPES[name]
    require(script)
    content = (desk / "request-demo.json").read_bytes()
    taken_meanwhile(begin(desk, inbox, script), inbox)
    job = inbox.job("request-demo.json")
    assert (job.state, job.drop_bytes) == (State.QUEUED, len(content))
    assert inbox.intake.metrics.admitted == 1
    assert inbox.intake.metrics.refused == 0
    assert not list(inbox.path.iterdir())
    [claimed] = inbox.in_claimed()
    assert claimed.read_bytes() == content


SLOW = {
    "scp": "scp -q -l 6000 request-demo.json $host:$inbox/",
    "rsync": "rsync --bwlimit=700 request-demo.json $host:$inbox/",
    "rsync in place": "rsync --inplace --bwlimit=700 request-demo.json $host:$inbox/",
    "cp": "exec 3> $inbox/request-demo.json; split -b 60000 --filter 'cat >&3' request-demo.json",
    "filepart": "split -b 60000 --filter 'cat >> $inbox/request-demo.json.filepart' "
    "request-demo.json; mv $inbox/request-demo.json.filepart $inbox/request-demo.json",
}


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_line_makes_no_half_drop(inbox: Inbox, desk: Path, name: str) -> None:
    require(SLOW[name])
    content = request(labels={f"l{number}": "x" * 1000 for number in range(100)})
    content += b" " * (600_000 - len(content))  # what settles as whole too early, if anything does
    (desk / "request-demo.json").write_bytes(content)
    taken_meanwhile(begin(desk, inbox, SLOW[name]), inbox)
    assert inbox.job("request-demo.json").drop_bytes == len(content)
    assert inbox.intake.metrics.admitted == 1


def test_explorer_makes_a_file_full_size_before_it_writes(spool: Spool, store: Store) -> None:
    # As smbd does it for Explorer, where nobody knows of writers: a file of zeros that changes.
    settings = replace(SETTINGS, writer_check=WriterCheck.SETTLE, settle_seconds=0.4)
    content = b"x" * 50_000 + ZSTD_END
    with opened(spool, store, settings) as inbox, open(inbox.path / "b.tar.zst", "wb") as writer:
        writer.truncate(len(content))
        for start in range(0, len(content), 10_000):
            assert inbox.scan().claimed == 0
            writer.write(content[start : start + 10_000])
            writer.flush()
        inbox.admitted()
        assert inbox.job("b.tar.zst").intake["method"] == "settled"
        [claimed] = inbox.in_claimed()
        assert claimed.read_bytes() == content


def test_a_request_from_notepad_is_rejected_with_the_place(inbox: Inbox) -> None:
    for name, content in {
        "request-bom.json": b"\xef\xbb\xbf" + request(),
        "request-utf16.json": request().decode().encode("utf-16"),
    }.items():
        inbox.move(name, content)
        inbox.admitted()
        outcome = inbox.job(name).outcome
        assert outcome is not None
        assert "line 1, column 1" in str(outcome["error"])


def test_the_sticks_recipe_copies_and_compares(desk: Path, inbox: Inbox) -> None:
    [script] = [block for block in recipes().values() if "$stick" in block]
    (desk / "demo-5f21c09a77d1.tar.zst").write_bytes(b"x" * 1000 + ZSTD_END)
    stick = desk / "stick"
    stick.mkdir()
    os.chown(stick, desk.stat().st_uid, -1)
    process = begin(desk, inbox, f"stick={shlex.quote(str(stick))}\n{script}")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert (stick / "demo-5f21c09a77d1.tar.zst").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_dropper_signs_right_into_an_inbox_that_he_cannot_list(inbox: Inbox, desk: Path) -> None:
    key, file = desk / "key.pem", str(desk / "request-demo.json")

    def run(*arguments: str) -> int:
        return CliRunner().invoke(cli, arguments).exit_code

    assert run("keys", "generate", "-o", str(key), "--algorithm", "ed25519") == 0
    # What it loads may stand where only root can read it.
    assert run("sign", file, "--key", str(key), "-o", str(desk / "signed.json")) == 0
    os.chown(key, DROPPER, DROPPER)
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.setgroups([GROUP])
        os.setresgid(DROPPER, DROPPER, DROPPER)
        os.setresuid(DROPPER, DROPPER, DROPPER)
        os._exit(run("sign", file, "--key", str(key), "-o", str(inbox.path / "request-demo.json")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in inbox.path.iterdir()] == ["request-demo.json"]
    inbox.scan_until(lambda _: inbox.intake.metrics.admitted == 1)
