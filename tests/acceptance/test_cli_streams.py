"""The program with standard streams that are closed, broken or full."""

import os
import subprocess
import sys

import pytest


def run(*arguments: str, redirect: str) -> subprocess.CompletedProcess[bytes]:
    shell = f'exec "$@" {redirect}'
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "spoold", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("arguments", [["schema", "status"], ["status", "--json"], ["--help"]])
@pytest.mark.parametrize("redirect", [">&-", "<&- >&-", ">/dev/full"])
def test_a_standard_output_that_takes_nothing_is_no_fault_of_ours(
    arguments: list[str], redirect: str
) -> None:
    assert b"Traceback" not in run(*arguments, redirect=redirect).stderr


def test_an_error_for_a_reader_that_has_left_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "spoold", "verify", "--json"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert b"Traceback" not in ended.stderr
    assert ended.returncode == 2


def test_files_never_take_the_place_of_closed_standard_streams() -> None:
    program = (
        "import os, sys; sys.argv = ['spoold', '--version']; from spoold.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert [os.path.realpath(f'/proc/self/fd/{n}') for n in range(3)] == ['/dev/null'] * 3\n"
        "assert sys.stdout is not None and sys.stderr is not None\n"
        "os._exit(7)"
    )
    shell = 'exec "$@" <&- >&- 2>&-'
    ended = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", program], timeout=60, check=False
    )
    assert ended.returncode == 7
