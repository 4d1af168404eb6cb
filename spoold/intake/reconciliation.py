"""`claimed/` compared with the queue: which files there have no row, and what drop each one is.

Guarantees: a file is only ever looked at, but for a copy that never came to replace its drop: that
is removed where nobody can be at work on it.
"""

import os
import uuid
from collections.abc import Collection, Mapping

import structlog

from spoold.canonical import text
from spoold.file_lock import alone, is_in_use
from spoold.handlers import Handlers
from spoold.intake.claimed import Claimed
from spoold.intake.names import DROPS, NameKind, classify
from spoold.intake.own_copy import is_copy
from spoold.intake.settings import FoundBy, Method
from spoold.intake.statuses import Statuses
from spoold.queue.store import Store
from spoold.status import cut_name, parse_claimed_name

LOOK_UP_AT_ONCE = 1000

_log = structlog.get_logger()


class Reconciler:
    """Compares for the spool's one intake, and warns of each stray once. Belongs to one thread."""

    def __init__(
        self, claimed: bytes, store: Store, statuses: Statuses, handlers: Handlers
    ) -> None:
        self._claimed = claimed
        self._store = store
        self._statuses = statuses
        self._handlers = handlers
        self._odd: set[bytes] = set()

    def rowless(self, held: Collection[uuid.UUID], now: float) -> list[Claimed] | None:
        """Drops in `claimed/` that have no row and are not `held` already, in order of their ids.

        Besides intake, commands put files there and insert a row at once (a retried job's copy),
        and share the folder while they do. Then the answer is None; else what has no row is
        nobody's. Raises database-away and OSError.
        """
        with alone(self._claimed) as nobody_else:
            if not nobody_else:
                return None
            found = self._find(held)
        # A job may have ended, and its row been pruned, since its drop was listed.
        there = [job_id for job_id in sorted(found) if self._is_there(found[job_id])]
        return [self._drop(job_id, found[job_id], now) for job_id in there]

    def _is_there(self, name: bytes) -> bool:
        return os.path.lexists(os.path.join(self._claimed, name))

    def _find(self, held: Collection[uuid.UUID]) -> dict[uuid.UUID, bytes]:
        found: dict[uuid.UUID, bytes] = {}
        part: dict[uuid.UUID, bytes] = {}
        with os.scandir(self._claimed) as entries:  # of a burst there are 100,000
            for entry in entries:
                parsed = parse_claimed_name(entry.name)
                if parsed is None:
                    self._leave_or_remove(entry.name, remove_copies=not held)
                elif parsed[0] not in held:
                    part[parsed[0]] = entry.name
                if len(part) >= LOOK_UP_AT_ONCE:
                    found |= self._without_row(part)
                    part.clear()
        return found | self._without_row(part)

    def _without_row(self, part: Mapping[uuid.UUID, bytes]) -> dict[uuid.UUID, bytes]:
        rows = self._store.existing(list(part)) if part else {}
        return {job_id: name for job_id, name in part.items() if job_id not in rows}

    def _drop(self, job_id: uuid.UUID, name: bytes, now: float) -> Claimed:
        """What was claimed under a name that may be cut, as far as its status still tells."""
        _, _, cut = name.partition(b".")
        drop, found_by, method = cut, FoundBy.SCAN, Method.SETTLED
        told = self._statuses.told(cut, job_id)
        if told is not None:
            found_by, method = told.found_by, told.method
            if cut_name(told.drop) == cut:
                drop = told.drop
        kind = classify(drop, self._handlers)
        if kind is NameKind.FOREIGN and told is not None:  # its handler has gone since the claim
            kind = NameKind.HANDLED
        elif kind not in DROPS:  # a cut name whose status was lost has no suffix any more
            kind = NameKind.REQUEST if drop.startswith(b"request-") else NameKind.BUNDLE
        path = os.path.join(self._claimed, name)
        return Claimed(job_id, drop, kind, path, found_by, method, now, has_status=False)

    def _leave_or_remove(self, name: bytes, *, remove_copies: bool) -> None:
        path = os.path.join(self._claimed, name)
        if is_copy(name):
            if remove_copies and not is_in_use(path):
                os.unlink(path)
        elif not name.startswith(b".") and name not in self._odd:
            self._odd.add(name)
            _log.warning("intake.stray_claimed", name=text(name))
