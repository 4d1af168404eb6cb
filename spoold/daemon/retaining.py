"""The daemon's retention: a thread that removes what is due, a round now and then.

Any number of daemons may run this on one spool: a lock lets one at a time remove, and a round that
finds it taken is left out.
"""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from spoold import errors
from spoold.connections import Connections
from spoold.errors import SpooldError
from spoold.queue.store import Store
from spoold.retention import Retention, RetentionSettings, Round
from spoold.spool import Spool

log = structlog.get_logger()

_LONGEST_PAUSE_SECONDS: Final = 60.0
_SHORTEST_PAUSE_SECONDS: Final = 1.0
_BREATH_SECONDS: Final = 0.02  # between two batches, for the threads that drops wait for
_ROUNDS_AN_AGE: Final = 10  # so late may a file go: a tenth of its time, and no more than a minute


class Retaining:
    """One thread's work. `on_round` is told of each round, in that thread."""

    def __init__(
        self,
        tree: Spool,
        store: Store,
        settings: RetentionSettings,
        connections: Connections,
        on_round: Callable[[Round], None],
    ) -> None:
        self._tree = tree
        self._store = store
        self._settings = settings
        self._connections = connections
        self._on_round = on_round

    def run(self, stop: threading.Event) -> None:
        """Until stopped; nothing at all where everything is kept for ever."""
        if not self._settings.anything:
            return
        retention = Retention(
            self._tree,
            self._store,
            self._settings,
            self._connections,
            lambda: stop.wait(_BREATH_SECONDS),
        )
        shortest = self._settings.shortest_seconds / _ROUNDS_AN_AGE or _LONGEST_PAUSE_SECONDS
        usual = min(max(shortest, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        failing = False
        pause = 0.0
        while not stop.wait(pause):
            pause = usual
            try:
                done = retention.round()
            except (SpooldError, OSError) as error:
                failure = errors.of_failure(error)
                busy = failure.code is errors.RETENTION_BUSY
                if not (busy or failing):
                    log.error("retention.failed", error=str(failure), fix=failure.hint)
                failing = not busy
            else:
                failing = False
                self._tell(done)
                if done.more:
                    pause = _SHORTEST_PAUSE_SECONDS

    def _tell(self, done: Round) -> None:
        self._on_round(done)
        if done.removed.files or done.rows:
            log.info(
                "retention.removed",
                **{area.value: count for area, count in sorted(done.removed.files.items())},
                bytes=done.removed.bytes,
                jobs=done.rows,
                **{f"held_{reason}": count for reason, count in sorted(done.held.items())},
            )
