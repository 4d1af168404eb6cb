"""What tests share: one embedded server a run, a fresh database a test, and waiting without sleep.

The server is started by spoold's own code and shared by all processes of a run; databases are
copies of a template that was migrated once.
"""

import fcntl
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from spoold import postgres
from spoold.queue.database import Database
from spoold.queue.migrate import migrate
from spoold.queue.store import Store
from spoold.spool import Spool

pytest_plugins = ["tests.poolers", "tests.sites", "tests.stores"]

WHEEL = "18"
DEBIAN = "15"
DEBIAN_PROGRAMS = Path("/usr/lib/postgresql/15/bin")

_TEMPLATE = "spoold_template"

# A shell's background jobs ignore SIGINT, what nohup starts SIGHUP, and so would every process that
# a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, lambda number, _: None)  # ignored here, by default in what is started


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for disks and processes as long as they compute."""
    return len(os.sched_getaffinity(0)) + 1


def wait_until(predicate: Callable[[], bool], deadline_seconds: float = 20.0) -> None:
    """Wait for something that is about to be true; fail when it is not in time."""
    end = time.monotonic() + deadline_seconds
    while not predicate():
        if time.monotonic() > end:
            pytest.fail(f"not true within {deadline_seconds} s")
        time.sleep(0.01)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Give the conninfo of a server of this major version, started when first asked for."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    running: dict[str, tuple[Spool, postgres.Server]] = {}

    def server(version: str) -> str:
        if version not in running:
            if version == DEBIAN and not DEBIAN_PROGRAMS.is_dir():
                pytest.skip("PostgreSQL 15 is not installed")
            spool = Spool.at(base / f"server-{version}")
            with open(base / "create.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # `init` is one process's, those of a run are many
                spool.create()
            programs = DEBIAN_PROGRAMS if version == DEBIAN else None
            running[version] = spool, postgres.ensure_running(spool, programs=programs)
            _make_template(running[version][1].conninfo)
        return running[version][1].conninfo

    yield server
    for spool, process in running.values():
        if process.stop_if_last():
            postgres.remove(spool)


@pytest.fixture
def postgres_version() -> str:
    """The major version of the server; a module that tests more overrides this."""
    return WHEEL


@pytest.fixture
def conninfo(servers: Callable[[str], str], postgres_version: str) -> Iterator[str]:
    """A fresh, migrated database."""
    with _database(servers(postgres_version)) as conninfo:
        yield conninfo


@pytest.fixture(scope="session")
def databases(
    servers: Callable[[str], str],
) -> Callable[[], AbstractContextManager[str]]:
    """Make fresh, migrated databases, as many as are asked for."""
    return lambda: _database(servers(WHEEL))


@pytest.fixture(scope="module", params=[WHEEL, DEBIAN])
def shared_conninfo(servers: Callable[[str], str], request: pytest.FixtureRequest) -> Iterator[str]:
    """A database for a module's many small tests, each with a spool of its own; both versions."""
    with _database(servers(request.param)) as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def module_conninfo(servers: Callable[[str], str]) -> Iterator[str]:
    """The same, of one version."""
    with _database(servers(WHEEL)) as conninfo:
        yield conninfo


@pytest.fixture
def shared_store(shared_conninfo: str) -> Iterator[Store]:
    """The queue of a fresh spool id in the shared database."""
    store = Store(Database(shared_conninfo, "tests"), uuid.uuid4())
    yield store
    store.database.close()


@pytest.fixture
def empty_conninfo(servers: Callable[[str], str], postgres_version: str) -> Iterator[str]:
    """A fresh database without the schema."""
    with _database(servers(postgres_version), template="template1") as conninfo:
        yield conninfo


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """A fresh spool tree."""
    spool = Spool.at(tmp_path / "spool")
    spool.create()
    return spool


@pytest.fixture
def store(conninfo: str, spool: Spool) -> Iterator[Store]:
    """The queue of that spool in that database."""
    store = Store(Database(conninfo, "tests"), spool.identity().spool)
    yield store
    store.database.close()


@contextmanager
def _database(server: str, template: str = _TEMPLATE) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    with postgres.connect(server, "tests") as connection:
        connection.execute(f'create database "{name}" template {template}')
    yield make_conninfo(server, dbname=name)
    with postgres.connect(server, "tests") as connection:
        connection.execute(f'drop database "{name}" with (force)')


def _make_template(server: str) -> None:
    with postgres.connect(server, "tests") as connection:
        connection.execute("select pg_advisory_lock(1)")  # one process of the run makes it
        found = connection.execute(
            "select 1 from pg_database where datname = %s", (_TEMPLATE,)
        ).fetchone()
        if found:
            return
        try:
            connection.execute(f"create database {_TEMPLATE}")
            database = Database(make_conninfo(server, dbname=_TEMPLATE), "tests")
            migrate(database)
            database.close()
        except psycopg.Error:
            connection.execute(f"drop database if exists {_TEMPLATE}")
            raise
