"""kill -9 at random moments, again and again: nothing lost, nothing twice, all answered."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.sites import Site, request, spoold

DROPS = 50
MakeSite = Callable[..., Site]


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_every_drop_gets_exactly_one_answer(
    make_site: MakeSite, evidence: Path, seed: int
) -> None:
    chance = random.Random(seed)
    # So that there is something to interrupt: some work of every size.
    for number in range(6):
        (evidence / "incident-123" / f"part-{number}").write_bytes(chance.randbytes(2_000_000))
    site = make_site(roots={"evidence": evidence}, retry_base_seconds="0.2", retry_max_attempts=50)
    names = [f"request-{number:02}.json" for number in range(DROPS)]
    daemon = site.start()
    for name in names[: DROPS // 2]:
        site.drop(name, request())
    for kills in range(8):
        wait_for_some(site, (kills + 1) * 3)
        pause(chance.uniform(0.0, 0.4))
        if chance.random() < 0.5:
            kill_a_worker(daemon, chance)
        else:
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.wait()
            site.daemons.remove(daemon)
            daemon = site.start()
        for name in names[DROPS // 2 + kills * 4 : DROPS // 2 + (kills + 1) * 4]:
            site.drop(name, request())
    statuses = [site.final(name, 180) for name in names[: DROPS // 2 + 32]]

    assert {status["state"] for status in statuses} == {"succeeded"}
    published = Counter(path.name for path in (site.root / "processed").iterdir())
    expected = Counter(
        name
        for status in statuses
        for name in (
            status["drop"],
            f"{status['drop']}.status.json",
            status["result"]["bundle"],
        )
    )
    assert published == expected  # each result once, nothing missing, nothing stray
    for status in statuses:
        spoold("verify", site.root / status["files"]["bundle"], "--spool", site.root)
        beside = site.root / "processed" / f"{status['drop']}.status.json"
        assert json.loads(beside.read_bytes()) == status
    assert not list((site.root / "failed").iterdir())
    assert site.stop(daemon) == 0
    # What is left of attempts that were killed goes with the first sweep of the next start.
    assert site.run_once() == 0
    wait_until(lambda: site.leftovers() == [], 5)


def wait_for_some(site: Site, finals: int) -> None:
    """Until so many drops are final: the kills are spread over the work."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if len(list((site.root / "processed").glob("*.status.json"))) >= finals:
            return
        pause(0.01)
    raise AssertionError(f"only few are final: {site.log[-5000:]}")


def pause(seconds: float) -> None:
    """A random moment is what is tested here: there is no event to wait for."""
    time.sleep(seconds)


def kill_a_worker(daemon: subprocess.Popen[bytes], chance: random.Random) -> None:
    """End one of the daemon's children that is a worker."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    workers = [
        int(pid)
        for pid in children
        if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
    if workers:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
