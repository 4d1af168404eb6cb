"""What a worker's death costs: its own job an attempt, its neighbours nothing, the pool no time."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.queue.job import Job, RetryPolicy, State
from spoold.queue.store import Store
from spoold.spool import Spool
from spoold.worker import scratch
from spoold.worker.clock import Unbroken
from spoold.worker.maintenance import Maintenance
from spoold.worker.processes import here, host_of
from spoold.worker.settings import WorkerSettings
from spoold.worker.supervisor import Supervisor
from tests.conftest import wait_until
from tests.integration.queue_drops import drop, worker

SETTINGS = WorkerSettings(
    count=1, drain_seconds=1, aging_seconds=60, retry=RetryPolicy(600, 600), cpu_seconds=7
)


@pytest.fixture
def maintenance(spool: Spool, store: Store) -> Maintenance:
    return Maintenance(spool, store, SETTINGS, lambda: None, lambda worker: None)


def get(store: Store, job: uuid.UUID) -> Job:
    found = store.get(job)
    assert found is not None
    return found


def test_only_what_a_dead_worker_had_begun_loses_an_attempt(
    spool: Spool, store: Store, maintenance: Maintenance
) -> None:
    store.admit([drop(max_attempts=1) for _ in range(5)])
    me = worker(store)
    finished, begun, *waiting = store.claim(me, 5)
    scratch.begin(spool, finished)  # it is to be published
    scratch.begin(spool, begun)
    maintenance.bury(me, -signal.SIGSEGV, begun.id)
    maintenance.round()
    job = get(store, begun.id)
    assert job.state is State.PUBLISHING  # its only attempt was used up
    assert job.last_error is not None
    assert job.last_error["code"] == "worker-lost"
    assert str(job.last_error["message"]).endswith(": SIGSEGV")
    for claim in [finished, *waiting]:
        job = get(store, claim.id)
        assert (job.state, job.attempt, job.last_error) == (State.QUEUED, 0, None)


def test_a_daemon_forgets_dead_workers_of_its_own_process_ids_only(
    spool: Spool, store: Store
) -> None:
    """Beside it, in a container with the same host name, lived workers that it could not see."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    host, namespace = here().split()
    gone, namesake, elsewhere = (uuid.uuid4() for _ in range(3))
    store.register_worker(gone, here(), dead.pid, "1.0")
    store.register_worker(namesake, f"{host} {int(namespace) + 1}", dead.pid, "1.0")
    store.register_worker(elsewhere, f"elsewhere {namespace}", dead.pid, "1.0")
    stop = threading.Event()
    Maintenance(spool, store, SETTINGS, stop.set, lambda worker: None).run(stop)  # one round
    assert {row.id for row in store.workers()} == {namesake, elsewhere}


def test_another_namespace_is_told_from_this_one() -> None:
    code = "from spoold.worker.processes import here; print(here())"
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no namespaces here")
    assert done.stdout.strip() != here()
    assert host_of(done.stdout.strip()) == host_of(here()) == socket.gethostname()


def test_a_worker_that_used_up_its_processor_time_says_so(
    spool: Spool, store: Store, maintenance: Maintenance
) -> None:
    store.admit([drop()])
    me = worker(store)
    [claim] = store.claim(me)
    scratch.begin(spool, claim)
    maintenance.bury(me, -signal.SIGXCPU, claim.id)
    maintenance.round()
    job = get(store, claim.id)
    assert job.state is State.SCHEDULED
    assert job.error is not None
    assert job.error["code"] == "cpu-limit"
    assert "than 7 s" in str(job.error["message"])


def test_while_a_machine_sleeps_or_its_clock_is_turned_nobody_is_watched() -> None:
    unbroken = Unbroken(wall=1000, steady=50)
    assert unbroken.seconds(1100, 150) == 100
    assert unbroken.seconds(5100, 151) == 0  # it slept
    assert unbroken.seconds(5110, 161) == 10
    assert unbroken.seconds(1000, 162) == 0  # somebody turned the clock back
    assert unbroken.seconds(1040, 202) == 40


class Pool:
    """A supervisor of scripts that end at once, and what it says of them."""

    def __init__(self, folder: Path, script: str) -> None:
        self._starts = folder / "starts"
        self._starts.touch()
        note = f"import os; open({str(self._starts)!r}, 'a').write('x'); "
        self.deaths: list[int] = []
        self.supervisor = Supervisor(
            command=[sys.executable, "-S", "-c", note + script],
            count=1,
            environment={},
            on_published=lambda published: None,
            on_death=lambda worker, status, job: self.deaths.append(status),
        )
        self.supervisor.start()

    def started(self, count: int) -> float:
        """Wait for so many starts; how long that took."""
        began = time.monotonic()

        def enough() -> bool:
            self.supervisor.wait(0.05)
            return len(self._starts.read_text()) >= count

        wait_until(enough)
        return time.monotonic() - began

    def end(self) -> None:
        self.supervisor.drain()
        self.supervisor.kill()
        while self.supervisor.alive():
            self.supervisor.wait(0.05)


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[list[Pool]]:
    made: list[Pool] = []
    yield made
    for pool in made:
        pool.end()


def test_e32_a_worker_whose_job_killed_it_is_replaced_at_once(
    tmp_path: Path, pools: list[Pool]
) -> None:
    line = f"working {uuid.uuid4()}\n".encode()
    tell = f"os.write(int(os.environ['SPOOLD_WORKER_EVENTS']), {line!r}); "
    pools.append(Pool(tmp_path, tell + "os.abort()"))
    pools[0].started(8)  # with back-off it would take more than a minute
    assert set(pools[0].deaths) == {-signal.SIGABRT}


def test_a_worker_that_cannot_even_begin_is_started_again_with_back_off(
    tmp_path: Path, pools: list[Pool]
) -> None:
    pools.append(Pool(tmp_path, "os._exit(78)"))
    assert pools[0].started(4) >= 1.5  # 0, 0.5 and 1 second between them
    assert set(pools[0].deaths) == {78}


def test_a_worker_that_cannot_be_started_is_tried_again_and_leaves_no_descriptor(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program"
    deaths: list[int] = []
    supervisor = Supervisor(
        command=[str(program)],
        count=1,
        environment={},
        on_published=lambda published: None,
        on_death=lambda worker, status, job: deaths.append(status),
    )
    before = set(os.listdir("/proc/self/fd"))
    supervisor.start()
    assert supervisor.alive() == 0
    assert set(os.listdir("/proc/self/fd")) <= before
    aside = tmp_path / "aside"
    aside.write_text("#!/bin/sh\nexit 3\n")
    aside.chmod(0o755)
    aside.rename(program)

    def died() -> bool:
        supervisor.wait(0.05)
        return bool(deaths)

    wait_until(died)
    assert deaths[0] == 3
    supervisor.drain()
    while supervisor.alive():
        supervisor.wait(0.05)
