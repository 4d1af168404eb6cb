"""Patience with the database: what must be recorded is tried until it is."""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog

from spoold import errors
from spoold.errors import SpooldError

log = structlog.get_logger()

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0


def patiently(
    operation: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Call an operation until the database has answered it; other errors pass through.

    It may run twice where the answer was lost: the statements are guarded, so that the second
    run finds its own work done, or the lease lost.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return operation(*args, **kwargs)
        except SpooldError as error:
            if error.code is not errors.DATABASE_AWAY:
                raise
            log.warning("database.away", error=str(error), again_in=pause)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
