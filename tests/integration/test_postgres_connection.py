"""Connections: what an external server must be, and what cannot be reached."""

import json
import os
import select
import signal
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from psycopg.conninfo import make_conninfo

from spoold import postgres
from spoold.errors import SpooldError
from spoold.postgres.connection import check_version
from spoold.queue.database import Database
from spoold.queue.migrate import Migration, migrate, require_current, require_known, shipped
from spoold.spool import Spool
from tests.conftest import DEBIAN, WHEEL, wait_until
from tests.integration.postgres_runs import postmaster, start_by_hand, text_of


@pytest.mark.parametrize(
    ("setting", "says"),
    [("synchronous_commit", "synchronous_commit is off")],
)
def test_a_server_that_loses_commits_is_refused(
    server: postgres.Server, setting: str, says: str
) -> None:
    with postgres.connect(server.conninfo, "tests") as connection:
        postgres.check_external(connection)
        connection.execute(f"set {setting} = off".encode())
        with pytest.raises(SpooldError, match=f"database-unfit.*{says}"):
            postgres.check_external(connection)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_without_durability_is_refused(server: postgres.Server, setting: str) -> None:
    with postgres.connect(server.conninfo, "tests") as connection:
        connection.execute(f"alter system set {setting} = off".encode())
    # The settings of the command line win over those of the file: this is a server as others run
    # it, so it is started without ours.
    os.kill(postmaster(server), signal.SIGINT)
    wait_until(lambda: not server.alive())
    with start_by_hand(server.data, server.data.parent / "socket") as process:
        wait_until(lambda: "ready" in text_of(server.data / "postmaster.pid"))
        with (
            postgres.connect(server.conninfo, "tests") as connection,
            pytest.raises(SpooldError, match=f"database-unfit.*{setting} is off") as refusal,
        ):
            postgres.check_external(connection)
        assert f"{setting} = on" in refusal.value.hint
        process.send_signal(signal.SIGINT)


def test_a_server_that_freezes_is_given_up(conninfo: str) -> None:
    connection = postgres.connect(conninfo, "tests")
    connection.answer_seconds = 1
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        with (
            pytest.raises(SpooldError, match=r"database-away.*has not answered for 1 s"),
            postgres.database_errors(),
        ):
            connection.execute("select 1")
        assert connection.closed
    finally:
        os.kill(backend, signal.SIGCONT)


LIMITS = {
    "idle_in_transaction_session_timeout": 60_000,
    "lock_timeout": 30_000,
    "statement_timeout": 120_000,
}


@pytest.mark.parametrize("version", [WHEEL, DEBIAN])
def test_our_sessions_have_limits(servers: Callable[[str], str], version: str) -> None:
    with postgres.connect(servers(version), "tests") as connection:
        rows = connection.execute(
            "select name, setting::int from pg_settings where unit = 'ms' and name = any(%s)",
            [[*LIMITS, "transaction_timeout"]],
        ).fetchall()
    newer = {} if version == DEBIAN else {"transaction_timeout": 300_000}
    assert dict(rows) == LIMITS | newer


@pytest.mark.parametrize(
    ("setting", "statement"),
    [
        ("idle_in_transaction_session_timeout", "select 1"),
        ("transaction_timeout", "select pg_sleep(60)"),
        ("statement_timeout", "select pg_sleep(60)"),
    ],
)
def test_a_limit_that_ends_a_transaction_leaves_a_database_to_call_again(
    conninfo: str, setting: str, statement: str
) -> None:
    database = Database(conninfo, "tests")
    database.script(f"set {setting} = '50ms'".encode())

    def outlast() -> None:
        with database.transaction():
            if setting.startswith("idle"):
                select.select([database.connection.fileno()], [], [], 20)  # until it is told
            database.script(statement.encode())

    with pytest.raises(SpooldError, match="database-away"):
        outlast()
    database.script(b"select 1")
    database.close()


def test_a_migration_may_take_its_time(empty_conninfo: str) -> None:
    database = Database(empty_conninfo, "tests")
    limits = b"select setting from pg_settings where name = 'statement_timeout'"
    slow = Migration(
        len(shipped()) + 1, "slow", b"select pg_sleep(1); create table spoold.slow as " + limits
    )
    database.connection.answer_seconds = 0.5
    migrate(database, (*shipped(), slow))
    row = database.connection.execute("select setting from spoold.slow").fetchone()
    assert row == ("0",)
    assert database.connection.execute(limits).fetchone() == ("120000",)
    assert database.connection.answer_seconds == 0.5
    database.close()


def test_a_server_that_is_too_old_is_refused() -> None:
    for version in (90_624, 120_022, 140_019):
        with pytest.raises(SpooldError, match=r"database-unfit.*below 15") as refusal:
            check_version(version)
        assert refusal.value.hint == "use PostgreSQL 15 or later"
    check_version(150_000)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused_and_the_fix_works(
    servers: Callable[[str], str], encoding: str
) -> None:
    server, name = servers(WHEEL), f"test_{uuid.uuid4().hex}"
    with postgres.connect(server, "tests") as admin:
        try:
            for given, good in ((encoding, False), ("UTF8", True)):
                admin.execute(
                    f"create database {name} encoding '{given}' template template0".encode()
                )
                with postgres.connect(make_conninfo(server, dbname=name), "tests") as connection:
                    if good:
                        postgres.check_external(connection)
                    else:
                        with pytest.raises(SpooldError, match=f"encoding is {encoding}") as refusal:
                            postgres.check_external(connection)
                        assert "ENCODING 'UTF8' TEMPLATE template0" in refusal.value.hint
                admin.execute(f"drop database {name}".encode())
        finally:
            admin.execute(f"drop database if exists {name}".encode())


@pytest.fixture
def role(empty_conninfo: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"role_{uuid.uuid4().hex}"
    with postgres.connect(empty_conninfo, "tests") as admin:
        admin.execute(f"create role {name} login password 'secret'".encode())
    yield name
    with postgres.connect(empty_conninfo, "tests") as admin:
        admin.execute(f"drop owned by {name} cascade".encode())
        admin.execute(f"drop role {name}".encode())


def test_a_role_without_rights_is_told_which_and_the_fix_works(
    empty_conninfo: str, role: str
) -> None:
    own = Database(make_conninfo(empty_conninfo, user=role, password="secret"), "tests")
    with postgres.connect(empty_conninfo, "tests") as admin:
        with pytest.raises(SpooldError, match=r"database-unfit.*permission denied") as refusal:
            migrate(own)
        assert "GRANT CREATE ON DATABASE" in refusal.value.hint
        admin.execute(f'grant create on database "{admin.info.dbname}" to {role}'.encode())
        assert migrate(own) == len(shipped())
        assert migrate(own) == 0
        own.close()


def test_a_role_that_does_not_own_the_tables_is_told_so(conninfo: str) -> None:
    name = f"role_{uuid.uuid4().hex}"
    with postgres.connect(conninfo, "tests") as admin:
        admin.execute(f"create role {name} login password 'secret'".encode())
        try:
            stranger = Database(make_conninfo(conninfo, user=name, password="secret"), "tests")
            for call in (migrate, require_current, require_known):
                with pytest.raises(SpooldError, match="permission denied") as refusal:
                    call(stranger)
                assert "must own the schema spoold" in refusal.value.hint
            stranger.close()
        finally:
            admin.execute(f"drop role {name}".encode())


@pytest.mark.parametrize(
    ("change", "says", "hint"),
    [
        ({"password": "wrong"}, "password authentication failed", "pg_hba.conf"),
        ({"user": "nobody_of_this_name"}, "authentication failed", "pg_hba.conf"),
        ({"dbname": "no_such_database"}, "does not exist", "CREATE DATABASE"),
    ],
)
def test_a_login_that_is_refused_is_told_with_the_fix(
    conninfo: str, change: dict[str, str], says: str, hint: str
) -> None:
    with pytest.raises(postgres.LoginRefusedError, match=f"database-away.*{says}") as refusal:
        postgres.connect(make_conninfo(conninfo, **change), "tests")
    assert hint in refusal.value.hint


def test_a_role_that_may_not_connect_is_told_so(empty_conninfo: str, role: str) -> None:
    with postgres.connect(empty_conninfo, "tests") as admin:
        admin.execute(f'revoke connect on database "{admin.info.dbname}" from public'.encode())
    with pytest.raises(postgres.LoginRefusedError, match="permission denied") as refusal:
        postgres.connect(make_conninfo(empty_conninfo, user=role, password="secret"), "tests")
    assert "GRANT CONNECT" in refusal.value.hint


def test_an_address_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(SpooldError, match="config-invalid"):
        postgres.connect("not an address", "tests")


def test_an_address_with_nobody_behind_it_is_away() -> None:
    began = time.monotonic()
    with pytest.raises(SpooldError, match="database-away"):
        postgres.connect("host=127.0.0.1 port=1 connect_timeout=5", "tests")
    assert time.monotonic() - began < 20


def test_an_address_file_that_is_damaged_is_away(home_spool: Spool) -> None:
    address = home_spool.root / ".spoold/postgres/server.json"
    for content in (b"", b"{}", b"[]", json.dumps({"host": 1}).encode()):
        address.write_bytes(content)
        with pytest.raises(SpooldError, match="database-away"):
            postgres.find(home_spool)
