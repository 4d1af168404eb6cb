"""The embedded server: started, adopted, killed, moved, copied, full."""

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest

from spoold import postgres
from spoold.errors import SpooldError
from spoold.postgres import binaries
from spoold.postgres.home import Home
from spoold.queue import binding
from spoold.queue.database import Database
from spoold.queue.migrate import migrate
from spoold.spool import Spool
from tests.conftest import DEBIAN_PROGRAMS, wait_until
from tests.integration.postgres_runs import (
    answers,
    close_streams,
    end_python,
    next_line,
    postmaster,
    setting,
    start_by_hand,
    start_python,
    text_of,
)

ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(not ROOT, reason="needs root")
needs_15 = pytest.mark.skipif(not DEBIAN_PROGRAMS.is_dir(), reason="PostgreSQL 15 is not installed")


def test_it_starts_answers_and_stops(home_spool: Spool) -> None:
    with pytest.raises(SpooldError, match=r"database-away.*no daemon"):
        postgres.find(home_spool)
    server = postgres.ensure_running(home_spool)
    assert server.started
    assert server.alive()
    assert postgres.find(home_spool) == server.conninfo
    assert answers(server.conninfo) == 1
    assert server.stop_if_last()
    assert not server.alive()
    assert not server.stop_if_last()
    with pytest.raises(SpooldError, match="database-away"):
        postgres.find(home_spool)


def test_it_keeps_its_data(home_spool: Spool) -> None:
    server = postgres.ensure_running(home_spool)
    with postgres.connect(server.conninfo, "tests") as connection:
        connection.execute("create table kept as select 42 as value")
    server.stop_if_last()
    server = postgres.ensure_running(home_spool)
    with postgres.connect(server.conninfo, "tests") as connection:
        assert connection.execute("select value from kept").fetchone() == (42,)
    server.stop_if_last()


def test_it_is_durable_private_and_without_tcp(server: postgres.Server, home_spool: Spool) -> None:
    with postgres.connect(server.conninfo, "tests") as connection:
        postgres.check_external(connection)
    for name, value in {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "password_encryption": "scram-sha-256",
        "server_encoding": "UTF8",
    }.items():
        assert setting(server.conninfo, name) == value
    home = Home.of(home_spool)
    folder = home.address.present_folder()
    assert folder is not None
    for private in (home.data, folder):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for secret in (home.address_file, home.password_file):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    wrong = psycopg.conninfo.make_conninfo(server.conninfo, password="guess")
    with pytest.raises(SpooldError, match="database-away"):
        postgres.connect(wrong, "tests")


def test_the_environment_cannot_change_where_it_connects(
    server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "nowhere",
        "PGHOSTADDR": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "x",
        "PGPASSWORD": "x",
        "PGDATABASE": "x",
        "PGOPTIONS": "-c nonsense=1",
        "PGSSLMODE": "verify-full",
        "PGTARGETSESSIONATTRS": "standby",
    }.items():
        monkeypatch.setenv(name, value)
    assert answers(server.conninfo) == 1


def test_a_second_daemon_adopts_and_only_the_last_stops(home_spool: Spool) -> None:
    first, second = postgres.ensure_running(home_spool), postgres.ensure_running(home_spool)
    assert first.started
    assert not second.started
    assert not first.stop_if_last()
    assert answers(second.conninfo) == 1
    assert second.stop_if_last()


def test_daemons_that_start_at_once_share_one_server(home_spool: Spool) -> None:
    code = """
        import sys
        from spoold import postgres
        from spoold.spool import Spool
        server = postgres.ensure_running(Spool.at(sys.argv[1]))
        print(server.started, flush=True)
        sys.stdin.read()
        server.stop_if_last()
    """
    processes = [start_python(code, str(home_spool.root)) for _ in range(4)]
    started = [next_line(process) for process in processes]
    assert sorted(started) == ["False", "False", "False", "True"]
    for process in processes:
        assert end_python(process) == 0
    assert not Home.of(home_spool).server_lives()


def test_a_server_of_a_killed_daemon_is_adopted(home_spool: Spool) -> None:
    code = """
        import sys
        from spoold import postgres
        from spoold.spool import Spool
        server = postgres.ensure_running(Spool.at(sys.argv[1]))
        print(server.data, flush=True)
        sys.stdin.read()
    """
    daemon = start_python(code, str(home_spool.root))
    next_line(daemon)
    daemon.kill()
    daemon.wait()
    close_streams(daemon)
    server = postgres.ensure_running(home_spool)
    assert not server.started
    assert answers(server.conninfo) == 1
    assert server.stop_if_last()


def test_a_killed_server_is_started_again(home_spool: Spool) -> None:
    server = postgres.ensure_running(home_spool)
    assert not server.revive()
    os.kill(postmaster(server), signal.SIGKILL)
    wait_until(lambda: not server.alive())
    assert (server.data / "postmaster.pid").exists()
    with pytest.raises(SpooldError, match="database-away"):
        postgres.connect(server.conninfo, "tests")
    assert server.revive()
    assert answers(server.conninfo) == 1
    assert server.stop_if_last()


def test_a_stale_pid_file_with_the_id_of_a_living_process_is_no_obstacle(home_spool: Spool) -> None:
    server = postgres.ensure_running(home_spool)
    lines = (server.data / "postmaster.pid").read_text().split("\n")
    os.kill(postmaster(server), signal.SIGKILL)
    wait_until(lambda: not server.alive())
    with subprocess.Popen(["sleep", "60"], user=server.data.stat().st_uid) as other:
        lines[0] = str(other.pid)
        (server.data / "postmaster.pid").write_text("\n".join(lines))
        assert server.revive()
        assert other.poll() is None
        assert server.stop_if_last()
        assert other.poll() is None
        other.kill()


def test_a_server_started_by_hand_is_not_disturbed(home_spool: Spool) -> None:
    server = postgres.ensure_running(home_spool)
    server.stop_if_last()
    with start_by_hand(server.data, server.data) as process:
        wait_until(lambda: "ready" in text_of(server.data / "postmaster.pid"))
        with pytest.raises(SpooldError, match=r"database-unfit.*did not start") as refusal:
            postgres.ensure_running(home_spool)
        assert str(process.pid) in refusal.value.hint
        process.send_signal(signal.SIGINT)


def test_a_data_folder_of_another_major_version_is_refused_with_the_fix(home_spool: Spool) -> None:
    server = postgres.ensure_running(home_spool)
    server.stop_if_last()
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(SpooldError, match=r"database-unfit.*made by PostgreSQL 17") as refusal:
        postgres.ensure_running(home_spool)
    assert "drain" in refusal.value.hint


@needs_15
def test_debian_15_runs_the_same_and_18_refuses_its_data(home_spool: Spool) -> None:
    server = postgres.ensure_running(home_spool, programs=DEBIAN_PROGRAMS)
    with postgres.connect(server.conninfo, "tests") as connection:
        assert connection.info.server_version // 10000 == 15
        postgres.check_external(connection)
    server.stop_if_last()
    with pytest.raises(SpooldError, match=r"database-unfit.*made by PostgreSQL 15"):
        postgres.ensure_running(home_spool)


def test_half_a_database_from_a_crash_is_made_anew(home_spool: Spool) -> None:
    home = Home.of(home_spool)
    (home.folder / "data.new").mkdir()
    (home.folder / "data.new" / "PG_VERSION").write_text("18\n")
    (home.folder / "password.new").write_text("old")
    server = postgres.ensure_running(home_spool)
    assert answers(server.conninfo) == 1
    assert not (home.folder / "data.new").exists()
    assert not (home.folder / "password.new").exists()
    server.stop_if_last()


def test_a_daemon_killed_while_the_database_is_made_leaves_nothing_in_the_way(
    home_spool: Spool,
) -> None:
    code = """
        import sys
        from spoold import postgres
        from spoold.spool import Spool
        postgres.ensure_running(Spool.at(sys.argv[1]))
    """
    building = Home.of(home_spool).folder / "data.new" / "base" / "1"
    daemon = start_python(code, str(home_spool.root))
    wait_until(lambda: building.exists() or daemon.poll() is not None)
    daemon.kill()
    daemon.wait()
    close_streams(daemon)
    server = postgres.ensure_running(home_spool)  # its initdb may still be at work
    assert answers(server.conninfo) == 1
    server.stop_if_last()


@pytest.mark.skipif(ROOT, reason="root's servers have a folder elsewhere, with a short path")
def test_a_spool_with_a_long_path_gets_a_short_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Spool.at(tmp_path / ("x" * 100) / "spool, with a comma")
    long.create()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    server = postgres.ensure_running(long)
    folder = Home.of(long).address.recorded_folder()
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert answers(postgres.find(long)) == 1
    server.stop_if_last()
    assert not folder.exists()


def test_e34_a_moved_spool_keeps_its_running_server(
    home_spool: Spool, server: postgres.Server, tmp_path: Path
) -> None:
    moved = Spool.at(tmp_path / "moved")
    os.rename(home_spool.root, moved.root)
    adopted = postgres.ensure_running(moved)
    assert not adopted.started
    assert answers(postgres.find(moved)) == 1
    server.stop_if_last()
    assert adopted.stop_if_last()
    again = postgres.ensure_running(moved)
    assert answers(again.conninfo) == 1
    again.stop_if_last()
    os.rename(moved.root, home_spool.root)


def test_e34_a_copied_spool_does_not_touch_the_originals_server(
    home_spool: Spool, server: postgres.Server, tmp_path: Path
) -> None:
    copy = Spool.at(tmp_path / "copy")
    shutil.copytree(home_spool.root, copy.root, ignore=shutil.ignore_patterns(".s.PGSQL*"))
    with pytest.raises(SpooldError, match=rf"spool-foreign.*{home_spool.root}"):
        postgres.ensure_running(copy)
    assert answers(server.conninfo) == 1


def test_the_queue_runs_on_it(home_spool: Spool, server: postgres.Server) -> None:
    database = Database(server.conninfo, "tests")
    assert migrate(database) > 0
    binding.bind(database, home_spool, "site-a")
    binding.check(database, home_spool)
    database.close()


def test_removing_a_running_server_is_refused(home_spool: Spool, server: postgres.Server) -> None:
    with pytest.raises(SpooldError, match=r"database-unfit.*runs"):
        postgres.remove(home_spool)
    server.stop_if_last()
    postgres.remove(home_spool)
    assert not server.data.exists()


def test_a_server_that_is_removed_while_another_daemon_starts_is_made_anew(
    home_spool: Spool,
) -> None:
    code = """
        import sys
        from spoold import postgres
        from spoold.spool import Spool
        spool = Spool.at(sys.argv[1])
        print("ready", flush=True)
        server = postgres.ensure_running(spool)
        print(server.started, flush=True)
        sys.stdin.read()
        server.stop_if_last()
    """
    home = Home.of(home_spool)
    other = start_python(code, str(home_spool.root))
    with home.starting():
        lock = (home.folder / "start.lock").stat().st_ino
        assert next_line(other) == "ready"
        wait_until(lambda: _opened(other.pid, lock))
        home.remove()
    assert next_line(other) == "True"
    with home.starting():  # it holds the lock that is there
        assert home.server_lives()
    assert end_python(other) == 0


def _opened(pid: int, inode: int) -> bool:
    descriptors = Path(f"/proc/{pid}/fd")
    return any(path.exists() and path.stat().st_ino == inode for path in descriptors.iterdir())


def test_programs_that_are_missing_are_named(home_spool: Spool, public_folder: Path) -> None:
    with pytest.raises(SpooldError, match=r"database-unfit.*does not exist"):
        postgres.ensure_running(home_spool, programs=public_folder)


def test_programs_that_do_not_run_are_named(home_spool: Spool, public_folder: Path) -> None:
    program = public_folder / "postgres"
    program.write_text("#!/bin/sh\necho no such library; exit 127\n")
    program.chmod(0o755)
    with pytest.raises(SpooldError, match=r"database-unfit.*no such library"):
        postgres.ensure_running(home_spool, programs=public_folder)


def test_a_server_that_was_killed_while_it_started_is_away_not_unfit(
    home_spool: Spool, server: postgres.Server, public_folder: Path
) -> None:
    """A service manager starts a daemon again for the one, and not for the other."""
    server.stop_if_last()
    real = binaries.locate(binaries.user_of(server.data)).folder / "postgres"
    program = public_folder / "postgres"
    program.write_text(f'#!/bin/sh\n[ "$1" = -D ] && kill -9 $$\nexec {real} "$@"\n')
    program.chmod(0o755)
    with pytest.raises(SpooldError, match=r"database-away.*killed"):
        postgres.ensure_running(home_spool, programs=public_folder)
    again = postgres.ensure_running(home_spool)
    assert answers(again.conninfo) == 1
    again.stop_if_last()


@needs_root
def test_programs_closed_to_the_servers_user_are_named(home_spool: Spool, tmp_path: Path) -> None:
    shutil.copy("/bin/true", tmp_path / "postgres")
    with pytest.raises(SpooldError, match=r"database-unfit.*cannot be run by"):
        postgres.ensure_running(home_spool, programs=tmp_path)


@needs_root
def test_e23_a_full_disk_is_said_and_left_clean(home_spool: Spool) -> None:
    """Both the making of the database and its start, on a file system of their own."""
    home = Home.of(home_spool)
    small = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=711", "none", str(home.folder)]
    if subprocess.run(small, check=False, capture_output=True).returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with pytest.raises(SpooldError, match="no-space"):
            postgres.ensure_running(home_spool)
        assert not home.data.exists()
        assert not (home.folder / "data.new").exists()
        _mount_size(home.folder, "200m")
        server = postgres.ensure_running(home_spool)  # goes on by itself when there is room
        server.stop_if_last()
        filling = home.folder / "filling"
        fill = ["dd", "if=/dev/zero", f"of={filling}", "bs=4096"]
        assert subprocess.run(fill, check=False, capture_output=True).returncode != 0
        with pytest.raises(SpooldError, match="no-space"):
            postgres.ensure_running(home_spool)
        filling.unlink()
        server = postgres.ensure_running(home_spool)
        assert answers(server.conninfo) == 1
        server.stop_if_last()
    finally:
        subprocess.run(["umount", str(home.folder)], check=True)


def _mount_size(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
