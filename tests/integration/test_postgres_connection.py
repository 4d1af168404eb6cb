"""Connections: what an external server must be, and what cannot be reached."""

import json
import os
import signal
import time

import pytest

from spoold import postgres
from spoold.errors import SpooldError
from spoold.spool import Spool
from tests.conftest import wait_until
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
