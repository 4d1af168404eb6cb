"""Being woken: NOTIFY says that there may be something to claim, or that a job was taken away.

A hint only. It is lost while the connection is away and behind a transaction pooler; who listens
polls all the same, and what a poll finds is the truth.
"""

import time
import uuid
from dataclasses import dataclass
from typing import Final

from spoold.postgres import connect, database_errors

_JOB: Final = "spoold_job"
_GONE: Final = "spoold_gone"


@dataclass(frozen=True, slots=True)
class Heard:
    """`jobs`: something may be claimed. `gone`: a job of this worker was taken away."""

    jobs: bool
    gone: bool


class Listener:
    """A connection of its own that listens for one spool, and for one worker's losses."""

    def __init__(self, conninfo: str, spool: uuid.UUID, worker: uuid.UUID | None = None) -> None:
        self._spool = str(spool)
        self._worker = str(worker) if worker else None
        self._connection = connect(conninfo, "spoold listen")
        with database_errors():
            self._connection.execute(f"listen {_JOB}")
            if worker:
                self._connection.execute(f"listen {_GONE}")

    def wait(self, timeout_seconds: float) -> Heard:
        """Wait for something that concerns us, at most so long. Raises database-away."""
        deadline = time.monotonic() + timeout_seconds
        jobs = gone = False
        with database_errors():
            while not (jobs or gone):
                left = deadline - time.monotonic()
                for notice in self._connection.notifies(timeout=max(0.0, left), stop_after=1):
                    jobs |= notice.channel == _JOB and notice.payload == self._spool
                    gone |= notice.channel == _GONE and notice.payload == self._worker
                if left <= 0:
                    break
        return Heard(jobs, gone)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
