"""From the inbox into the queue, by the spool's one intake, in this order for each batch
(`claim` has the first two steps):

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

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from spoold import errors, points
from spoold.canonical import error_document, text
from spoold.disk import rename_new, sync_file, sync_file_system, sync_folder
from spoold.errors import SpooldError
from spoold.intake.claimed import Claimed, prepare
from spoold.intake.complete import Wait
from spoold.intake.look import GoneError, NoFileError
from spoold.intake.obstacle import held_by
from spoold.intake.reconciliation import LOOK_UP_AT_ONCE, Reconciler
from spoold.intake.request import Models
from spoold.intake.settings import IntakeMetrics, IntakeSettings
from spoold.intake.statuses import Statuses
from spoold.queue.answers import Answer, Verdict
from spoold.queue.job import Admission, new_job_id
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import claimed_name

_ADMIT_AT_ONCE = 100
_FSYNC_EACH = 3  # up to so many files an fsync each is cheaper than a sync of the file system
_DONE = frozenset(
    {Verdict.ADMITTED, Verdict.ALREADY, Verdict.WAITS, Verdict.DUPLICATE, Verdict.KEY_REUSED}
)
_STRAY_PREFIX = b"stray-"

_log = structlog.get_logger()
_Item = TypeVar("_Item")


class Admitter:
    """Sees each claimed drop through to its row. Belongs to one thread."""

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
        self._reconciler = Reconciler(self._claimed, store, statuses, settings.handlers)
        self._settings = settings
        self._models = models
        self._metrics = metrics
        self.leases = False
        """Whether the kernel knows of every writer."""
        self._held: dict[uuid.UUID, Claimed] = {}

    def held_names(self) -> set[bytes]:
        """Names of claimed drops that have no row yet: as busy as those of unfinished jobs."""
        return {claimed.drop for claimed in self._held.values()}

    def held(self) -> list[Claimed]:
        """Claimed drops that have no row yet."""
        return list(self._held.values())

    def hold(self, claimed: Claimed) -> None:
        """See to a claimed drop until it has its row."""
        self._held[claimed.job_id] = claimed

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
            wait = held_by(error)
            for claimed, _ in ready:
                self._say_waiting(claimed, wait)
            return 0
        points.reached("admit.e")
        admitted = 0
        for part in _parts(ready, _ADMIT_AT_ONCE):
            admitted += self._insert(part)
        return admitted

    def _prepare(self, claimed: Claimed, now: float) -> Admission | None:
        prepared: Admission | Wait | None
        try:
            prepared = self._judge(claimed, now)
        except OSError as error:
            prepared = held_by(error)
        if isinstance(prepared, Wait):
            self._say_waiting(claimed, prepared)
            return None
        return prepared

    def _judge(self, claimed: Claimed, now: float) -> Admission | Wait | None:
        """Prepare what is there; None where that is no drop any more. Raises OSError."""
        try:
            prepared = prepare(claimed, now, self._settings, self._models, leases=self.leases)
        except (GoneError, FileNotFoundError):
            _log.warning("intake.claimed_gone", job=str(claimed.job_id), drop=text(claimed.drop))
            self._give_up(claimed)
            return None
        except NoFileError:
            self._put_back(claimed)
            return None
        if isinstance(prepared, Admission):
            self._say_on_its_way(claimed, prepared)
        return prepared

    def _say_on_its_way(self, claimed: Claimed, admission: Admission) -> None:
        """Say so where its status file does not yet. Raises OSError."""
        due = admission.not_before
        if due is not None and due > datetime.now(UTC):
            self._say_queued(claimed, due)
        elif not claimed.has_status or claimed.told is not None:
            self._say_queued(claimed)

    def _say_queued(self, claimed: Claimed, due: datetime | None = None) -> None:
        self._statuses.queued(claimed, due)
        claimed.told, claimed.has_status = None, True

    def _put_back(self, claimed: Claimed) -> None:
        """Let a FIFO, a folder or the like be the stray in the inbox that it would have been.

        It was swapped for the drop between the listing and the claim. Raises OSError.
        """
        for name in (claimed.drop, b"%s%s" % (_STRAY_PREFIX, str(claimed.job_id).encode())):
            with suppress(FileExistsError):
                rename_new(claimed.path, os.path.join(self._inbox, name))
                break
        _log.warning("intake.no_file", job=str(claimed.job_id), drop=text(claimed.drop))
        self._give_up(claimed)

    def _give_up(self, claimed: Claimed) -> None:
        """Have no more to do with what is not in `claimed/` any more."""
        del self._held[claimed.job_id]
        self._statuses.withdraw(claimed.drop)

    def _say_waiting(self, claimed: Claimed, wait: Wait) -> None:
        if claimed.told == wait and claimed.has_status:
            return
        try:
            self._statuses.waiting(claimed.drop, wait, claimed.job_id, claimed.intake())
        except OSError:
            return  # said at the next scan
        claimed.told, claimed.has_status = wait, True

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
                claimed.has_status = False  # the status is the other job's
            elif answer.verdict is Verdict.ELSEWHERE:
                self._renumber(claimed)
            else:
                message = f"the database refused it: {answer.message}"
                refusal = SpooldError(errors.DROP_REFUSED, message)
                if admission.error is not None:
                    _log.error("intake.refused", job=str(claimed.job_id), error=answer.message)
                    self._metrics.errors += 1
                else:
                    again.append((claimed, admission.rejected(error_document(refusal))))
        return admitted + (self._insert(again) if again else 0)

    def _renumber(self, claimed: Claimed) -> None:
        """Give a drop an id of its own, in a spool that was copied beside its original.

        It is admitted at the next scan.
        """
        _log.warning("intake.renumbered", job=str(claimed.job_id), drop=text(claimed.drop))
        before = claimed.job_id, claimed.path
        del self._held[claimed.job_id]
        claimed.job_id = new_job_id()
        claimed.path = os.path.join(self._claimed, claimed_name(claimed.job_id, claimed.drop))
        try:
            self._say_queued(claimed)
            rename_new(before[1], claimed.path)
        except OSError as error:
            claimed.job_id, claimed.path = before
            self._say_waiting(claimed, held_by(error))
        self.hold(claimed)

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
        for part in _parts(uncertain, LOOK_UP_AT_ONCE):
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
                    claimed.has_status = False
            admitted += self.admit([each for each in part if each.drop not in busy], now)
        return admitted

    def reconcile(self, now: float) -> bool:
        """Hold what has no row in `claimed/`; see `Reconciler.rowless`. Whether it could be told.

        Raises database-away and OSError.
        """
        rowless = self._reconciler.rowless(self._held.keys(), now)
        for claimed in rowless or ():
            self.hold(claimed)
            points.reached("adopt")
            _log.info("intake.adopted", job=str(claimed.job_id), drop=text(claimed.drop))
        return rowless is not None


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
