"""Status documents, `spoold.status/1`: what a script reads to learn how its drop fares.

Pure: every function makes a document or a name from its arguments. Live documents carry an empty
`signatures`; a final one is signed by `trust.sign_document` and never changes again.
"""

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from spoold import __version__, canonical
from spoold.canonical import Json, error_document
from spoold.errors import SpooldError
from spoold.queue.job import FINAL, Job, State
from spoold.units import parse_duration

TYPE: Final = "spoold.status/1"
SUFFIX: Final = b".status.json"
LOG_SUFFIX: Final = b".log"
DOUBLE_SUFFIXES: Final = (b".tar.zst", b".tar.gz")

# A published set whose names were taken is called `<stem>~<12 hex digits><suffix>`, and a cut name
# ends in `~<12 hex digits>`.
_NUMBERED: Final = re.compile(rb"~[0-9a-f]{12}(?:\.tar\.zst|\.tar\.gz|\.[^.]*)?\Z")

# A name may fill 255 bytes, but `<job id>.` before it and `.status.json` after it must fit too.
_MAX_NAME_BYTES = 200
_CUT_BYTES = 180
_JOB_ID_BYTES = 36

WAITING: Final = "waiting"
AnyState = State | Literal["waiting"]


@dataclass(frozen=True, slots=True)
class Host:
    """Where a document is made: the site's name and the machine's."""

    site: str
    host: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is; sizes in bytes, None where the total is not known.

    `source` is what is read or written now, `bytes_per_second` the rate of the last seconds.
    """

    phase: str
    bytes_done: int = 0
    bytes_total: int | None = None
    entries_done: int = 0
    rows_done: int = 0
    source: str | None = None
    bytes_per_second: int = 0

    def document(self) -> dict[str, Json]:
        """The `progress` object of a status document."""
        return {
            "phase": self.phase,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "entries_done": self.entries_done,
            "rows_done": self.rows_done,
            "source": self.source,
            "bytes_per_second": self.bytes_per_second,
        }


@dataclass(frozen=True, slots=True)
class Status:
    """The fields of a status document, as far as they are known; times are aware datetimes."""

    drop: bytes
    state: AnyState
    drop_sha256: bytes | None = None
    job_id: uuid.UUID | None = None
    correlation_id: str | None = None
    action: str | None = None
    reason: str | None = None
    attempt: int = 0
    max_attempts: int | None = None
    next_attempt_at: datetime | None = None
    admitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    intake: Mapping[str, Json] | None = None
    progress: Mapping[str, Json] | None = None
    result: Mapping[str, Json] | None = None
    error: Mapping[str, Json] | None = None
    files: Mapping[str, str] | None = None
    warnings: Sequence[str] = ()

    @classmethod
    def of(cls, job: Job, state: State) -> "Status":
        """What a job's row says; results, files and further warnings are the caller's to add."""
        return cls(
            drop=job.drop_name,
            state=state,
            drop_sha256=job.drop_sha256,
            job_id=job.id,
            correlation_id=job.correlation_id,
            action=job.action,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            admitted_at=job.admitted_at,
            started_at=job.claimed_at,
            finished_at=job.finished_at,
            intake=job.intake,
            progress=job.progress,
            error=job.error,
            warnings=_capped(job),
        )

    def document(self, host: Host) -> dict[str, Json]:
        """The document without signatures, every string within the canonical profile."""
        drop, drop_b64 = show_name(self.drop)
        document: dict[str, Json] = {
            "type": TYPE,
            "drop": drop,
            "drop_sha256": self.drop_sha256.hex() if self.drop_sha256 else None,
            "job_id": str(self.job_id) if self.job_id else None,
            "correlation_id": self.correlation_id,
            "action": self.action,
            "state": str(self.state),
            "final": self.state in FINAL,
            "reason": self.reason,
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "next_attempt_at": format_moment(self.next_attempt_at),
            "admitted_at": format_moment(self.admitted_at),
            "started_at": format_moment(self.started_at),
            "finished_at": format_moment(self.finished_at),
            "intake": self.intake,
            "progress": self.progress,
            "result": self.result,
            "error": self.error,
            "files": self.files or {},
            "warnings": list(self.warnings),
            "site": host.site,
            "host": host.host,
            "spoold": __version__,
        }
        if drop_b64 is not None:
            document["drop_b64"] = drop_b64
        return {key: _clean(value) for key, value in document.items()}

    def live(self, host: Host) -> bytes:
        """The canonical bytes of a document that is not final, unsigned."""
        assert self.state not in FINAL, self.state
        return canonical.encode({**self.document(host), "signatures": []})

    def with_error(self, error: SpooldError) -> "Status":
        """The same with an error object."""
        return replace(self, error=error_document(error))


def status_name(drop: bytes) -> bytes:
    """The name of a drop's status file, in `status/` and beside the drop."""
    return cut_name(drop) + SUFFIX


def claimed_name(job_id: uuid.UUID, drop: bytes) -> bytes:
    """The name of a job's drop in `claimed/`."""
    return str(job_id).encode() + b"." + cut_name(drop)


def parse_claimed_name(name: bytes) -> tuple[uuid.UUID, bytes] | None:
    """The job and the drop's name, which may be cut, of a name in `claimed/`; None for others.

    >>> parse_claimed_name(b".status.tmp") is None
    True
    """
    job_id, _, drop = name.partition(b".")
    if len(job_id) != _JOB_ID_BYTES or not drop:
        return None
    try:
        return uuid.UUID(job_id.decode("ascii")), drop
    except ValueError:
        return None


def cut_name(drop: bytes) -> bytes:
    """The name itself up to 200 bytes; else 180 of them, cut at a character, `~` and a hash."""
    if len(drop) <= _MAX_NAME_BYTES:
        return drop
    end = _CUT_BYTES
    while drop[end] & 0xC0 == 0x80 and end > _CUT_BYTES - 3:  # a UTF-8 continuation byte
        end -= 1
    return drop[:end] + b"~" + hashlib.sha256(drop).hexdigest()[:12].encode()


def suffixed_name(name: bytes, short_id: str) -> bytes:
    """`<stem>~<short id><suffix>`, the name of a file whose own name is taken; at most 255 bytes.

    >>> suffixed_name(b"request-demo.json", "5f21c09a77d1")
    b'request-demo~5f21c09a77d1.json'
    """
    for suffix in DOUBLE_SUFFIXES:
        if name.endswith(suffix):
            break
    else:
        dot = name.rfind(b".")
        suffix = name[dot:] if dot > 0 else b""
    tail = b"~" + short_id.encode() + suffix
    return name[: min(len(name) - len(suffix), 255 - len(tail))] + tail


def is_reserved(name: bytes) -> bool:
    """Whether spoold may give this name to an answer: no drop and no result may bear it.

    >>> is_reserved(b"request-demo.json.status.json"), is_reserved(b"request-demo.json")
    (True, False)
    """
    if name.endswith((SUFFIX, LOG_SUFFIX)):
        return True
    return b"~" in name and _NUMBERED.search(name) is not None


def show_name(raw: bytes) -> tuple[str, str | None]:
    """A file name for people, and its true bytes in base64 where that is not the same.

    Every byte outside printable UTF-8 appears as `\\xNN`.
    """
    decoded = raw.decode("utf-8", "surrogateescape")
    shown = "".join(
        character
        if character.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in decoded
    )
    return shown, None if shown == decoded else base64.b64encode(raw).decode()


def _capped(job: Job) -> Sequence[str]:
    """Say that a request asked for more time than an attempt may take here."""
    asked = job.request.get("timeout") if job.request else None
    seconds = parse_duration(asked) if isinstance(asked, str) else asked
    if not isinstance(seconds, int) or seconds <= job.timeout_seconds:
        return ()
    most = f"{job.timeout_seconds:,} s is the most here: [workers] timeout_seconds"
    return (f"a timeout of {seconds:,} s is asked for; {most}",)


def true_name(document: Mapping[str, Json]) -> bytes:
    """The raw name of the drop that a status document speaks of."""
    encoded = document.get("drop_b64")
    if isinstance(encoded, str):
        return base64.b64decode(encoded, validate=True)
    return str(document["drop"]).encode()


def format_moment(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with milliseconds and `Z`."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clean(value: Json) -> Json:
    if isinstance(value, str):
        return canonical.text(value)
    if isinstance(value, Mapping):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_clean(item) for item in value]
    return value
