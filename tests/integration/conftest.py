"""Embedded servers of a test's own."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold import postgres
from spoold.errors import SpooldError
from spoold.spool import Spool
from tests.integration.file_systems import Places


@pytest.fixture
def home_spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool for a server of its own, removed with what it keeps elsewhere."""
    spool = Spool.at(tmp_path / "spool")
    spool.create()
    yield spool
    with contextlib.suppress(SpooldError, FileNotFoundError):
        postgres.remove(spool)


@pytest.fixture
def server(home_spool: Spool) -> Iterator[postgres.Server]:
    """The running server of that spool."""
    server = postgres.ensure_running(home_spool)
    yield server
    server.stop_if_last()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are closed."""
    folder = Path("/var/tmp", f"spoold-tests-{uuid.uuid4().hex}")
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Other file systems than that of `tmp_path`."""
    with contextlib.ExitStack() as ending:
        yield Places(tmp_path_factory.mktemp("places"), ending)


@pytest.fixture
def spool(request: pytest.FixtureRequest, tmp_path: Path, places: Places) -> Spool:
    """A fresh spool tree: on the disk, or on the file system that a test's parameter names."""
    kind = getattr(request, "param", "disk")
    spool = Spool.at((tmp_path if kind == "disk" else places.folder(kind)) / "spool")
    spool.create()
    return spool
