"""What a worker tells its supervisor: a line with its job when it begins an attempt, and a line of
JSON for each job that got its final status.
"""

import json
import os
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final, Self

from spoold.publish import Ending
from spoold.queue.job import Job, State

WORKING: Final = b"working "


@dataclass(frozen=True, slots=True)
class Published:
    """A job that got its final status, as the metrics count it."""

    action: str
    state: State
    code: str | None
    seconds: float
    bundle_bytes: int | None

    @classmethod
    def of(cls, job: Job, ending: Ending, seconds: float) -> Self:
        """What is told of a job that ended so, after an attempt of so many seconds."""
        size = ending.result.get("bytes") if ending.result else None
        return cls(
            action=job.action or "none",
            state=ending.state,
            code=str(ending.error["code"]) if ending.error else None,
            seconds=seconds,
            bundle_bytes=size if isinstance(size, int) else None,
        )

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read what `line` wrote."""
        document = json.loads(line)
        return cls(**{**document, "state": State(document["state"])})

    def line(self) -> bytes:
        """One line, its end included."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Events:
    """The worker's end of the pipe; None: nobody listens to one that was started by hand."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def working(self, job: uuid.UUID) -> None:
        """An attempt begins: from now on, what ends this worker may be that job's fault."""
        self._tell(WORKING + str(job).encode() + b"\n")

    def published(self, published: Published) -> None:
        """A job got its final status."""
        self._tell(published.line())

    def _tell(self, line: bytes) -> None:
        if self._descriptor is not None:
            # A line below PIPE_BUF is written whole; a supervisor that is gone ends us anyway.
            with suppress(OSError):
                os.write(self._descriptor, line)
