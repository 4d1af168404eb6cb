"""What the configuration says to the worker stage."""

from dataclasses import dataclass
from typing import Final

from spoold.queue.job import RetryPolicy

CONNECTIONS_OF_A_WORKER: Final = 5
"""Each of its three threads has one, and two of them listen on another."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Durations in seconds. A worker that has not beaten for `lease_seconds` is taken for dead."""

    count: int
    drain_seconds: float
    aging_seconds: float
    retry: RetryPolicy
    beat_seconds: float = 5.0
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0
    memory_bytes: int = 0
    """What a worker may use; 0: no limit, as of the next."""
    cpu_seconds: int = 0
    """The processor time that an attempt may use."""
