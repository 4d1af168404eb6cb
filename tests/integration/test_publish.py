"""Publishing, taken up again from everything that a crash can leave on the disk.

Each test records a publication, makes some of its moves by hand as a worker would have before it
died, and lets another worker claim the job: the result must be the same, whatever was found.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from spoold import trust
from spoold.errors import SpooldError
from spoold.publish import Ending, Made, Publisher
from spoold.publish.plan import Planner
from spoold.queue.job import Begun, Claim, Publication, RetryPolicy, State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host, claimed_name
from spoold.worker import scratch
from tests.conftest import wait_until
from tests.integration.queue_drops import drop, worker

HOST = Host("site-a", "host")
DROP = "request-demo.json"
BUNDLE = "demo-0123456789ab.tar.zst"


@dataclass
class Dead:
    """A job whose worker died after it had recorded its publication."""

    tree: Spool
    store: Store
    signer: trust.Signer
    claim: Claim
    scratch: Path
    publication: Publication

    def taken_over(self) -> tuple[bool, Path]:
        """Another worker claims it and goes on; whether it could, and its scratch."""
        self.store.leave(self.claim.worker)
        self.store.rescue(30.0, _POLICY)
        [claim] = self.store.claim_publishing(worker(self.store))
        folder = scratch.take_over(self.tree, claim)
        publisher = Publisher(self.tree, self.store, HOST, self.signer)
        return publisher.resume(claim, folder), folder

    def target(self, role: str) -> Path:
        [move] = [move for move in self.publication.sources if move.role == role]
        return self.tree.root / move.folder / os.fsdecode(move.name)

    def move(self, role: str) -> None:
        """What the dead worker still did."""
        source = (
            self.tree.folder(Folder.CLAIMED)
            / os.fsdecode(claimed_name(self.claim.id, self.claim.job.drop_name))
            if role == "drop"
            else self.scratch / role
        )
        source.rename(self.target(role))

    def link(self) -> None:
        os.link(self.target("status"), self.answer)

    @property
    def answer(self) -> Path:
        return self.tree.folder(Folder.STATUS) / f"{DROP}.status.json"


_POLICY = RetryPolicy()


@pytest.fixture(scope="module")
def signer() -> trust.Signer:
    private = trust.generate(trust.Algorithm.ED25519)
    key_id = trust.key_id(private.public_key())
    return trust.Signer(key_id, "site-a", trust.Algorithm.ED25519, private)


@pytest.fixture
def dead(spool: Spool, store: Store, signer: trust.Signer) -> Dead:
    admission = drop(DROP)
    claimed = spool.folder(Folder.CLAIMED) / os.fsdecode(claimed_name(admission.id, DROP.encode()))
    claimed.write_text("the request")
    store.admit([admission])
    [claim] = store.claim(worker(store))
    folder = scratch.begin(spool, claim)
    (folder / "bundle").write_text("the bundle")
    made = [Made("bundle", "bundle", Folder.PROCESSED, BUNDLE.encode())]
    ending = Ending(State.SUCCEEDED, {"bundle": BUNDLE})
    publication = Planner(spool, HOST, signer).plan(claim.job, folder, ending, made, None, ())
    assert store.begin_publishing(claim, publication) is Begun.BEGUN
    return Dead(spool, store, signer, claim, folder, publication)


def assert_published(dead: Dead, *, drop_name: str = DROP) -> None:
    """Everything in its place once, one final document, nothing left."""
    job = dead.store.get(dead.claim.id)
    assert job is not None
    assert job.state is State.SUCCEEDED
    processed = dead.tree.folder(Folder.PROCESSED)
    assert (processed / BUNDLE).read_text() == "the bundle"
    assert (processed / drop_name).read_text() == "the request"
    beside = processed / f"{drop_name}.status.json"
    assert beside.read_bytes() == job.final_document
    assert dead.answer.samefile(beside)
    trusted = trust.Trust([dead.signer.trusted()])
    verified = trusted.verify_document(beside.read_bytes(), "spoold.status/1", trust.Role.STATUS)
    assert verified.document["files"] == {
        "bundle": f"processed/{BUNDLE}",
        "drop": f"processed/{drop_name}",
    }
    assert list(dead.tree.folder(Folder.WORK).iterdir()) == []
    assert list(dead.tree.folder(Folder.CLAIMED).iterdir()) == []


STEPS: tuple[Callable[[Dead], None], ...] = (
    lambda dead: dead.move("bundle"),
    lambda dead: dead.move("drop"),
    lambda dead: dead.move("status"),
    lambda dead: dead.link(),
)


@pytest.mark.parametrize("done", range(len(STEPS) + 1))
def test_e10_publishing_goes_on_from_every_step(dead: Dead, done: int) -> None:
    for step in STEPS[:done]:
        step(dead)
    went_on, _ = dead.taken_over()
    assert went_on
    assert_published(dead)
    if done < len(STEPS):
        assert dead.publication.final_document == dead.answer.read_bytes()


def test_a_consumer_that_takes_everything_at_once_is_met(dead: Dead) -> None:
    for step in STEPS:
        step(dead)
    for path in dead.tree.folder(Folder.PROCESSED).iterdir():
        path.unlink()
    went_on, _ = dead.taken_over()
    assert went_on
    job = dead.store.get(dead.claim.id)
    assert job is not None
    assert job.state is State.SUCCEEDED
    assert list(dead.tree.folder(Folder.PROCESSED).iterdir()) == []


def test_a_status_taken_before_it_was_linked_is_written_again(dead: Dead) -> None:
    for role in ("bundle", "drop", "status"):
        dead.move(role)
    dead.target("status").unlink()
    went_on, _ = dead.taken_over()
    assert went_on
    assert dead.answer.read_bytes() == dead.publication.final_document


@pytest.mark.parametrize("role", ["drop", "status"])
@pytest.mark.parametrize("moved", [(), ("bundle",), ("bundle", "drop")])
def test_a_foreign_file_in_the_way_changes_the_names_and_loses_nothing(
    dead: Dead, role: str, moved: tuple[str, ...]
) -> None:
    if role in moved:
        pytest.skip("its name is ours by then")
    for one in moved:
        dead.move(one)
    dead.target(role).write_text("somebody else's")
    went_on, _ = dead.taken_over()
    assert went_on
    assert dead.target(role).read_text() == "somebody else's"
    dead.target(role).unlink()
    assert_published(dead, drop_name=f"request-demo~{dead.claim.job.short_id}.json")


def test_what_is_nowhere_to_be_found_is_said_and_tried_again(dead: Dead) -> None:
    hidden = dead.tree.root / "hidden"
    (dead.scratch / "bundle").rename(hidden)
    with pytest.raises(SpooldError) as caught:
        dead.taken_over()
    assert caught.value.code.name == "publish-lost"
    [again] = list(dead.tree.folder(Folder.WORK).iterdir())
    hidden.rename(again / "bundle")
    job = dead.store.get(dead.claim.id)
    assert job is not None
    assert job.state is State.PUBLISHING
    assert job.worker is not None
    dead.store.leave(job.worker)
    dead.store.rescue(30.0, _POLICY)
    [claim] = dead.store.claim_publishing(worker(dead.store))
    publisher = Publisher(dead.tree, dead.store, HOST, dead.signer)
    assert publisher.resume(claim, scratch.take_over(dead.tree, claim))
    assert_published(dead)


def test_e29_a_worker_that_lost_its_claim_moves_nothing(
    spool: Spool, store: Store, signer: trust.Signer
) -> None:
    """The zombie wakes up between its plan and its first statement, and goes on."""
    admission = drop(DROP)
    claimed = spool.folder(Folder.CLAIMED) / os.fsdecode(claimed_name(admission.id, DROP.encode()))
    claimed.write_text("the request")
    store.admit([admission])
    [stale] = store.claim(worker(store))
    old = scratch.begin(spool, stale)
    (old / "bundle").write_text("the zombie's")
    store.leave(stale.worker)
    store.rescue(30.0, RetryPolicy(base_seconds=0.0))
    wait_until(lambda: store.promote() > 0)
    [claim] = store.claim(worker(store))
    new = scratch.begin(spool, claim)
    assert not old.exists()

    made = [Made("bundle", "bundle", Folder.PROCESSED, BUNDLE.encode())]
    zombie = Publisher(spool, store, HOST, signer)
    with pytest.raises(FileNotFoundError):
        zombie.publish(stale, old, Ending(State.SUCCEEDED, {"bundle": BUNDLE}), made)
    old.mkdir()  # and if it made its folder again, the row would not let it
    (old / "bundle").write_text("the zombie's")
    assert not zombie.publish(stale, old, Ending(State.SUCCEEDED, {"bundle": BUNDLE}), made)
    assert list(spool.folder(Folder.PROCESSED).iterdir()) == []

    (new / "bundle").write_text("the bundle")
    publisher = Publisher(spool, store, HOST, signer)
    assert publisher.publish(claim, new, Ending(State.SUCCEEDED, {"bundle": BUNDLE}), made)
    assert (spool.folder(Folder.PROCESSED) / BUNDLE).read_text() == "the bundle"
