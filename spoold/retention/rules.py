"""What the rules say: what is due when, and which bundles are too many. Pure.

What a job has put into `processed/` or `failed/` goes together. As soon as bundles have a rule of
their own, their files go by that alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from spoold.queue.tree_rows import Area, Bundle

_TOGETHER: Final = frozenset({Area.PROCESSED, Area.BUNDLES})


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """Ages in seconds, how many bundles, their bytes; 0: no limit."""

    processed: int = 0
    failed: int = 0
    status: int = 0
    restored: int = 0
    jobs: int = 0
    bundles: int = 0
    bundles_keep: int = 0
    bundles_bytes: int = 0

    @property
    def limits(self) -> "Limits":
        """How many bundles may stay, and how large they may be together."""
        return Limits(self.bundles_keep, self.bundles_bytes)

    @property
    def shortest_seconds(self) -> int:
        """The shortest age; 0 where there is none."""
        ages = (
            self.processed,
            self.failed,
            self.status,
            self.restored,
            self.jobs,
            self.bundles,
        )
        return min((age for age in ages if age), default=0)

    @property
    def anything(self) -> bool:
        """Whether anything is ever to be removed."""
        return self != RetentionSettings()


@dataclass(frozen=True, slots=True)
class Rule:
    """After so many seconds in `area`, what a job has in the areas `goes` is removed."""

    area: Area
    seconds: int
    goes: frozenset[Area]

    @property
    def names_results(self) -> bool:
        """Whether answers of other jobs may name what goes."""
        return self.area in {Area.PROCESSED, Area.BUNDLES, Area.RESTORED}


@dataclass(frozen=True, slots=True)
class Limits:
    """How many bundles there may be, and their bytes; an age in seconds. 0: no limit."""

    keep: int = 0
    max_bytes: int = 0
    older_than: int = 0


def rules_of(settings: RetentionSettings) -> list[Rule]:
    """The rules of age, in the order in which they are applied."""
    own = bool(settings.bundles or settings.bundles_keep or settings.bundles_bytes)
    if own:
        rules = [
            Rule(Area.PROCESSED, settings.processed, frozenset({Area.PROCESSED})),
            Rule(Area.BUNDLES, settings.bundles, frozenset({Area.BUNDLES})),
        ]
    else:
        rules = [
            Rule(Area.PROCESSED, settings.processed, _TOGETHER),
            # Those that a rule for bundles had left alone, before it was taken back.
            Rule(Area.BUNDLES, settings.processed, _TOGETHER),
        ]
    rules += [
        Rule(Area.FAILED, settings.failed, frozenset({Area.FAILED})),
        Rule(Area.RESTORED, settings.restored, frozenset({Area.RESTORED})),
        Rule(Area.STATUS, settings.status, frozenset({Area.STATUS})),
    ]
    return [rule for rule in rules if rule.seconds]


def beyond(newest_first: Iterable[Bundle], limits: Limits, now: datetime) -> Iterator[Bundle]:
    """The bundles that a limit leaves no place for.

    Pinned ones do not count. The newest is never too large.
    """
    count = total = 0
    oldest = now - timedelta(seconds=limits.older_than)
    for bundle in newest_first:
        if bundle.pinned:
            continue
        count += 1
        total += bundle.bytes
        too_many = bool(limits.keep) and count > limits.keep
        too_large = bool(limits.max_bytes) and total > limits.max_bytes and count > 1
        too_old = bool(limits.older_than) and bundle.created_at < oldest
        if too_many or too_large or too_old:
            yield bundle
