"""From the inbox into the queue, by the spool's one intake, in this order for each batch:

(a) the `queued` status with the new job id (replaced before (d) by a `scheduled` one where the
request has a `not_before` to come); (b) rename, no replace, to `claimed/<job id>.<name>`;
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

import structlog

from spoold import errors, points
from spoold.canonical import text
from spoold.errors import SpooldError
from spoold.intake.claimed import FULL, Claimed, is_copy, prepare, rejected_instead
from spoold.intake.complete import Wait
from spoold.intake.inbox import Found
from spoold.intake.look import GoneError, Looked, Memory, NoFileError
from spoold.intake.names import DROPS, NameKind, classify
from spoold.intake.request import Models
from spoold.intake.settings import FoundBy, IntakeMetrics, IntakeSettings, Method, Reason
from spoold.intake.statuses import Statuses
from spoold.queue.job import Admission, Answer, Verdict, new_job_id
from spoold.queue.store import Store
from spoold.spool import (
    Folder,
    Spool,
    rename_new,
    rename_unique,
    sync_file,
    sync_file_system,
    sync_folder,
)
from spoold.status import claimed_name, cut_name

_ADMIT_AT_ONCE = 100
_LOOK_UP_AT_ONCE = 1000
_FSYNC_EACH = 3  # up to so many files an fsync each is cheaper than a sync of the file system
_DONE = frozenset(
    {Verdict.ADMITTED, Verdict.ALREADY, Verdict.WAITS, Verdict.DUPLICATE, Verdict.KEY_REUSED}
)
_STRAY_PREFIX = b"stray-"

UNMOVABLE: Final = "it cannot be moved out of the inbox"
"""Begins the message of a drop that no rename gets out of the inbox."""

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


class _UnmovableError(Exception):
    """A drop that cannot be renamed, whatever the reason: it must not stop the others."""


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
            except _UnmovableError as error:
                message = f"{UNMOVABLE}: {error}"
                refused.append(Refused(candidate, Reason.UNREADABLE, message))
            except OSError as error:
                reason, message = _our_disk(error), errors.of_os_error(error).message
                if reason is None:
                    refused.append(Refused(candidate, Reason.DISK, message))
                    continue
                rest = candidates[position:]  # they would meet it too
                refused += [Refused(each, reason, message) for each in rest]
                break
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
        points.reached("admit.a")
        try:
            rename_unique(os.path.join(self._inbox, found.name), claimed.path)
        except FileNotFoundError:
            self._statuses.withdraw(found.name)
            return None
        except OSError as error:
            self._statuses.withdraw(found.name)
            if _our_disk(error) is not None:
                raise
            raise _UnmovableError(error.strerror) from error
        points.reached("admit.b")
        self._held[job_id] = claimed
        self._metrics.methods[candidate.method.value] += 1
        if memory.found_by is FoundBy.EVENT:
            self._metrics.found_by_event += 1
        else:
            self._metrics.found_by_scan += 1
        return claimed

    def _say_queued(self, claimed: Claimed) -> None:
        self._statuses.queued(
            claimed.drop, claimed.job_id, claimed.intake(), durable=_name_is_cut(claimed)
        )
        claimed.said_queued, claimed.reason = True, None

    def _say_scheduled(self, claimed: Claimed, when: datetime) -> None:
        self._statuses.scheduled(
            claimed.drop, claimed.job_id, claimed.intake(), when, durable=_name_is_cut(claimed)
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
        points.reached("admit.d")
        try:
            self._sync(ready)
        except OSError as error:
            reason = _our_disk(error) or Reason.DISK
            for claimed, _ in ready:
                self._hold(claimed, Wait(reason), errors.of_os_error(error).message)
            return 0
        points.reached("admit.e")
        admitted = 0
        for start in range(0, len(ready), _ADMIT_AT_ONCE):
            admitted += self._insert(ready[start : start + _ADMIT_AT_ONCE])
        return admitted

    def _prepare(self, claimed: Claimed, now: float) -> Admission | None:
        message = ""
        try:
            prepared = prepare(claimed, now, self._settings, self._models, leases=self.leases)
            if isinstance(prepared, Admission):
                if prepared.not_before is not None and prepared.not_before > datetime.now(UTC):
                    self._say_scheduled(claimed, prepared.not_before)
                elif not claimed.said_queued or claimed.reason is not None:
                    self._say_queued(claimed)
                return prepared
            reason, message = prepared.reason, prepared.message
        except (GoneError, FileNotFoundError):
            _log.warning("intake.claimed_gone", job=str(claimed.job_id), drop=text(claimed.drop))
            del self._held[claimed.job_id]
            self._statuses.withdraw(claimed.drop)
            return None
        except NoFileError:
            self._put_back(claimed)
            return None
        except OSError as error:
            reason = _our_disk(error) or Reason.UNREADABLE
            message = f"{error.strerror}"
        self._hold(claimed, Wait(reason), message)
        return None

    def _put_back(self, claimed: Claimed) -> None:
        """Let a FIFO, a folder or the like be the stray in the inbox that it would have been.

        It was swapped for the drop between the listing and the claim.
        """
        for name in (claimed.drop, b"%s%s" % (_STRAY_PREFIX, str(claimed.job_id).encode())):
            with suppress(FileExistsError):
                rename_new(claimed.path, os.path.join(self._inbox, name))
                break
        _log.warning("intake.no_file", job=str(claimed.job_id), drop=text(claimed.drop))
        del self._held[claimed.job_id]
        self._statuses.withdraw(claimed.drop)

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
        points.reached("admit.e.contents")
        for claimed, _ in ready:
            if claimed.copy is not None:
                os.rename(claimed.copy, claimed.path)
                claimed.copy = None
            points.reached("admit.e.named")
        sync_folder(os.fsdecode(self._claimed))
        sync_folder(os.fsdecode(self._inbox))

    def _insert(self, ready: Sequence[tuple[Claimed, Admission]]) -> int:
        for claimed, _ in ready:
            claimed.uncertain = True
        answers = self._store.admit([admission for _, admission in ready])
        points.reached("admit.f")
        again: list[tuple[Claimed, Admission]] = []
        admitted = 0
        for (claimed, admission), answer in zip(ready, answers, strict=True):
            claimed.uncertain = False
            if answer.verdict in _DONE:
                self._admitted(claimed, admission, answer)
                admitted += 1
            elif answer.verdict is Verdict.NAME_BUSY:
                claimed.said_queued = False  # the status is the other job's
            elif answer.verdict is Verdict.ELSEWHERE:
                self._renumber(claimed)
            else:
                message = f"the database refused it: {answer.message}"
                refusal = SpooldError(errors.DROP_REFUSED, message)
                if admission.error is not None:
                    _log.error("intake.refused", job=str(claimed.job_id), error=answer.message)
                    self._metrics.errors += 1
                else:
                    again.append((claimed, rejected_instead(admission, refusal)))
        return admitted + (self._insert(again) if again else 0)

    def _renumber(self, claimed: Claimed) -> None:
        """Give a drop an id of its own, in a spool that was copied beside its original.

        It is admitted at the next scan.
        """
        _log.warning("intake.renumbered", job=str(claimed.job_id), drop=text(claimed.drop))
        del self._held[claimed.job_id]
        claimed.job_id, before = new_job_id(), claimed.path
        claimed.path = os.path.join(self._claimed, claimed_name(claimed.job_id, claimed.drop))
        self._say_queued(claimed)
        rename_new(before, claimed.path)
        self._held[claimed.job_id] = claimed

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
        remove_copies = adopt_now and not self._held
        rowless: dict[uuid.UUID, bytes] = {}
        part: dict[uuid.UUID, bytes] = {}
        with os.scandir(self._claimed) as entries:  # of a burst there are 100,000
            for entry in entries:
                job_id = _job_id(entry.name)
                if job_id is None:
                    self._leave_or_remove(entry.name, remove_copies=remove_copies)
                elif job_id not in self._held:
                    part[job_id] = entry.name
                if len(part) >= _LOOK_UP_AT_ONCE:
                    rowless |= self._without_row(part)
                    part.clear()
        rowless |= self._without_row(part)
        for job_id in sorted(rowless):
            if adopt_now or job_id in self._rowless:
                self._adopt(job_id, rowless[job_id], now)
        self._rowless = set(rowless)

    def _without_row(self, part: Mapping[uuid.UUID, bytes]) -> dict[uuid.UUID, bytes]:
        rows = self._store.existing(list(part)) if part else {}
        return {job_id: name for job_id, name in part.items() if job_id not in rows}

    def _adopt(self, job_id: uuid.UUID, name: bytes, now: float) -> None:
        path = os.path.join(self._claimed, name)
        cut = name[37:]
        drop, found_by, method = cut, FoundBy.SCAN, Method.SETTLED
        told = self._statuses.told(cut, job_id)
        if told is not None:
            found_by, method = told.found_by, told.method
            if cut_name(told.drop) == cut:
                drop = told.drop
        kind, error = classify(drop, self._settings.handlers), None
        if kind is NameKind.FOREIGN and told is not None:
            error = SpooldError(errors.HANDLER_UNKNOWN, "no handler's pattern matches its name")
        elif kind not in DROPS:  # a cut name whose status was lost has no suffix any more
            kind = NameKind.REQUEST if drop.startswith(b"request-") else NameKind.BUNDLE
        claimed = Claimed(
            job_id, drop, kind, path, found_by, method, now, error=error, said_queued=False
        )
        self._held[job_id] = claimed
        points.reached("adopt")
        _log.info("intake.adopted", job=str(job_id), drop=text(drop))

    def _leave_or_remove(self, name: bytes, *, remove_copies: bool) -> None:
        if remove_copies and is_copy(name):
            os.unlink(os.path.join(self._claimed, name))
        elif not name.startswith(b".") and name not in self._odd:
            self._odd.add(name)
            _log.warning("intake.stray_claimed", name=text(name))


def _name_is_cut(claimed: Claimed) -> bool:
    return cut_name(claimed.drop) != claimed.drop


def _our_disk(error: OSError) -> Reason | None:
    """Why nothing at all can be taken, where that is what an error on our side means."""
    if error.errno in FULL:
        return Reason.SPACE
    return Reason.DISK if error.errno in {errno.EROFS, errno.EIO} else None


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
