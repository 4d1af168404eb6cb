"""The daemon's wall clock jumps while jobs run: leases, ages and due times do not care.

Leases and due times are the database's, ages are monotonic. libfaketime turns the clock of the
daemon and its workers, and of nobody else.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.faults.conftest import check_each_once, drop_both, says
from tests.sites import Site, request

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
DAY_SECONDS = 86400


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
def test_e24_a_wall_clock_that_jumps_by_a_day_disturbs_no_job(
    make_receiver: Callable[..., Site], conninfo: str, evidence: Path, tmp_path: Path
) -> None:
    (evidence / "much").mkdir()
    (evidence / "much" / "file").write_bytes(os.urandom(32 << 20))
    clock = tmp_path / "clock"
    turn(clock, 0)
    site = make_receiver(database_url=conninfo)
    site.environment |= {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    site.start()
    statuses = [site.final(name) for name in drop_both(site, "before")]
    site.drop("request-slow.json", request("much", compression={"codec": "zstd", "level": 19}))
    wait_until(lambda: says(site, "request-slow.json")["state"] == "running")
    for direction in (1, -1):
        later = f"request-later{direction}.json"
        due = datetime.now(UTC) + timedelta(seconds=1)
        site.drop(later, request(not_before=due.isoformat()))
        turn(clock, direction * DAY_SECONDS)
        names = drop_both(site, f"meanwhile{direction}")
        statuses += [site.final(name) for name in (*names, later)]
        # So the clock did jump, and the job waited for the time of the database all the same.
        finished = datetime.fromisoformat(statuses[-1]["finished_at"]) - datetime.now(UTC)
        assert abs(finished.total_seconds() - direction * DAY_SECONDS) < DAY_SECONDS / 2
        assert datetime.fromisoformat(statuses[-1]["started_at"]) >= due
    statuses.append(site.final("request-slow.json"))
    check_each_once(site, statuses)
    assert {status["attempt"] for status in statuses} == {1}
    assert "job.rescued" not in site.log
    assert "worker.died" not in site.log
    assert site.stop() == 0


def turn(clock: Path, seconds: int) -> None:
    """Set the daemon's clock off by so much, in one step."""
    aside = clock.with_suffix(".new")
    aside.write_text(f"{seconds:+d}\n")
    aside.rename(clock)
