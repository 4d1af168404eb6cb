"""`run --once`: when is there nothing left to do?"""

from spoold.intake.loop import Intake


class Once:
    """Decides whether a run is done: no job is on its way, and a scan made after that was dry."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._idle_since_scan: int | None = None

    def is_done(self, busy: bool | None) -> bool:
        """Given whether a job is on its way (None: not known), whether no more comes by itself."""
        if busy is not False:
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
