"""Steps (a) and (b) of `admit`: drops are claimed, out of the inbox and into `claimed/`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spoold import points
from spoold.disk import rename_unique
from spoold.intake.claimed import Claimed
from spoold.intake.complete import Wait
from spoold.intake.inbox import Found
from spoold.intake.look import Looked
from spoold.intake.memory import Memory
from spoold.intake.obstacle import UNMOVABLE, held_by, our_disk
from spoold.intake.settings import FoundBy, IntakeMetrics, Method, Reason
from spoold.intake.statuses import Statuses
from spoold.queue.job import new_job_id
from spoold.spool import Folder, Spool
from spoold.status import claimed_name


@dataclass(frozen=True, slots=True)
class Candidate:
    """A drop in the inbox that is complete."""

    found: Found
    memory: Memory
    looked: Looked
    method: Method


@dataclass(frozen=True, slots=True)
class Refused:
    """A drop that could not be claimed, and stays in the inbox."""

    candidate: Candidate
    wait: Wait


class Claimer:
    """Takes drops out of the inbox; whoever is to `hold` them is given each at once."""

    def __init__(
        self,
        spool: Spool,
        statuses: Statuses,
        metrics: IntakeMetrics,
        hold: Callable[[Claimed], None],
    ) -> None:
        self._inbox = os.fsencode(spool.folder(Folder.INBOX))
        self._claimed = os.fsencode(spool.folder(Folder.CLAIMED))
        self._statuses = statuses
        self._metrics = metrics
        self._hold = hold

    def claim(self, candidates: Sequence[Candidate]) -> tuple[list[Claimed], list[Refused]]:
        """Claim drops; those that cannot be taken stay in the inbox."""
        taken: list[Claimed] = []
        refused: list[Refused] = []
        for position, candidate in enumerate(candidates):
            try:
                claimed = self._claim(candidate)
            except OSError as error:
                wait = held_by(error)
                if our_disk(error) is not None:  # the rest would meet it too
                    refused += [Refused(each, wait) for each in candidates[position:]]
                    break
                refused.append(Refused(candidate, wait))
            else:
                if isinstance(claimed, Wait):
                    refused.append(Refused(candidate, claimed))
                elif claimed is not None:
                    taken.append(claimed)
        return taken, refused

    def _claim(self, candidate: Candidate) -> Claimed | Wait | None:
        """Claim a drop; None where it is gone. Raises OSError."""
        found, memory, looked = candidate.found, candidate.memory, candidate.looked
        job_id = new_job_id()
        claimed = Claimed(
            job_id,
            found.name,
            found.kind,
            os.path.join(self._claimed, claimed_name(job_id, found.name)),
            memory.found_by,
            candidate.method,
            memory.unchanged_since,
            fingerprint=memory.fingerprint,
            reading=looked.reading,
        )
        self._statuses.queued(claimed)
        points.reached("admit.a")
        try:
            rename_unique(os.path.join(self._inbox, found.name), claimed.path)
        except FileNotFoundError:
            self._statuses.withdraw(found.name)
            return None
        except OSError as error:
            self._statuses.withdraw(found.name)
            if our_disk(error) is not None:
                raise
            # Whatever the reason, it must not stop the others.
            return Wait(Reason.UNREADABLE, f"{UNMOVABLE}: {error.strerror}")
        self._hold(claimed)
        points.reached("admit.b")
        self._metrics.methods[candidate.method.value] += 1
        if memory.found_by is FoundBy.EVENT:
            self._metrics.found_by_event += 1
        else:
            self._metrics.found_by_scan += 1
        return claimed
