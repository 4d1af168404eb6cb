"""What a folder's file system can do, found out by doing it; what is made for that is removed.

`doctor` shows all of it. The intake itself tries leases with every drop, and events when it begins
to watch: `watch` has that test.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from spoold.disk import rename_no_replace
from spoold.intake.complete import ignore_lease_signal


@dataclass(frozen=True, slots=True)
class Touched:
    """What works in a folder; a text says why something does not, an empty one that it does."""

    leases: str
    hard_links: str
    rename_no_replace: str
    unnamed_files: str


def touch(folder: bytes) -> Touched:
    """Try everything. Raises OSError where no file can be made at all."""
    ignore_lease_signal()
    stem = os.path.join(folder, b".touch.%s" % secrets.token_hex(8).encode())
    first, second = stem + b".1.tmp", stem + b".2.tmp"
    try:
        descriptor = os.open(first, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            leases = _why_not(lambda: _lease(descriptor))
        finally:
            os.close(descriptor)
        return Touched(
            leases,
            _why_not(lambda: _link(first, second)),
            _why_not(lambda: rename_no_replace(first, second)),
            _why_not(lambda: _unnamed(folder)),
        )
    finally:
        for path in (first, second):
            with suppress(FileNotFoundError):
                os.unlink(path)


def _why_not(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, "it fails")
    return ""


def _lease(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _link(source: bytes, target: bytes) -> None:
    os.link(source, target, follow_symlinks=False)
    os.unlink(target)


def _unnamed(folder: bytes) -> None:
    os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
