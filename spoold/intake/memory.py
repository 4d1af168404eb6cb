"""What is remembered of drops that were not taken yet, from scan to scan."""

from collections.abc import Callable
from dataclasses import dataclass

from spoold.intake.complete import Fingerprint, Wait
from spoold.intake.settings import FoundBy
from spoold.intake.watch import Hint


@dataclass(slots=True)
class Memory:
    """What is remembered from scan to scan of a drop that was not taken yet; monotonic seconds."""

    found_by: FoundBy
    moved: bool
    first_seen: float
    unchanged_since: float
    fingerprint: Fingerprint | None = None
    unproven: Fingerprint | None = None
    """The fingerprint under which the content was read and did not prove itself."""
    told: Wait | None = None
    """What the status file says, where intake has written one."""
    owner: int = -1
    """The user id that the file belongs to."""
    again_at: float = 0.0
    """When it is tried again to claim it, where it cannot be moved."""
    seen_in: int = 0
    """The number of the last scan that has seen it."""


class Memories:
    """The memories of one inbox; what a status says of a drop that is forgotten is withdrawn."""

    def __init__(self, withdraw: Callable[[bytes], None]) -> None:
        self._withdraw = withdraw
        self._of: dict[bytes, Memory] = {}
        self._scan = 0

    def begin_scan(self) -> None:
        """From here on a drop counts as vanished until it is seen again."""
        self._scan += 1

    def known(self, name: bytes) -> Memory | None:
        """What is remembered of a drop."""
        return self._of.get(name)

    def see(self, name: bytes, hint: Hint | None, now: float) -> Memory:
        """What is remembered of a drop that is there; a new one is only remembered if kept."""
        memory = self._of.get(name)
        if memory is None:
            found_by = FoundBy.SCAN if hint is None else FoundBy.EVENT
            memory = Memory(found_by, hint is Hint.MOVED, first_seen=now, unchanged_since=now)
        elif hint is not None:
            memory.moved = hint is Hint.MOVED
        memory.seen_in = self._scan
        return memory

    def keep(self, name: bytes, memory: Memory) -> None:
        """Remember a drop that stays in the inbox."""
        self._of[name] = memory

    def pop(self, name: bytes) -> None:
        """Forget a drop that was taken."""
        self._of.pop(name, None)

    def forget(self, name: bytes, memory: Memory) -> None:
        """Forget a drop that is gone, and what was said of it."""
        self.pop(name)
        if memory.told is not None:
            self._withdraw(name)

    def forget_vanished(self) -> None:
        """Forget those that this scan has not seen, once it has come to its end."""
        vanished = [
            (name, memory) for name, memory in self._of.items() if memory.seen_in != self._scan
        ]
        for name, memory in vanished:
            self.forget(name, memory)

    def clear(self) -> None:
        """Forget all of them; what was said stays."""
        self._of.clear()
