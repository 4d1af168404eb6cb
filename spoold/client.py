"""The other side of the inbox: drop a file safely, follow its status, find a job's answer.

Needs no daemon, no database and no right to look into `.spoold`: what it does, a script can do.

Guarantees: the inbox never shows half a file, and nothing in it is replaced; when `drop` returns,
the file's content survives a power cut, and its name does where the folder may be opened.
Crash: `.<random>.<name>.part` may stay in the inbox; it is no drop, `doctor` lists it when it is
old.
"""

import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spoold import daemon_status, errors
from spoold.disk import rename_new, sync_folder
from spoold.errors import SpooldError
from spoold.handlers import NO_HANDLERS, Handlers
from spoold.intake.names import DROPS, NameKind, classify
from spoold.spool import Folder, Spool
from spoold.status import SUFFIX, show_name, status_name

_COPY_BYTES = 8 * 1024 * 1024
_MAX_STATUS_BYTES = 16 * 1024 * 1024
_FIRST_PAUSE_SECONDS = 0.01
_LAST_PAUSE_SECONDS = 0.25
# Between the claim's two steps the status may for a moment not be the new job's.
_GONE_PATIENCE_SECONDS = 2.0
_SILENCE_SECONDS = 10.0

_JOB_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_SHORT_ID = re.compile(r"[0-9a-f]{12}")
_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")

Report = Callable[[int, int], None]
"""Bytes done, bytes in all."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file that was put into the inbox: how to tell whether it is still there."""

    name: bytes
    device: int
    inode: int
    previous_job: str | None
    """The job that the status of this name spoke of before."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status document as it was read. Nobody has checked its signature."""

    path: Path
    raw: bytes
    document: Mapping[str, object]

    @property
    def state(self) -> str:
        """The job's state, or `waiting`."""
        return str(self.document.get("state"))

    @property
    def final(self) -> bool:
        """Whether it will never change again."""
        return self.document.get("final") is True

    @property
    def job_id(self) -> str | None:
        """The job it speaks of; None before one was made."""
        job = self.document.get("job_id")
        return job if isinstance(job, str) else None

    @property
    def error_code(self) -> str | None:
        """The code of its error, if it has one."""
        error = self.document.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        return code if isinstance(code, str) else None


def check_name(name: bytes, handlers: Handlers = NO_HANDLERS) -> None:
    """Raise drop-name for a name that the intake would not take."""
    kind, most = classify(name, handlers), os.pathconf("/", "PC_NAME_MAX")
    if kind in DROPS:
        if len(name) <= most:
            return
        raise SpooldError(
            errors.DROP_NAME, f"it has {len(name)} bytes, a name {most} at most", hint="shorten it"
        )
    why = {
        NameKind.UNFINISHED: "it is the name of an unfinished upload",
        NameKind.RESERVED: "it could pass for another drop's answer",
    }.get(kind, "it is neither a request's nor a bundle's, nor one of a configured handler's")
    raise SpooldError(errors.DROP_NAME, f"{show_name(name)[0]}: {why}")


def drop(
    spool: Spool,
    source: Path,
    name: bytes,
    report: Report | None = None,
    handlers: Handlers = NO_HANDLERS,
) -> Dropped:
    """Copy a file into the inbox under a name, whole or not at all.

    Raises drop-name, name-busy, no-space or disk-error.
    """
    check_name(name, handlers)
    inbox = os.fsencode(spool.folder(Folder.INBOX))
    target = os.path.join(inbox, name)
    if os.path.lexists(target):
        raise _name_busy(name)
    previous = read_status(spool, name)
    random = b"." + secrets.token_hex(6).encode() + b"."
    part = os.path.join(inbox, random + name[: 255 - len(random) - 5] + b".part")
    try:
        # A FIFO must not make us wait for its writer.
        opened = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(opened, "rb", buffering=0) as reader:
            status = os.fstat(reader.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SpooldError(errors.DISK_ERROR, f"{source} is no regular file")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _copy(reader.fileno(), descriptor, status.st_size, report)
                os.fchmod(descriptor, _mode(inbox, status))
                os.fsync(descriptor)
                written = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        rename_new(part, target)
    except FileExistsError as error:
        raise _name_busy(name) from error
    except OSError as error:
        raise _failed(error) from error
    finally:
        with suppress(OSError):
            os.unlink(part)
    # A dropper of the group may not open the inbox: then the daemon makes the name durable.
    with suppress(PermissionError):
        sync_folder(inbox.decode("utf-8", "surrogateescape"))
    return Dropped(name, written.st_dev, written.st_ino, previous.job_id if previous else None)


def follow(
    spool: Spool,
    dropped: Dropped,
    timeout_seconds: float | None,
    on_silence: Callable[[], None] | None = None,
) -> Iterator[Answer]:
    """Yield the drop's status each time it changes; the last one is final.

    `on_silence` is called once when the drop is still untouched after ten seconds.
    Raises wait-timeout, or drop-gone when somebody takes the drop away first.
    """
    started = time.monotonic()
    pause = _FIRST_PAUSE_SECONDS
    gone_since: float | None = None
    job: str | None = None
    seen: bytes | None = None
    while True:
        # In this order: the new status stands before the drop leaves the inbox, so what is read
        # after it has left is not yesterday's.
        gone = not _in_inbox(spool, dropped)
        answer = read_status(spool, dropped.name)
        ours = answer is not None and answer.job_id not in (None, dropped.previous_job)
        if gone and ours:
            assert answer is not None
            job = job or answer.job_id
            if answer.job_id != job:  # ours is final, and a later drop has taken its name
                answer = find_job(spool, str(job)) or answer
            if answer.raw != seen and answer.job_id == job:
                seen, pause = answer.raw, _FIRST_PAUSE_SECONDS
                yield answer
                if answer.final:
                    return
        elif gone:
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > _GONE_PATIENCE_SECONDS:
                raise SpooldError(errors.DROP_GONE, f"{show_name(dropped.name)[0]} is gone")
        elif answer is not None and answer.job_id is None and answer.raw != seen:
            seen = answer.raw  # waiting, with a reason
            yield answer
        waited = time.monotonic() - started
        if on_silence is not None and waited > _SILENCE_SECONDS and not gone and seen is None:
            on_silence()
            on_silence = None
        if timeout_seconds is not None and waited >= timeout_seconds:
            state = "in the inbox" if not gone else answer.state if answer else "taken"
            raise SpooldError(
                errors.WAIT_TIMEOUT,
                f"{show_name(dropped.name)[0]} is {state} after {timeout_seconds:g} s",
            )
        time.sleep(pause)
        pause = min(pause * 1.3, _LAST_PAUSE_SECONDS)


def read_status(spool: Spool, name: bytes) -> Answer | None:
    """The status of the newest drop of a name; None where there is none."""
    return _read(Path(os.fsdecode(os.path.join(_status_folder(spool), status_name(name)))))


def read_daemon(spool: Spool) -> Answer | None:
    """What the daemon last said of itself; None where none has run yet."""
    return _read(spool.folder(Folder.STATUS) / daemon_status.NAME)


def find(spool: Spool, text: str) -> Answer:
    """The status of a drop by its name, or of a job by its id or the last 12 digits of that.

    A name may be given as status files show it, with `\\xNN`. Raises job-unknown.
    """
    names = drop_names(text)
    for name in names:
        if (answer := read_status(spool, name)) is not None:
            return answer
    digits = text.strip().lower()
    if _JOB_ID.fullmatch(digits) or _SHORT_ID.fullmatch(digits):
        if (answer := find_job(spool, digits)) is not None:
            return answer
        raise SpooldError(errors.JOB_UNKNOWN, f"no status file speaks of job {digits}")
    raw = names[0] if names else b""
    shown = show_name(raw)[0]
    if raw and os.path.lexists(os.path.join(os.fsencode(spool.folder(Folder.INBOX)), raw)):
        raise SpooldError(
            errors.JOB_UNKNOWN,
            f"{shown} stands in the inbox and has no status yet",
            hint="the daemon has not seen it: is `spoold run` running?",
        )
    raise SpooldError(
        errors.JOB_UNKNOWN,
        f"there is no status of a drop called {shown}",
        hint="check the name; `spoold jobs` lists the daemon's jobs",
    )


def drop_names(text: str) -> list[bytes]:
    """The drop names that a text may mean: as it is, with `\\xNN` for bytes, of a status file."""
    raw = os.path.basename(os.fsencode(text))
    unescaped = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw)
    return [name for name in dict.fromkeys((raw, unescaped, raw.removesuffix(SUFFIX))) if name]


def find_job(spool: Spool, digits: str) -> Answer | None:
    """The status of a job by its id or the last 12 digits of that: its own or its published one.

    Reads status files until it is found: a second or so for each 20,000 of them.
    """
    wanted = re.compile(rb'"job_id":"[0-9a-f-]*' + digits.encode() + b'"')
    for folder in (Folder.STATUS, Folder.PROCESSED, Folder.FAILED):
        try:
            entries = os.scandir(spool.folder(folder))
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.name.endswith(os.fsdecode(SUFFIX)):
                    answer = _read(Path(entry.path), wanted)
                    if answer is not None and (answer.job_id or "").endswith(digits):
                        return answer
    return None


def _status_folder(spool: Spool) -> bytes:
    return os.fsencode(spool.folder(Folder.STATUS))


def _read(path: Path, wanted: re.Pattern[bytes] | None = None) -> Answer | None:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_STATUS_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(error) from error
    if wanted is not None and not wanted.search(raw):
        return None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise SpooldError(
            errors.DOCUMENT_INVALID,
            f"{path} is no status document",
            hint="something else than spoold has written there: remove it",
        )
    return Answer(path, raw, document)


def _in_inbox(spool: Spool, dropped: Dropped) -> bool:
    try:
        status = os.lstat(
            os.path.join(os.fsencode(spool.folder(Folder.INBOX)), dropped.name),
        )
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == (dropped.device, dropped.inode)


def _copy(source: int, target: int, size: int, report: Report | None) -> None:
    done = 0
    shared = True  # copy_file_range(2) shares blocks where the file system can
    while True:
        if shared:
            try:
                count = os.copy_file_range(source, target, _COPY_BYTES)
            except OSError as error:
                if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                    raise
                shared = False
                continue
            if count == 0 and done == 0:
                shared = False  # files of /proc say 0 here, and have content all the same
                continue
        else:
            block = memoryview(os.read(source, _COPY_BYTES))
            count = len(block)
            while block:
                block = block[os.write(target, block) :]
        if count == 0:
            return
        done += count
        if report is not None:
            report(done, max(size, done))


def _mode(inbox: bytes, source: os.stat_result) -> int:
    """The source's mode, and readable for the daemon: only it and the dropper reach the inbox."""
    mode = stat.S_IMODE(source.st_mode) & 0o777 | 0o600
    return mode if os.stat(inbox).st_uid == os.geteuid() else mode | 0o044


def _name_busy(name: bytes) -> SpooldError:
    return SpooldError(errors.NAME_BUSY, f"{show_name(name)[0]} stands in the inbox already")


def _failed(error: OSError) -> SpooldError:
    name = error.filename
    where = show_name(os.fsencode(name))[0] if isinstance(name, str | bytes | Path) else "the file"
    if errors.disk_code(error) is errors.NO_SPACE:
        return SpooldError(errors.NO_SPACE, f"{where}: {error.strerror}")
    return SpooldError(
        errors.DISK_ERROR,
        f"{where}: {error.strerror}",
        hint="check that the file is there and that you may read it, and write to the inbox",
    )
