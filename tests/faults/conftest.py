"""A site between whose daemon and database things go wrong."""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from spoold import postgres
from spoold.errors import SpooldError
from spoold.spool import Spool
from spoold.trust import public_pem
from tests.bundles import Forge, signer
from tests.conftest import wait_until
from tests.faults.proxy import Proxy, proxy_to
from tests.sites import Site, Status, prepared, request

MakeSite = Callable[..., Site]


@dataclass
class OwnServer:
    """A server of this test's own, to be stopped and started."""

    server: postgres.Server

    @property
    def pid(self) -> int:
        return int((self.server.data / "postmaster.pid").read_text().split("\n")[0])

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it and wait for that: SIGQUIT is the immediate shutdown, like a crash."""
        os.kill(self.pid, how)
        wait_until(lambda: not self.server.alive())

    def start(self) -> None:
        assert self.server.revive()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    spool = Spool.at(tmp_path / "server")
    spool.create()
    server = postgres.ensure_running(spool)
    yield OwnServer(server)
    server.stop_if_last()
    with suppress(SpooldError, FileNotFoundError):
        postgres.remove(spool)


@pytest.fixture
def proxy(conninfo: str) -> Iterator[Proxy]:
    """A door before a fresh database of the shared server."""
    with proxy_to(conninfo) as made:
        yield made


@pytest.fixture
def make_receiver(make_site: MakeSite, evidence: Path, tmp_path: Path) -> Callable[..., Site]:
    """Make a site that knows the root `evidence` and trusts site-b."""

    def make(**keys: object) -> Site:
        settings = {
            "workers_count": "2",  # or no job could be doubled
            "workers_drain_seconds": "2",
            "retry_base_seconds": "0.1",
            **keys,
        }
        made = make_site(roots={"evidence": evidence}, **settings)
        key = tmp_path / "site-b.pub"
        key.write_bytes(public_pem(signer("site-b").trusted().public))
        prepared("keys", "trust", key, "--site", "site-b", "--spool", made.root)
        return made

    return make


def drop_both(site: Site, label: str, then: Callable[[], None] = lambda: None) -> list[str]:
    """Drop a request and a bundle of their own; their names.

    They are written under names that a daemon leaves alone, then `then` happens, then they are
    renamed: that needs no room on a disk.
    """
    number = random.randrange(10**12)
    contents = {
        f"request-{label}.json": json.dumps(request(idempotency_key=label)).encode(),
        f"{label}.tar.zst": Forge.good(by=signer("site-b"), bundle_id=f"demo-{number:012}").build(),
    }
    for name, content in contents.items():
        (site.inbox / f"{name}.part").write_bytes(content)
    then()
    for name in contents:
        (site.inbox / f"{name}.part").rename(site.inbox / name)
    return list(contents)


def check_each_once(site: Site, statuses: list[Status]) -> None:
    """All succeeded, and `processed/` holds what they say and nothing else."""
    assert {status["state"] for status in statuses} == {"succeeded"}
    published = [
        name
        for status in statuses
        for name in (
            status["drop"],
            f"{status['drop']}.status.json",
            *([status["result"]["bundle"]] if status["action"] == "bundle" else []),
        )
    ]
    assert sorted(os.listdir(site.root / "processed")) == sorted(published)
    assert os.listdir(site.root / "failed") == []
    wait_until(lambda: site.leftovers() == [], 10)


def says(site: Site, name: str) -> Status:
    """What the status file of a drop says now; nothing where there is none."""
    path = site.status_path(name)
    status: Status = json.loads(path.read_bytes()) if path.exists() else {"state": None}
    return status
