"""What an attempt may use: each limit in a process of its own, since limits are a process's."""

import signal
import subprocess
import sys

_HEAD = """
import resource, sys, time
from spoold.worker.limits import limit_process, processor_time

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""


def run(body: str) -> tuple[int, str]:
    """A script's exit status, negative where a signal ended it, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + body], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_processor_time_beyond_the_limit_ends_the_process_at_once() -> None:
    status, said = run("with processor_time(1):\n    burn(9)\nprint('went on')")
    assert (status, said) == (-signal.SIGXCPU, "")


def test_an_attempts_limit_begins_with_what_was_used_before_it() -> None:
    status, said = run(
        "for _ in range(5):\n"
        "    with processor_time(1):\n"
        "        burn(0.5)\n"  # the kernel counts ticks, on a busy machine too many
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY)\n"
    )
    assert (status, said) == (0, "True\n")


def test_memory_beyond_the_limit_is_not_given_and_the_process_lives_on() -> None:
    status, said = run(
        "limit_process(256 * 1024**2)\n"
        "try:\n"
        "    bytearray(300 * 1024**2)\n"
        "except MemoryError:\n"
        "    print(len(bytearray(50 * 1024**2)))\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
    )
    assert (status, said) == (0, f"{50 * 1024**2}\n0\n")


def test_without_a_limit_memory_is_what_there_is() -> None:
    status, said = run(
        "before = resource.getrlimit(resource.RLIMIT_DATA)\n"
        "limit_process(0)\n"
        "print(resource.getrlimit(resource.RLIMIT_DATA) == before)\n"
    )
    assert (status, said) == (0, "True\n")


def test_a_frame_for_which_there_is_no_memory_is_not_called_invalid() -> None:
    status, said = run(
        "import os\n"
        "from spoold.bundle import frames\n"
        "from spoold.bundle.frames import Codec\n"
        "raw = os.urandom(2**20) * 4\n"
        "made = {codec: frames.compress(codec, codec.default_level, raw) for codec in Codec}\n"
        "frames._local.__dict__.clear()\n"
        "spare = resource.getrlimit(resource.RLIMIT_DATA)\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (1, spare[1]))\n"  # from now on, nothing more
        "for codec, frame in made.items():\n"
        "    for call in (\n"
        "        lambda: frames.compress(codec, codec.levels[-1], raw),\n"
        "        lambda: frames.decompress(codec, frame, len(raw)),\n"
        "    ):\n"
        "        try:\n"
        "            call()\n"
        "        except MemoryError:\n"
        "            print('no memory')\n"
    )
    assert status == 0, said
    assert set(said.splitlines()) == {"no memory"}
