"""A sink whose address leads to a standby for a while, as it does when servers change places."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from spoold.postgres import binaries
from tests.conftest import wait_until
from tests.integration.postgres_runs import start_by_hand
from tests.integration.row_merges import Place, alerts


@pytest.fixture
def standby() -> Iterator[str]:
    user = binaries.server_user()
    folder = Path("/var/tmp", f"spoold-tests-{uuid.uuid4().hex}")
    folder.mkdir(mode=0o700)
    if user is not None:
        os.chown(folder, user.uid, user.gid)
    data = folder / "data"
    command = [binaries.locate(user).folder / "initdb", "-D", data, "-U", "spoold", "-A", "trust"]
    subprocess.run(
        [*command, "--no-sync"],
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        cwd="/",
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (data / "standby.signal").touch()
    process = start_by_hand(data, folder, "fsync=off")
    conninfo = f"host={folder} user=spoold dbname=postgres"
    try:
        wait_until(lambda: answers(conninfo))
        yield conninfo
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def answers(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_standby_is_a_server_that_is_away(standby: str, tmp_path: Path) -> None:
    place = Place(tmp_path, standby, schema="public")
    place.write("a.jsonl", alerts(1))
    error = place.refusal()
    assert error.code.name == "sink-away"
    assert error.transient
    assert "target_session_attrs=read-write" in error.hint
