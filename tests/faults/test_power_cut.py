"""The power goes at any instant: what was promised before it is kept after it.

Spool and embedded server stand on one disk, which is copied at random instants of the work (see
FragileDisk for what such a copy holds). Each copy is mounted where the disk was, a daemon is
started on it, and what it makes of it is held against what was seen before the cut: each drop that
was durably in the inbox is one job and has one answer, and an answer once seen stays the same.
"""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spoold.bundle.reader import Policy, verify
from spoold.disk import sync_file_system
from spoold.spool import Spool
from spoold.trust import load_signer
from spoold.trust_store import load_trust
from tests.bundles import Forge, signer
from tests.conftest import wait_until
from tests.faults.disks import FragileDisk, fragile_disk
from tests.faults.machine import Machine, machine_on
from tests.sites import DEADLINE_SECONDS, Site, Status, request


@dataclass
class Seen:
    """What the outside world knows."""

    dropped: dict[str, bytes] = field(default_factory=dict)
    """Drops that are durably in the inbox, or were."""
    finals: dict[str, bytes] = field(default_factory=dict)
    """The answers that were read."""

    def copy(self) -> "Seen":
        return Seen(dict(self.dropped), dict(self.finals))


@dataclass(frozen=True, slots=True)
class Cut:
    """A disk that has lost its power, and what was known just before."""

    image: Path
    before: Seen


class Observer(threading.Thread):
    """A consumer that reads every answer as soon as it is there."""

    def __init__(self, site: Site, seen: Seen) -> None:
        super().__init__(name="observer")
        self._folder = site.root / "status"
        self._seen = seen
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.001):
            for name in os.listdir(self._folder):
                drop = name.removesuffix(".status.json")
                if drop in self._seen.finals or name.startswith("."):
                    continue
                content = (self._folder / name).read_bytes()
                if json.loads(content)["final"]:
                    self._seen.finals[drop] = content


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[FragileDisk, Callable[[], None]]]:
    """The disk, and what unmounts it."""
    with fragile_disk(tmp_path) as (made, stack):
        yield made, stack.close


@pytest.fixture
def machine(
    disk: tuple[FragileDisk, Callable[[], None]], evidence: Path, tmp_path: Path
) -> Iterator[Machine]:
    with machine_on(disk[0].place, evidence, tmp_path / "daemon.log") as made:
        yield made


@pytest.fixture
def bundles() -> list[bytes]:
    """Bundles of another site that the machine trusts."""
    forges = [Forge.good(by=signer("site-b"), bundle_id=f"demo-{n:012}") for n in range(2)]
    return [forge.build() for forge in forges]


def work_through(
    machine: Machine, disk: FragileDisk, drops: dict[str, bytes], cuts: int, chance: random.Random
) -> list[Cut]:
    """Drop one after the other into a running daemon, and cut the power again and again."""
    seen = Seen()
    sync_file_system(machine.root)  # what the operator has made stands for long
    daemon = machine.start()
    observer = Observer(machine, seen)
    observer.start()
    dropper = threading.Thread(target=drop_all, args=(machine, drops, seen))
    made = []
    try:
        dropper.start()
        for number in range(cuts):
            # Spread over the work: each is made when a certain part of it is done, and a little.
            share = (number + 1) * len(drops) // (cuts + 1)
            wait_until(lambda share=share: len(seen.finals) >= share, DEADLINE_SECONDS)
            pause(chance.uniform(0.0, 0.1))
            before = seen.copy()
            made.append(Cut(disk.cut(), before))
        for name in drops:
            machine.final(name)
    finally:
        dropper.join()
        observer.stop.set()
        observer.join()
        machine.stop(daemon)
    return made


def drop_all(machine: Machine, drops: dict[str, bytes], seen: Seen) -> None:
    for name, content in drops.items():
        machine.drop_durably(name, content)
        seen.dropped[name] = content


def pause(seconds: float) -> None:
    """A random instant is what is tested here: there is no event to wait for."""
    time.sleep(seconds)


def recover(machine: Machine, cut: Cut) -> None:
    """Start a daemon on what the cut has left, and hold what it makes of it against what was."""
    daemon = machine.start()
    names = set(cut.before.dropped) | {path.name for path in machine.inbox.iterdir()}
    statuses = {name: machine.final(name) for name in names}
    # The row follows its answer.
    wait_until(lambda: all(row["finished_at"] for row in machine.jobs()), DEADLINE_SECONDS)
    rows = machine.jobs()
    wait_until(lambda: machine.leftovers() == [], 10)
    # 143: all was done before the cut, so that it is told to stop while it still starts.
    assert machine.stop(daemon) in {0, 143}, machine.log[-3000:]

    for name, answer in cut.before.finals.items():
        assert machine.status_path(name).read_bytes() == answer, name
    assert {status["state"] for status in statuses.values()} <= {"succeeded"}
    assert {row["state"] for row in rows} <= {"succeeded"}
    admitted = Counter(row["drop"] for row in rows)
    assert names <= set(admitted)
    assert set(admitted.values()) <= {1}, admitted
    published = [name for row in rows for name in check_row(machine, row, cut.before)]
    assert sorted(published) == sorted(os.listdir(machine.root / "processed"))
    assert os.listdir(machine.root / "failed") == []


def check_row(machine: Machine, row: Status, before: Seen) -> list[str]:
    """The answer is this job's and its files are whole; their names in `processed/`."""
    answer = machine.status_path(row["drop"]).read_bytes()
    status = json.loads(answer)
    assert status["final"] is True
    assert (status["state"], status["job_id"]) == (row["state"], row["job_id"])
    drop = machine.root / status["files"]["drop"]
    beside = drop.with_name(f"{drop.name}.status.json")
    assert beside.read_bytes() == answer
    if row["drop"] in before.dropped:
        assert drop.read_bytes() == before.dropped[row["drop"]]
    if "restored" in status["files"]:
        restored = machine.root / status["files"]["restored"]
        assert (restored / "a.txt").read_bytes() == b"alpha\n"
        return [drop.name, beside.name]
    own = load_signer(machine.root / ".spoold/keys/signing.pem", machine.name)
    bundle = machine.root / status["files"]["bundle"]
    with open(bundle, "rb") as file:
        verify(file, load_trust(Spool.at(machine.root), own), Policy(), threads=1)
    return [drop.name, beside.name, bundle.name]


def go(
    machine: Machine,
    disk: tuple[FragileDisk, Callable[[], None]],
    bundles: list[bytes],
    *,
    drops: int,
    cuts: int,
    seed: int,
) -> None:
    contents = {
        f"request-{number:03}.json": json.dumps(request(name=f"job-{number}")).encode()
        for number in range(drops)
    }
    for number, bundle in enumerate(bundles):
        contents[f"demo-{number}.tar.zst"] = bundle
    chance = random.Random(seed)
    order = list(contents)
    chance.shuffle(order)
    made = work_through(machine, disk[0], {name: contents[name] for name in order}, cuts, chance)
    disk[1]()
    for cut in made:
        with disk[0].after(cut.image):
            recover(machine, cut)


def test_e37_what_was_promised_before_a_power_cut_is_kept_after_it(
    machine: Machine, disk: tuple[FragileDisk, Callable[[], None]], bundles: list[bytes]
) -> None:
    go(machine, disk, bundles, drops=10, cuts=1, seed=1)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(2))
def test_e37_what_was_promised_before_many_power_cuts_is_kept(
    machine: Machine, disk: tuple[FragileDisk, Callable[[], None]], bundles: list[bytes], seed: int
) -> None:
    go(machine, disk, bundles, drops=40, cuts=15, seed=seed)
