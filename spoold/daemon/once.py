"""`run --once`: when is there nothing left to do?"""

from collections.abc import Sequence

from spoold.intake.loop import Intake
from spoold.queue.job import Backlog, State

_BUSY = frozenset({State.QUEUED, State.RUNNING, State.PUBLISHING})


class Once:
    """Decides whether a run is done: no job is on its way, and a scan made after that was dry."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._idle_since_scan: int | None = None

    def is_done(self, backlog: Sequence[Backlog] | None) -> bool:
        """Given the unfinished jobs (None: not known), whether nothing more will come by itself."""
        if backlog is None or any(line.state in _BUSY for line in backlog):
            self._idle_since_scan = None
            return False
        scans = self._intake.metrics.scans
        if self._idle_since_scan is None:
            self._idle_since_scan = scans
        # The scan under way may have begun before the last job ended: the one after it counts.
        if scans < self._idle_since_scan + 2:
            self._intake.wake()
            return False
        return self._intake.report.dry
