"""The daemon's own status document, `spoold.daemon/1`: `status/.spoold.json`.

Pure. It is renewed every few seconds, signed each time, and says until when it counts: whoever sees
the folder, across a share too, can tell whether the daemon lives, what it does and what it lacks.
The name is none that a drop's status could have: those end in `.status.json`.
"""

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from spoold import __version__, canonical
from spoold.canonical import MAX_INTEGER, Document
from spoold.errors import Code
from spoold.status import Host, format_moment

TYPE: Final = "spoold.daemon/1"
NAME: Final = ".spoold.json"


class DaemonState(enum.StrEnum):
    """What the daemon does: take drops in, end its work, nothing any more."""

    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LastError:
    """A row of the table of errors that the daemon met, and when it last did."""

    code: str
    sentence: str
    at: datetime

    @classmethod
    def of(cls, code: Code, now: datetime) -> "LastError":
        """An error that is met now."""
        return cls(code.name, code.sentence, now)


@dataclass(frozen=True, slots=True)
class InboxStatus:
    """What the intake last saw: drops that wait by their reason, and what is no drop."""

    missing: bool
    waiting: Mapping[str, int]
    strays: int
    unfinished: int
    last_scan_at: datetime | None


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """The fields of the document; times are aware datetimes."""

    state: DaemonState
    spool: uuid.UUID
    pid: int
    started_at: datetime
    renewed_at: datetime
    expires_at: datetime
    mode: str | None
    inbox: InboxStatus
    backlog: Mapping[str, int] | None
    """Unfinished jobs by state; None while the database is away."""
    oldest_wait_seconds: int | None
    workers_alive: int
    workers_configured: int
    database_away_since: datetime | None
    last_error: LastError | None
    free_bytes: int

    def document(self, host: Host) -> Document:
        """The document without signatures."""
        away, error, inbox = self.database_away_since, self.last_error, self.inbox
        return {
            "type": TYPE,
            "state": self.state.value,
            "site": canonical.text(host.site),
            "host": canonical.text(host.host),
            "spool": str(self.spool),
            "pid": self.pid,
            "spoold": __version__,
            "started_at": format_moment(self.started_at),
            "renewed_at": format_moment(self.renewed_at),
            "expires_at": format_moment(self.expires_at),
            "mode": self.mode,
            "inbox": {
                "missing": inbox.missing,
                "waiting": {reason: count for reason, count in inbox.waiting.items() if count},
                "strays": inbox.strays,
                "unfinished": inbox.unfinished,
                "last_scan_at": format_moment(inbox.last_scan_at),
            },
            "backlog": None if self.backlog is None else dict(self.backlog),
            "oldest_wait_seconds": self.oldest_wait_seconds,
            "workers": {"alive": self.workers_alive, "configured": self.workers_configured},
            "database": {
                "state": "up" if away is None else "away",
                "since": format_moment(away),
            },
            "last_error": None
            if error is None
            else {"code": error.code, "sentence": error.sentence, "at": format_moment(error.at)},
            "free_bytes": min(self.free_bytes, MAX_INTEGER),
        }


def is_alive(document: Mapping[str, object], now: datetime) -> bool:
    """Whether a document speaks of a daemon that runs now."""
    try:
        expires_at = datetime.fromisoformat(str(document.get("expires_at")))
    except ValueError:
        return False
    live = {DaemonState.RUNNING.value, DaemonState.DRAINING.value}
    return document.get("state") in live and expires_at.tzinfo is not None and expires_at > now
