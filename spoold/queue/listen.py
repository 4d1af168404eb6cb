"""Being woken: NOTIFY says that there may be something to claim, or that a job was taken away.

A hint only. It is lost while the connection is away, and there is none behind a pooler; who listens
polls all the same, and what a poll finds is the truth.
"""

import enum
import select
import time
import uuid
from contextlib import suppress

import psycopg
from psycopg.rows import TupleRow

from spoold.errors import SpooldError
from spoold.postgres import connect, database_errors, is_pooled


class Channel(enum.StrEnum):
    """What is told, and whose id stands in the payload."""

    JOBS = "spoold_job"  # jobs of this spool may be claimed
    GONE = "spoold_gone"  # a job of this worker was taken away


class Wakes(enum.StrEnum):
    """How those who wait learn that there is something for them."""

    NOTIFY = "notify"
    POLLING = "polling"  # a pooler stands before the server


class Listener:
    """A connection of its own that listens on one channel for one id.

    It connects when first asked to wait, and again by itself after the connection was lost. Where
    it meets a pooler it listens no more, and keeps no connection: it waits for the time to pass.
    """

    def __init__(self, conninfo: str, channel: Channel, about: uuid.UUID) -> None:
        self._conninfo = conninfo
        self._channel = channel
        self._about = str(about)
        self._connection: psycopg.Connection[TupleRow] | None = None
        self._deaf = False

    def wait(self, timeout_seconds: float, interrupt: int | None = None) -> bool:
        """Wait at most so long, or until `interrupt` is readable; whether our id was called.

        Without a database it waits all the same: it is only a hint that is missing.
        """
        deadline = time.monotonic() + timeout_seconds
        waiting_for = [] if interrupt is None else [interrupt]
        try:
            connection = None if self._deaf else self._listening()
            if connection is None:
                select.select(waiting_for, [], [], timeout_seconds)
                return False
            while not self._called(connection):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                readable, _, _ = select.select([connection.fileno(), *waiting_for], [], [], left)
                if interrupt in readable:
                    return False
        except SpooldError:
            self.close()
            select.select(waiting_for, [], [], max(0.0, deadline - time.monotonic()))
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _listening(self) -> psycopg.Connection[TupleRow] | None:
        if self._connection is None:
            self._connection = connect(self._conninfo, "spoold listen")
            if is_pooled(self._connection):
                self._deaf = True
                self.close()
                return None
            with database_errors():
                self._connection.execute(f"listen {self._channel}")
        return self._connection

    def _called(self, connection: psycopg.Connection[TupleRow]) -> bool:
        with database_errors():
            return any(
                notice.payload == self._about for notice in list(connection.notifies(timeout=0))
            )
