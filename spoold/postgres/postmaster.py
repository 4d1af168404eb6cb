"""`postmaster.pid`: which process serves a data directory, and how far it is. It is only read."""

import os
from pathlib import Path
from typing import Final

_STATUS_LINE: Final = 7  # LOCK_FILE_LINE_PM_STATUS of PostgreSQL's pidfile.h, counted from 0


def open_process(data: Path) -> int | None:
    """A pidfd of the server in this data directory; None where there is none in our view.

    The process is known by its working directory, which a server makes its data directory: so it
    is found after the spool was moved, and never mistaken for the next owner of its id.
    """
    pid = process_id(data)
    if pid is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        if os.path.samefile(f"/proc/{pid}/cwd", data):
            return descriptor
    except OSError:  # ended meanwhile, or another user's
        pass
    os.close(descriptor)
    return None


def process_id(data: Path) -> int | None:
    """The id that the file names; whoever has it by now."""
    lines = _lines(data)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def status(data: Path) -> str:
    """How far the server is: "starting", "ready", "stopping"; empty where that is not said."""
    lines = _lines(data)
    return lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else ""


def _lines(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []
