"""The disk is full, or only to be read, at any step: nothing is lost, it goes on by itself."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

from spoold import again, errors
from spoold.errors import Exit, SpooldError
from tests.conftest import wait_until
from tests.faults.conftest import check_each_once, drop_both, says
from tests.faults.disks import SmallDisk, small_disk
from tests.faults.machine import machine_on
from tests.faults.proxy import Proxy
from tests.sites import Site, request

MakeReceiver = Callable[..., Site]
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class OnSmallDisk(Site):
    """A site whose daemon logs elsewhere than on its own disk."""

    def process(self, *arguments: str, command: str = "run") -> subprocess.Popen[bytes]:
        with open(self.root.with_suffix(".log"), "ab") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "spoold", command, self.root, *arguments],
                stderr=log,
                stdout=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        self.daemons.append(daemon)
        return daemon

    @property
    def log(self) -> str:
        return self.root.with_suffix(".log").read_text(errors="replace")

    def troubles(self) -> int:
        """How often something did not work because of the disk."""
        return self.log.count("No space left on device") + self.log.count("Read-only file system")

    def is_troubled_or_done(self, before: int, names: Sequence[str]) -> bool:
        """Whether there was more trouble than before, or none at all with these drops."""
        return self.troubles() > before or all(says(self, name).get("final") for name in names)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk where the spool of site-a will be."""
    with small_disk(tmp_path / "site-a") as made:
        yield made


@pytest.fixture
def make(disk: SmallDisk, make_receiver: MakeReceiver, conninfo: str) -> Iterator[MakeReceiver]:
    """Make the site on that disk; it can write again when its daemon is to end."""
    made: list[Site] = []

    def make(**keys: object) -> OnSmallDisk:
        settings = {
            "database_url": conninfo,
            "intake_rescan_seconds": "0.3",
            "retry_cap_seconds": "0.5",
            "retry_max_attempts": "1",
            **keys,
        }
        site = make_receiver(**settings)
        made.append(OnSmallDisk(site.root, site.name, site.environment))
        return made[0]

    yield make
    disk.writable()
    disk.grow()
    for site in made:
        for daemon in list(site.daemons):
            site.stop(daemon)


@pytest.mark.parametrize(
    ("what", "levels"),
    [
        ("files", (0, 4)),
        ("pages", (3,)),
        pytest.param("files", range(14), marks=pytest.mark.nightly),
        pytest.param("pages", range(14), marks=pytest.mark.nightly),
    ],
)
def test_e23_a_disk_that_becomes_full_at_any_step_loses_nothing(
    make: MakeReceiver, disk: SmallDisk, what: str, levels: Sequence[int]
) -> None:
    site = make()
    site.start()
    statuses = [site.final(name) for name in drop_both(site, "before")]
    for level in levels:
        # So many steps of the two jobs find room, and the next one none.
        leave = partial(disk.leave_files, level)
        if what == "pages":
            leave = partial(disk.resize, free_bytes=level * PAGE)
        before = site.troubles()
        names = drop_both(site, f"{what}-{level}", leave)
        wait_until(partial(site.is_troubled_or_done, before, names))
        disk.grow()
        statuses += [site.final(name) for name in names]
    assert site.troubles() > 0
    check_each_once(site, statuses)
    # Not even one attempt may be lost, and none was.
    assert {status["attempt"] for status in statuses} == {1}
    assert "worker.died" not in site.log
    assert "Traceback" not in site.log


def test_e23_below_the_floor_nothing_is_taken_and_the_status_says_so(
    make: MakeReceiver, disk: SmallDisk
) -> None:
    site = make(intake_min_free_bytes="1MiB")
    site.start()
    disk.resize(free_bytes=1 << 19)
    names = drop_both(site, "demo")
    for name in names:
        wait_until(lambda name=name: says(site, name).get("reason") == "space")
        assert says(site, name)["state"] == "waiting"
        assert says(site, name)["error"]["code"] == "no-space"
        assert (site.inbox / name).exists()
    disk.grow()
    check_each_once(site, [site.final(name) for name in names])


def test_e23_a_job_that_finds_no_room_says_when_it_is_tried_again_for_as_long_as_it_takes(
    make: MakeReceiver, disk: SmallDisk, evidence: Path
) -> None:
    (evidence / "incident-123" / "large").write_bytes(os.urandom(4 << 20))
    site = make()
    site.start()
    disk.resize(free_bytes=1 << 20)
    site.drop("request-demo.json", request())
    wait_until(lambda: site.log.count('"attempt.postponed"') >= 3)  # one attempt is all it has
    wait_until(lambda: says(site, "request-demo.json")["state"] == "scheduled")
    status = says(site, "request-demo.json")
    assert (status["attempt"], status["max_attempts"]) == (1, 1)
    assert status["error"]["code"] == "no-space"
    assert status["error"]["retryable"] is True
    assert status["next_attempt_at"] is not None
    disk.grow()
    status = site.final("request-demo.json")
    assert (status["state"], status["attempt"]) == ("succeeded", 1)


def test_e23_a_publication_that_cannot_go_on_says_why_and_when_it_does(
    make: MakeReceiver, disk: SmallDisk
) -> None:
    site = make()
    (site.root / "restored" / "site-b").write_text("in the way of a folder")
    site.start()
    names = drop_both(site, "demo")
    wait_until(lambda: says(site, names[1])["state"] == "publishing")
    status = says(site, names[1])
    assert status["final"] is False
    assert "restored/site-b" in status["error"]["message"]
    assert status["next_attempt_at"] is not None
    (site.root / "restored" / "site-b").unlink()
    check_each_once(site, [site.final(name) for name in names])


def test_a_disk_that_can_only_be_read_is_refused_at_the_start_and_waited_for_later(
    make: MakeReceiver, disk: SmallDisk, proxy: Proxy, conninfo: str
) -> None:
    site = make(database_url=proxy.conninfo)
    disk.read_only()
    assert site.run_once() == Exit.CONFIGURATION
    assert "can only be read" in site.log
    disk.writable()
    go_through(site, proxy, conninfo, disk.read_only, disk.writable, "intake.disk")


@pytest.mark.nightly
def test_e25_a_spool_that_is_unmounted_for_a_while_is_waited_for(
    make: MakeReceiver, disk: SmallDisk, proxy: Proxy, conninfo: str
) -> None:
    site = make(database_url=proxy.conninfo)
    go_through(site, proxy, conninfo, disk.hide, disk.show, "intake.inbox_missing")


def go_through(
    site: OnSmallDisk,
    proxy: Proxy,
    conninfo: str,
    begin: Callable[[], None],
    end: Callable[[], None],
    sign: str,
) -> None:
    """Let a drop be due to be claimed and a job to be begun while the fault lasts."""
    site.start()
    statuses = [site.final(name) for name in drop_both(site, "before")]
    site.drop("request-job.json", request(not_before="2100-01-01T00:00:00Z"))
    later = "select id from spoold.job where state = 'scheduled'"
    with psycopg.connect(conninfo, autocommit=True) as clock:
        wait_until(lambda: clock.execute(later).fetchone() is not None)
        proxy.shut = True
        site.drop("request-drop.json", request())
        wait_until(lambda: says(site, "request-drop.json").get("reason") == "database-away")
        begin()
        clock.execute("update spoold.job set due_at = now() where state = 'scheduled'")
    proxy.shut = False
    wait_until(lambda: sign in site.log)
    wait_until(lambda: "attempt.postponed" in site.log)
    end()
    statuses += [site.final(name) for name in ("request-job.json", "request-drop.json")]
    check_each_once(site, statuses)
    assert {status["attempt"] for status in statuses} == {1}
    assert "worker.died" not in site.log
    assert "Traceback" not in site.log


@pytest.mark.nightly
def test_e23_a_full_disk_under_the_embedded_server_is_waited_for(
    tmp_path: Path, evidence: Path
) -> None:
    with (
        small_disk(tmp_path / "small") as disk,
        machine_on(tmp_path, evidence, tmp_path / "daemon.log", data_disk=disk.place) as machine,
    ):
        machine.start()
        statuses = [machine.final(name) for name in drop_both(machine, "before")]
        disk.resize(free_bytes=0)
        names = [name for number in range(100) for name in drop_both(machine, f"job-{number}")]
        wait_until(lambda: "No space left on device" in machine.log)
        machine.drop("request-late.json", request())
        wait_until(lambda: says(machine, "request-late.json").get("reason") == "database-away")
        disk.grow()
        statuses += [machine.final(name) for name in [*names, "request-late.json"]]
        check_each_once(machine, statuses)


def test_a_retry_that_finds_no_room_says_so_of_its_own_copy(
    disk: SmallDisk, tmp_path: Path
) -> None:
    source, target = tmp_path / "drop.json", disk.place / "copy"
    source.write_bytes(bytes(1024**2))
    disk.resize(free_bytes=64 * 1024)
    with pytest.raises(SpooldError) as caught, again._copied(source, target, None):
        pytest.fail("there was room")
    assert caught.value.code is errors.NO_SPACE
    assert caught.value.message.startswith(str(disk.place))
    assert not list(disk.place.iterdir())
