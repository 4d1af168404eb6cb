"""What the configuration says to the worker stage."""

from dataclasses import dataclass

from spoold.queue.job import RetryPolicy


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
