"""The embedded server: started, found again after a crash, stopped by its last user.

Guarantees: one server a spool, however many daemons start at once; a server is stopped only when no
daemon uses it.
Not guaranteed: data on file systems that lie about fsync.
Crash: a killed daemon leaves the server running, and the next one adopts it; a killed server leaves
`postmaster.pid` and its sockets, which the next start removes once `server.lock` proves it dead.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import structlog

from spoold import errors
from spoold.errors import SpooldError
from spoold.postgres import postmaster
from spoold.postgres.address import SOCKET, read_conninfo
from spoold.postgres.binaries import Binaries, environment, locate
from spoold.postgres.cluster import check_version, failure, initialise
from spoold.postgres.connection import connect
from spoold.postgres.home import Home, disk_errors
from spoold.spool import Spool

_log = structlog.get_logger()

_CONNECTIONS: Final = 60
_START_SECONDS: Final = 600.0  # crash recovery of a large database takes its time
_STOP_SECONDS: Final = 60.0
_REAP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.005
_LOG_BYTES: Final = 1 << 20

# Servers of ours that others go on using: Python warns of a child whose handle is collected.
_LEFT_RUNNING: Final[list[subprocess.Popen[bytes]]] = []


class Server:
    """A running embedded server and this process's use of it."""

    def __init__(self, home: Home, programs: Path | None, connections: int, use: int) -> None:
        self._home = home
        self._programs = programs
        self._connections = connections
        self._use: int | None = use
        self._process: subprocess.Popen[bytes] | None = None
        self.conninfo = ""

    @property
    def started(self) -> bool:
        """Whether this process started it; else it was running and was adopted."""
        return self._process is not None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._home.data

    def alive(self) -> bool:
        """Whether the server lives; a dead child is reaped."""
        lives = self._home.server_lives()
        if self._process is not None:
            # A server that ends gives up its lock an instant before it can be waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0 if lives else _REAP_SECONDS)
                self._process = None
        return lives

    def revive(self) -> bool:
        """Start the server again if it has died; True if it had to be started.

        Raises database-unfit, database-away or no-space.
        """
        if self.alive():
            return False
        with self._home.starting():
            self._start_or_adopt()
        return self.started

    def stop_if_last(self) -> bool:
        """End this process's use, and the server unless another daemon uses it. True if stopped."""
        if self._use is None:
            return False
        use, self._use = self._use, None
        if not self._home.folder.exists():  # the spool was moved: whoever adopts it there stops it
            os.close(use)
            self._leave_running()
            return False
        try:
            with self._home.starting():
                try:
                    fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._leave_running()
                    return False
                return self._stop()
        finally:
            os.close(use)

    def _leave_running(self) -> None:
        if self._process is not None:
            _LEFT_RUNNING.append(self._process)

    def _start_or_adopt(self) -> None:
        home = self._home
        deadline = time.monotonic() + _START_SECONDS
        while (lock := home.take_server_lock()) is None:
            folder = home.address.present_folder()
            if folder is not None and postmaster.status(home.data) == "ready":
                self.conninfo = home.write_address(folder)
                connect(self.conninfo, "spoold adopt").close()
                _log.info("postgres.adopted", data=str(home.data))
                return
            if time.monotonic() > deadline:
                pid = postmaster.process_id(home.data)
                raise SpooldError(
                    errors.DATABASE_AWAY,
                    f"the server of {home.data} neither answers nor ends",
                    hint=f"see {home.log_file}; end process {pid} by hand",
                )
            time.sleep(_POLL_SECONDS)
        try:
            self._start(lock)
        finally:
            os.close(lock)

    def _start(self, lock: int) -> None:
        home, began = self._home, time.monotonic()
        programs = locate(home.user, self._programs)
        if not home.data.exists():
            initialise(home, programs, lock)
        check_version(home, programs)
        _clear_leftovers(home)
        with disk_errors(home.folder):
            sockets = home.address.make_folder()
            log = _open_log(home)
        try:
            offset = os.fstat(log).st_size
            self._process = subprocess.Popen(
                [
                    *(programs.folder / "postgres", "-D", home.data),
                    *_settings(programs, sockets, self._connections),
                ],
                user=home.user.uid if home.user else None,
                group=home.user.gid if home.user else None,
                extra_groups=[] if home.user else None,
                env=environment(),
                cwd="/",
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's ^C is ours to answer, by a clean stop
                pass_fds=(lock,),
            )
        finally:
            os.close(log)
        self._wait_until_ready(self._process, offset)
        with disk_errors(home.folder):
            self.conninfo = home.write_address(sockets)
        _log.info("postgres.started", data=str(home.data), seconds=time.monotonic() - began)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], offset: int) -> None:
        home = self._home
        deadline = time.monotonic() + _START_SECONDS
        while (
            postmaster.process_id(home.data) != process.pid
            or postmaster.status(home.data) != "ready"
        ):
            if process.poll() is not None:
                self._process = None
                if process.returncode < 0:  # nothing is wrong with the server: start it again
                    raise SpooldError(
                        errors.DATABASE_AWAY,
                        f"the server of {home.data} was killed while it started",
                        hint="it is started again; if that recurs, look for what ends it: memory?",
                    )
                raise failure(f"the server of {home.data} does not start", _tail(home, offset))
            if time.monotonic() > deadline:  # it goes on recovering, and is adopted next time
                raise SpooldError(
                    errors.DATABASE_AWAY,
                    f"the server of {home.data} is still recovering",
                    hint=f"it goes on; see {home.log_file}",
                )
            time.sleep(_POLL_SECONDS)

    def _stop(self) -> bool:
        home = self._home
        process = postmaster.open_process(home.data)
        if process is None:
            if not home.server_lives():  # else it is out of sight: of another container, say
                home.address.forget()
            return False
        try:
            signal.pidfd_send_signal(process, signal.SIGINT)  # fast shutdown
            ended = select.poll()
            ended.register(process, select.POLLIN)
            if not ended.poll(_STOP_SECONDS * 1000):
                _log.warning("postgres.stopping", data=str(home.data), hint=f"see {home.log_file}")
                return False
        finally:
            os.close(process)
        if self._process is not None:
            self._process.wait()
            self._process = None
        home.address.forget()
        _log.info("postgres.stopped", data=str(home.data))
        return True


def ensure_running(
    spool: Spool, *, programs: Path | None = None, connections: int = _CONNECTIONS
) -> Server:
    """Start, or adopt, the server of a spool, and hold on to it until `stop_if_last`.

    `programs` is a folder with other PostgreSQL programs than the wheel's; `connections` is how
    many a server that is started must have room for. Raises database-unfit, database-lost,
    database-away, no-space or spool-foreign.
    """
    home = Home.of(spool)
    with home.starting():
        server = Server(home, programs, connections, home.use())
        try:
            with disk_errors(home.folder):
                home.check_place(spool)
                home.check_data(spool)
                home.record_place(spool)
            server._start_or_adopt()
        except BaseException:
            assert server._use is not None
            os.close(server._use)
            raise
    return server


def accept_place(spool: Spool) -> str | None:
    """Take a copied tree for the spool itself; says what that means, None where it was no copy.

    Raises spool-busy where a daemon uses the server, be it that of the other tree.
    """
    home = Home.of(spool)
    with home.starting(), disk_errors(home.folder):
        refusal = home.foreign_place(spool)
        if home.in_use():
            raise SpooldError(errors.SPOOL_BUSY, f"a daemon uses the server of {home.data}")
        home.record_place(spool)
    return refusal.message if refusal else None


def check_startable(spool: Spool) -> None:
    """Refuse what `ensure_running` would refuse; starts and changes nothing.

    Raises database-unfit, database-lost or spool-foreign.
    """
    home = Home.of(spool)
    programs = locate(home.user)
    home.check_place(spool)
    home.check_data(spool)
    if home.data.exists():
        check_version(home, programs)


def find(spool: Spool) -> str:
    """The conninfo of the server that a daemon runs for this spool. Raises database-away."""
    return read_conninfo(spool)


def remove(spool: Spool) -> None:
    """Delete the server of a spool that no daemon runs, with all its data. For spools given up."""
    home = Home.of(spool)
    with home.starting():
        if home.server_lives():
            raise SpooldError(
                errors.DATABASE_UNFIT,
                f"the server of {home.data} runs",
                hint="stop the daemon of that spool first",
            )
        with disk_errors(home.folder):
            home.remove()


def _settings(programs: Binaries, sockets: Path, connections: int) -> list[str]:
    # Given on the command line: root writes no file into a folder that another user owns.
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": os.fspath(sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "max_connections": str(max(_CONNECTIONS, connections)),
        # durable: what is committed stays
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        # small, and without replication
        "shared_buffers": "32MB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "max_wal_size": "256MB",
        "max_worker_processes": "2",
        "max_logical_replication_workers": "0",
        "max_parallel_workers_per_gather": "0",
        "jit": "off",
        "bgwriter_lru_maxpages": "0",  # it would wake an idle machine, and the cache is small
        # dead rows make claims slow: look often
        "autovacuum_naptime": "10s",
        "log_line_prefix": "%m [%p] ",
        "log_checkpoints": "off",
        "log_min_error_statement": "panic",  # statements hold what users dropped
        "log_min_messages": "warning",
        "cluster_name": "spoold",
    }
    if programs.major >= 18:
        settings["io_method"] = "sync"  # no processes for reading ahead
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _clear_leftovers(home: Home) -> None:
    """Remove what a killed server left; the process ids in it may be somebody else's by now."""
    if (process := postmaster.open_process(home.data)) is not None:
        os.close(process)
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"a server that spoold did not start runs in {home.data}",
            hint=f"stop it: kill -INT {postmaster.process_id(home.data)}",
        )
    with disk_errors(home.folder):
        (home.data / "postmaster.pid").unlink(missing_ok=True)
        for folder in (home.folder / "socket", home.address.recorded_folder()):
            if folder is not None:
                (folder / SOCKET).unlink(missing_ok=True)
                (folder / f"{SOCKET}.lock").unlink(missing_ok=True)


def _open_log(home: Home) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(home.log_file, flags, 0o600)
    if os.fstat(log).st_size > _LOG_BYTES:
        os.ftruncate(log, 0)
    return log


def _tail(home: Home, offset: int) -> str:
    with open(home.log_file, "rb") as file:
        file.seek(offset)
        return file.read(_LOG_BYTES).decode(errors="replace")
