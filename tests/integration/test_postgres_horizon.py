"""Transactions that keep dead rows alive are found, and named with what ends them."""

import os
import signal

import psycopg
import pytest

from spoold import postgres
from spoold.doctor import Level
from spoold.doctor.database import held_rows
from spoold.postgres.horizon import Holder, Kind, holders
from tests.conftest import wait_until
from tests.integration.postgres_runs import postmaster, start_by_hand, text_of


def _named(conninfo: str, name: str) -> list[Holder]:
    with postgres.connect(conninfo, "tests") as connection:
        return [holder for holder in holders(connection) if holder.name == name]


@pytest.mark.parametrize("postgres_version", ["18", "15"])
def test_a_session_in_a_transaction_is_found(conninfo: str) -> None:
    with psycopg.connect(conninfo, application_name="forgotten") as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("select 1 from spoold.job")
        pid = other.info.backend_pid
        (holder,) = _named(conninfo, "forgotten")
        assert (holder.kind, holder.pid) == (Kind.SESSION, pid)
        assert "idle in transaction" in str(holder)
        assert f"pg_terminate_backend({pid})" in holder.fix
        other.commit()
        assert _named(conninfo, "forgotten") == []


def test_a_transaction_that_has_only_written_is_found(conninfo: str) -> None:
    with psycopg.connect(conninfo, application_name="forgotten") as other:
        other.execute("create table spoold.theirs ()")
        (holder,) = _named(conninfo, "forgotten")
        with postgres.connect(conninfo, "tests") as connection:
            for _ in range(3):
                connection.execute("select pg_current_xact_id()")
        (later,) = _named(conninfo, "forgotten")
        assert later.transactions >= holder.transactions + 3
        other.rollback()


def test_a_prepared_transaction_and_a_slot_are_found(server: postgres.Server) -> None:
    os.kill(postmaster(server), signal.SIGINT)
    wait_until(lambda: not server.alive())
    sockets = server.data.parent / "socket"
    settings = ("max_prepared_transactions=2", "wal_level=replica")
    with start_by_hand(server.data, sockets, *settings) as process:
        wait_until(lambda: "ready" in text_of(server.data / "postmaster.pid"))
        with postgres.connect(server.conninfo, "tests") as connection:
            connection.execute("begin")
            connection.execute("create table theirs ()")
            connection.execute("prepare transaction 'theirs, ''quoted'''")
            connection.execute("select pg_create_physical_replication_slot('theirs')")
        (prepared,) = _named(server.conninfo, "theirs, 'quoted'")
        assert prepared.kind is Kind.PREPARED
        with postgres.connect(server.conninfo, "tests") as connection:
            statement = prepared.fix.rpartition(" or ")[2]
            connection.execute(statement.encode())
        assert _named(server.conninfo, "theirs, 'quoted'") == []
        process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("holder", "says", "fix"),
    [
        (
            Holder(Kind.SESSION, 7, "psql", "ann, idle in transaction", 7200.0, 5),
            "session 7 (psql; ann, idle in transaction) has kept dead rows from being removed for",
            "pg_terminate_backend(7)",
        ),
        (
            Holder(Kind.STANDBY, 7, "", "repl, active", 700.0, 5),
            "standby 7 (no name; repl, active)",
            "hot_standby_feedback",
        ),
        (
            Holder(Kind.SLOT, None, "old", "physical", None, 2_000_000),
            "the physical replication slot old has kept dead rows from being removed through 2,0",
            "pg_drop_replication_slot('old')",
        ),
    ],
)
def test_doctor_names_who_and_what_ends_it(holder: Holder, says: str, fix: str) -> None:
    (finding,) = held_rows([holder])
    assert finding.level is Level.WARN
    assert says in finding.detail
    assert fix in finding.fix


def test_doctor_says_nothing_of_what_is_short() -> None:
    short = Holder(Kind.SESSION, 7, "psql", "ann, active", 30.0, 100)
    assert list(held_rows([short])) == []
