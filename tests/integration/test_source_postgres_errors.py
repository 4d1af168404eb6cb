"""A database that is away, refuses or fails: what the request's reader is told, and never half."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from spoold import errors
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings
from spoold.errors import SpooldError
from spoold.sources.source import Gathering
from tests.conftest import wait_until
from tests.integration.postgres_runs import SOURCE
from tests.integration.rows import Rows, content, opened, read, rows_in


@pytest.fixture
def rows(shared_conninfo: str) -> Iterator[Rows]:
    with rows_in(shared_conninfo) as rows:
        yield rows


@pytest.fixture(scope="module")
def one(module_conninfo: str) -> Iterator[Rows]:
    """Where one version of the server will do."""
    with rows_in(module_conninfo) as rows:
        yield rows


def refusal(connections: Connections, query: str = "rows", **parameters: Any) -> SpooldError:
    with Gathering(connections) as gathering, pytest.raises(SpooldError) as caught:
        read(gathering, query, parameters)
    return caught.value


def answered(rows: Rows, query: str | dict[str, Any], **database: Any) -> SpooldError:
    return refusal(rows.connections({"rows": query}, **database))


def backends(rows: Rows) -> int:
    """How many of our connections the server serves in this database."""
    row = rows.execute(
        "select count(*) from pg_stat_activity"
        " where application_name = 'spoold' and datname = current_database()"
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("state", "code", "transient", "hint"),
    [
        ("40001", errors.QUERY_FAILED, True, "tried again"),
        ("40P01", errors.QUERY_FAILED, True, "tried again"),
        ("53200", errors.QUERY_FAILED, True, ""),
        ("55P03", errors.QUERY_FAILED, True, "lock_timeout_seconds"),
        ("57014", errors.QUERY_FAILED, False, "statement_timeout_seconds"),
        ("22012", errors.QUERY_FAILED, False, "spoold.toml"),
        ("42601", errors.QUERY_FAILED, False, "SELECT"),
        ("P0001", errors.QUERY_FAILED, False, ""),
        ("42501", errors.SOURCE_REFUSED, False, "GRANT"),
        ("28000", errors.SOURCE_REFUSED, False, "pg_hba.conf"),
        ("57P01", errors.SOURCE_AWAY, True, ""),
        ("08006", errors.SOURCE_AWAY, True, ""),
        ("53300", errors.SOURCE_AWAY, True, ""),
    ],
)
def test_what_the_server_says_decides_whether_it_is_tried_again(
    one: Rows, state: str, code: errors.Code, transient: bool, hint: str
) -> None:
    one.execute(
        "create or replace function fail(state text) returns int language plpgsql as"
        " 'begin raise exception ''it says so'' using errcode = state; end'"
    )
    error = answered(one, f"select fail('{state}') as x")
    assert error.code is code
    assert error.transient is transient
    assert hint in error.hint
    assert error.message == "[databases.soc]: it says so"
    assert error.at == "query"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("select * from missing", 'relation "missing" does not exist'),
        ("select missing from t", 'column "missing" does not exist'),
        ("select 1 / (n - 3) from generate_series(1, 9) n", "division by zero"),
        ("selec 1", "syntax error"),
        ("select 'a'::int", "invalid input syntax for type integer"),
    ],
)
def test_a_query_that_fails_is_told_with_the_servers_words(
    rows: Rows, statement: str, said: str
) -> None:
    rows.execute("create table t as select 1 as id")
    error = answered(rows, statement)
    assert error.code is errors.QUERY_FAILED
    assert said in error.message
    assert not error.transient


def test_a_table_that_is_missing_is_told(one: Rows) -> None:
    assert 'relation "missing" does not exist' in answered(one, {"table": "missing"}).message
    assert answered(one, {"table": "missing.t", "key": ["id"]}).code is errors.QUERY_FAILED


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"sql": "select 1 as a, 2 as a, 3 as b"}, "the column a twice"),
        ({"sql": "select 1, 2"}, "?column?"),
        ({"sql": "select"}, "no columns"),
        ({"sql": "select 1 as a", "key": ["b"]}, "no column b"),
        ({"sql": 'select 1 as "a\nb"'}, r"control character: a\x0ab"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_refused(
    one: Rows, section: dict[str, Any], said: str
) -> None:
    error = answered(one, section)
    assert error.code is errors.CONFIG_INVALID
    assert said in error.message


def test_what_may_not_be_read_is_refused_with_the_fix(rows: Rows) -> None:
    rows.execute("create table t as select 1 as id")
    role = f"{rows.schema}_reader"
    rows.execute(f"create role {role} login password 's3cret'")
    try:
        url = make_conninfo(rows.conninfo, user=role, password="s3cret")
        rows.execute(f"grant usage on schema {rows.schema} to {role}")
        error = answered(rows, "select * from t", url=url)
        assert error.code is errors.SOURCE_REFUSED
        assert error.message == "[databases.soc]: permission denied for table t"
        assert "GRANT" in error.hint
        rows.execute(f"grant select on t to {role}")
        with Gathering(rows.connections({"rows": {"table": "t"}}, url=url)) as gathering:
            assert read(gathering, "rows")[1].rows == 1
    finally:
        rows.execute(f"drop owned by {role}")
        rows.execute(f"drop role {role}")


def test_who_is_not_let_in_is_told_so_without_the_password(one: Rows) -> None:
    for changes in ({"password": "wr0ng-s3cret"}, {"user": "nobody", "password": "wr0ng-s3cret"}):
        error = answered(one, "select 1", url=make_conninfo(one.conninfo, **changes))
        assert error.code is errors.SOURCE_REFUSED
        assert not error.transient
        assert "authentication failed" in error.message
        assert "wr0ng" not in f"{error.message}{error.hint}{error.__cause__}"
    error = answered(one, "select 1", url=make_conninfo(one.conninfo, dbname="missing"))
    assert error.code is errors.SOURCE_REFUSED


@pytest.mark.parametrize(
    "url", ["postgresql://127.0.0.1:1/db", "host=/nowhere dbname=db", "postgresql://x.invalid/db"]
)
def test_a_server_that_is_away_is_tried_again(url: str) -> None:
    error = refusal(Connections(databases={"soc": DatabaseSettings(url=url)}, queries=_ONE))
    assert error.code is errors.SOURCE_AWAY
    assert error.transient


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@2@host/db",
        "postgresql://u:s3/cret@host/db",
        "host=h password='s3cret",
        "s3cret",
    ],
)
def test_an_address_that_is_none_is_told_without_its_words(url: str) -> None:
    error = refusal(Connections(databases={"soc": DatabaseSettings(url=url)}, queries=_ONE))
    assert error.code is errors.CONFIG_INVALID
    assert error.at == "databases.soc.url"
    assert "cret" not in f"{error.message}{error.hint}"


def test_the_url_is_read_from_its_file_at_each_attempt(one: Rows, tmp_path: Path) -> None:
    path = tmp_path / "url"
    settings = DatabaseSettings(url_file=str(path))
    connections = Connections(databases={"soc": settings}, queries=_ONE)
    error = refusal(connections)
    assert (error.code, error.at) == (errors.CONFIG_INVALID, "databases.soc.url_file")
    path.write_text(make_conninfo(one.conninfo, password="old"))
    path.chmod(0o644)
    error = refusal(connections)
    assert (error.code, error.at) == (errors.CONFIG_INVALID, "databases.soc.url_file")
    assert "by everybody (mode 644)" in error.message
    path.chmod(0o640)
    assert refusal(connections).code is errors.SOURCE_REFUSED
    path.write_text(make_conninfo(one.conninfo, application_name="x" * 20_000))
    error = refusal(connections)
    assert (error.code, error.at) == (errors.CONFIG_INVALID, "databases.soc.url_file")
    assert "more than" in error.message
    path.write_text(f"{one.conninfo}\n")
    with Gathering(connections) as gathering:
        assert read(gathering, "rows")[1].rows == 1


def test_a_statement_that_takes_too_long_is_ended(rows: Rows) -> None:
    error = answered(rows, "select pg_sleep(30)::text as x", statement_timeout_seconds=0.2)
    assert error.code is errors.QUERY_FAILED
    assert "statement timeout" in error.message
    assert "statement_timeout_seconds" in error.hint


def test_a_lock_that_is_held_too_long_is_tried_again(rows: Rows) -> None:
    rows.execute("create table t as select 1 as id")
    with psycopg.connect(rows.conninfo) as other:
        other.execute("lock table t in access exclusive mode")
        error = answered(rows, "table t", lock_timeout_seconds=0.2)
    assert error.code is errors.QUERY_FAILED
    assert error.transient
    assert "lock timeout" in error.message


def test_more_rows_than_allowed_are_refused(rows: Rows) -> None:
    many = "select n, repeat('x', 1000) as v from generate_series(1, 100000) n"
    assert answered(rows, {"sql": many, "max_rows": 99_999}).code is errors.ROWS_TOO_MANY
    few = "select n from generate_series(1, 10) n"
    assert answered(rows, {"sql": few, "max_rows": 9}).code is errors.ROWS_TOO_MANY
    assert rows.export({"sql": few, "max_rows": 10})[1].rows == 10
    wait_until(lambda: backends(rows) == 0)


ENDLESS = (
    "select a.n, repeat('x', 1000) as v"
    " from generate_series(1, 30000) a(n), generate_series(1, 30000) b(n)"
)


def test_a_connection_that_is_lost_half_way_is_told(rows: Rows) -> None:
    with Gathering(rows.connections({"rows": ENDLESS})) as gathering:
        entry = next(iter(opened(gathering, "rows", {}).entries()))
        stream = entry.content
        assert stream is not None
        assert not isinstance(stream, int)
        assert stream.read(1000)
        rows.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'spoold' and datname = current_database()"
        )
        with pytest.raises(SpooldError) as caught:
            content(entry)
        assert caught.value.code is errors.SOURCE_AWAY
        assert caught.value.transient


class StoppedError(Exception):
    pass


def test_an_attempt_that_must_end_ends_its_query(rows: Rows) -> None:
    asked = threading.Event()

    def check() -> None:
        if backends(rows):
            asked.set()
            raise StoppedError

    connections = rows.connections({"rows": "select pg_sleep(60)::text as x"})
    with pytest.raises(StoppedError), Gathering(connections, check) as gathering:
        read(gathering, "rows")
    assert asked.is_set()
    wait_until(lambda: backends(rows) == 0)


def test_an_attempt_that_is_checked_between_rows_ends_too(rows: Rows) -> None:
    seen = []

    def check() -> None:
        seen.append(1)
        if len(seen) > 5:
            raise StoppedError

    with (
        pytest.raises(StoppedError),
        Gathering(rows.connections({"rows": ENDLESS}), check) as gathering,
    ):
        read(gathering, "rows")
    wait_until(lambda: backends(rows) == 0)


def test_a_source_that_is_closed_early_ends_its_query(rows: Rows) -> None:
    with Gathering(rows.connections({"rows": ENDLESS})) as gathering:
        entries = iter(opened(gathering, "rows", {}).entries())
        entry = next(entries)
        assert entry.content is not None
        assert not isinstance(entry.content, int)
        assert entry.content.read(10)
        entry.content.close()
        with pytest.raises(SpooldError) as caught:
            next(entries)
        assert caught.value.code is errors.ENTRY_TOO_LARGE
    wait_until(lambda: backends(rows) == 0)


KILLED = """
import sys
from tests.integration.rows import content, opened
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.sources.source import Gathering
connections = Connections(
    databases={"soc": DatabaseSettings(url=sys.argv[1])},
    queries={"rows": QuerySettings(database="soc", sql=sys.argv[2])},
)
with Gathering(connections) as gathering:
    entry = next(iter(opened(gathering, "rows", {}).entries()))
    print("begun", flush=True)
    content(entry)
"""


@pytest.mark.parametrize(
    "statement",
    [ENDLESS, pytest.param("select pg_sleep(300)::text as x", marks=pytest.mark.nightly)],
)
def test_the_server_notices_that_a_worker_was_killed(rows: Rows, statement: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), rows.conninfo, statement],
        stdout=subprocess.PIPE,
        cwd=SOURCE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: backends(rows) == 0, 30)


def test_a_server_without_tls_is_refused_where_tls_is_wanted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(8)  # SSLRequest
                peer.sendall(b"N")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"host=127.0.0.1 port={port} sslmode=require gssencmode=disable dbname=db user=u"
        error = refusal(Connections(databases={"soc": DatabaseSettings(url=url)}, queries=_ONE))
        thread.join()
    assert error.code is errors.SOURCE_REFUSED
    assert "sslmode" in error.hint


def test_a_database_of_bytes_is_told_where_they_are_no_text(
    servers: Callable[[str], str], tmp_path: Path
) -> None:
    server = servers("18")
    name = f"ascii_{os.getpid()}_{tmp_path.name[-8:]}".lower().replace("-", "_")
    with psycopg.connect(server, autocommit=True) as owner:
        owner.execute(
            f'create database "{name}" template template0 encoding sql_ascii locale "C"'.encode()
        )
        try:
            connections = Connections(
                databases={"soc": DatabaseSettings(url=make_conninfo(server, dbname=name))},
                queries={**_ONE, "odd": _query(r"select convert_from('\xff', 'sql_ascii') as x")},
            )
            with Gathering(connections) as gathering:
                assert read(gathering, "rows")[1].rows == 1
            error = refusal(connections, "odd")
            assert error.code is errors.QUERY_FAILED
            assert "invalid byte sequence" in error.message
        finally:
            owner.execute(f'drop database "{name}" with (force)'.encode())


def test_rows_come_through_a_transaction_pooler(one: Rows, make_pooled: Any) -> None:
    pooled = make_pooled(one.conninfo)
    one.execute("create table pooled as select timestamptz '2026-11-20 10:00+00' as seen")
    one.execute("create view zone as select current_setting('timezone') as zone")
    queries = {
        "rows": f"select seen, zone from {one.schema}.pooled, {one.schema}.zone",
        "again": f"select count(*) from {one.schema}.pooled",
    }
    with Gathering(one.connections(queries, url=pooled)) as gathering:
        lines, _ = read(gathering, "rows")
        assert lines == b'{"seen":"2026-11-20T10:00:00+00:00","zone":"UTC"}\n'
        assert read(gathering, "again")[0] == b'{"count":1}\n'
    # Nothing stays in a session that is somebody else's next.
    with psycopg.connect(pooled, autocommit=True) as other:
        row = other.execute("show lock_timeout").fetchone()
    assert row == ("0",)


def _query(statement: str) -> Any:
    return Rows("", None, "").connections({"rows": statement}, url="x").queries["rows"]  # type: ignore[arg-type]


_ONE = {"rows": _query("select 1 as x")}
