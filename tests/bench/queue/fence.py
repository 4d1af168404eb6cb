"""Stale results: what `spoold selftest fence` finds on the bench's own database and disk."""

import json
import subprocess
import sys
from typing import Any, NamedTuple

from tests.bench.queue.site import Site


class Fence(NamedTuple):
    """What workers tried that had lost their lease, and what of it was accepted."""

    jobs: int
    lease_seconds: float
    claims: int
    lost: int
    writes: int
    writes_accepted: int
    renames: int
    renames_done: int
    problems: list[str]


def run(site: Site, jobs: int) -> Fence:
    """So many jobs, each with one result in the end."""
    command = [sys.executable, "-m", "spoold", "selftest", "fence", str(site.root)]
    done = subprocess.run(
        [*command, "--jobs", str(jobs), "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout)
    writes = found["writes"].values()
    return Fence(
        found["results"],
        found["lease_seconds"],
        found["claims"],
        found["lost"],
        sum(verb["tried"] for verb in writes),
        sum(verb["accepted"] for verb in writes),
        found["renames"]["tried"],
        found["renames"]["done"],
        found["problems"],
    )
