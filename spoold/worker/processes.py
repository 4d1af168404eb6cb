"""Processes of workers, as their rows in the database name them: whether one is here, and lives.

A process id means something in its namespace only: two containers of one host can have the same
host name, and each would take the other's workers for dead.
"""

import os
import socket
from contextlib import suppress


def here() -> str:
    """Where this process's id counts, as a worker's row says it: host name and namespace."""
    return f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}"


def host_of(place: str) -> str:
    """The host name of what `here` says."""
    return place.partition(" ")[0]


def is_worker(pid: int) -> bool:
    """Whether that process still runs spoold; a number may have been given to another since."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"spoold" in file.read()
    return False
