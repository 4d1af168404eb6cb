"""Every metric in one table, and the only place that knows Prometheus.

What happens is counted as it happens; what stands is measured when somebody asks. Counters begin
at zero with the daemon.

Source: https://prometheus.io/docs/practices/naming/ (base units, `_total` for counters).
"""

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SIZE_BUCKETS: Final = tuple(float(4**power) for power in range(5, 21))  # 1 KiB to 1 TiB
_SECONDS_BUCKETS: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class Kind(enum.Enum):
    """Whether a measure only grows."""

    GAUGE = GaugeMetricFamily
    COUNTER = CounterMetricFamily


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric that is read when asked. The name of a counter stands without `_total`."""

    name: str
    help: str
    kind: Kind = Kind.GAUGE
    labels: tuple[str, ...] = ()

    def sample(self, value: float, *labels: str) -> "Sample":
        """One value of it."""
        assert len(labels) == len(self.labels)
        return Sample(self, value, labels)


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a measure."""

    measure: Measure
    value: float
    labels: tuple[str, ...]


DATABASE_UP: Final = Measure("spoold_database_up", "Whether the database answers")
JOBS: Final = Measure("spoold_jobs", "Unfinished jobs", labels=("state", "action"))
OLDEST_JOB: Final = Measure("spoold_oldest_job_seconds", "Since the oldest unfinished job was due")
OLDEST_TRANSACTION: Final = Measure(
    "spoold_database_oldest_transaction_seconds",
    "Since the oldest transaction began that keeps dead rows from being removed",
)
HORIZON: Final = Measure(
    "spoold_database_horizon_transactions",
    "Transactions begun since the oldest one whose dead rows cannot be removed",
)
RUNNING_BYTES: Final = Measure(
    "spoold_running_bytes", "Bytes that running attempts have done", labels=("action",)
)
RUNNING_ROWS: Final = Measure(
    "spoold_running_rows", "Rows that running attempts have done", labels=("action",)
)
RUNNING_ENTRIES: Final = Measure(
    "spoold_running_entries", "Entries that running attempts have done", labels=("action",)
)
RUNNING_RATE: Final = Measure(
    "spoold_running_bytes_per_second", "How fast running attempts are", labels=("action",)
)
WORKERS: Final = Measure("spoold_workers", "Worker processes that run")
DROPS_FOUND: Final = Measure(
    "spoold_drops_found", "Drops by what drew attention to them", Kind.COUNTER, ("found_by",)
)
DROPS_COMPLETE: Final = Measure(
    "spoold_drops_complete", "Drops by how they were known to be whole", Kind.COUNTER, ("method",)
)
DROPS_ADMITTED: Final = Measure("spoold_drops_admitted", "Drops that became jobs", Kind.COUNTER)
DROPS_REJECTED: Final = Measure(
    "spoold_drops_rejected", "Of these, rejected at admission", Kind.COUNTER
)
DROPS_WAITING: Final = Measure(
    "spoold_drops_waiting", "Drops in the inbox that wait", labels=("reason",)
)
INBOX_STRAYS: Final = Measure("spoold_inbox_strays", "Things in the inbox that are no drops")
INBOX_UNFINISHED: Final = Measure(
    "spoold_inbox_unfinished", "Uploads in the inbox that are unfinished by their name"
)
WATCH_MODE: Final = Measure("spoold_watch_mode", "How the inbox is watched", labels=("mode",))
WATCH_OVERFLOWS: Final = Measure(
    "spoold_watch_overflows", "How often the kernel dropped events of the inbox", Kind.COUNTER
)
WAKE_MODE: Final = Measure("spoold_wake_mode", "How workers learn of jobs", labels=("mode",))
INTAKE_ERRORS: Final = Measure(
    "spoold_intake_errors", "What the intake did not expect; the log says more", Kind.COUNTER
)
SCAN_SECONDS: Final = Measure("spoold_scan_seconds", "What the last look at the inbox took")
LAST_SCAN: Final = Measure("spoold_last_scan_timestamp_seconds", "End of the last scan, Unix time")


class Metrics:
    """The daemon's metrics."""

    def __init__(self, measure: Callable[[], Iterable[Sample]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Measured(measure))
        self.finished = Counter(
            "spoold_jobs_finished",
            "Jobs that got their final status",
            ("action", "state"),
            registry=self._registry,
        )
        self.errors = Counter(
            "spoold_job_errors",
            "Final statuses with an error",
            ("code",),
            registry=self._registry,
        )
        self.bundle_bytes = Histogram(
            "spoold_bundle_bytes",
            "Sizes of bundles built or restored, and of what handlers left",
            ("action",),
            buckets=_SIZE_BUCKETS,
            registry=self._registry,
        )
        self.attempt_seconds = Histogram(
            "spoold_attempt_seconds",
            "Durations of attempts that were published",
            ("action",),
            buckets=_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self.last_success = Gauge(
            "spoold_last_success_timestamp_seconds",
            "When a job last succeeded, Unix time; 0: never since the start",
            registry=self._registry,
        )

        self.removed = Counter(
            "spoold_retention_removed",
            "Files and restored bundles that retention has removed",
            ("area",),
            registry=self._registry,
        )
        self.removed_bytes = Counter(
            "spoold_retention_removed_bytes",
            "Sizes of the files among them",
            registry=self._registry,
        )
        self.pruned = Counter(
            "spoold_retention_pruned_jobs",
            "Rows of finished jobs that retention has deleted",
            registry=self._registry,
        )
        self.held = Gauge(
            "spoold_retention_held_jobs",
            "Jobs whose files are due and stay, at the last round",
            ("reason",),
            registry=self._registry,
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class _Measured(Collector):
    def __init__(self, measure: Callable[[], Iterable[Sample]]) -> None:
        self._measure = measure

    def describe(self) -> Iterator[Metric]:
        """Nothing: or registering would measure already."""
        yield from ()

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for sample in self._measure():
            measure = sample.measure
            if measure.name not in families:
                families[measure.name] = measure.kind.value(
                    measure.name, measure.help, labels=measure.labels
                )
            families[measure.name].add_metric(sample.labels, sample.value)
        return families.values()
