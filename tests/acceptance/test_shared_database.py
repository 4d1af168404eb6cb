"""One external PostgreSQL under several spools, or behind a pooler: daemons as processes."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from spoold.queue.database import Database
from spoold.queue.migrate import Migration, migrate, shipped
from tests.acceptance.test_docs import free_port, page
from tests.conftest import wait_until
from tests.integration.postgres_runs import text_of
from tests.sites import DEADLINE_SECONDS, Site, request, spoold

MakeSite = Callable[..., Site]


def test_a_daemon_behind_a_transaction_pooler_polls_and_says_so(
    make_site: MakeSite, evidence: Path, pooled_conninfo: str
) -> None:
    port = free_port()
    site = make_site(roots={"evidence": evidence}, database_url=pooled_conninfo)
    site.environment["SPOOLD_HTTP_LISTEN"] = f"127.0.0.1:{port}"
    names = [f"request-{number}.json" for number in range(20)]
    for name in names[:10]:
        site.drop(name, request())
    site.start()
    assert {site.final(name)["state"] for name in names[:10]} == {"succeeded"}
    for name in names[10:]:
        site.drop(name, request())
    finals = [site.final(name) for name in names]
    assert {final["state"] for final in finals} == {"succeeded"}
    assert len({final["job_id"] for final in finals}) == 20

    assert site.log.count("database.pooled") == 1
    wait_until(lambda: 'spoold_wake_mode{mode="polling"} 1.0' in page(port, "/metrics"))
    assert json.loads(page(port, "/healthz"))["checks"]["wakes"]["text"] == "polling"
    said = spoold("doctor", site.root, environment=site.environment).stdout
    assert "WARN  wakes: a pooler stands before the database" in said
    assert site.stop() == 0
    assert "Traceback" not in site.log
    wait_until(lambda: site.leftovers() == [], DEADLINE_SECONDS)


def test_two_daemons_with_two_spools_share_a_database(
    make_site: MakeSite, evidence: Path, conninfo: str
) -> None:
    sites = [
        make_site(name, roots={"evidence": evidence}, database_url=conninfo, workers_count="1")
        for name in ("site-a", "site-b")
    ]
    names = [f"request-{number}.json" for number in range(12)]
    for site in sites:
        site.start()
    for name in names:
        for site in sites:
            site.drop(name, request(idempotency_key=name))
    finals = [[site.final(name) for name in names] for site in sites]
    for site, answers in zip(sites, finals, strict=True):
        # Not a duplicate of the other's, and under its own name.
        assert {answer["state"] for answer in answers} == {"succeeded"}
        assert {answer["site"] for answer in answers} == {site.name}
        assert [answer["files"]["drop"] for answer in answers] == [
            f"processed/{name}" for name in names
        ]
        jobs = json.loads(
            spoold("jobs", "--json", "--spool", site.root, environment=site.environment).stdout
        )["jobs"]
        assert {job["job_id"] for job in jobs} == {answer["job_id"] for answer in answers}
    assert len({answer["job_id"] for answers in finals for answer in answers}) == 24
    # One goes, the other does not notice.
    assert sites[0].stop() == 0
    sites[1].drop("request-last.json", request())
    assert sites[1].final("request-last.json")["state"] == "succeeded"
    assert sites[1].stop() == 0
    for site in sites:
        assert len(list((site.root / "processed").glob("*.tar.zst"))) == 12 + (site is sites[1])
        assert site.leftovers() == []
        assert "Traceback" not in site.log


LATER = Migration(len(shipped()) + 1, "later", b"create table spoold.later ()")
UNDO = b"drop table spoold.later; delete from spoold.migration where name = 'later'"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A root with a folder that takes some seconds to bundle at level 19, and a tiny one."""
    folder = tmp_path / "evidence" / "incident-123"
    folder.mkdir(parents=True)
    (tmp_path / "evidence" / "tiny").mkdir()
    (tmp_path / "evidence" / "tiny" / "note").write_text("x")
    chance = random.Random(2)
    words = [chance.randbytes(6).hex() for _ in range(5000)]
    with open(folder / "words", "w") as file:
        for _ in range(14):
            file.write(" ".join(chance.choices(words, k=80_000)))
    return tmp_path / "evidence"


def test_an_old_daemon_ends_cleanly_when_a_newer_one_has_changed_the_tables(
    make_site: MakeSite, slow: Path, conninfo: str
) -> None:
    site = make_site(roots={"evidence": slow}, database_url=conninfo, workers_count="1")
    hard = {"compression": {"codec": "zstd", "level": 19}}
    daemon = site.start()
    site.drop("request-slow.json", request(**hard))
    wait_until(lambda: '"running"' in text_of(site.status_path("request-slow.json")), 30)
    later = [f"request-{number}.json" for number in range(5)]
    for name in later:
        site.drop(name, request("tiny"))
    database = Database(conninfo, "tests")
    assert migrate(database, (*shipped(), LATER)) == 1

    assert daemon.wait(60) == 78
    assert f"schema-newer: the queue's tables are of version {LATER.number}" in site.log
    assert "fix: install that version" in site.log
    # What ran was finished, and nothing else was begun.
    done = site.final("request-slow.json", 1)
    assert (done["state"], done["attempt"]) == ("succeeded", 1)
    assert not any('"final":true' in text_of(site.status_path(name)) for name in later)
    # Another start of this version, and its commands, refuse.
    assert site.start().wait(60) == 78
    refused = spoold("jobs", "--spool", site.root, check=False, environment=site.environment)
    assert refused.returncode == 78
    assert "schema-newer" in refused.stderr

    database.script(UNDO)  # from here on this version is as good as the newer one
    database.close()
    site.daemons.clear()
    (slow / "incident-123" / "words").write_text("small\n")
    assert site.run_once() == 0
    finals = [site.final(name, 1) for name in later]
    assert {(final["state"], final["attempt"]) for final in finals} == {("succeeded", 1)}
    assert site.leftovers() == []


def test_a_worker_of_its_own_ends_too_when_the_tables_are_newer(
    make_site: MakeSite, conninfo: str
) -> None:
    site = make_site(database_url=conninfo, workers_count="1")
    assert site.run_once() == 0
    worker = site.process(command="worker")
    database = Database(conninfo, "tests")
    wait_until(
        lambda: database.connection.execute("select count(*) from spoold.worker").fetchone() == (1,)
    )
    migrate(database, (*shipped(), LATER))
    database.close()
    assert worker.wait(60) == 78
    assert "worker.outdated" in site.log


def test_a_daemon_whose_login_is_refused_says_so_and_ends(
    make_site: MakeSite, conninfo: str
) -> None:
    site = make_site(database_url=make_conninfo(conninfo, password="wrong"))
    assert site.run_once() == 78
    assert "password authentication failed" in site.log
    assert "fix: check user, password and database name" in site.log
