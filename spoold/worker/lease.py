"""How long a worker may act where no row and no rename guards it. Pure.

Others take its jobs when its row was not renewed for a whole lease, on the database's clock. It
counts for itself from before the renewing query, on a clock that goes on while the machine sleeps,
and stops at two thirds: what is left is for stopping.
"""

from dataclasses import dataclass
from typing import Final

_SAFE_SHARE: Final = 2 / 3


@dataclass(slots=True)
class Lease:
    """A lease of so many seconds; moments are seconds on CLOCK_BOOTTIME."""

    seconds: float
    renewed_at: float

    def renewed(self, asked_at: float) -> None:
        """Take note of a renewal that was asked for then, and has been answered."""
        self.renewed_at = max(self.renewed_at, asked_at)

    def safe(self, now: float) -> bool:
        """Whether nobody can have taken the worker's jobs, nor is about to."""
        return now - self.renewed_at <= self.seconds * _SAFE_SHARE
