"""PgBouncer, as Debian has it, before the server of a test: transaction pooling."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from spoold.postgres import binaries
from tests.conftest import wait_until

_PORT = 6432

_INI = """\
[databases]
* = host={server} port={port}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = {own_port}
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
server_idle_timeout = 2
logfile = {folder}/log
pidfile = {folder}/pid
"""


@pytest.fixture
def make_pooled() -> Iterator[Callable[..., str]]:
    """Put a pooler before a server: from the conninfo of a database to the pooled one."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def make(conninfo: str, size: int = 3) -> str:
        server = conninfo_to_dict(conninfo)
        folder = Path("/var/tmp", f"spoold-tests-{uuid.uuid4().hex}")
        folder.mkdir(mode=0o700)
        (folder / "users").write_text(f'"{server["user"]}" "{server["password"]}"\n')
        ini = folder / "pgbouncer.ini"
        ini.write_text(
            _INI.format(
                server=server["host"],
                port=server["port"],
                folder=folder,
                own_port=_PORT,
                size=size,
            )
        )
        user = binaries.server_user()  # it refuses root, as the server does
        for path in (folder, folder / "users", ini):
            if user is not None:
                os.chown(path, user.uid, user.gid)
        process = subprocess.Popen(
            [program, ini],
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append((process, folder))
        wait_until((folder / f".s.PGSQL.{_PORT}").exists)
        return make_conninfo(
            host=str(folder), port=_PORT, user=str(server["user"]), dbname=str(server["dbname"])
        )

    yield make
    for process, folder in started:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture
def pooled_conninfo(conninfo: str, make_pooled: Callable[..., str]) -> str:
    """A fresh, migrated database behind a transaction pooler."""
    return make_pooled(conninfo)
