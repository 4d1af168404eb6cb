"""One claimed drop on its way to a row: no writer any more, an inode of our own, an admission.

Guarantees: the bytes that were parsed are the bytes in `claimed/`, on an inode that nobody else can
write to: a copy, or the claimed one where that is ours alone already (our user's, one link, no
writer, writable for nobody else). A bundle stays on the dropper's inode: it is verified from what
is opened.
Crash: everything here is done again from the start, under the same job id; `own_copy` says what
becomes of a copy that did not come to replace the claimed file, `claimed/.<job id>.own`.
"""

import hashlib
import os
import stat
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, assert_never

from spoold import errors, points
from spoold.actions import command
from spoold.bundle.copying import write_all
from spoold.canonical import Json, error_document
from spoold.errors import SpooldError
from spoold.intake.access import require_access
from spoold.intake.complete import (
    Fingerprint,
    Take,
    Wait,
    Writer,
    ask_writer,
    decide,
    open_drop,
)
from spoold.intake.look import GoneError, NoFileError, Reading, interpret, read_content
from spoold.intake.names import NameKind
from spoold.intake.own_copy import copy_name, is_ours, open_copy, write_copy
from spoold.intake.request import Models, ParsedRequest
from spoold.intake.settings import FoundBy, Idempotency, IntakeSettings, Method, Reason
from spoold.queue.job import Admission

BUNDLE_ACTION: Final = "rehydrate"
_READ_BYTES: Final = 1024 * 1024
_TOOL_GRACE_SECONDS: Final = 60


@dataclass(slots=True)
class Claimed:
    """A drop in `claimed/` that has no row yet; seconds on a monotonic clock."""

    job_id: uuid.UUID
    drop: bytes
    kind: NameKind
    path: bytes
    found_by: FoundBy
    method: Method
    unchanged_since: float
    fingerprint: Fingerprint | None = None
    reading: Reading | None = None
    """What was read of it before the claim."""
    ours: bool = False
    """It was put there by ourselves: its inode is ours alone, whatever it looks like."""
    resting: bool = False
    """It changed after it was taken for complete, where nobody can tell of writers."""
    told: Wait | None = None
    """What its status file says that it waits for."""
    has_status: bool = True
    """Its status file is this very job's: `queued`, `scheduled` or `waiting`."""
    copy: bytes | None = None
    """The path of our own copy, to be synced and renamed over the claimed file."""
    uncertain: bool = False
    """The connection broke while its row was inserted: until it is looked up, no status."""

    def intake(self) -> dict[str, Json]:
        """The `intake` object of its statuses and its row."""
        return {"found_by": self.found_by.value, "method": self.method.value}

    def copy_path(self) -> bytes:
        """Where a copy of it is written."""
        return os.path.join(os.path.dirname(self.path), copy_name(self.job_id))

    def discard_copy(self) -> None:
        """Remove a copy that did not come to replace the claimed file. Raises OSError."""
        if self.copy is not None:
            with suppress(FileNotFoundError):
                os.unlink(self.copy)
            self.copy = None


def prepare(
    claimed: Claimed, now: float, settings: IntakeSettings, models: Models, *, leases: bool
) -> Admission | Wait:
    """Check for writers again, read a request once, and make its inode our own.

    Raises GoneError, NoFileError, and OSError where the fault is the disk's or ours.
    """
    claimed.discard_copy()  # of before it was held: what is there now may be rejected, or be ours
    kind = os.lstat(claimed.path).st_mode
    # Swapped between listing and claim. Not opened even so: opening a device does things.
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        raise NoFileError
    try:
        if stat.S_ISLNK(kind):
            raise SpooldError(errors.DROP_SYMLINK)
        try:
            descriptor = _open(claimed.path)
        except BlockingIOError:  # under a lease, which its holder is asked to give up
            fingerprint = Fingerprint.of(os.lstat(claimed.path))
            _may_be_written(claimed, Writer.OPEN, fingerprint, now, settings)
            return Wait(Reason.WRITER_OPEN)
        try:
            return _prepare(descriptor, claimed, now, settings, models, leases=leases)
        finally:
            os.close(descriptor)
    except SpooldError as refusal:  # it goes to `failed/` as it is, uncopied
        return _rejection(claimed, refusal, os.lstat(claimed.path).st_size)


def _open(path: bytes) -> int:
    try:
        return open_drop(path)
    except FileNotFoundError:
        raise GoneError from None
    except PermissionError as error:  # its dropper's doing; any other is ours, or passes
        raise SpooldError(
            errors.DROP_UNREADABLE, f"the daemon cannot read it: {error.strerror}"
        ) from error


def _prepare(
    descriptor: int,
    claimed: Claimed,
    now: float,
    settings: IntakeSettings,
    models: Models,
    *,
    leases: bool,
) -> Admission | Wait:
    status = os.fstat(descriptor)
    # The lease is held until the descriptor is closed: nobody begins to write while we read.
    writer = ask_writer(descriptor, believed=leases)
    if _may_be_written(claimed, writer, Fingerprint.of(status), now, settings):
        return Wait(Reason.WRITER_OPEN)
    points.reached("admit.c")
    if status.st_size == 0:
        raise SpooldError(errors.DROP_EMPTY)
    if claimed.kind is NameKind.BUNDLE:
        return _bundle(claimed, status.st_size, settings)
    if claimed.kind is NameKind.HANDLED:
        return _handled(descriptor, claimed, status, writer, settings)
    return _read_request(descriptor, claimed, status, writer, settings, models)


def _read_request(
    descriptor: int,
    claimed: Claimed,
    status: os.stat_result,
    writer: Writer,
    settings: IntakeSettings,
    models: Models,
) -> Admission | Wait:
    # The size may lie by the time of the read: it is the read that is bounded.
    content = read_content(descriptor, settings.max_request_bytes)
    if content is None:
        raise _too_large(errors.REQUEST_TOO_LARGE, status.st_size, settings.max_request_bytes)
    reading = interpret(content, models, claimed.reading)
    admission = _admission(claimed, reading, settings)
    if isinstance(admission, Admission) and not (claimed.ours or is_ours(status, writer)):
        claimed.copy = claimed.copy_path()
        write_copy(claimed.copy, status, content)
    return admission


def _admission(claimed: Claimed, reading: Reading, settings: IntakeSettings) -> Admission | Wait:
    parsed = reading.parsed
    match parsed:
        case ParsedRequest():
            try:
                return _request(claimed, reading, parsed, settings)
            except SpooldError as refusal:
                if refusal.code is errors.KEY_UNUSABLE:  # ours, and no fault of the drop
                    return Wait(Reason.TRUST_STORE, str(refusal.message))
                return _rejection(claimed, refusal, len(reading.content), reading.sha256)
        case SpooldError():
            return _rejection(claimed, parsed, len(reading.content), reading.sha256)
        case _:
            assert_never(parsed)


def _may_be_written(
    claimed: Claimed,
    writer: Writer,
    fingerprint: Fingerprint,
    now: float,
    settings: IntakeSettings,
) -> bool:
    """Whether to keep waiting. Raises drop-incomplete when that has been long enough."""
    if fingerprint != claimed.fingerprint:
        claimed.fingerprint, claimed.unchanged_since = fingerprint, now
        claimed.resting = True
    verdict = decide(
        settings,
        moved=not claimed.resting,
        empty=False,
        writer=writer,
        proven=True,
        unchanged_seconds=now - claimed.unchanged_since,
    )
    return not isinstance(verdict, Take)


def _bundle(claimed: Claimed, size: int, settings: IntakeSettings) -> Admission:
    if size > settings.max_bundle_bytes:
        raise _too_large(errors.BUNDLE_TOO_LARGE, size, settings.max_bundle_bytes)
    return Admission(
        claimed.job_id,
        claimed.drop,
        None,
        size,
        claimed.intake(),
        BUNDLE_ACTION,
        max_attempts=settings.max_attempts,
        timeout_seconds=settings.timeout_seconds,
    )


def _handled(
    descriptor: int,
    claimed: Claimed,
    status: os.stat_result,
    writer: Writer,
    settings: IntakeSettings,
) -> Admission:
    """Its content is read once, in pieces: what is hashed is what its tool will get."""
    handler = settings.handlers.of_drop(claimed.drop)
    if handler is None:
        raise SpooldError(errors.HANDLER_UNKNOWN)
    if status.st_size > handler.max_bytes:
        raise command.too_large(handler, status.st_size)
    copy, path = None, claimed.copy_path()
    if not (claimed.ours or is_ours(status, writer)):
        copy = open_copy(path, status)
    digest, size = hashlib.sha256(), 0
    try:
        while block := os.read(descriptor, _READ_BYTES):
            size += len(block)
            if size > handler.max_bytes:  # it has grown meanwhile
                raise command.too_large(handler, size)
            digest.update(block)
            if copy is not None:
                write_all(copy, block)
    except BaseException:
        if copy is not None:
            os.unlink(path)
        raise
    finally:
        if copy is not None:
            os.close(copy)
    claimed.copy = path if copy is not None else None
    sha256 = digest.digest()
    once = settings.idempotency is Idempotency.CONTENT
    return Admission(
        claimed.job_id,
        claimed.drop,
        sha256,
        size,
        claimed.intake(),
        command.NAME,
        command.request(handler),
        sha256,
        max_attempts=handler.max_attempts,
        # The attempt ends its tool itself, and says how that went.
        timeout_seconds=handler.timeout_seconds + _TOOL_GRACE_SECONDS,
        dedup_key=command.key(handler, sha256) if once else None,
    )


def _request(
    claimed: Claimed, reading: Reading, parsed: ParsedRequest, settings: IntakeSettings
) -> Admission:
    envelope = parsed.envelope
    intake = claimed.intake()
    key = require_access(parsed, settings.trust, datetime.now(UTC), signed=settings.require_signed)
    if key is not None:
        intake["signed_by"] = {"site": key.site, "key_id": key.key_id}
    return Admission(
        claimed.job_id,
        claimed.drop,
        reading.sha256,
        len(reading.content),
        intake,
        envelope.action,
        parsed.document,
        parsed.sha256,
        priority=envelope.priority,
        correlation_id=envelope.correlation_id,
        not_before=envelope.not_before,
        max_attempts=envelope.max_attempts or settings.max_attempts,
        # A request may ask for less. That it asked for more, its statuses say.
        timeout_seconds=min(envelope.timeout or settings.timeout_seconds, settings.timeout_seconds),
        dedup_key=parsed.dedup_key(settings.idempotency),
    )


def _rejection(
    claimed: Claimed, refusal: SpooldError, size: int, sha256: bytes | None = None
) -> Admission:
    error = error_document(refusal)
    return Admission(claimed.job_id, claimed.drop, sha256, size, claimed.intake(), error=error)


def _too_large(code: errors.Code, size: int, limit: int) -> SpooldError:
    return SpooldError(code, f"it has {size:,} bytes, the limit is {limit:,}")
