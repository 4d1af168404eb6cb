"""What the intake is told and what it tells: its settings, its counters, the result of a scan."""

import enum
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from spoold.daemon_status import LastError
from spoold.errors import Code
from spoold.file_systems import FileSystem, file_system_of
from spoold.handlers import NO_HANDLERS, Handlers
from spoold.trust import Trust, nobody


class WriterCheck(enum.StrEnum):
    """How the end of writing is known: by asking the kernel where it knows, or by rest alone."""

    AUTO = "auto"
    SETTLE = "settle"


class Idempotency(enum.StrEnum):
    """What makes a request a duplicate: only its own key, or else its content."""

    KEY = "key"
    CONTENT = "content"


class WatchMode(enum.StrEnum):
    """What wakes the intake."""

    EVENTS = "events"
    POLLING = "polling"


class FoundBy(enum.StrEnum):
    """What drew attention to a drop."""

    EVENT = "event"
    SCAN = "scan"


class Method(enum.StrEnum):
    """How a drop was known to be complete."""

    MOVED = "moved"
    NO_WRITER = "no-writer"
    SETTLED = "settled"


class Reason(enum.StrEnum):
    """Why a drop waits; the `reason` of its status."""

    WRITER_OPEN = "writer-open"
    UNREADABLE = "unreadable"
    DATABASE_AWAY = "database-away"
    SPACE = "space"
    DISK = "disk"
    RATE = "rate"
    TRUST_STORE = "trust-store"


NAME_BUSY: Final = "name-busy"
"""Why a drop is passed over whose name belongs to an unfinished job. No status says so."""


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """How drops are seen and admitted; seconds and bytes. The defaults are the configuration's."""

    site: str
    host: str
    settle_seconds: float = 2.0
    rescan_seconds: float = 5.0
    incomplete_seconds: float = 3600.0
    writer_check: WriterCheck = WriterCheck.AUTO
    idempotency: Idempotency = Idempotency.KEY
    max_request_bytes: int = 1024**2
    max_bundle_bytes: int = 1024**4
    min_free_bytes: int = 1024**3
    max_drops_per_minute: int = 0
    max_drops_per_minute_per_owner: int = 0
    max_attempts: int = 5
    timeout_seconds: int = 21600
    require_signed: bool = False
    """Whether every request must be signed; one that is signed is checked anyway."""
    trust: Callable[[], Trust] = nobody
    """The keys that are believed now; raises key-unusable."""
    handlers: Handlers = NO_HANDLERS
    polling: bool = False
    """Look at the inbox in intervals even where events would work."""
    file_system: Callable[[str | bytes | os.PathLike[str]], FileSystem] = file_system_of
    """How it is known what a folder lies on; raises OSError."""
    batch_size: int = 250
    poll_seconds: float = 1.0
    rearm_seconds: float = 60.0
    """How often events are tried again where they could not be had."""
    reconcile_seconds: float = 60.0
    patience_seconds: float = 1.0
    """Open for writing for less than this, a file is just being copied: no status tells of it."""


@dataclass(slots=True)
class IntakeMetrics:
    """Counters since the start and gauges of now. The intake's thread writes, others may read."""

    found_by_event: int = 0
    found_by_scan: int = 0
    admitted: int = 0
    refused: int = 0
    """Of the admitted ones: entered as rejected."""
    scans: int = 0
    """Turns of the loop; one that only stands by for another intake counts too."""
    errors: int = 0
    """Unexpected failures; each is in the log."""
    methods: dict[str, int] = field(default_factory=lambda: {way.value: 0 for way in Method})
    """Claimed drops by how they were known to be complete."""
    strays: int = 0
    unfinished: int = 0
    waiting: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys([*(reason.value for reason in Reason), NAME_BUSY], 0)
    )
    waiting_since: float | None = None
    """When the one was first seen that has waited longest, on the monotonic clock."""
    last_error: LastError | None = None
    mode: WatchMode | None = None
    mode_reason: str = ""
    """Why there are no events, where there are none."""
    overflows: int = 0
    """How often the kernel dropped events; what they would have told was found by scans."""
    standing_by: bool = False
    inbox_missing: bool = False
    inbox_foreign: bool = False
    """Something is mounted over the inbox: drops cannot be moved out of it."""
    last_scan_at: float = 0.0
    """Unix time at which the last scan ended, or a long one came along; 0 before the first."""
    scan_seconds: float = 0.0
    """What the last scan took; of one that found nothing new, what polling costs each time."""

    def note(self, code: Code) -> None:
        """Remember what stands in the way of all drops as the last error."""
        self.last_error = LastError.of(code, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What one scan did and left."""

    standing_by: bool = False
    drops: int = 0
    claimed: int = 0
    admitted: int = 0
    settling: int = 0
    """Drops without a known writer that must rest a little longer."""
    waiting: int = 0
    """Drops that wait for a reason, in the inbox or claimed."""
    name_busy: int = 0
    held: int = 0
    """Claimed drops without a row."""
    database_away: bool = False
    failed: bool = False
    """It ended by an error, which the log tells."""

    @property
    def dry(self) -> bool:
        """Nothing was taken, and time alone will bring nothing more: what is left has a writer,
        a busy name, or an obstacle that somebody must remove."""
        return not self.claimed and not self.admitted and not self.settling


STANDING_BY: Final = ScanReport(standing_by=True)
FAILED: Final = ScanReport(failed=True)
