"""How many drops may be taken in a minute: in all, and of each owner.

Token buckets. One holds a minute's worth: who has been quiet may drop so many at once, and whoever
goes on is held to the pace. Pure: the time is given, on a monotonic clock, since clocks jump.

Not guaranteed: a pace across restarts; a daemon begins with full buckets.
"""

from dataclasses import dataclass
from typing import Final

_MINUTE_SECONDS: Final = 60.0
_MAX_OWNERS: Final = 1000


@dataclass(slots=True)
class Bucket:
    """So many tokens now; refilled at an even pace, up to a minute's worth."""

    per_minute: int
    tokens: float
    at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> "Bucket":
        """A bucket that nothing was taken from."""
        return cls(per_minute, float(per_minute), now)

    def lacks(self, now: float) -> float:
        """The seconds until there is a token; 0 where there is one."""
        refilled = self.tokens + (now - self.at) * self.per_minute / _MINUTE_SECONDS
        self.tokens, self.at = min(float(self.per_minute), refilled), now
        # A hair less than one is one: waiting for it in floating point may never end.
        missing = 1.0 - self.tokens
        return missing * _MINUTE_SECONDS / self.per_minute if missing > 1e-9 else 0.0

    def take(self) -> None:
        """Take a token that is there."""
        self.tokens -= 1.0

    def give_back(self) -> None:
        """Put one back that was taken a moment ago."""
        self.tokens += 1.0

    @property
    def is_full(self) -> bool:
        """Whether it is as good as a new one."""
        return self.tokens >= self.per_minute


class Rate:
    """The limits of one inbox; 0 is no limit."""

    def __init__(self, per_minute: int, per_minute_per_owner: int, now: float) -> None:
        self._per_owner = per_minute_per_owner
        self._all = Bucket.full(per_minute, now) if per_minute else None
        self._owners: dict[int, Bucket] = {}

    def lacks(self, owner: int, now: float) -> float:
        """In how many seconds a drop of this user id may be taken; 0: now."""
        return max((bucket.lacks(now) for bucket in self._buckets(owner, now)), default=0.0)

    def take(self, owner: int, now: float) -> float:
        """The same; where it is 0 the drop counts as taken."""
        seconds = self.lacks(owner, now)
        if not seconds:
            for bucket in self._buckets(owner, now):
                bucket.take()
        return seconds

    def give_back(self, owner: int, now: float) -> None:
        """A drop that counted as taken was not taken after all."""
        for bucket in self._buckets(owner, now):
            bucket.give_back()

    def _buckets(self, owner: int, now: float) -> list[Bucket]:
        buckets = [] if self._all is None else [self._all]
        if self._per_owner:
            if owner not in self._owners and len(self._owners) >= _MAX_OWNERS:
                self._forget_quiet(now)
            if owner not in self._owners:
                self._owners[owner] = Bucket.full(self._per_owner, now)
            buckets.append(self._owners[owner])
        return buckets

    def _forget_quiet(self, now: float) -> None:
        for bucket in self._owners.values():
            bucket.lacks(now)
        self._owners = {
            owner: bucket for owner, bucket in self._owners.items() if not bucket.is_full
        }
