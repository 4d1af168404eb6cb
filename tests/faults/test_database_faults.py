"""The database goes away, at every statement and in the midst of it: all finish by themselves."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from select import select
from typing import LiteralString

import psycopg
import pytest
import structlog.testing

from spoold import errors, postgres
from spoold.daemon.backend import Backend
from spoold.errors import SpooldError
from spoold.postgres.connection import Connection
from spoold.postgres.home import Home
from spoold.queue.database import QUERIES
from spoold.spool import Spool
from tests.conftest import wait_until
from tests.faults.conftest import OwnServer, check_each_once, drop_both, says
from tests.faults.proxy import Fault, Proxy, beginnings, proxy_to
from tests.sites import DEADLINE_SECONDS, Site, Status, request

MakeReceiver = Callable[..., Site]
TEXTS = beginnings(QUERIES)

# What a job needs on its way, and what a daemon asks beside it.
STATEMENTS = [
    "busy_names",
    "admit",
    "claim",
    "claim_publishing",
    "own_key",
    "take_key",
    "done",
    "published_by",
    "begin_publishing",
    "finish",
    "awaited",
    "promote",
    "lost",
]


@pytest.fixture
def site(make_receiver: MakeReceiver, proxy: Proxy) -> Site:
    """A site behind the proxy."""
    return make_receiver(database_url=proxy.conninfo)


def test_e28_a_connection_lost_at_any_statement_loses_no_job_and_doubles_none(
    site: Site, proxy: Proxy
) -> None:
    site.start()
    names = drop_both(site, "first")
    statuses = [site.final(name) for name in names]
    for statement in STATEMENTS:
        for unanswered in (False, True):
            label = f"{statement}-{'unanswered' if unanswered else 'unsent'}"
            fault = proxy.arm(Fault(TEXTS[statement], unanswered))
            names = drop_both(site, label)
            assert fault.happened.wait(DEADLINE_SECONDS), label
            statuses += [site.final(name) for name in names]
    check_each_once(site, statuses)
    # No attempt was used up by what was no fault of the job.
    assert {status["attempt"] for status in statuses} == {1}
    assert site.stop() == 0


@pytest.mark.nightly
def test_e28_connections_cut_after_any_byte_lose_no_job_and_double_none(
    site: Site, proxy: Proxy
) -> None:
    chance = random.Random(1)
    # Between the first byte of a login and more than any batch needs, small ones as often as large.
    proxy.cut_each_after(lambda: int(300 * 1000 ** chance.random()))
    proxy.shut = True
    site.start()
    wait_until(lambda: "database.away" in site.log)
    proxy.shut = False
    names = [name for number in range(8) for name in drop_both(site, f"job-{number}")]
    statuses = [site.final(name) for name in names[:-4]]
    wait_until(lambda: proxy.cuts > 10)
    proxy.cut_each_after(None)
    statuses += [site.final(name) for name in names[-4:]]
    check_each_once(site, statuses)
    assert site.stop() == 0


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(["admit", "begin_publishing"], id="some"),
        pytest.param(
            ["admit", "claim", "run", "begin_publishing", "finish"],
            id="all",
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_e28_a_server_that_stops_at_any_stage_of_a_job_is_waited_for(
    make_receiver: MakeReceiver, own_server: OwnServer, evidence: Path, stages: list[str]
) -> None:
    (evidence / "much").mkdir()
    (evidence / "much" / "file").write_bytes(os.urandom(4 << 20))
    with proxy_to(own_server.server.conninfo) as proxy:
        site = make_receiver(database_url=proxy.conninfo)
        site.start()
        statuses = []
        for stage in stages:
            if stage == "run":
                names = ["request-slow.json"]
                site.drop(names[0], request("much", compression={"codec": "zstd", "level": 19}))
                wait_until(lambda: says(site, "request-slow.json")["state"] == "running")
                own_server.stop()
            else:
                fault = proxy.arm(Fault(TEXTS[stage], then=own_server.stop))
                names = drop_both(site, stage)
                assert fault.happened.wait(DEADLINE_SECONDS)
            late = f"request-while-{stage}.json"
            site.drop(late, request())
            wait_until(lambda late=late: says(site, late).get("reason") == "database-away")
            assert says(site, late)["state"] == "waiting"
            assert says(site, late)["error"]["code"] == "database-away"
            own_server.start()
            statuses += [site.final(name) for name in [*names, late]]
        check_each_once(site, statuses)
        assert {status["attempt"] for status in statuses} == {1}
        assert site.stop() == 0


@pytest.mark.nightly
def test_e28_an_embedded_server_that_is_killed_is_started_again(
    make_receiver: MakeReceiver,
) -> None:
    site = make_receiver(embedded=True)
    site.start()
    names = drop_both(site, "before")
    statuses = [site.final(name) for name in names]
    data = Home.of(Spool.at(site.root)).data
    names = drop_both(site, "meanwhile")
    os.kill(int((data / "postmaster.pid").read_text().split("\n")[0]), signal.SIGKILL)
    statuses += [site.final(name) for name in names]
    check_each_once(site, statuses)
    assert site.stop() == 0


def test_e28_an_embedded_server_that_is_killed_as_soon_as_it_is_up_is_started_again(
    make_receiver: MakeReceiver,
) -> None:
    site = make_receiver(embedded=True)
    data = Home.of(Spool.at(site.root)).data
    site.start()
    wait_until(lambda: "postgres.started" in site.log)
    os.kill(int((data / "postmaster.pid").read_text().split("\n")[0]), signal.SIGKILL)
    statuses = [site.final(name) for name in drop_both(site, "early")]
    check_each_once(site, statuses)
    assert site.stop() == 0


def test_e28_statements_that_an_operator_cancels_are_sent_again(
    make_receiver: MakeReceiver, conninfo: str
) -> None:
    site = make_receiver(database_url=conninfo)
    site.start()
    statuses = [site.final(name) for name in drop_both(site, "before")]
    with psycopg.connect(conninfo) as operator:
        operator.execute("lock table spoold.job in access exclusive mode")
        names = drop_both(site, "meanwhile")

        def each_part_has_met_it() -> bool:
            operator.execute(
                "select pg_cancel_backend(pid) from pg_stat_get_activity(null)"
                " where application_name like 'spoold %' and wait_event_type = 'Lock'"
            )
            return "intake.database_away" in site.log and "maintenance.failed" in site.log

        wait_until(each_part_has_met_it)
    statuses += [site.final(name) for name in names]
    check_each_once(site, statuses)
    assert {status["attempt"] for status in statuses} == {1}
    assert "worker.died" not in site.log
    assert site.stop() == 0


def test_e28_a_database_that_can_only_be_read_is_one_that_is_away_until_it_takes_writes(
    make_receiver: MakeReceiver, conninfo: str
) -> None:
    site = make_receiver(database_url=conninfo, intake_renew_seconds="1")
    site.start()
    statuses = [site.final(name) for name in drop_both(site, "before")]
    with psycopg.connect(conninfo, autocommit=True) as operator:
        [name] = operator.execute("select current_database()").fetchone() or [""]
        restricted = f'alter database "{name}" set default_transaction_read_only'
        operator.execute(f"{restricted} = on".encode())
        operator.execute(
            "select pg_terminate_backend(pid) from pg_stat_get_activity(null)"
            " where application_name like 'spoold %'"
            " and datid = (select oid from pg_database where datname = current_database())"
        )
        wait_until(lambda: daemon_says(site)["database"]["state"] == "away")
        names = drop_both(site, "meanwhile")
        for each in names:
            wait_until(lambda each=each: says(site, each).get("reason") == "database-away")
        reached = site.log.count("intake.database_reached")
        renewed = daemon_says(site)["renewed_at"]
        wait_until(lambda: daemon_says(site)["renewed_at"] > renewed)
        assert site.log.count("intake.database_reached") == reached
        operator.execute(f"{restricted} = off".encode())
        # Sessions keep what they began with: it takes new ones.
        statuses += [site.final(name) for name in names]
    check_each_once(site, statuses)
    assert site.stop() == 0


def test_tables_that_are_gone_for_a_while_are_told_of_once_and_waited_for(
    make_receiver: MakeReceiver, conninfo: str
) -> None:
    site = make_receiver(database_url=conninfo, intake_rescan_seconds="0.2")
    site.start()
    statuses = [site.final(name) for name in drop_both(site, "before")]
    with psycopg.connect(conninfo, autocommit=True) as operator:
        operator.execute("alter schema spoold rename to being_restored")
        names = drop_both(site, "meanwhile")
        for each in names:
            wait_until(lambda each=each: says(site, each).get("reason") == "database-away")
        wait_until(lambda: "maintenance.failed" in site.log)
        wait_until(lambda: "worker.died" in site.log)
        operator.execute("alter schema being_restored rename to spoold")
    statuses += [site.final(name) for name in names]
    check_each_once(site, statuses)
    assert "Traceback" not in site.log
    assert site.log.count("maintenance.failed") == 1
    assert site.stop() == 0


@pytest.fixture
def frozen(own_server: OwnServer) -> Iterator[Callable[[], None]]:
    """Freeze the server, as a disk does that does not answer: it is woken after the test."""
    pids: list[int] = []

    def freeze() -> None:
        children = Path(f"/proc/{own_server.pid}/task/{own_server.pid}/children").read_text()
        pids.extend([own_server.pid, *map(int, children.split())])
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    yield freeze
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_second_sigterm_stops_a_daemon_whose_database_hangs(
    make_receiver: MakeReceiver, own_server: OwnServer, frozen: Callable[[], None]
) -> None:
    site = make_receiver(database_url=own_server.server.conninfo, workers_drain_seconds="600")
    daemon = site.start()
    site.final(drop_both(site, "before")[0])
    frozen()
    site.drop("request-meanwhile.json", request())
    daemon.send_signal(signal.SIGTERM)
    wait_until(lambda: "daemon.draining" in site.log)
    assert site.stop(daemon) == 0


def test_a_daemon_whose_database_hangs_drains_for_as_long_as_it_may_and_ends(
    make_receiver: MakeReceiver, own_server: OwnServer, frozen: Callable[[], None]
) -> None:
    site = make_receiver(database_url=own_server.server.conninfo, intake_renew_seconds=1)
    daemon = site.start()
    site.final(drop_both(site, "before")[0])
    frozen()
    wait_until(lambda: daemon_says(site)["database"]["state"] == "away", 30)
    assert site.stop(daemon) == 0
    assert "daemon.left-hanging" in site.log


def test_who_asks_for_the_health_of_a_daemon_whose_database_hangs_gets_an_answer(
    make_receiver: MakeReceiver, own_server: OwnServer, frozen: Callable[[], None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    site = make_receiver(database_url=own_server.server.conninfo, http_listen=address)
    daemon = site.start()
    site.final(drop_both(site, "before")[0])
    assert ask(address, "/readyz") == (200, "ready\n")
    frozen()
    # Whoever comes first waits for an answer of the database, and leaves.
    with pytest.raises(TimeoutError):
        ask(address, "/readyz", timeout=1)
    status, text = ask(address, "/readyz")
    assert (status, text.partition(":")[0]) == (503, "database")
    assert "spoold_database_up 0.0" in ask(address, "/metrics")[1]
    daemon.send_signal(signal.SIGTERM)
    wait_until(lambda: "daemon.draining" in site.log)
    assert site.stop(daemon) == 0
    assert "Traceback" not in site.log


def ask(address: str, page: str, timeout: float = DEADLINE_SECONDS) -> tuple[int, str]:
    """A page of the daemon's, and its HTTP status."""
    with closing(http.client.HTTPConnection(address, timeout=timeout)) as connection:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def daemon_says(site: Site) -> Status:
    """What the daemon says of itself."""
    status: Status = json.loads((site.root / "status/.spoold.json").read_bytes())
    return status


@pytest.mark.parametrize(
    ("setting", "meet"),
    [
        ("statement_timeout", "select pg_sleep(10)"),
        ("idle_in_transaction_session_timeout", "begin"),
        ("transaction_timeout", "begin"),
        ("lock_timeout", "select 1 from spoold.job"),
        (None, "select pg_cancel_backend(pg_backend_pid())"),
        (None, "select pg_terminate_backend(pg_backend_pid())"),
    ],
)
def test_e28_whatever_way_a_server_ends_a_statement_it_counts_as_away(
    conninfo: str, setting: str | None, meet: str
) -> None:
    with psycopg.connect(conninfo) as holder, postgres.connect(conninfo, "tests") as connection:
        holder.execute("lock table spoold.job")
        if setting is not None:
            connection.execute(f"set {setting} = '20ms'")
        with pytest.raises(SpooldError) as caught:
            meet_and_go_on(connection, meet)
    assert caught.value.code is errors.DATABASE_AWAY


def meet_and_go_on(connection: Connection, statement: str) -> None:
    """Run a statement, and another one as soon as the server has something to say."""
    with postgres.database_errors():
        connection.execute(statement)
        wait_until(lambda: select([connection], [], [], 1)[0] != [])
        connection.execute("select 1")


def test_a_name_that_is_given_up_while_one_asks_whose_it_is_is_taken(
    site: Site, proxy: Proxy, conninfo: str
) -> None:
    def reserved(statement: LiteralString) -> None:
        with psycopg.connect(conninfo) as connection:
            connection.execute(statement, (Spool.at(site.root).identity().spool,))

    reserved(
        "insert into spoold.published (spool, folder, name, job, role, area)"
        " values (%s, 'processed', 'request-a.json', gen_random_uuid(), 'drop', 'processed')"
    )
    give_up: LiteralString = "delete from spoold.published where spool = %s"
    fault = proxy.arm(Fault(TEXTS["published_by"], then=lambda: reserved(give_up)))
    site.start()
    site.drop("request-a.json", request())
    assert fault.happened.wait(DEADLINE_SECONDS)
    status = site.final("request-a.json")
    assert status["files"]["drop"] == "processed/request-a.json"
    assert "publish.crashed" not in site.log


KILLED_BEFORE_IT_BEGINS = """
import os, signal, sys, time
from spoold import config
from spoold.daemon.daemon import Daemon
from spoold.daemon.backend import database
from spoold.spool import Spool
loaded = config.load(Spool.at(sys.argv[1]))
with database(loaded) as backend:
    daemon = Daemon(loaded, loaded.spool, backend)
    pid = (backend.server.data / "postmaster.pid").read_text().split()[0]
    os.kill(int(pid), signal.SIGKILL)
    while backend.server.alive():
        time.sleep(0.01)
    sys.exit(daemon.run(once=True))
"""


def test_e28_an_embedded_server_that_is_killed_before_the_daemon_begins_is_started_again(
    make_receiver: MakeReceiver,
) -> None:
    site = make_receiver(embedded=True)
    names = drop_both(site, "early")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_IT_BEGINS, site.root],
        env={**os.environ, **site.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "postgres.died" in ended.stdout + ended.stderr
    check_each_once(site, [site.final(name, 1) for name in names])


def test_a_server_that_cannot_be_looked_after_is_asked_again(own_server: OwnServer) -> None:
    server = own_server.server
    backend = Backend(server.conninfo, server)
    own_server.stop()
    lock = server.data.parent / "server.lock"
    lock.unlink()
    lock.mkdir()  # as good as a disk error
    with structlog.testing.capture_logs() as said:
        backend.keep_alive()
    assert [line["event"] for line in said] == ["postgres.down"]
    lock.rmdir()
    backend.keep_alive()
    assert server.alive()
