"""How work is stopped: drained, given back, cancelled, out of time, and with its supervisor."""

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spoold.queue.database import Database
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.apis import Exchange, serving
from tests.conftest import wait_until
from tests.sites import Site, request, spoold

MakeSite = Callable[..., Site]

SLOW = {"sources": [{"kind": "http", "endpoint": "slow"}]}
HEAVY = {"compression": {"codec": "zstd", "level": 19}}


@dataclass
class Slow:
    """An API that answers when the test lets it: until then a job that asks it runs."""

    base: str
    release: threading.Event

    def known_to(self, site: Site) -> Site:
        """The same site, whose requests may name it."""
        with open(site.root / "spoold.toml", "a") as file:
            file.write(
                f'\n[apis.slow]\nbase = "{self.base}"\nread_timeout_seconds = 600\n'
                '[endpoints.slow]\napi = "slow"\npath = "/"\n'
            )
        return site


@pytest.fixture
def slow() -> Iterator[Slow]:
    release = threading.Event()
    with serving() as api:

        def answer(exchange: Exchange) -> None:
            release.wait()
            exchange.send(b'[{"number":1}]')

        api.answer = answer
        yield Slow(api.base, release)
        release.set()


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    """A root whose folder takes some ten seconds of processor time to bundle at level 19."""
    folder = tmp_path / "evidence" / "incident-123"
    folder.mkdir(parents=True)
    chance = random.Random(2)
    words = [chance.randbytes(6).hex() for _ in range(5000)]
    with open(folder / "words", "w") as file:
        for _ in range(30):
            file.write(" ".join(chance.choices(words, k=80_000)))
    return tmp_path / "evidence"


def workers_of(daemon: subprocess.Popen[bytes]) -> list[int]:
    """The process ids of a daemon's workers."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return [
        int(pid)
        for pid in children
        if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]


def is_running(pid: int) -> bool:
    return (
        Path(f"/proc/{pid}").exists()
        and "Z" not in (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
    )


def state_of(site: Site, name: str) -> str:
    path = site.status_path(name)
    return str(json.loads(path.read_bytes())["state"]) if path.exists() else ""


def start_slow_job(site: Site, how: dict[str, Any] = SLOW) -> subprocess.Popen[bytes]:
    """A daemon in the middle of a job."""
    daemon = site.start()
    site.drop("request-slow.json", request(**how))
    wait_until(lambda: state_of(site, "request-slow.json") == "running", 30)
    return daemon


def test_e30_sigterm_lets_the_running_attempt_finish(make_site: MakeSite, slow: Slow) -> None:
    site = slow.known_to(make_site(embedded=True))
    daemon = start_slow_job(site)
    site.drop("request-later.json", request(**SLOW))
    daemon.send_signal(signal.SIGTERM)
    wait_until(lambda: "daemon.draining" in site.log, 10)
    slow.release.set()
    assert daemon.wait(60) == 0
    site.daemons.remove(daemon)
    status = site.final("request-slow.json", 1)
    assert status["state"] == "succeeded"
    assert status["attempt"] == 1
    assert state_of(site, "request-later.json") in {"", "queued"}


def test_e30_what_does_not_finish_in_time_is_given_back_and_not_counted(
    make_site: MakeSite, slow: Slow
) -> None:
    site = slow.known_to(make_site(workers_drain_seconds="0"))
    daemon = start_slow_job(site)
    workers = workers_of(daemon)
    assert site.stop(daemon) == 0
    assert not any(map(is_running, workers))
    assert state_of(site, "request-slow.json") == "running"  # the last it said

    slow.release.set()
    site.start()
    status = site.final("request-slow.json")
    assert status["state"] == "succeeded"
    assert status["attempt"] == 1


def test_e30_a_second_sigterm_stops_now(make_site: MakeSite, slow: Slow) -> None:
    site = slow.known_to(make_site(workers_drain_seconds="600"))
    daemon = start_slow_job(site)
    daemon.send_signal(signal.SIGTERM)
    wait_until(lambda: "daemon.draining" in site.log, 10)
    assert site.stop(daemon) == 0
    # Neither waited for the end of the attempt nor for the 600 seconds.
    assert state_of(site, "request-slow.json") == "running"


def test_e30_no_worker_outlives_a_killed_supervisor(make_site: MakeSite, slow: Slow) -> None:
    site = slow.known_to(make_site(embedded=True, workers_count=2))
    daemon = start_slow_job(site)
    workers = workers_of(daemon)
    assert len(workers) == 2
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    site.daemons.remove(daemon)
    wait_until(lambda: not any(map(is_running, workers)), 5)

    slow.release.set()
    site.start()  # adopts the database that the first one left running
    status = site.final("request-slow.json")
    assert status["state"] == "succeeded"
    assert status["attempt"] == 2
    wait_until(lambda: site.leftovers() == [], 5)


def test_a_cancelled_job_stops_within_a_second(make_site: MakeSite, heavy: Path) -> None:
    site = make_site(roots={"evidence": heavy})
    daemon = start_slow_job(site, HEAVY)
    before = set(workers_of(daemon))
    spoold("cancel", "request-slow.json", "--spool", site.root)
    wait_until(lambda: before - set(workers_of(daemon)) != set(), 2)
    status = site.final("request-slow.json", 10)
    assert status["state"] == "cancelled"
    assert status["error"]["code"] == "cancelled"
    assert status["files"]["drop"] == "failed/request-slow.json"
    site.verified("request-slow.json")
    wait_until(lambda: site.leftovers() == [], 5)


def test_an_attempt_that_takes_too_long_ends(make_site: MakeSite, slow: Slow) -> None:
    site = slow.known_to(make_site(retry_base_seconds="0.1"))
    site.start()
    site.drop("request-slow.json", request(**SLOW, timeout="2s", max_attempts=2))
    status = site.final("request-slow.json", 60)
    assert status["state"] == "failed"
    assert status["error"]["code"] == "timeout"
    assert status["attempt"] == 2
    assert not list((site.root / "processed").iterdir())
    wait_until(lambda: site.leftovers() == [], 5)


def test_e32_a_job_that_kills_its_worker_ends_and_the_others_go_on(
    make_site: MakeSite, heavy: Path
) -> None:
    (heavy / "small").mkdir()
    (heavy / "small" / "file").write_text("x")
    site = make_site(
        roots={"evidence": heavy}, workers_count=2, retry_base_seconds="0.1", retry_max_attempts="2"
    )
    daemon = start_slow_job(site, HEAVY)
    for attempt in (1, 2):
        wait_until(
            lambda: (
                f'"attempt":{attempt},' in site.status_path("request-slow.json").read_text()  # noqa: B023
                and state_of(site, "request-slow.json") == "running"
            ),
            30,
        )
        busy = max(workers_of(daemon), key=cpu_seconds)
        os.kill(busy, signal.SIGKILL)
    status = site.final("request-slow.json", 30)
    assert status["state"] == "failed"
    assert status["error"]["code"] == "worker-lost"
    site.drop("request-small.json", request(path="small"))
    assert site.final("request-small.json")["state"] == "succeeded"
    wait_until(lambda: len(workers_of(daemon)) == 2, 10)


def test_e32_a_job_that_uses_up_its_processor_time_ends_and_nobody_waits_for_it(
    make_site: MakeSite, heavy: Path
) -> None:
    """A real one: it kills its worker each time, and nobody else may notice."""
    (heavy / "small").mkdir()
    (heavy / "small" / "file").write_text("x")
    site = make_site(
        roots={"evidence": heavy},
        workers_count=2,
        workers_cpu_seconds="1",
        retry_base_seconds="0.1",
    )
    site.start()
    site.drop("request-poison.json", request(**HEAVY, max_attempts=3))
    wait_until(lambda: "worker.died" in site.log, 30)
    names = [f"request-{number}.json" for number in range(10)]
    for name in names:
        site.drop(name, request(path="small", max_attempts=1))
    assert {site.final(name, 30)["state"] for name in names} == {"succeeded"}
    status = site.final("request-poison.json", 30)
    assert (status["state"], status["error"]["code"]) == ("failed", "cpu-limit")
    assert status["attempt"] == 3
    assert "1 s" in status["error"]["message"]
    wait_until(lambda: site.leftovers() == [], 5)


def test_a_job_that_needs_more_memory_than_it_may_fails_and_its_worker_lives_on(
    make_site: MakeSite, heavy: Path
) -> None:
    (heavy / "small").mkdir()
    (heavy / "small" / "file").write_text("x")
    site = make_site(roots={"evidence": heavy}, workers_memory_bytes="256MiB", workers_threads="64")
    site.start()
    site.drop("request-large.json", request(**HEAVY, threads=64, max_attempts=1))
    status = site.final("request-large.json", 60)
    assert (status["state"], status["error"]["code"]) == ("failed", "out-of-memory")
    site.drop("request-small.json", request(path="small"))
    assert site.final("request-small.json")["state"] == "succeeded"
    assert "worker.died" not in site.log


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_jobs_claimed_along_with_a_slow_one_are_given_back_and_not_counted(
    make_site: MakeSite, slow: Slow, evidence: Path
) -> None:
    (evidence / "tiny").mkdir()
    (evidence / "tiny" / "note").write_text("x")
    site = slow.known_to(make_site(roots={"evidence": evidence}, workers_count=1))
    for number in range(60):  # after so many the worker claims many at once
        site.drop(f"request-first-{number:02}.json", request("tiny", priority=0))
    site.drop("request-slow.json", request(priority=100, **SLOW))
    after = [f"request-after-{number}.json" for number in range(5)]
    for name in after:
        site.drop(name, request("tiny", priority=900))
    daemon = site.start()
    wait_until(lambda: state_of(site, "request-slow.json") == "running", 60)

    def given_back() -> bool:
        listed = json.loads(spoold("jobs", "--json", "--spool", site.root).stdout)["jobs"]
        waiting = [job for job in listed if job["drop"] in after]
        return [(job["state"], job["attempt"]) for job in waiting] == [("queued", 0)] * len(after)

    wait_until(given_back, 30)
    spoold("cancel", "request-slow.json", "--spool", site.root)
    for name in after:
        status = site.final(name)
        assert (status["state"], status["attempt"]) == ("succeeded", 1)
    assert site.final("request-slow.json")["state"] == "cancelled"
    site.stop(daemon)


def test_a_claim_that_a_frozen_server_commits_late_is_given_back(
    make_site: MakeSite, slow: Slow, evidence: Path, conninfo: str
) -> None:
    site = slow.known_to(make_site(roots={"evidence": evidence}, database_url=conninfo))
    site.start()
    site.drop("request-slow.json", request(**SLOW))
    wait_until(lambda: state_of(site, "request-slow.json") == "running", 60)
    site.drop("request-late.json", request())
    wait_until(lambda: state_of(site, "request-late.json") == "queued")
    store = Store(Database(conninfo, "tests"), Spool.at(site.root).identity().spool)
    [worker] = store.workers()
    # What the worker asked for once, and gave up. The status says `queued` before there is a row.
    wait_until(lambda: len(store.claim(worker.id)) == 1)
    store.database.close()
    slow.release.set()
    status = site.final("request-late.json")
    assert (status["state"], status["attempt"]) == ("succeeded", 1)
    assert "worker.died" not in site.log


def test_once_does_not_say_that_all_is_done_where_it_could_not_look(
    make_site: MakeSite, slow: Slow
) -> None:
    site = slow.known_to(make_site())
    site.drop("request-slow.json", request(**SLOW))
    daemon = site.process("--once")
    wait_until(lambda: state_of(site, "request-slow.json") == "running", 60)
    site.inbox.rename(site.root / "elsewhere")
    slow.release.set()
    assert daemon.wait(60) == 75
    site.daemons.clear()


@pytest.mark.nightly
def test_a_worker_that_is_silent_for_a_lease_is_ended_and_replaced(
    make_site: MakeSite, tmp_path: Path
) -> None:
    site, begun = make_site(workers_count=1), tmp_path / "begun"
    script = f"test -e {begun} || {{{{ touch {begun}; exec sleep 600; }}}}"
    with open(site.root / "spoold.toml", "a") as file:
        file.write(f'\n[[handlers]]\npattern = "stay-*.txt"\ncommand = ["sh", "-c", "{script}"]\n')
    daemon = site.start()
    site.drop("stay-1.txt", "x")
    wait_until(begun.exists)
    [worker] = workers_of(daemon)
    os.kill(worker, signal.SIGSTOP)
    status = site.final("stay-1.txt")
    assert (status["state"], status["attempt"]) == ("succeeded", 2)
    assert not is_running(worker)
