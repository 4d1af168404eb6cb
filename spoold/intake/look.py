"""One look at a drop where it lies: its writer, its content, how long it has rested.

Nothing is changed here. A request that proves itself is parsed once; what was read is remembered
by its hash, so that the same bytes read again after the claim need no second parse.
"""

import hashlib
import os
from dataclasses import dataclass

import structlog

from spoold import errors
from spoold.errors import SpooldError
from spoold.intake.complete import (
    Fingerprint,
    Take,
    Verdict,
    Wait,
    Writer,
    ask_writer,
    decide,
    ends_as_json,
    ends_like_bundle,
    is_file,
    open_drop,
)
from spoold.intake.inbox import Found
from spoold.intake.memory import Memory
from spoold.intake.names import NameKind
from spoold.intake.obstacle import held_by
from spoold.intake.request import Models, ParsedRequest, parse
from spoold.intake.settings import IntakeSettings, Method, Reason

_log = structlog.get_logger()

_READ_BYTES = 64 * 1024  # each read allocates as much as it asks for

# What more bytes would cure: a file that ends so may still be growing.
_GROWING = frozenset({errors.REQUEST_TRUNCATED, errors.REQUEST_NOT_JSON, errors.DROP_EMPTY})


@dataclass(frozen=True, slots=True)
class Reading:
    """A request's bytes, and what they say: a valid request, or why not."""

    content: bytes
    sha256: bytes
    parsed: ParsedRequest | SpooldError


@dataclass(frozen=True, slots=True)
class Looked:
    """The verdict on a drop, and what was read for it."""

    verdict: Verdict
    reading: Reading | None = None


class GoneError(Exception):
    """The drop is not there any more, or not a file any more: forget it quietly."""


class NoFileError(Exception):
    """What has a drop's name now is neither a regular file nor a link to one."""


def look(
    path: bytes,
    found: Found,
    memory: Memory,
    now: float,
    settings: IntakeSettings,
    models: Models,
    *,
    leases: bool,
) -> Looked:
    """Look at a drop; `memory` is brought up to date. Raises GoneError."""
    try:
        if found.link:
            memory.owner = _status(path).st_uid
            return Looked(Take(Method.NO_WRITER))
        try:
            descriptor = open_drop(path)
        except FileNotFoundError:
            raise GoneError from None
        except BlockingIOError:
            # Somebody has it to himself by a lease, as file servers do, and is asked to give it up.
            status = _status(path)
            _note(memory, status, now)
            return _judge(memory, status, Writer.OPEN, now, settings)
        try:
            status = os.fstat(descriptor)
            if not is_file(status):
                raise GoneError
            _note(memory, status, now)
            writer = ask_writer(descriptor, believed=leases)
            reading, proven = None, False
            # A moved drop needs no proof, and one that may be written to cannot give one.
            if writer is Writer.NONE and not memory.moved and memory.unproven != memory.fingerprint:
                reading, proven = _prove(descriptor, found, status.st_size, settings, models)
                memory.unproven = None if proven else memory.fingerprint
        finally:
            os.close(descriptor)
    except PermissionError as error:
        return _unreadable(path, error, memory, now, settings)
    except OSError as error:
        return Looked(held_by(error))
    return _judge(memory, status, writer, now, settings, proven=proven, reading=reading)


def read_content(descriptor: int, limit: int) -> bytes | None:
    """Read a file to its end; None where it is longer than the limit. Raises OSError."""
    pieces = []
    left = limit + 1
    while left and (piece := os.read(descriptor, min(left, _READ_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces) if left else None


def interpret(content: bytes, models: Models, known: Reading | None = None) -> Reading:
    """What a request's bytes say; `known` bytes are not parsed again."""
    sha256 = hashlib.sha256(content).digest()
    if known is not None and known.sha256 == sha256:
        return known
    try:
        return Reading(content, sha256, parse(content, models))
    except SpooldError as error:
        return Reading(content, sha256, error)
    except Exception as error:  # noqa: BLE001  # a fault of ours must cost this drop alone
        _log.exception("intake.parse_failed", sha256=sha256.hex())
        refusal = SpooldError(errors.INTERNAL, f"it could not be parsed: {type(error).__name__}")
        return Reading(content, sha256, refusal)


def _prove(
    descriptor: int, found: Found, size: int, settings: IntakeSettings, models: Models
) -> tuple[Reading | None, bool]:
    if found.kind is NameKind.HANDLED:
        if not found.name.endswith(b".json") or size > settings.max_request_bytes:
            return None, False
        content = read_content(descriptor, settings.max_request_bytes)
        return None, content is not None and ends_as_json(content)
    if found.kind is NameKind.BUNDLE:
        return None, size > settings.max_bundle_bytes or ends_like_bundle(descriptor, size)
    if size > settings.max_request_bytes:
        return None, True  # rejected, whatever else it holds
    content = read_content(descriptor, settings.max_request_bytes)
    if content is None:
        return None, True
    reading = interpret(content, models)
    refused = isinstance(reading.parsed, SpooldError) and reading.parsed.code in _GROWING
    return reading, not refused


def _judge(
    memory: Memory,
    status: os.stat_result,
    writer: Writer,
    now: float,
    settings: IntakeSettings,
    *,
    proven: bool = False,
    reading: Reading | None = None,
) -> Looked:
    try:
        verdict = decide(
            settings,
            moved=memory.moved,
            empty=status.st_size == 0,
            writer=writer,
            proven=proven,
            unchanged_seconds=now - memory.unchanged_since,
        )
    except SpooldError:  # it is rejected: whoever has claimed it says so
        return Looked(Take(Method.SETTLED))
    return Looked(verdict, reading)


def _note(memory: Memory, status: os.stat_result, now: float) -> None:
    """A changed file begins to rest again; another one under the name was not moved in."""
    memory.owner = status.st_uid
    fingerprint = Fingerprint.of(status)
    if memory.fingerprint == fingerprint:
        return
    memory.unchanged_since = now
    if memory.fingerprint is not None:
        memory.moved = memory.moved and memory.fingerprint.inode == fingerprint.inode
    memory.fingerprint = fingerprint


def _unreadable(
    path: bytes, error: PermissionError, memory: Memory, now: float, settings: IntakeSettings
) -> Looked:
    try:
        _note(memory, _status(path), now)
    except OSError as fault:  # not even lstat(2) answers: something is mounted there, say
        return Looked(Wait(Reason.UNREADABLE, f"the daemon cannot look at it: {fault.strerror}"))
    if now - memory.unchanged_since >= settings.incomplete_seconds:
        return Looked(Take(Method.SETTLED))
    return Looked(Wait(Reason.UNREADABLE, f"the daemon cannot read it: {error.strerror}"))


def _status(path: bytes) -> os.stat_result:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        raise GoneError from None
