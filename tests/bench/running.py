"""Runs commands, one after the other and in turns, and measures them."""

import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.contestants import OURS, PLAIN, Task

_ROOT = Path(__file__).parents[2]


class Run(NamedTuple):
    """One command: wall-clock seconds, peak memory in MB."""

    seconds: float
    memory_mb: float


class Result(NamedTuple):
    """A contestant's runs."""

    name: str
    runs: list[Run]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def memory_mb(self) -> float:
        """The highest peak."""
        return max(run.memory_mb for run in self.runs)


def run(command: str, *, own_clock: bool) -> Run:
    """Run a shell command to its end.

    The peak memory is that of its largest process. `own_clock`: the seconds are those that the
    command prints. Raises CalledProcessError.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    # Of this child and those it waited for.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(json.loads(printed) if own_clock else seconds, usage.ru_maxrss * 1024 / 1e6)


def in_turns(task: Task, rounds: int, out: Path) -> list[Result]:
    """All contestants in turns, each round beginning with another one; the slow peers once."""
    os.sync()  # what was prepared is not to be written during the first run
    results = [Result(name, []) for name in task.commands]
    for number in range(rounds):
        for position in range(len(results)):
            result = results[(number + position) % len(results)]
            if number and result.name not in {PLAIN, OURS}:
                continue
            clear(out)
            command = task.commands[result.name]
            result.runs.append(run(command, own_clock=result.name == OURS))
    clear(out)
    return results


def clear(out: Path) -> None:
    """Remove what a run left: the next one begins as the first."""
    if out.exists():
        for folder, _, _ in os.walk(out):
            Path(folder).chmod(0o700)
        shutil.rmtree(out)
