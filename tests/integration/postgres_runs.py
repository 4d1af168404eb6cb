"""Embedded servers and other Python processes for the tests of them."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from spoold import postgres
from spoold.postgres import binaries

SOURCE = Path(__file__).parents[2]


def answers(conninfo: str) -> int:
    with postgres.connect(conninfo, "tests") as connection:
        row = connection.execute("select 1").fetchone()
    assert row is not None
    return int(row[0])


def postmaster(server: postgres.Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split("\n")[0])


def setting(conninfo: str, name: str) -> str:
    with postgres.connect(conninfo, "tests") as connection:
        row = connection.execute("select current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def start_by_hand(data: Path, sockets: Path, *settings: str) -> subprocess.Popen[bytes]:
    """A server as others would start it, without our settings."""
    user = binaries.user_of(data)
    command: list[str | Path] = [binaries.locate(user).folder / "postgres", "-D", data]
    command += ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
    command += [word for setting in settings for word in ("-c", setting)]
    return subprocess.Popen(
        command,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        cwd="/",
        stderr=subprocess.DEVNULL,
    )


def start_python(
    code: str, *arguments: str, command: list[str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*(command or [sys.executable, "-c"]), textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/" if command else SOURCE,
    )


def next_line(process: subprocess.Popen[str]) -> str:
    """The next line that is not a log event."""
    assert process.stdout is not None
    for line in process.stdout:
        if "[info" not in line and "[warning" not in line:
            return line.strip()
    return pytest.fail("it ended without an answer")


def end_python(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=30)
    return process.returncode


def close_streams(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
