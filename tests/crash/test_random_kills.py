"""kill -9 at random moments, of everything, again and again: nothing lost, nothing twice."""

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from spoold import postgres
from spoold.postgres.home import Home
from spoold.queue.database import Database
from spoold.queue.store import Store
from spoold.spool import Spool
from tests.bundles import build_tree, signer
from tests.conftest import wait_until
from tests.crash.table import FROM_SITE, Answer, Table, make_tree
from tests.sites import Site, request

ENVIRONMENT = {
    "SPOOLD_HTTP_LISTEN": "",
    "SPOOLD_INTAKE_MIN_FREE_BYTES": "0",
    "SPOOLD_INTAKE_SETTLE_SECONDS": "0.5",
    "SPOOLD_WORKERS_COUNT": "2",
    "SPOOLD_RETRY_BASE_SECONDS": "0.2",
    "SPOOLD_RETRY_CAP_SECONDS": "2",
    # A worker that dies uses an attempt up, and here they all die.
    "SPOOLD_RETRY_MAX_ATTEMPTS": "1000",
}
SMALL, LARGE = "small", "large"


@dataclass
class Victim:
    """A site whose processes are killed while it works."""

    tree: Spool
    site: Site
    chance: random.Random
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: dict[str, bytes] = field(default_factory=dict)
    """Final statuses as a script has read them."""
    killed: Counter[str] = field(default_factory=Counter)

    def drop(self, answer: Answer) -> None:
        self.answers[answer.drop] = answer
        self.site.drop(answer.drop, answer.content)

    def answered(self) -> int:
        """Read what has come; what was final must not have changed. Returns how many there are."""
        for name in self.answers:
            path = self.site.status_path(name)
            if path.exists() and not os.path.lexists(self.site.inbox / name):
                content = path.read_bytes()
                if json.loads(content)["final"]:
                    assert self.seen.setdefault(name, content) == content, name
        return len(self.seen)

    # --- who is killed --------------------------------------------------------------------------

    def kill_something(self) -> None:
        kinds = (self.a_worker, self.the_daemon, self.the_database, self.a_backend)
        [kind] = self.chance.choices(kinds, [5, 3, 2, 1])
        with suppress(OSError):  # it may have ended by itself
            kind()
            self.killed[kind.__name__] += 1

    def a_worker(self) -> None:
        workers = [
            pid
            for pid in children(self.site.daemons[-1].pid)
            if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        if workers:
            os.kill(self.chance.choice(workers), signal.SIGKILL)

    def the_daemon(self) -> None:
        daemon = self.site.daemons.pop()
        daemon.kill()
        daemon.wait()
        pause(self.chance.uniform(0, 0.3))
        self.site.start()

    def the_database(self) -> None:
        os.kill(self.postmaster(), signal.SIGKILL)

    def a_backend(self) -> None:
        """The server takes it for its own crash, and starts over."""
        os.kill(self.chance.choice(children(self.postmaster())), signal.SIGKILL)

    def postmaster(self) -> int:
        """The process id of this spool's server. Raises FileNotFoundError where none runs."""
        data = Home.of(self.tree).data
        pid = int((data / "postmaster.pid").read_text().split()[0])
        if not Path(f"/proc/{pid}/cwd").samefile(data):
            raise FileNotFoundError(pid)
        return pid


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A root with a small folder, and one whose bundle takes a moment."""
    root = tmp_path / "evidence"
    (root / SMALL / "logs").mkdir(parents=True)
    (root / SMALL / "logs" / "auth.log").write_bytes(b"login failed\n" * 1000)
    (root / SMALL / "empty").touch()
    (root / LARGE).mkdir()
    for number in range(6):
        (root / LARGE / f"part-{number}").write_bytes(random.Random(number).randbytes(2_000_000))
    return root


@pytest.fixture
def victim(tmp_path: Path, evidence: Path) -> Iterator[Victim]:
    tree = make_tree(tmp_path / "spool", evidence)
    site = Site(tree.root, "site-a", ENVIRONMENT)
    yield Victim(tree, site, random.Random(1))
    site.end()
    print(site.log[-50_000:])  # shown where the test has failed


def drops(evidence: Path, scratch: Path, count: int) -> Iterator[Answer]:
    """Drops of all kinds; those that follow one another ask for the same now and then."""
    small, large = evidence / SMALL, evidence / LARGE
    for number in range(0, count, 10):
        name = f"request-{number:03}-{{}}.json".format
        yield bundled(name("a"), small)
        yield bundled(name("b"), small, idempotency_key=f"once-{number}")
        yield bundled(name("c"), large)
        yield Answer(name("d"), json_of(SMALL, sauces=[]), "rejected", "request-invalid")
        yield bundled(name("e"), small, idempotency_key=f"once-{number}")
        folder = large if number % 50 == 0 else small
        carried = carry(evidence, folder, scratch, number)
        yield Answer(f"carried-{number}.tar.zst", carried, restored=folder)
        yield Answer(name("f"), json_of("nowhere"), "failed", "source-missing")
        yield Answer(f"carried-{number}-again.tar.zst", carried, restored=folder)
        yield bundled(name("g"), small)
        yield bundled(name("h"), small, compression={"codec": "gzip"})


def bundled(name: str, folder: Path, **fields: object) -> Answer:
    return Answer(name, json_of(folder.name, **fields), bundled=folder)


def json_of(path: str, **fields: object) -> bytes:
    return json.dumps(request(path, **fields)).encode()


def carry(evidence: Path, folder: Path, scratch: Path, number: int) -> bytes:
    """A bundle of another site, with a name of its own."""
    made = scratch / f"carried-{number}"
    built = build_tree(
        evidence, made, by=signer(FROM_SITE), bundle_id=f"demo-{number:012x}", path=folder.name
    )
    return built.path.read_bytes()


@pytest.mark.parametrize(
    ("count", "kills"), [(20, 6), pytest.param(500, 200, marks=pytest.mark.nightly)]
)
def test_killed_at_random_moments_every_drop_gets_exactly_one_answer(
    victim: Victim, evidence: Path, tmp_path: Path, count: int, kills: int
) -> None:
    waiting = list(drops(evidence, tmp_path, count))
    victim.site.start()
    for number in range(kills):
        while len(victim.answers) < count * (number + 1) / kills:
            victim.drop(waiting.pop(0))
        let_some_be_answered(victim)
        victim.kill_something()
    wait_until(lambda: victim.answered() == count, 240)
    print(dict(victim.killed))

    assert victim.site.stop() == 0
    # What is left of attempts that were killed goes with the first sweep of the next start.
    assert victim.site.run_once() == 0
    assert victim.answered() == count
    server = postgres.ensure_running(victim.tree)
    try:
        check(victim, server.conninfo, tmp_path)
    finally:
        server.stop_if_last()


def let_some_be_answered(victim: Victim) -> None:
    """Kills that follow too closely on one another would only meet a daemon that starts."""
    before, end = victim.answered(), time.monotonic() + 3
    pause(victim.chance.uniform(0.1, 0.8))
    while victim.answered() == before < len(victim.answers) and time.monotonic() < end:
        pause(0.02)


def check(victim: Victim, conninfo: str, scratch: Path) -> None:
    database = Database(conninfo, "tests")
    table = Table(
        victim.tree,
        Store(database, victim.tree.identity().spool),
        scratch,
        victim.site.root / "daemon.log",
        answers=settled(victim),
    )
    table.check()
    taken_over = sum(job.epoch > 1 for job in table.jobs())
    assert taken_over > len(victim.answers) // 25, "the kills have met no jobs"
    database.close()


def settled(victim: Victim) -> list[Answer]:
    """Of two that ask for the same, whoever came second is the other's duplicate."""
    return [settle(victim, answer) for answer in victim.answers.values()]


def settle(victim: Victim, answer: Answer) -> Answer:
    others = [
        other
        for other in victim.answers.values()
        if other.content == answer.content and other is not answer
    ]
    status = json.loads(victim.seen[answer.drop])
    if status["state"] != "duplicate" or not others or not is_keyed(answer):
        return answer
    [first] = others
    stands = json.loads(victim.seen[first.drop])
    assert stands["state"] == "succeeded"
    assert status["result"]["duplicate_of"] == stands["job_id"]
    return replace(answer, state="duplicate", bundled=None, restored=None)


def is_keyed(answer: Answer) -> bool:
    return answer.drop.endswith(".zst") or b"idempotency_key" in answer.content


def children(pid: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pause(seconds: float) -> None:
    """A random moment is what is tested here: there is no event to wait for."""
    time.sleep(seconds)
