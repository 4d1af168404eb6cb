"""Every metric in one table, and the only place that knows Prometheus.

Sources: https://prometheus.io/docs/practices/naming/ (base units, `_total` for counters).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SIZE_BUCKETS: Final = tuple(float(4**power) for power in range(5, 21))  # 1 KiB to 1 TiB
_SECONDS_BUCKETS: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class Metrics:
    """The daemon's metrics. Counters begin at zero with the process; gauges are read when asked."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.finished = Counter(
            "spoold_jobs_finished",
            "Jobs that got their final status, by action and state",
            ("action", "state"),
            registry=self._registry,
        )
        self.errors = Counter(
            "spoold_job_errors",
            "Final statuses with an error, by its code",
            ("code",),
            registry=self._registry,
        )
        self.bundle_bytes = Histogram(
            "spoold_bundle_bytes",
            "Sizes of bundles built or restored",
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

    def read_when_asked(self, read: Callable[[], Iterable["Sample"]]) -> None:
        """Register gauges whose values are read at every scrape."""
        self._registry.register(_Asked(read))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


@dataclass(frozen=True, slots=True)
class Sample:
    """One gauge value; `labels` of one name must have the same keys."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str]


class _Asked(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self._read():
            family = families.setdefault(
                sample.name,
                GaugeMetricFamily(sample.name, sample.help, labels=list(sample.labels)),
            )
            family.add_metric(list(sample.labels.values()), sample.value)
        return families.values()
