"""One scan: a listing of the inbox worked through to its end, in batches.

What is complete is claimed and admitted, what is not is remembered, and what is held back has a
`waiting` status that is written once per change. A drop whose name belongs to an unfinished job is
passed over without one: that status file is the job's worker's.
"""

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, assert_never

import structlog

from spoold import errors
from spoold.canonical import text
from spoold.intake.admit import Admitter
from spoold.intake.claim import Candidate, Claimer
from spoold.intake.complete import Rest, Take, Wait
from spoold.intake.inbox import Found, Listing
from spoold.intake.look import GoneError, look
from spoold.intake.memory import Memories, Memory
from spoold.intake.names import NameKind
from spoold.intake.obstacle import obstacle
from spoold.intake.presence import Presence
from spoold.intake.rate import Rate
from spoold.intake.request import Models
from spoold.intake.settings import (
    NAME_BUSY,
    IntakeMetrics,
    IntakeSettings,
    Reason,
    ScanReport,
)
from spoold.intake.statuses import Statuses
from spoold.intake.watch import Hint
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host

_MAX_STRAYS_TOLD: Final = 10_000
# A backlog of 100,000 drops is not looked through for each one that may be taken.
_RATE_LOOK_SECONDS: Final = 5.0
_UNMOVABLE_POLLS: Final = 5  # a drop that cannot be moved is tried again after so many

_OF_THE_DISK: Final = {Reason.SPACE, Reason.DISK}
_PAUSE: Final = 10  # times what a look costs
_MAX_PAUSE_SECONDS: Final = 60.0

_log = structlog.get_logger()


def pause(usual: float, cost: float) -> float:
    """In how many seconds to look again in vain, after a look that took `cost` seconds.

    So that looking takes no more than a tenth of the time, unless nobody would look for minutes.
    """
    return min(max(usual, _PAUSE * cost), max(usual, _MAX_PAUSE_SECONDS))


@dataclass(slots=True)
class _Tally:
    claimed: int = 0
    admitted: int = 0
    settling: int = 0
    name_busy: int = 0
    waiting: Counter[Reason] = field(default_factory=Counter)
    since: float | None = None
    """When the drop that has waited longest was first seen."""

    def note(self, waits: Memory) -> None:
        """Count a drop that waits in."""
        if self.since is None or waits.first_seen < self.since:
            self.since = waits.first_seen


class Scanner:
    """What is remembered between scans, and how the next one goes. Belongs to one thread."""

    def __init__(
        self,
        spool: Spool,
        store: Store,
        settings: IntakeSettings,
        models: Models,
        metrics: IntakeMetrics,
    ) -> None:
        self._settings = settings
        self._models = models
        self._metrics = metrics
        self._root = os.fspath(spool.root)
        self._inbox = os.fsencode(spool.folder(Folder.INBOX))
        self._statuses = Statuses(spool, store, Host(settings.site, settings.host))
        self._admitter = Admitter(spool, store, self._statuses, settings, models, metrics)
        self._claimer = Claimer(spool, self._statuses, metrics, self._admitter.hold)
        self._database = Presence(store, self._admitter, settings.reconcile_seconds)
        self._memories = Memories(self._statuses.withdraw)
        self._rate = Rate(
            settings.max_drops_per_minute,
            settings.max_drops_per_minute_per_owner,
            time.monotonic(),
        )
        self._strays_told: set[bytes] = set()
        self._leases = False
        self._disk_in_the_way = False
        self._started = 0.0
        self._keep_up_at = 0.0
        self.next_look = 0.0
        """When time alone makes another scan worth while, on the monotonic clock."""

    def believe_leases(self, leases: bool) -> None:
        """Say whether the kernel knows of every writer in the inbox."""
        self._leases = self._admitter.leases = leases

    def scan(
        self, listing: Listing, hints: MutableMapping[bytes, Hint], stop: threading.Event
    ) -> ScanReport:
        """Work through a listing; ends early, between two batches, when `stop` is set.

        Hints are used up. Raises InboxLostError.
        """
        self._started = started = time.monotonic()
        self._memories.begin_scan()
        self.next_look = math.inf
        tally = _Tally()
        self._keep_up(tally)
        for part in listing.batches(self._settings.batch_size):
            if stop.is_set():
                break
            self._work_through(part, hints, tally)
            # A long listing, or one that grows as fast as it is read, holds nothing else up.
            if time.monotonic() >= self._keep_up_at:
                self._keep_up(tally)
            self._metrics.last_scan_at = time.time()
        else:
            self._memories.forget_vanished()
        listing.require_in_place()
        self._finish_withdrawals()
        self._note_strays(listing)
        return self._finish(listing, tally, started)

    def forget_folder(self) -> None:
        """Forget what was in the inbox, since another folder has its name now.

        Vanishing is not deletion: what was said of those drops stays until they are seen again.
        """
        self._memories.clear()
        self._statuses.forget_withdrawals()

    # --- one batch ------------------------------------------------------------------------------

    def _work_through(
        self, part: Sequence[Found], hints: MutableMapping[bytes, Hint], tally: _Tally
    ) -> None:
        now = time.monotonic()
        in_the_way = self._obstacle()
        part = [
            found
            for found in part
            if not self._waits_still(found.name, in_the_way, hints, now, tally)
        ]
        if not part:
            return
        busy = self._admitter.held_names()
        busy |= self._database.busy_names([found.name for found in part])
        candidates: list[Candidate] = []
        for found in part:
            memory = self._memories.see(found.name, hints.pop(found.name, None), now)
            if found.name in busy:
                tally.name_busy += 1
                tally.note(memory)
                memory.told = None  # the status is that job's now
                self._memories.keep(found.name, memory)
                continue
            try:
                looked = look(
                    os.path.join(self._inbox, found.name),
                    found,
                    memory,
                    now,
                    self._settings,
                    self._models,
                    leases=self._leases,
                )
            except GoneError:
                self._memories.forget(found.name, memory)
                continue
            match looked.verdict:
                case Take(method):
                    candidates.append(Candidate(found, memory, looked, method))
                    continue
                case Rest(seconds):
                    tally.settling += 1
                    self._look_by(now + seconds)
                case Wait() as wait:
                    self._hold(found.name, memory, wait, tally)
                case _:
                    assert_never(looked.verdict)
            self._memories.keep(found.name, memory)
        if candidates:
            self._take(candidates, now, tally)

    def _take(self, candidates: Sequence[Candidate], now: float, tally: _Tally) -> None:
        wait = self._obstacle()  # asked again: looking at a batch takes its time
        if wait is not None:
            self._note_disk(wait)
            for candidate in candidates:
                self._keep(candidate, wait, tally)
            return
        # One that could not be moved has had its turn: many of them would use up those of others.
        allowed = [
            each
            for each in candidates
            if each.memory.again_at or self._within_rate(each, now, tally)
        ]
        claimed, refused = self._claimer.claim(allowed)
        for drop in claimed:
            self._memories.pop(drop.drop)
        for refusal in refused:
            memory = refusal.candidate.memory
            memory.told = None  # its status said `queued` for a moment
            if not memory.again_at:
                self._rate.give_back(memory.owner, now)
            if refusal.wait.reason is Reason.UNREADABLE:  # it alone cannot be moved
                usual = _UNMOVABLE_POLLS * self._settings.poll_seconds
                memory.again_at = now + pause(usual, time.monotonic() - self._started)
                self._look_by(memory.again_at)
            self._keep(refusal.candidate, refusal.wait, tally)
        waits = (refusal.wait for refusal in refused)
        self._note_disk(next((wait for wait in waits if wait.reason in _OF_THE_DISK), None))
        tally.claimed += len(claimed)
        # Bundles last: the sync of a large one takes its time, and a request need not wait for it.
        for bundles in (False, True):
            kind = [each for each in claimed if (each.kind is NameKind.BUNDLE) is bundles]
            if kind and not self._database.away:
                tally.admitted += self._database.ask(partial(self._admitter.admit, kind, now), 0)

    def _obstacle(self) -> Wait | None:
        if self._database.away:
            return Wait(Reason.DATABASE_AWAY)
        free, foreign = self._settings.min_free_bytes, self._metrics.inbox_foreign
        return obstacle(self._root, self._inbox, free, foreign=foreign)

    def _note_disk(self, wait: Wait | None) -> None:
        """Say once that the spool's disk is in the way: there may be no writing of statuses."""
        if wait is None or wait.reason not in _OF_THE_DISK:
            self._disk_in_the_way = False
        elif not self._disk_in_the_way:
            self._disk_in_the_way = True
            self._metrics.note(wait.code or errors.DISK_ERROR)
            _log.error("intake.disk", reason=wait.reason.value, error=wait.message)

    def _waits_still(
        self,
        name: bytes,
        in_the_way: Wait | None,
        hints: Mapping[bytes, Hint],
        now: float,
        tally: _Tally,
    ) -> bool:
        """Whether what a drop waits for still stands in its way: then it is not even looked at.

        So a backlog of 100,000 that waits for room costs little more than its listing.
        """
        memory = self._memories.known(name)
        if memory is None or memory.told is None or name in hints:
            return False
        if in_the_way is not None:
            waits = memory.told == in_the_way
        elif memory.told.reason is Reason.RATE:
            seconds = self._rate.lacks(memory.owner, now)
            waits = seconds > 0
            if waits:
                self._look_by(now + max(seconds, _RATE_LOOK_SECONDS))
        else:
            waits = now < memory.again_at
            if waits:
                self._look_by(memory.again_at)
        if waits:
            self._memories.see(name, None, now)
            tally.waiting[memory.told.reason] += 1
            tally.note(memory)
        return waits

    def _within_rate(self, candidate: Candidate, now: float, tally: _Tally) -> bool:
        """Whether a drop may be taken now; it counts as taken then, else it is kept."""
        owner = candidate.memory.owner
        seconds = self._rate.take(owner, now)
        if seconds:
            limits = self._settings
            message = (
                f"in a minute so many are taken: {limits.max_drops_per_minute or 'any number'} in "
                f"all, {limits.max_drops_per_minute_per_owner or 'any number'} of user {owner}"
            )
            self._look_by(now + max(seconds, _RATE_LOOK_SECONDS))
            self._keep(candidate, Wait(Reason.RATE, message), tally)
        return not seconds

    def _keep(self, candidate: Candidate, wait: Wait, tally: _Tally) -> None:
        self._memories.keep(candidate.found.name, candidate.memory)
        self._hold(candidate.found.name, candidate.memory, wait, tally)

    def _hold(self, drop: bytes, memory: Memory, wait: Wait, tally: _Tally) -> None:
        """Say in the drop's status why it waits, if that is news."""
        tally.waiting[wait.reason] += 1
        tally.note(memory)
        if memory.told == wait:
            return
        if wait.reason is Reason.WRITER_OPEN:
            patient_until = memory.first_seen + self._settings.patience_seconds
            if time.monotonic() < patient_until:
                self._look_by(patient_until)
                return
        # With a database, `busy_names` has said that no unfinished job has this name.
        if self._database.away and self._statuses.may_be_of_a_job(drop):
            return
        try:
            self._statuses.waiting(drop, wait)
        except OSError as error:  # a full disk: said later
            _log.debug("intake.status_unwritten", drop=text(drop), error=str(error))
            return
        memory.told = wait
        _log.info(
            "intake.waiting", drop=text(drop), reason=wait.reason.value, error=wait.message or None
        )

    # --- what is gone, and what is no drop ------------------------------------------------------

    def _finish_withdrawals(self) -> None:
        """Take back what was said of drops that are gone; the rest of very many the next time."""
        until = time.monotonic() + self._settings.poll_seconds
        some = partial(self._statuses.finish_withdrawals, self._settings.batch_size)
        with suppress(OSError):  # tried again after the next scan
            while not self._database.away and self._database.ask(some, False):
                if time.monotonic() >= until:
                    self._look_by(until)
                    return

    def _note_strays(self, listing: Listing) -> None:
        for name in listing.stray_names:
            if name not in self._strays_told and len(self._strays_told) < _MAX_STRAYS_TOLD:
                self._strays_told.add(name)
                _log.warning("intake.stray", name=text(name))

    # --- what is claimed already, and the end of a scan -----------------------------------------

    def _keep_up(self, tally: _Tally) -> None:
        """Look after what is claimed already."""
        if self._database.reach():
            tally.admitted += self._database.ask(lambda: self._admitter.retry(time.monotonic()), 0)
        self._keep_up_at = time.monotonic() + self._settings.poll_seconds

    def _look_by(self, moment: float) -> None:
        self.next_look = min(self.next_look, moment)

    def _finish(self, listing: Listing, tally: _Tally, started: float) -> ScanReport:
        ended = time.monotonic()
        held = self._admitter.held()
        if tally.name_busy or held:  # nothing in the inbox will tell when they are free
            self._look_by(ended + pause(self._settings.poll_seconds, ended - started))
        if self._database.away:
            self._look_by(self._database.retry_at)
        waiting = tally.waiting
        for claimed in held:
            if claimed.told is not None:
                waiting[claimed.told.reason] += 1
        metrics = self._metrics
        metrics.strays = listing.strays
        metrics.unfinished = listing.unfinished
        metrics.waiting = {
            **{reason.value: waiting[reason] for reason in Reason},
            NAME_BUSY: tally.name_busy,
        }
        metrics.waiting_since = tally.since
        metrics.last_scan_at = time.time()
        metrics.scan_seconds = ended - started
        if tally.admitted:
            _log.info("intake.admitted", jobs=tally.admitted, seconds=round(ended - started, 3))
        return ScanReport(
            drops=listing.drops,
            claimed=tally.claimed,
            admitted=tally.admitted,
            settling=tally.settling,
            waiting=waiting.total(),
            name_busy=tally.name_busy,
            held=len(held),
            database_away=self._database.away,
        )
