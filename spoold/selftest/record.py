"""What a self-test counts: what stale workers tried, what came of it, and what is wrong."""

import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field

from spoold.queue.job import Claim, Verb


@dataclass(slots=True)
class Fence:
    """What was tried, and what came of it."""

    jobs: int
    lease_seconds: float = 0.0
    seconds: float = 0.0
    claims: int = 0
    lost: int = 0
    """Claims that were taken back while their worker stalled."""
    tried: Counter[str] = field(default_factory=Counter)
    """Writes by a worker that had lost the job, by their verb."""
    accepted: Counter[str] = field(default_factory=Counter)
    """Of these, those that changed a row: there must be none."""
    renames_tried: int = 0
    """Renames out of the scratch folder of a claim that another one has followed."""
    renames_done: int = 0
    """Of these, those that moved something: there must be none."""
    results: int = 0
    """Jobs whose one result on disk is the one that their row records."""
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing stale came through, and enough was tried to say so."""
        return not self.problems


class Record:
    """A `Fence` that several workers write to."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self._lock = threading.Lock()
        self._begun: dict[uuid.UUID, int] = {}

    def claimed(self, claims: int) -> None:
        """So many jobs were claimed."""
        with self._lock:
            self._fence.claims += claims

    def begun(self, claim: Claim) -> None:
        """A claim has taken its first step: from now on all older scratch is gone."""
        with self._lock:
            self._begun[claim.id] = max(claim.epoch, self._begun.get(claim.id, 0))

    def followed(self, claim: Claim) -> bool:
        """Whether a newer claim of that job has begun."""
        return self._begun.get(claim.id, 0) > claim.epoch

    def lost(self) -> None:
        """A claim turned out to be somebody else's."""
        with self._lock:
            self._fence.lost += 1

    def wrote(self, verb: Verb, *, accepted: bool) -> None:
        """A stale write was tried."""
        with self._lock:
            self._fence.tried[verb.value] += 1
            self._fence.accepted[verb.value] += accepted

    def renamed(self, *, done: bool) -> None:
        """A stale rename was tried."""
        with self._lock:
            self._fence.renames_tried += 1
            self._fence.renames_done += done

    def problem(self, what: str) -> None:
        """Something is wrong."""
        with self._lock:
            self._fence.problems.append(what)
