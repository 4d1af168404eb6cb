"""Publishing, taken up again from everything that a crash can leave on the disk.

Each test records a publication, makes some of its moves by hand as a worker would have before it
died, and lets another worker claim the job: the result must be the same, whatever was found.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spoold import trust
from spoold.errors import SpooldError
from spoold.publish import Ending, Made, Publisher, Ready
from spoold.publish.place import Placement
from spoold.publish.plan import Planner
from spoold.queue.answers import Begun
from spoold.queue.job import Claim, Publication, RetryPolicy, State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host, claimed_name
from spoold.worker import scratch
from tests.conftest import wait_until
from tests.integration.file_systems import BOTH
from tests.integration.queue_drops import begin_publishing, drop, worker

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

    def taken_over(self) -> Ready:
        """Another worker claims it and goes on; what became of it."""
        self.store.leave(self.claim.worker)
        self.store.rescue(30.0, _POLICY)
        [claim] = self.store.claim_publishing(worker(self.store))
        folder = scratch.take_over(self.tree, claim)
        return published(self.tree, self.store, self.signer, Ready(claim, folder, SUCCESS))

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
SUCCESS = Ending(State.SUCCEEDED, {"bundle": BUNDLE})


def published(tree: Spool, store: Store, signer: trust.Signer, ready: Ready) -> Ready:
    """A job after a publisher has had it."""
    Publisher(tree, store, HOST, signer).publish([ready])
    return ready


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
    publication = Planner(spool, HOST, signer).plan(claim.job, folder, SUCCESS, made, None, ())
    assert begin_publishing(store, claim, publication) is Begun.BEGUN
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


@BOTH
@pytest.mark.parametrize("done", range(len(STEPS) + 1))
def test_e10_publishing_goes_on_from_every_step(dead: Dead, done: int) -> None:
    for step in STEPS[:done]:
        step(dead)
    assert dead.taken_over().published
    assert_published(dead)
    if done < len(STEPS):
        assert dead.publication.final_document == dead.answer.read_bytes()


def test_a_consumer_that_takes_everything_at_once_is_met(dead: Dead) -> None:
    for step in STEPS:
        step(dead)
    for path in dead.tree.folder(Folder.PROCESSED).iterdir():
        path.unlink()
    assert dead.taken_over().published
    job = dead.store.get(dead.claim.id)
    assert job is not None
    assert job.state is State.SUCCEEDED
    assert list(dead.tree.folder(Folder.PROCESSED).iterdir()) == []


def test_a_status_taken_before_it_was_linked_is_written_again(dead: Dead) -> None:
    for role in ("bundle", "drop", "status"):
        dead.move(role)
    dead.target("status").unlink()
    assert dead.taken_over().published
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
    assert dead.taken_over().published
    assert dead.target(role).read_text() == "somebody else's"
    dead.target(role).unlink()
    assert_published(dead, drop_name=f"request-demo~{dead.claim.job.short_id}.json")


def test_what_is_nowhere_to_be_found_is_said_and_tried_again(dead: Dead) -> None:
    hidden = dead.tree.root / "hidden"
    (dead.scratch / "bundle").rename(hidden)
    lost = dead.taken_over()
    assert not lost.published
    assert lost.error is not None
    assert lost.error.code.name == "publish-lost"
    [again] = list(dead.tree.folder(Folder.WORK).iterdir())
    hidden.rename(again / "bundle")
    job = dead.store.get(dead.claim.id)
    assert job is not None
    assert job.state is State.PUBLISHING
    assert job.worker is not None
    dead.store.leave(job.worker)
    dead.store.rescue(30.0, _POLICY)
    [claim] = dead.store.claim_publishing(worker(dead.store))
    ready = Ready(claim, scratch.take_over(dead.tree, claim), SUCCESS)
    assert published(dead.tree, dead.store, dead.signer, ready).published
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
    zombie = published(spool, store, signer, Ready(stale, old, SUCCESS, made))
    assert zombie.error is not None
    assert zombie.error.code.name == "disk-error"
    old.mkdir()  # and if it made its folder again, the row would not let it
    (old / "bundle").write_text("the zombie's")
    zombie = published(spool, store, signer, Ready(stale, old, SUCCESS, made))
    assert zombie.lost
    assert list(spool.folder(Folder.PROCESSED).iterdir()) == []

    (new / "bundle").write_text("the bundle")
    assert published(spool, store, signer, Ready(claim, new, SUCCESS, made)).published
    assert (spool.folder(Folder.PROCESSED) / BUNDLE).read_text() == "the bundle"


def test_what_stands_in_the_way_of_one_stops_no_other(
    spool: Spool, store: Store, signer: trust.Signer
) -> None:
    names = [f"request-{number}.json" for number in range(6)]
    admissions = [drop(name) for name in names]
    for name, admission in zip(names, admissions, strict=True):
        claimed = claimed_name(admission.id, name.encode())
        (spool.folder(Folder.CLAIMED) / os.fsdecode(claimed)).write_text(name)
    store.admit(admissions)
    batch = []
    for claim in store.claim(worker(store), limit=10):
        folder = scratch.begin(spool, claim)
        name = os.fsdecode(claim.job.drop_name)
        (folder / "bundle").write_text(name)
        made = [Made("bundle", "bundle", Folder.PROCESSED, f"{name}.tar.zst".encode())]
        batch.append(Ready(claim, folder, SUCCESS, made))
    (batch[2].scratch / "bundle").unlink()
    batch[3].claim = replace(batch[3].claim, epoch=7)
    (spool.folder(Folder.PROCESSED) / names[4]).write_text("somebody else's")
    Publisher(spool, store, HOST, signer).publish(batch)
    assert [ready.published for ready in batch] == [True, True, False, False, True, True]
    assert batch[2].error is not None
    assert batch[3].lost
    for ready in batch:
        name = os.fsdecode(ready.claim.job.drop_name)
        answer = spool.folder(Folder.STATUS) / f"{name}.status.json"
        assert answer.exists() is ready.published
    other = f"request-4~{batch[4].claim.job.short_id}.json"
    assert (spool.folder(Folder.PROCESSED) / other).read_text() == names[4]


@pytest.mark.parametrize("early", [True, False])
def test_a_file_that_appears_in_the_statuss_place_is_no_answer(dead: Dead, *, early: bool) -> None:
    """After the look at the targets, and before the rename or before the link."""
    placement = Placement(
        dead.tree,
        dead.claim.job,
        dead.scratch,
        dead.publication.sources,
        dead.publication.final_document,
    )
    assert placement.first_foreign() is None
    placement.place_results()
    placement.place_drop()
    if not early:
        placement.place_status()
        dead.target("status").unlink()
    dead.target("status").write_text("somebody else's")
    if early:
        with pytest.raises(SpooldError, match="publish-lost"):
            placement.place_status()
        assert not dead.answer.exists()
    else:
        placement.link_status()
        assert dead.answer.read_bytes() == dead.publication.final_document
    assert dead.taken_over().published
    job = dead.store.get(dead.claim.id)
    assert job is not None
    assert dead.answer.read_bytes() == job.final_document
    assert dead.target("status").read_text() == "somebody else's"
