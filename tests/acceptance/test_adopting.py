"""E34 as an operator meets it: copied trees, lost databases, other versions, and `spoold adopt`."""

import json
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold import postgres
from spoold.postgres import binaries
from spoold.postgres.home import Home
from spoold.queue import binding
from spoold.queue.database import Database
from spoold.queue.migrate import migrate
from spoold.spool import Spool
from tests.acceptance.test_docs import README, programs
from tests.conftest import DEBIAN_PROGRAMS, wait_until
from tests.sites import Site, request, spoold

MakeSite = Callable[..., Site]

LATER = {"not_before": "2099-01-01T00:00:00Z"}


def adopt(site: Site, *options: str, status: int = 0) -> str:
    done = spoold("adopt", site.root, *options, check=False, environment=site.environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def copy_of(site: Site, make_site: MakeSite, name: str = "copy") -> Site:
    """A copy of the tree, as `cp -a` makes it."""
    copy = make_site(name)
    shutil.rmtree(copy.root)
    shutil.copytree(site.root, copy.root, symlinks=True)
    copy.environment = site.environment
    return copy


def test_e34_a_lost_database_is_said_and_given_up_only_when_asked(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, embedded=True)
    site.drop("request-done.json", request())
    site.drop("request-later.json", request(**LATER))
    assert site.run_once() == 75
    done = site.status_path("request-done.json").read_bytes()
    later = json.loads(site.status_path("request-later.json").read_bytes())
    shutil.rmtree(Home.of(Spool.at(site.root)).data)

    assert site.run_once() == 78
    assert "database-lost" in site.log
    assert "a copy" not in site.log
    said = spoold("doctor", site.root, check=False, environment=site.environment)
    assert said.returncode == 1
    assert "adopt --new-database" in said.stdout
    assert "database-lost" in adopt(site, status=78)
    assert "accepted: this spool's jobs are in database" in adopt(site, "--new-database")
    assert "nothing to accept" in adopt(site)

    site.drop("request-done.json", request())  # the same name again: overwrites nothing
    assert site.run_once() == 75
    new = site.final("request-done.json")
    assert new["state"] == "succeeded"
    assert new["files"]["drop"] == f"processed/request-done~{new['job_id'][-12:]}.json"
    assert (site.root / "processed/request-done.json.status.json").read_bytes() == done
    again = json.loads(site.status_path("request-later.json").read_bytes())
    assert again["job_id"] == later["job_id"]
    assert [path.name for path in (site.root / ".spoold/claimed").iterdir()] == [
        f"{later['job_id']}.request-later.json"
    ]


def test_e34_a_copied_tree_is_refused_until_it_is_adopted(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, embedded=True)
    site.drop("request-later.json", request(**LATER))
    assert site.run_once() == 75
    copy = copy_of(site, make_site)
    assert copy.run_once() == 78
    assert "spool-foreign" in copy.log
    assert "spoold adopt" in copy.log
    assert f"knows the spool at {site.root}" in adopt(copy)
    assert "nothing to accept" in adopt(copy)
    copy.drop("request-demo.json", request())
    assert copy.run_once() == 75
    assert copy.final("request-demo.json")["state"] == "succeeded"
    if os.geteuid() == 0:  # one database for both; else the copy has one of its own
        assert site.run_once() == 78


@pytest.mark.parametrize("where", ["embedded", "external"])
def test_adopt_refuses_while_a_daemon_runs(
    make_site: MakeSite, conninfo: str, where: str, tmp_path: Path
) -> None:
    url = {"database_url": conninfo} if where == "external" else {"embedded": True}
    site = make_site(workers_count="1", **url)
    daemon = site.start()
    wait_until(lambda: "worker.started" in site.log)
    assert "spool-busy" in adopt(site, status=75)
    # The tree that this one was copied from is in use, maybe on another host.
    copy = copy_of(site, make_site) if where == "external" or os.geteuid() == 0 else None
    if copy is not None:
        wait_until(lambda: "spool-busy" in adopt(copy, status=75))
        assert site.stop(daemon) == 0
        assert "accepted: " in adopt(copy)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("publish.2", marks=pytest.mark.nightly),
        "publish.3",
        pytest.param("publish.4", marks=pytest.mark.nightly),
        "publish.5",
    ],
)
def test_e34_half_published_files_are_found_again_in_a_copied_tree(
    make_site: MakeSite, evidence: Path, conninfo: str, point: str
) -> None:
    site = make_site(roots={"evidence": evidence}, database_url=conninfo, workers_count="1")
    site.environment["SPOOLD_STOP_AT"] = point
    daemon = site.start()
    site.drop("request-demo.json", request())
    wait_until(lambda: "worker.died" in site.log, 60)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    site.daemons.clear()
    del site.environment["SPOOLD_STOP_AT"]
    database = Database(conninfo, "tests")
    database.script(b"update spoold.worker set seen_at = now() - interval '1 hour'")
    database.close()
    moved = copy_of(site, make_site)
    shutil.rmtree(site.root / "processed")  # nothing of the old tree is used

    adopt(moved)
    assert moved.run_once() == 0
    final = moved.final("request-demo.json")
    assert final["state"] == "succeeded"
    assert {path.name for path in (moved.root / "processed").iterdir()} == {
        "request-demo.json",
        "request-demo.json.status.json",
        final["result"]["bundle"],
    }
    assert moved.leftovers() == []
    moved.verified("request-demo.json")


def test_the_backup_of_the_readme_is_made_while_a_daemon_runs_and_brings_all_back(
    make_site: MakeSite, evidence: Path, conninfo: str
) -> None:
    site = make_site(roots={"evidence": evidence}, database_url=conninfo, workers_count="1")
    [block] = re.findall(r"```sh\n(pg_dump .*?)```", README.read_text(), re.DOTALL)
    make, _, restore = block.partition("# and back")
    dump, tree = make.splitlines()
    restore = restore.partition("\n")[2]

    def run(script: str) -> None:
        path = programs(site.root.parent / f"bin-{uuid.uuid4().hex}")
        # pg_dump must not be older than the server.
        path = f"{binaries.locate(None).folder}:{path}"
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=site.root.parent,
            env={**os.environ, **site.environment, "PATH": path, "url": conninfo},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    daemon = site.start()
    site.drop("request-before.json", request())
    site.drop("request-later.json", request(**LATER))
    site.drop("request-during.json", request(**LATER))
    wait_until(lambda: len(list((site.root / ".spoold/claimed").iterdir())) == 2, 60)
    before = site.final("request-before.json")
    run(dump)
    spoold("cancel", "request-during.json", "--spool", site.root, environment=site.environment)
    site.drop("request-between.json", request())
    between, during = site.final("request-between.json"), site.final("request-during.json")
    run(tree)
    site.drop("request-after.json", request())
    site.final("request-after.json")
    assert site.stop(daemon) == 0
    shutil.rmtree(site.root)

    run(restore)
    site.drop("request-between.json", request())  # answered before, in no row: a new job
    assert site.run_once() == 1  # one that was cancelled
    for final in (before, during):
        assert site.final(final["drop"], 1) == final
        site.verified(final["drop"])
    again = site.final("request-between.json")
    assert again["state"] == "succeeded"
    assert again["job_id"] != between["job_id"]
    kept = site.root / "processed/request-between.json.status.json"
    assert json.loads(kept.read_bytes()) == between
    jobs = json.loads(
        spoold("jobs", "--json", "--spool", site.root, environment=site.environment).stdout
    )["jobs"]
    states = {job["drop"]: job["state"] for job in jobs}
    assert states == {
        "request-before.json": "succeeded",
        "request-later.json": "scheduled",
        "request-during.json": "cancelled",
        "request-between.json": "succeeded",
    }
    # Two of the backup, and the new one: nothing was made twice.
    assert len(list((site.root / "processed").glob("*.tar.zst"))) == 3


@pytest.mark.skipif(not DEBIAN_PROGRAMS.is_dir(), reason="PostgreSQL 15 is not installed")
def test_a_drained_spool_of_another_postgres_starts_afresh_as_the_refusal_says(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, embedded=True)
    spool = Spool.at(site.root)
    server = postgres.ensure_running(spool, programs=DEBIAN_PROGRAMS)
    database = Database(server.conninfo, "tests")
    migrate(database)
    binding.bind(database, spool, site.name)
    database.close()
    server.stop_if_last()

    assert site.run_once() == 78
    assert "was made by PostgreSQL 15, the installed one is 18" in site.log
    said = spoold("doctor", site.root, check=False, environment=site.environment).stdout
    assert "move that folder away, then `spoold adopt --new-database`" in said
    os.rename(server.data, server.data.with_name("data.15"))
    assert "accepted: " in adopt(site, "--new-database")
    site.drop("request-demo.json", request())
    assert site.run_once() == 0
    assert site.final("request-demo.json")["state"] == "succeeded"
