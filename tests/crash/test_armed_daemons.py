"""The installed program, stopped at a point through its environment, as the forked ones are."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold.points import VARIABLE
from tests.conftest import wait_until
from tests.sites import Site, request

DROP = "request-demo.json"
KILLED = -9


@pytest.mark.parametrize(
    ("point", "who"),
    [
        pytest.param("admit.e", "daemon", marks=pytest.mark.nightly),
        ("publish.4", "worker"),
    ],
)
def test_an_armed_process_is_stopped_for_good_and_the_next_one_repairs(
    make_site: Callable[..., Site], evidence: Path, conninfo: str, point: str, who: str
) -> None:
    site = make_site(roots={"evidence": evidence}, workers_count="1", database_url=conninfo)
    site.environment[VARIABLE] = point
    armed = site.start()
    site.drop(DROP, request())
    if who == "worker":  # its daemon lives on, and would start armed ones for ever
        wait_until(lambda: "worker.died" in site.log)
        armed.kill()
    assert armed.wait(20) == KILLED
    site.daemons.remove(armed)
    path = site.status_path(DROP)
    assert not json.loads(path.read_bytes())["final"]

    del site.environment[VARIABLE]
    assert site.run_once() == 0
    assert site.final(DROP)["state"] == "succeeded"
    assert site.leftovers() == []
