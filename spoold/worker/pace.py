"""How many jobs to claim at once: as many as a worker does in a quarter of a second. Pure."""

from dataclasses import dataclass
from typing import Final

_AHEAD_SECONDS: Final = 0.25
_MOST: Final = 50
_WEIGHT: Final = 0.2  # of the latest attempt in the average


@dataclass(slots=True)
class Pace:
    """A moving average of how long attempts take. It begins with jobs that are claimed alone."""

    seconds: float = _AHEAD_SECONDS

    def took(self, seconds: float) -> None:
        """Take note of an attempt."""
        self.seconds += _WEIGHT * (seconds - self.seconds)

    def claim_at_once(self) -> int:
        """How many jobs to claim now, 1 to 50."""
        return max(1, min(_MOST, int(_AHEAD_SECONDS / max(self.seconds, 1e-6))))
