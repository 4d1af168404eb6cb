"""What a benchmark prints: one Markdown table, and the machine it was measured on."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Row = tuple[str, ...]


def table(head: Row, rows: Sequence[Row]) -> str:
    """Markdown; the columns from the fourth on are figures."""
    line = tuple("---" if place < 3 else "---:" for place in range(len(head)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, line, *rows))


def machine(folder: Path, *programs: str) -> str:
    """Cores, memory, file system, versions and load."""
    versions = [printed(program, "--version").splitlines()[0].strip("* ") for program in programs]
    disk = printed("df", "--output=fstype", str(folder)).split()[-1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = " ".join(f"{figure:.1f}" for figure in os.getloadavg())
    software = ", ".join(
        [f"Linux {os.uname().release}", f"Python {sys.version.split()[0]}", *versions]
    )
    return (
        f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GB of memory, {disk}; "
        f"{software}; load at the end {load}."
    )


def printed(*command: str) -> str:
    """The output of a command. Raises CalledProcessError."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
