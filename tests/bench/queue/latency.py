"""Latency: single drops on an idle daemon, until the row is committed, until the final status."""

import os
import random
import time
import uuid
from typing import NamedTuple

from tests.bench.queue.site import REQUEST, Site, until

_POLL_SECONDS = 0.001
_DEADLINE_SECONDS = 60.0


class Latency(NamedTuple):
    """Of one drop, in seconds since its rename."""

    admitted: float
    final: float


def run(site: Site, drops: int) -> list[Latency]:
    """Drop one request after the other, each when the one before is done, after a random pause."""
    pauses = random.Random(7)
    found = []
    for number in range(drops):
        # Not in step with anything that the daemon does once a second.
        time.sleep(pauses.uniform(0.1, 0.6))
        found.append(_one(site, f"request-{uuid.uuid4().hex[:6]}-{number}.json"))
    return found


def until_status(site: Site, drops: int) -> list[float]:
    """Seconds from the rename to the first status of each of so many single drops."""
    pauses = random.Random(8)
    found = []
    for number in range(drops):
        time.sleep(pauses.uniform(0.1, 0.6))
        name = f"request-{uuid.uuid4().hex[:6]}-{number}.json"
        aside = site.root / name
        aside.write_bytes(REQUEST)
        status = os.fspath(site.root / "status" / f"{name}.status.json")
        begin = time.perf_counter()
        os.rename(aside, site.inbox / name)
        while not os.path.exists(status):
            if time.perf_counter() - begin > _DEADLINE_SECONDS:
                raise TimeoutError(f"{name} has no status: see {site.root}/daemon.log")
            time.sleep(0.0002)
        found.append(time.perf_counter() - begin)
        until(lambda: site.ask("select count(*) from spoold.job where finished_at is null") == 0)
    return found


def _one(site: Site, name: str) -> Latency:
    aside = site.root / name
    aside.write_bytes(REQUEST)
    connection = site.database.connection
    # The row's index on unfinished names; a job may be finished before it is seen unfinished.
    query = b"select 1 from spoold.job where drop_name = %s limit 1"
    status = site.root / "status" / f"{name}.status.json"
    begin = time.perf_counter()
    os.rename(aside, site.inbox / name)
    admitted = None
    while (spent := time.perf_counter() - begin) < _DEADLINE_SECONDS:
        if admitted is None and connection.execute(query, (name.encode(),)).fetchone():
            admitted = time.perf_counter() - begin
        if admitted is not None and _is_final(status):
            final = time.perf_counter() - begin
            until(
                lambda: site.ask("select count(*) from spoold.job where finished_at is null") == 0
            )
            return Latency(admitted, final)
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"{name} is not final after {spent:.0f} s: see {site.root}/daemon.log")


def _is_final(path: os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as file:
            return b'"final":true' in file.read()
    except FileNotFoundError:
        return False
