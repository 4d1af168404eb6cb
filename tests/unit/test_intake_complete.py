import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spoold import errors
from spoold.errors import SpooldError
from spoold.file_systems import file_system_of
from spoold.intake import complete
from spoold.intake.complete import Rest, Take, Verdict, Wait, Writer, decide
from spoold.intake.settings import IntakeSettings, Method, Reason

SETTINGS = IntakeSettings("here", "host", settle_seconds=2.0, incomplete_seconds=100.0)


def verdict(
    writer: Writer = Writer.NONE,
    *,
    moved: bool = False,
    empty: bool = False,
    proven: bool = False,
    unchanged: float = 0.0,
) -> Verdict:
    return decide(
        SETTINGS,
        moved=moved,
        empty=empty,
        writer=writer,
        proven=proven,
        unchanged_seconds=unchanged,
    )


def test_e03_a_moved_file_is_taken_at_once() -> None:
    assert verdict(moved=True) == Take(Method.MOVED)
    assert verdict(Writer.UNKNOWN, moved=True) == Take(Method.MOVED)


def test_e01_a_file_with_a_writer_waits_whatever_else_is_known() -> None:
    for moved in (False, True):
        for proven in (False, True):
            held = verdict(Writer.OPEN, moved=moved, proven=proven, unchanged=50)
            assert held == Wait(Reason.WRITER_OPEN)


def test_e04_a_writer_that_neither_writes_nor_closes_has_an_end() -> None:
    with pytest.raises(SpooldError) as caught:
        verdict(Writer.OPEN, unchanged=100)
    assert caught.value.code is errors.DROP_INCOMPLETE


def test_e02_without_a_writer_a_proof_is_needed_or_rest() -> None:
    assert verdict(proven=True) == Take(Method.NO_WRITER)
    assert verdict() == Rest(2.0)
    assert verdict(unchanged=1.5) == Rest(0.5)
    assert verdict(unchanged=2.0) == Take(Method.SETTLED)


def test_e07_where_the_kernel_cannot_tell_only_rest_counts() -> None:
    assert verdict(Writer.UNKNOWN, proven=True) == Rest(2.0)
    assert verdict(Writer.UNKNOWN, unchanged=2.0) == Take(Method.SETTLED)


def test_e21_an_empty_file_always_rests() -> None:
    assert verdict(moved=True, empty=True) == Rest(2.0)
    assert verdict(proven=True, empty=True) == Rest(2.0)
    assert verdict(empty=True, unchanged=2.0) == Take(Method.SETTLED)


@pytest.fixture(autouse=True)
def _ignoring() -> None:
    complete.ignore_lease_signal()


def ask(path: Path) -> Writer:
    descriptor = complete.open_drop(os.fsencode(path))
    try:
        return complete.ask_writer(descriptor, believed=True)
    finally:
        os.close(descriptor)


def test_e01_the_lease_tells_of_a_writer(tmp_path: Path) -> None:
    assert file_system_of(tmp_path).leases
    path = tmp_path / "drop"
    with open(path, "wb") as writer:
        assert ask(path) is Writer.OPEN
        writer.write(b"x")
        assert ask(path) is Writer.OPEN
    assert ask(path) is Writer.NONE
    with open(path, "rb"):
        assert ask(path) is Writer.NONE


def test_where_leases_are_not_believed_the_writer_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "drop"
    path.touch()
    descriptor = complete.open_drop(os.fsencode(path))
    assert complete.ask_writer(descriptor, believed=False) is Writer.UNKNOWN
    os.close(descriptor)


# Holds a lease until a writer has come in, then says how it fared.
_HOLD = """
import os, sys, threading
from spoold.intake import complete
threading.Thread(target=complete.ignore_lease_signal).start()
descriptor = complete.open_drop(os.fsencode(sys.argv[1]))
print(complete.ask_writer(descriptor, believed=True).value, flush=True)
sys.stdin.readline()
os.close(descriptor)
print("alive", flush=True)
"""


def test_e36_a_writer_that_comes_during_the_probe_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "drop"
    path.write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "none\n"
        with pytest.raises(BlockingIOError):  # the writer meets the lease: SIGIO is sent now
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "alive\n"
        assert holder.wait(10) == 0
    path.write_bytes(b"new")


def test_e36_without_the_precaution_the_signal_kills(tmp_path: Path) -> None:
    path = tmp_path / "drop"
    path.write_bytes(b"old")
    # An ignored signal stays ignored in a new program: this one is to begin afresh.
    script = _HOLD.replace(
        "threading.Thread(target=complete.ignore_lease_signal).start()",
        "import signal; signal.signal(signal.SIGIO, signal.SIG_DFL)",
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"none\n"
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        assert holder.wait(10) == -signal.SIGIO


@pytest.mark.parametrize(
    ("hexadecimal", "whole"),
    [
        ("28b52ffd6400034d00001000000100fb2b8005cdac85f0", True),
        ("1f8b08000000000000ff63601805a360148c5400002eafb5ef00040000", True),
        ("28b52ffd6400034d00001000000100fb2b8005cdac85", False),
        ("", False),
    ],
)
def test_the_last_bytes_tell_a_whole_bundle(tmp_path: Path, hexadecimal: str, whole: bool) -> None:
    path = tmp_path / "b.tar.zst"
    content = b"head" * 1000 + bytes.fromhex(hexadecimal)
    path.write_bytes(content)
    descriptor = complete.open_drop(os.fsencode(path))
    assert complete.ends_like_bundle(descriptor, len(content)) is whole
    os.close(descriptor)
