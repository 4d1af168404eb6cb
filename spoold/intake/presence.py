"""Whether the database is there; while it is away it is looked for with a back-off.

Whenever it is back, and now and then, `claimed/` is compared with it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog

from spoold import errors
from spoold.errors import SpooldError
from spoold.intake.admit import Admitter
from spoold.queue.store import Store

_FIRST_BACK_OFF_SECONDS: Final = 0.25
_MAX_BACK_OFF_SECONDS: Final = 5.0
_QUESTION_SECONDS: Final = 5.0
_SHARED_SECONDS: Final = 1.0  # a command has `claimed/` for a moment

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class Presence:
    """The database as the intake sees it; moments on the monotonic clock."""

    def __init__(self, store: Store, admitter: Admitter, reconcile_seconds: float) -> None:
        self._store = store
        self._admitter = admitter
        self._reconcile_seconds = reconcile_seconds
        # True at first, so that the first connection is followed by `reconcile` like any other.
        self.away = True
        self.retry_at = 0.0
        """When it is looked for again, while it is away."""
        self._reconcile_at = 0.0
        self._back_off = 0.0

    def reach(self) -> bool:
        """Whether it is there; `claimed/` is compared with it when due or when back.

        Raises OSError.
        """
        now = time.monotonic()
        if now < (self.retry_at if self.away else self._reconcile_at):
            return not self.away
        was_away = self.away
        if self.ask(lambda: self._reconcile(now), False):
            self.away, self._back_off = False, 0.0
            if was_away:
                _log.info("intake.database_reached")
        return not self.away

    def ask(self, call: Callable[[], _Result], otherwise: _Result) -> _Result:
        """Call what needs the database; where that fails for want of it, it counts as away."""
        try:
            return call()
        except SpooldError as error:
            # Tables that are not there may be about to be restored.
            if not error.code.transient and error.code is not errors.DATABASE_UNFIT:
                raise
            first = not self._back_off
            self._back_off = min(
                max(_FIRST_BACK_OFF_SECONDS, 2 * self._back_off), _MAX_BACK_OFF_SECONDS
            )
            self.retry_at = time.monotonic() + self._back_off
            self.away = True
            if first:
                _log.warning("intake.database_away", error=error.message)
            return otherwise

    def busy_names(self, names: Sequence[bytes]) -> frozenset[bytes]:
        """Which of these drop names belong to unfinished jobs; none while it is away."""
        if self.away:
            return frozenset()
        return self.ask(lambda: self._busy_names(names), frozenset())

    def _busy_names(self, names: Sequence[bytes]) -> frozenset[bytes]:
        # A question only: giving it up does no harm, and the drops can be told why they wait.
        with self._store.database.answering_within(_QUESTION_SECONDS):
            return self._store.busy_names(names)

    def _reconcile(self, now: float) -> bool:
        self._store.require_writable()
        self._busy_names([])  # who has the table locked would hold the rest up for much longer
        compared = self._admitter.reconcile(now)
        self._reconcile_at = now + (self._reconcile_seconds if compared else _SHARED_SECONDS)
        return True
