"""What a worker tells its supervisor: a line of JSON for each job that got its final status."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from spoold.publish import Ending
from spoold.queue.job import Job, State


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
