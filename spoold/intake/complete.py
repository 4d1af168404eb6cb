"""Whether a drop is complete: who writes it, what its end says, how long it has rested.

The kernel is asked with a lease (fcntl(2), F_SETLEASE): F_RDLCK is refused with EAGAIN while any
process has the file open for writing. It can be believed on local file systems only, and needs the
file's owner or CAP_LEASE. As long as the lease is held a new writer waits in open(2) and we are
sent SIGIO, whose default action ends the process: `ignore_lease_signal` comes before the first
probe.

`decide` is pure: ages come from a monotonic clock, since clocks jump and `cp -p` keeps old times.
"""

import ctypes
import enum
import errno
import fcntl
import json
import os
import signal
import stat
from dataclasses import dataclass
from typing import Final

from spoold import errors, json_bounds
from spoold.bundle.frames import END_FRAME
from spoold.errors import Code, SpooldError
from spoold.intake.settings import IntakeSettings, Method, Reason
from spoold.intake.strict_json import MAX_STRUCTURE

# The last frame of every bundle: the zero bytes that end a tar.
_ENDS: Final = tuple(END_FRAME.values())
_MAX_END_BYTES: Final = max(map(len, _ENDS))

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SIG_IGN: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Writer(enum.Enum):
    """Whether some process has a file open for writing."""

    NONE = "none"
    OPEN = "open"
    UNKNOWN = "unknown"


def ignore_lease_signal() -> None:
    """Ignore SIGIO in this process, from any thread (the signal module insists on the main one)."""
    handler = _libc.signal
    handler.argtypes, handler.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    handler(signal.SIGIO, _SIG_IGN)


def open_drop(path: bytes) -> int:
    """Open a file of the spool for reading, never following a link nor waiting for a FIFO.

    Returns a descriptor, the caller's to close. Raises OSError.
    """
    return os.open(path, _OPEN_FLAGS)


def ask_writer(descriptor: int, *, believed: bool) -> Writer:
    """Ask the kernel. Where the answer is NONE the lease is held until the descriptor is closed."""
    if not believed:
        return Writer.UNKNOWN
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # EACCES: not our file, and no CAP_LEASE. EINVAL: no leases here after all.
        return Writer.OPEN if error.errno == errno.EAGAIN else Writer.UNKNOWN
    return Writer.NONE


def ends_like_bundle(descriptor: int, size: int) -> bool:
    """Whether a file's last bytes are those of every whole bundle."""
    tail = os.pread(descriptor, _MAX_END_BYTES, max(0, size - _MAX_END_BYTES))
    return tail.endswith(_ENDS)


def ends_as_json(content: bytes) -> bool:
    """Whether it is a JSON text that can only end here: what grows, does so in front of a bracket.

    What holds too much to be parsed just for this is left to rest.
    """
    if json_bounds.structure(content) > MAX_STRUCTURE:
        return False
    if not content.rstrip().endswith((b"}", b"]", b'"')):  # a number may go on
        return False
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What changes when a file is written or replaced; a rename leaves it as it is."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Fingerprint":
        """The fingerprint of a file's status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def is_file(status: os.stat_result) -> bool:
    """Whether it is a regular file."""
    return stat.S_ISREG(status.st_mode)


@dataclass(frozen=True, slots=True)
class Take:
    """It is complete."""

    method: Method


@dataclass(frozen=True, slots=True)
class Rest:
    """Nobody is known to write it; it is taken when it has not changed for so much longer."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """It is held back; `code` where the reason has more than one."""

    reason: Reason
    message: str = ""
    code: Code | None = None


Verdict = Take | Rest | Wait


def decide(
    settings: IntakeSettings,
    *,
    moved: bool,
    empty: bool,
    writer: Writer,
    proven: bool,
    unchanged_seconds: float,
) -> Verdict:
    """Say what to do with a drop now.

    `proven`: the content says by itself that it is whole, or so bad that more would not help.
    Raises drop-incomplete: its writer has neither closed it nor written for too long.
    """
    if writer is Writer.OPEN:
        if unchanged_seconds >= settings.incomplete_seconds:
            raise SpooldError(errors.DROP_INCOMPLETE)
        return Wait(Reason.WRITER_OPEN)
    if moved and not empty:
        return Take(Method.MOVED)
    if writer is Writer.NONE and proven and not empty:
        return Take(Method.NO_WRITER)
    left = settings.settle_seconds - unchanged_seconds
    return Take(Method.SETTLED) if left <= 0 else Rest(left)
