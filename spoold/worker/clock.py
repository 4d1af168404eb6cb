"""For how long the clocks have run unbroken: while they did, a silent worker was seen to be. Pure.

While the machine slept, or its clock was turned, workers were as alive as before; by the database's
clock they have been silent for all of it.
"""

from typing import Final

_JUMP_SECONDS: Final = 2.0


class Unbroken:
    """Compares the wall clock and CLOCK_MONOTONIC, which does not go on in a sleep."""

    def __init__(self, wall: float, steady: float) -> None:
        self._wall, self._steady = wall, steady
        self._since = steady

    def seconds(self, wall: float, steady: float) -> float:
        """How long since the last jump of one against the other, by the steady one."""
        if abs((wall - self._wall) - (steady - self._steady)) > _JUMP_SECONDS:
            self._since = steady
        self._wall, self._steady = wall, steady
        return steady - self._since
