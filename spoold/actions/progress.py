"""How far an attempt is: what the engine, the sources and the sinks count, as one Progress."""

import time
from collections.abc import Callable
from typing import Final

from spoold.status import Progress

_RATE_SECONDS: Final = 5.0


class Meter:
    """Puts the counts of an attempt together; cheap enough to be told of every frame and page."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._last = Progress("start")
        self.source: str | None = None
        """What is being read or written now, by its title."""
        self._rows = self._bytes = 0
        self._marks = [(time.monotonic(), 0)]  # of the last seconds: when, and the bytes by then

    def engine(self, phase: str, bytes_done: int, bytes_total: int | None, entries: int) -> None:
        """The engine's own callback, see `bundle.entry.Report`."""
        self._last = Progress(phase, bytes_done, bytes_total, entries)
        self.tell()

    def count(self, more_bytes: int, more_rows: int) -> None:
        """What a source or sink has done since the last call."""
        self._bytes += more_bytes
        self._rows += more_rows
        self.tell()

    def begin(self, phase: str, source: str | None = None) -> None:
        """Something else begins: its bytes are counted from 0."""
        self._last = Progress(phase, entries_done=self._last.entries_done)
        self._bytes, self.source = 0, source
        self._marks = [(time.monotonic(), 0)]
        self.tell()

    def tell(self) -> None:
        """Show what is counted now."""
        last = self._last
        done = max(last.bytes_done, self._bytes)
        self._report(
            Progress(
                last.phase,
                done,
                last.bytes_total,
                last.entries_done,
                self._rows,
                self.source,
                self._rate(done),
            )
        )

    def _rate(self, done: int) -> int:
        now = time.monotonic()
        first, before = self._marks[0]
        if now - self._marks[-1][0] >= _RATE_SECONDS / 5 or done < before:
            self._marks.append((now, done))
            self._marks = [mark for mark in self._marks if now - mark[0] <= _RATE_SECONDS][-6:]
            first, before = self._marks[0]
        passed = now - first
        return max(0, round((done - before) / passed)) if passed > 0 else 0
