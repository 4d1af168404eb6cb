"""From the inbox into the queue, by the spool's one intake, in this order for each batch:

(a) the `queued` status with the new job id; (b) rename, no replace, to `claimed/<job id>.<name>`;
(c) writer check again; (d) a request is read once, checked, and put on an inode of our own;
(e) contents, then folders are synced; (f) one transaction inserts the rows.

Guarantees: after (f) nothing here writes a status of these jobs; no drop has two rows; a drop that
has no row yet is in the inbox or in `claimed/`, under the id of the row it will have.
Not guaranteed: that a drop whose owner removes it while it is claimed leaves a trace.
Crash: before (b) a `queued` status of a job that never was, replaced with the next drop of that
name. After it, `reconcile` finds the file without a row and goes through (c)-(f) under its id. The
name of a claimed file is cut above 200 bytes: the true one is then in its `queued` status, which is
fsynced before the rename. Were that lost, the cut name would be the drop's name.
"""

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from spoold import errors
from spoold.canonical import text
from spoold.errors import SpooldError
from spoold.intake.claimed import FULL, Claimed, is_copy, prepare, rejected_instead
from spoold.intake.complete import Wait
from spoold.intake.inbox import Found
from spoold.intake.look import GoneError, Looked, Memory
from spoold.intake.names import DROPS, NameKind, classify
from spoold.intake.request import Models
from spoold.intake.settings import FoundBy, IntakeMetrics, IntakeSettings, Method, Reason
from spoold.intake.statuses import Statuses
from spoold.queue.job import Admission, Answer, Verdict, new_job_id
from spoold.queue.store import Store
from spoold.spool import Folder, Spool, rename_new, sync_file, sync_file_system, sync_folder
from spoold.status import claimed_name, cut_name

_ADMIT_AT_ONCE = 100
_LOOK_UP_AT_ONCE = 1000
_FSYNC_EACH = 3  # up to so many files an fsync each is cheaper than a sync of the file system
_DONE = frozenset(
    {Verdict.ADMITTED, Verdict.ALREADY, Verdict.WAITS, Verdict.DUPLICATE, Verdict.KEY_REUSED}
)
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

_log = structlog.get_logger()
_Item = TypeVar("_Item")


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
    reason: Reason
    message: str


class Admitter:
    """Claims drops, and sees each claimed one through to its row. Belongs to one thread."""

    def __init__(
        self,
        spool: Spool,
        store: Store,
        statuses: Statuses,
        settings: IntakeSettings,
        models: Models,
        metrics: IntakeMetrics,
    ) -> None:
        self._inbox = os.fsencode(spool.folder(Folder.INBOX))
        self._claimed = os.fsencode(spool.folder(Folder.CLAIMED))
        self._store = store
        self._statuses = statuses
        self._settings = settings
        self._models = models
        self._metrics = metrics
        self.leases = False
        """Whether the kernel knows of every writer."""
        self._held: dict[uuid.UUID, Claimed] = {}
        self._rowless: set[uuid.UUID] = set()
        self._odd: set[bytes] = set()

    def held_names(self) -> set[bytes]:
        """Names of claimed drops that have no row yet: as busy as those of unfinished jobs."""
        return {claimed.drop for claimed in self._held.values()}

    def held(self) -> list[Claimed]:
        """Claimed drops that have no row yet."""
        return list(self._held.values())

    # --- (a) and (b) ----------------------------------------------------------------------------

    def claim(
        self, candidates: Sequence[Candidate], now: float
    ) -> tuple[list[Claimed], list[Refused]]:
        """Take drops out of the inbox; those that cannot be taken stay there."""
        taken: list[Claimed] = []
        refused: list[Refused] = []
        for position, candidate in enumerate(candidates):
            try:
                claimed = self._claim(candidate, now)
            except OSError as error:
                if error.errno in FULL:
                    rest = candidates[position:]
                    refused += [Refused(each, Reason.SPACE, str(error.strerror)) for each in rest]
                    break
                if error.errno not in _FORBIDDEN:
                    raise
                message = f"it cannot be moved out of the inbox: {error.strerror}"
                refused.append(Refused(candidate, Reason.UNREADABLE, message))
            else:
                if claimed is not None:
                    taken.append(claimed)
        return taken, refused

    def _claim(self, candidate: Candidate, now: float) -> Claimed | None:
        found, memory = candidate.found, candidate.memory
        job_id = new_job_id()
        name = claimed_name(job_id, found.name)
        claimed = Claimed(
            job_id,
            found.name,
            found.kind,
            os.path.join(self._claimed, name),
            memory.found_by,
            candidate.method,
            memory.unchanged_since,
            fingerprint=memory.fingerprint,
            reading=candidate.looked.reading,
            error=candidate.looked.error,
        )
        self._say_queued(claimed)
        try:
            rename_new(os.path.join(self._inbox, found.name), claimed.path)
        except FileNotFoundError:
            self._statuses.withdraw(found.name)
            return None
        except OSError:
            self._statuses.withdraw(found.name)
            raise
        self._held[job_id] = claimed
        if memory.found_by is FoundBy.EVENT:
            self._metrics.found_by_event += 1
        else:
            self._metrics.found_by_scan += 1
        return claimed

    def _say_queued(self, claimed: Claimed) -> None:
        self._statuses.queued(
            claimed.drop,
            claimed.job_id,
            claimed.intake(),
            durable=cut_name(claimed.drop) != claimed.drop,
        )
        claimed.said_queued, claimed.reason = True, None

    # --- (c) to (f) -----------------------------------------------------------------------------

    def admit(self, batch: Sequence[Claimed], now: float) -> int:
        """Bring claimed drops to their rows; returns how many got one, the others stay held.

        Raises database-away.
        """
        ready: list[tuple[Claimed, Admission]] = []
        for claimed in batch:
            admission = self._prepare(claimed, now)
            if admission is not None:
                ready.append((claimed, admission))
        if not ready:
            return 0
        self._sync(ready)
        admitted = 0
        for start in range(0, len(ready), _ADMIT_AT_ONCE):
            admitted += self._insert(ready[start : start + _ADMIT_AT_ONCE])
        return admitted

    def _prepare(self, claimed: Claimed, now: float) -> Admission | None:
        message = ""
        try:
            prepared = prepare(claimed, now, self._settings, self._models, leases=self.leases)
            if isinstance(prepared, Admission):
                if not claimed.said_queued or claimed.reason is not None:
                    self._say_queued(claimed)
                return prepared
            reason = prepared.reason
        except (GoneError, FileNotFoundError):
            _log.warning("intake.claimed_gone", job=str(claimed.job_id), drop=text(claimed.drop))
            del self._held[claimed.job_id]
            self._statuses.withdraw(claimed.drop)
            return None
        except OSError as error:
            reason = Reason.SPACE if error.errno in FULL else Reason.UNREADABLE
            message = f"{error.strerror}"
        self._hold(claimed, Wait(reason), message)
        return None

    def _hold(self, claimed: Claimed, wait: Wait, message: str) -> None:
        if claimed.reason is wait.reason and claimed.said_queued:
            return
        try:
            self._statuses.waiting(
                claimed.drop,
                wait.reason,
                message=message,
                job_id=claimed.job_id,
                intake=claimed.intake(),
            )
        except OSError:
            return  # said at the next scan
        claimed.reason, claimed.said_queued = wait.reason, True

    def _sync(self, ready: Sequence[tuple[Claimed, Admission]]) -> None:
        """Make contents durable, then names: a copy replaces its drop only when it is on disk."""
        if len(ready) > _FSYNC_EACH:
            sync_file_system(os.fsdecode(self._claimed))
        else:
            for claimed, admission in ready:
                if admission.error is None or claimed.copy is not None:
                    sync_file(os.fsdecode(claimed.copy or claimed.path))
        for claimed, _ in ready:
            if claimed.copy is not None:
                os.rename(claimed.copy, claimed.path)
                claimed.copy = None
        sync_folder(os.fsdecode(self._claimed))
        sync_folder(os.fsdecode(self._inbox))

    def _insert(self, ready: Sequence[tuple[Claimed, Admission]]) -> int:
        for claimed, _ in ready:
            claimed.uncertain = True
        answers = self._store.admit([admission for _, admission in ready])
        again: list[tuple[Claimed, Admission]] = []
        admitted = 0
        for (claimed, admission), answer in zip(ready, answers, strict=True):
            claimed.uncertain = False
            if answer.verdict in _DONE:
                self._admitted(claimed, admission, answer)
                admitted += 1
            elif answer.verdict is Verdict.NAME_BUSY:
                claimed.said_queued = False  # the status is the other job's
            else:
                message = f"the database refused it: {answer.message}"
                refusal = SpooldError(errors.DROP_REFUSED, message)
                if admission.error is not None:
                    _log.error("intake.refused", job=str(claimed.job_id), error=answer.message)
                    self._metrics.errors += 1
                else:
                    again.append((claimed, rejected_instead(admission, refusal)))
        return admitted + (self._insert(again) if again else 0)

    def _admitted(self, claimed: Claimed, admission: Admission, answer: Answer) -> None:
        del self._held[claimed.job_id]
        self._metrics.admitted += 1
        if admission.error is not None:
            self._metrics.refused += 1
        # One of thousands: its name is only made fit for people where that is not free.
        drop = claimed.drop.decode("ascii", "backslashreplace")
        verdict = answer.verdict.value
        _log.debug("intake.admitted", job=str(claimed.job_id), drop=drop, verdict=verdict)

    # --- what was left --------------------------------------------------------------------------

    def retry(self, now: float) -> int:
        """Ask again for every claimed drop that has no row yet; returns how many got one.

        Raises database-away.
        """
        if not self._held:
            return 0
        uncertain = [claimed for claimed in self._held.values() if claimed.uncertain]
        for part in _parts(uncertain, _LOOK_UP_AT_ONCE):
            rows = self._store.existing([claimed.job_id for claimed in part])
            for claimed in part:
                claimed.uncertain = False
                if claimed.job_id in rows:
                    del self._held[claimed.job_id]
        admitted = 0
        for part in _parts(list(self._held.values()), self._settings.batch_size):
            busy = self._store.busy_names([claimed.drop for claimed in part])
            for claimed in part:
                if claimed.drop in busy:
                    claimed.said_queued = False
            admitted += self.admit([each for each in part if each.drop not in busy], now)
        return admitted

    def reconcile(self, now: float, *, adopt_now: bool) -> None:
        """Find files in `claimed/` that have no row, and hold them for `retry`.

        Others put files there before they insert a row (a retried job's copy): unless `adopt_now`,
        one is adopted only when two calls have found it. Raises database-away and OSError.
        """
        listed: dict[uuid.UUID, bytes] = {}
        for name in os.listdir(self._claimed):
            job_id = _job_id(name)
            if job_id is None:
                self._leave_or_remove(name, remove_copies=adopt_now and not self._held)
            elif job_id not in self._held:
                listed[job_id] = name
        rowless: set[uuid.UUID] = set()
        for part in _parts(list(listed), _LOOK_UP_AT_ONCE):
            rowless.update(set(part) - self._store.existing(part).keys())
        for job_id in sorted(rowless):
            if adopt_now or job_id in self._rowless:
                self._adopt(job_id, listed[job_id], now)
        self._rowless = rowless

    def _adopt(self, job_id: uuid.UUID, name: bytes, now: float) -> None:
        path = os.path.join(self._claimed, name)
        cut = name[37:]
        drop, found_by, method = cut, FoundBy.SCAN, Method.SETTLED
        told = self._statuses.told(cut, job_id)
        if told is not None:
            found_by, method = told.found_by, told.method
            if cut_name(told.drop) == cut:
                drop = told.drop
        kind = classify(drop)
        if kind not in DROPS:  # a cut name whose status was lost has no suffix any more
            kind = NameKind.REQUEST if drop.startswith(b"request-") else NameKind.BUNDLE
        claimed = Claimed(job_id, drop, kind, path, found_by, method, now, said_queued=False)
        if os.path.islink(path):
            claimed.error = SpooldError(errors.DROP_SYMLINK)
        self._held[job_id] = claimed
        _log.info("intake.adopted", job=str(job_id), drop=text(drop))

    def _leave_or_remove(self, name: bytes, *, remove_copies: bool) -> None:
        if remove_copies and is_copy(name):
            os.unlink(os.path.join(self._claimed, name))
        elif not name.startswith(b".") and name not in self._odd:
            self._odd.add(name)
            _log.warning("intake.stray_claimed", name=text(name))


def _job_id(name: bytes) -> uuid.UUID | None:
    """The id in `<job id>.<name>`."""
    if len(name) < 38 or name[36:37] != b".":
        return None
    try:
        return uuid.UUID(name[:36].decode("ascii"))
    except ValueError:
        return None


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
