"""The intake: look at the inbox, wait for a hint or the clock, look again.

A scan runs at start, after the watch was armed (first armed, then listed: nothing falls between),
on every hint, every `rescan_seconds`, and again after one that took anything. The start after a
crash, a burst, a lost event and a polled share are all the same scan.

Bugs: where the kernel cannot tell of writers, "moved in" is believed by name; a hint that comes
late may then speak of an earlier file of that name.
"""

import errno
import os
import stat
import threading
import time
from typing import Final

import structlog

from spoold import errors
from spoold.errors import SpooldError
from spoold.file_lock import FileLock
from spoold.intake.complete import ignore_lease_signal
from spoold.intake.inbox import InboxLostError, Listing
from spoold.intake.request import Models
from spoold.intake.scan import Scanner, pause
from spoold.intake.settings import (
    FAILED,
    STANDING_BY,
    IntakeMetrics,
    IntakeSettings,
    ScanReport,
    WatchMode,
    WriterCheck,
)
from spoold.intake.watch import Watch
from spoold.queue.store import Store
from spoold.spool import Folder, Spool

_SLICE_SECONDS: Final = 0.25  # how late a stop, or a name that was only linked, may be noticed
_STANDBY_SECONDS: Final = 1.0

_OURS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # they say nothing of the inbox

_log = structlog.get_logger()


class Intake:
    """One spool's intake. `run` belongs to one thread, which alone may use the store."""

    def __init__(
        self,
        spool: Spool,
        store: Store,
        settings: IntakeSettings,
        models: Models,
    ) -> None:
        ignore_lease_signal()
        self.metrics = IntakeMetrics()
        self.report = ScanReport()
        """The last scan's; replaced, never changed."""
        self._settings = settings
        self._inbox = os.fsencode(spool.folder(Folder.INBOX))
        self._lock = FileLock(spool.intake_lock)
        self._watch = Watch(self._inbox, settings.file_system)
        self._claimed = os.fsencode(spool.folder(Folder.CLAIMED))
        self._folder: tuple[int, int] | None = None
        self._scanner = Scanner(spool, store, settings, models, self.metrics)
        self._stop = threading.Event()
        self._rearm_at = 0.0
        self._next_look = 0.0

    def run(self, stop: threading.Event) -> None:
        """Take in drops until `stop` is set; `wake` after setting it makes that quick."""
        self._stop = stop
        try:
            while not stop.is_set():
                try:
                    report = self.scan_once()
                except Exception as error:  # noqa: BLE001  # whatever it was, drops are waiting
                    self._failed(error)
                    report = self.report
                if not report.claimed and not report.admitted:
                    self._wait(self._next_look)
        finally:
            self.close()

    @property
    def takes_drops(self) -> bool:
        """Whether it is the spool's one intake now. From any thread."""
        return self._lock.held

    def wake(self) -> None:
        """Look now. From any thread."""
        self._watch.wake.set()

    def close(self) -> None:
        """Give up watch and lock. Not while `run` runs."""
        self._watch.disarm()
        self._lock.release()

    def scan_once(self) -> ScanReport:
        """Work through one listing of the inbox, or stand by where another intake does.

        Raises OSError where the spool's own folders fail.
        """
        self.report = self._turn()
        self.metrics.scans += 1
        return self.report

    def _turn(self) -> ScanReport:
        # Before the listing: a hint that comes while it is made is for the next one.
        hints = self._watch.take()
        self.metrics.overflows = self._watch.overflows
        if self._stands_by():
            self._next_look = time.monotonic() + _STANDBY_SECONDS
            return STANDING_BY
        try:
            report = self._scanner.scan(self._list(), hints, self._stop)
        except InboxLostError as error:
            self._lost(error)
            self._next_look = time.monotonic() + self._settings.poll_seconds
            return ScanReport()
        polling = self.metrics.mode is WatchMode.POLLING
        usual = self._settings.poll_seconds if polling else self._settings.rescan_seconds
        later = time.monotonic() + pause(usual, self.metrics.scan_seconds)
        self._next_look = min(self._scanner.next_look, later)
        return report

    def _failed(self, error: Exception) -> None:
        """To be called where the error is handled."""
        _log.exception("intake.scan_failed")
        known = errors.of_failure(error) if isinstance(error, OSError | SpooldError) else None
        self.metrics.note(known.code if known else errors.INTERNAL)
        self.metrics.errors += 1
        self.metrics.scans += 1
        self.report = FAILED
        self._next_look = time.monotonic() + self._settings.rescan_seconds

    def _stands_by(self) -> bool:
        if self._lock.acquire():
            self.metrics.standing_by = False
            return False
        if not self.metrics.standing_by:
            _log.info("intake.standing_by")
        self.metrics.standing_by = True
        return True

    def _list(self) -> Listing:
        """Arm the watch where that is due, then list. Raises InboxLostError."""
        try:
            status = os.lstat(self._inbox)
            if not stat.S_ISDIR(status.st_mode):  # a link: what is elsewhere is nobody's drop
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._inbox)
            folder = (status.st_dev, status.st_ino)
            if folder != self._folder:
                self._scanner.forget_folder()
                self._note_mount(status.st_dev)
            if (
                self.metrics.mode is None
                or folder != self._folder
                or not self._watch.sound()
                or self._rearm_due()
            ):
                self._arm()
            listing = Listing(self._inbox, self._settings.handlers)
        except OSError as error:
            if error.errno in _OURS:
                raise
            raise InboxLostError(str(error)) from error
        self._folder = folder
        self.metrics.inbox_missing = False
        return listing

    def _lost(self, error: InboxLostError) -> None:
        if not self.metrics.inbox_missing:
            _log.error("intake.inbox_missing", error=str(error))
            self.metrics.note(errors.SPOOL_INVALID)
        self.metrics.inbox_missing, self.metrics.mode = True, None
        self._folder = None  # what comes back, even the same, is begun with anew
        self._watch.disarm()

    def _note_mount(self, device: int) -> None:
        """Say so where something was mounted over the inbox: no drop can be renamed out of it."""
        foreign = device != os.stat(self._claimed).st_dev
        if foreign and not self.metrics.inbox_foreign:
            _log.error(
                "intake.inbox_foreign",
                effect="drops cannot be moved out of another file system: they wait",
                fix="unmount what is mounted over the inbox",
            )
        self.metrics.inbox_foreign = foreign

    def _rearm_due(self) -> bool:
        polling = self.metrics.mode is WatchMode.POLLING and not self._settings.polling
        return polling and time.monotonic() >= self._rearm_at

    def _arm(self) -> None:
        before = self.metrics.mode
        if self._settings.polling:
            mode, why = WatchMode.POLLING, "[intake] watch says so"
        else:
            mode = self._watch.arm()
            why = self._watch.why
        self._rearm_at = time.monotonic() + self._settings.rearm_seconds
        asked = self._settings.writer_check is WriterCheck.AUTO
        leases = asked and self._settings.file_system(self._inbox).leases
        self._scanner.believe_leases(leases)
        self.metrics.mode, self.metrics.mode_reason = mode, why
        if mode is not before:
            say = _log.info if mode is WatchMode.EVENTS or self._settings.polling else _log.warning
            say("intake.watching", mode=mode.value, asks_for_writers=leases, why=why or None)

    def _wait(self, until: float) -> None:
        while not self._stop.is_set():
            left = until - time.monotonic()
            if left <= 0 or self._watch.wake.wait(min(left, _SLICE_SECONDS)):
                return
            if self._watch.pending() or not self._watch.sound():
                return
