"""A bundle whose place beneath `restored/` is taken is refused before its sinks get anything."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spoold.actions import rehydrate
from spoold.actions.context import ActionSettings
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings
from spoold.publish import Publisher, Ready
from spoold.queue.answers import Verdict
from spoold.queue.job import RetryPolicy, State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host, Progress, claimed_name
from spoold.worker.attempt import Attempt, Site
from spoold.worker.live import LiveStatus
from tests.bundles import BUNDLE_ID, Forge, check, signer, trusted
from tests.contracts.sink import listing
from tests.integration.queue_drops import digest, drop, worker
from tests.integration.row_merges import ALERTS, Place, alerts, both_sinks, own_schema

HOST = Host("site-b", "host")
FILES = {"alerts/a.jsonl": alerts(5), "artifacts/x": b"x"}
OTHER = {"alerts/a.jsonl": alerts(9), "artifacts/y": b"y"}  # of the same bundle id


@dataclass
class Receiver:
    """A site with a table and a store, whose worker and publisher take one job after the other."""

    tree: Spool
    store: Store
    place: Place
    shelf: Path
    bundles: Path
    count: int = 0

    def receive(self, bundle: bytes, *, request: dict[str, Any] | None = None) -> tuple[str, str]:
        """State and code of a job for a bundle: the drop itself, or what a request names."""
        return self.publish(self.attempt(bundle, LiveStatus(self.tree, HOST), request))

    def attempt(
        self, bundle: bytes, live: LiveStatus, request: dict[str, Any] | None = None
    ) -> Ready:
        """That job up to where it can be published."""
        self.count += 1
        number = self.count
        name = f"{number}.tar.zst"
        if request is not None:
            (self.bundles / name).write_bytes(bundle)
            named = {"root": "here", "path": name}
            request = {"type": "spoold.request/1", "action": "rehydrate", "bundle": named} | request
            name = f"request-{number}.json"
        admission = drop(
            name,
            action="rehydrate",
            request=request,
            request_sha256=None if request is None else digest(name),
        )
        claimed = os.fsdecode(claimed_name(admission.id, name.encode()))
        (self.tree.folder(Folder.CLAIMED) / claimed).write_bytes(bundle)
        [answer] = self.store.admit([admission])
        assert answer.verdict is Verdict.ADMITTED, answer
        [claim] = self.store.claim(worker(self.store))
        attempt = Attempt(claim, self.store, self._site(), live, lambda: None, lambda: None)
        ready = attempt.run()
        assert isinstance(ready, Ready)
        return ready

    def publish(self, ready: Ready) -> tuple[str, str]:
        """Publish it; state and code."""
        Publisher(self.tree, self.store, HOST, signer("site-b")).publish([ready])
        job = self.store.get(ready.claim.id)
        assert job is not None
        assert job.outcome is not None
        error: Any = job.outcome["error"]
        return job.state.value, error["code"] if error else ""

    def forget(self, bundle: bytes) -> None:
        """What `spoold forget` does."""
        manifest_sha256 = check(bundle).manifest_sha256
        assert self.store.forget(rehydrate.key(bytes.fromhex(manifest_sha256))) is not None

    def taken(self) -> tuple[Any, Any]:
        """What stands in the table and in the store."""
        return self.place.contents(), listing(self.shelf)

    @property
    def restored(self) -> Path:
        return self.tree.folder(Folder.RESTORED) / "site-a" / BUNDLE_ID

    def _site(self) -> Site:
        sinks = both_sinks(self.place, self.shelf)
        connections = Connections(
            roots={"here": self.bundles},
            databases={"soc": DatabaseSettings(url=self.place.conninfo)},
        )
        settings = ActionSettings(connections=connections, sinks=sinks)
        return Site(self.tree, HOST, signer("site-b"), trusted, settings, RetryPolicy())


@pytest.fixture
def receiver(tmp_path: Path, spool: Spool, store: Store, conninfo: str) -> Iterator[Receiver]:
    for name in ("shelf", "bundles"):
        (tmp_path / name).mkdir()
    with own_schema(tmp_path, conninfo) as place:
        place.run(f"create table alert {ALERTS}")
        yield Receiver(spool, store, place, tmp_path / "shelf", tmp_path / "bundles")


DROPPED = pytest.mark.parametrize(
    "request_", [None, {"dry_run": False}, {"dry_run": True}], ids=["drop", "request", "dry run"]
)


@DROPPED
@pytest.mark.parametrize("stands", [True, False])
def test_h33_of_two_bundles_with_one_id_the_second_gives_the_sinks_nothing(
    receiver: Receiver, request_: dict[str, Any] | None, *, stands: bool
) -> None:
    assert receiver.receive(Forge.of(FILES).build()) == ("succeeded", "")
    if not stands:  # whoever has the id keeps it
        receiver.restored.rename(receiver.bundles / "moved away")
    before = receiver.taken()
    found = receiver.receive(Forge.of(OTHER).build(), request=request_)
    assert receiver.taken() == before
    assert found == ("failed", "bundle-id-taken")


class Waiting(LiveStatus):
    """Lets something happen when the head has been read, and the index."""

    happens: Callable[[], object] | None = None

    def report(self, progress: Progress) -> None:
        if progress.phase == "index" and self.happens is not None:
            self.happens, happens = None, self.happens
            happens()
        super().report(progress)


def test_h33_it_is_asked_again_when_another_was_published_while_the_bundle_was_read(
    receiver: Receiver,
) -> None:
    """As one after the other is, of two that were dropped together."""
    first = receiver.attempt(Forge.of(FILES).build(), LiveStatus(receiver.tree, HOST))
    before = receiver.taken()
    live = Waiting(receiver.tree, HOST)
    live.happens = lambda: receiver.publish(first)
    second = receiver.attempt(Forge.of(OTHER).build(), live)
    assert live.happens is None
    assert receiver.taken() == before
    assert receiver.publish(second) == ("failed", "bundle-id-taken")


@DROPPED
def test_where_a_folder_stands_that_nobody_knows_the_sinks_get_nothing(
    receiver: Receiver, request_: dict[str, Any] | None
) -> None:
    """As after a database was lost."""
    receiver.restored.mkdir(parents=True)
    before = receiver.taken()
    found = receiver.receive(Forge.of(FILES).build(), request=request_)
    assert receiver.taken() == before
    assert found == ("failed", "restored-exists")
    receiver.restored.rmdir()
    assert receiver.receive(Forge.of(FILES).build()) == ("succeeded", "")
    assert receiver.taken() != before


@DROPPED
def test_a_forgotten_bundle_whose_folder_stands_gives_the_sinks_nothing(
    receiver: Receiver, request_: dict[str, Any] | None
) -> None:
    bundle = Forge.of(FILES).build()
    assert receiver.receive(bundle) == ("succeeded", "")
    receiver.forget(bundle)
    receiver.place.run("delete from alert")
    (receiver.shelf / "artifacts" / "x").unlink()
    before = receiver.taken()
    found = receiver.receive(bundle, request=request_)
    assert receiver.taken() == before
    assert found == ("failed", "restored-exists")
    receiver.restored.rename(receiver.bundles / "moved away")
    assert receiver.receive(bundle, request=request_) == ("succeeded", "")


def test_what_was_restored_is_a_duplicate_and_a_dry_run_of_it_tells_as_before(
    receiver: Receiver,
) -> None:
    bundle = Forge.of(FILES).build()
    assert receiver.receive(bundle) == ("succeeded", "")
    assert receiver.receive(bundle)[0] == State.DUPLICATE
    assert receiver.receive(bundle, request={"dry_run": True}) == ("succeeded", "")


def test_a_part_stands_in_no_whole_ones_place(receiver: Receiver) -> None:
    receiver.restored.mkdir(parents=True)
    asked = {"only": ["artifacts/**"]}
    assert receiver.receive(Forge.of(FILES).build(), request=asked) == ("succeeded", "")
    assert list(listing(receiver.shelf)) == ["artifacts/x"]
