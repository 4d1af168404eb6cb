"""Progress: the counts of the engine, of sources and of sinks, as one."""

from spoold.actions.progress import Meter
from spoold.status import Progress


def told() -> tuple[Meter, list[Progress]]:
    shown: list[Progress] = []
    return Meter(shown.append), shown


def test_what_sources_count_is_shown_beside_what_the_engine_counts() -> None:
    meter, shown = told()
    meter.source = "postgres:alerts"
    meter.engine("build", 100, None, 2)
    meter.count(5000, 40)
    meter.count(1000, 8)
    assert shown[-1].document() | {"bytes_per_second": 0} == {
        "phase": "build",
        "bytes_done": 6000,
        "bytes_total": None,
        "entries_done": 2,
        "rows_done": 48,
        "source": "postgres:alerts",
        "bytes_per_second": 0,
    }
    meter.engine("build", 7000, 9000, 3)
    assert (shown[-1].bytes_done, shown[-1].bytes_total) == (7000, 9000)


def test_what_begins_counts_its_bytes_from_nothing_and_keeps_the_rows() -> None:
    meter, shown = told()
    meter.engine("restore", 700, 700, 3)
    meter.begin("plan", "alerts")
    meter.count(10, 2)
    meter.begin("apply", "artifacts")
    assert shown[-1] == Progress("apply", 0, None, 3, 2, "artifacts", shown[-1].bytes_per_second)
    assert shown[-1].bytes_per_second >= 0
