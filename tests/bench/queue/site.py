"""A spool with a real daemon on the embedded server, and what the two of them cost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from spoold import postgres
from spoold.queue.database import Database
from spoold.spool import Spool

WORKERS = 2
DEADLINE_SECONDS = 900.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Cpu(NamedTuple):
    """CPU seconds so far."""

    supervisor: float
    workers: float
    server: float

    def since(self, before: "Cpu") -> "Cpu":
        """The difference."""
        return Cpu(*(now - then for now, then in zip(self, before, strict=True)))


class Memory(NamedTuple):
    """Of one process, in MB: what it has mapped, and its share of what several have mapped."""

    resident: float
    proportional: float


@dataclass
class Site:
    """One spool. The server runs from `open` to the end; the daemon is started and stopped."""

    root: Path
    algorithm: str
    server: postgres.Server
    database: Database
    _daemon: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def supervisor(self) -> int:
        """The daemon's process id."""
        assert self._daemon is not None
        return self._daemon.pid

    @property
    def postmaster(self) -> int:
        """The server's process id."""
        return int((self.server.data / "postmaster.pid").read_text().split()[0])

    def ask(self, sql: str, *values: object) -> Any:
        """The first column of the first row."""
        row = self.database.connection.execute(sql.encode(), values).fetchone()
        assert row is not None
        return row[0]

    def start(self, **environment: str) -> None:
        """Start the daemon and wait until its workers wait for work."""
        self.launch(**environment)
        registered = "select count(*) from spoold.worker"
        until(lambda: self.migrated() and self.ask(registered) == WORKERS)
        until(lambda: "daemon.started" in self.log)

    def launch(self, **environment: str) -> None:
        """Start the daemon."""
        with open(self.root / "daemon.log", "ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "spoold", "run", str(self.root)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "SPOOLD_WORKERS_COUNT": str(WORKERS), **environment},
            )

    def migrated(self) -> bool:
        """Whether there are tables already."""
        return self.ask("select to_regclass('spoold.worker')") is not None

    def stop(self) -> None:
        """Drain the daemon."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            self._daemon.wait(DEADLINE_SECONDS)
            self._daemon = None

    @property
    def log(self) -> str:
        return (self.root / "daemon.log").read_text(errors="replace")

    def complaints(self) -> list[str]:
        """What the daemon warned of: in a run that went well there is nothing."""
        return [line for line in self.log.splitlines() if '"level": "info"' not in line]

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [pid for pid in children(self.supervisor) if b"worker" in _command(pid)]

    def cpu(self) -> Cpu:
        """What all processes have used so far."""
        return Cpu(
            _seconds(self.supervisor), sum(map(_seconds, self.workers())), self.server_seconds()
        )

    def server_seconds(self) -> float:
        """What the server has used, with those processes of its that have ended."""
        backends = [self.postmaster, *children(self.postmaster)]
        return sum(map(_seconds, backends)) + _seconds_of_the_dead(self.postmaster)


@contextmanager
def opened(folder: Path, algorithm: str) -> Iterator[Site]:
    """Make a spool with one root, `corpus`, in which one file of 1 KB stands; remove it all."""
    root = folder / f"spool-{uuid.uuid4().hex[:6]}"
    init = [sys.executable, "-m", "spoold", "init", str(root), "--site", "bench"]
    subprocess.run([*init, "--algorithm", algorithm], check=True, stdout=subprocess.DEVNULL)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    (corpus / "note.txt").write_bytes(b"0123456789abcdef" * 64)
    with (root / "spoold.toml").open("a") as file:
        file.write(f"\n[roots]\ncorpus = {json.dumps(str(corpus))}\n")
    spool = Spool.at(root)
    server = postgres.ensure_running(spool)
    database = Database(server.conninfo, "spoold bench")
    site = Site(root, algorithm, server, database)
    try:
        yield site
    finally:
        site.stop()
        database.close()
        server.stop_if_last()
        postgres.remove(spool)
        shutil.rmtree(root)


REQUEST = json.dumps(
    {
        "type": "spoold.request/1",
        "action": "bundle",
        "name": "note",
        "sources": [{"kind": "files", "root": "corpus", "path": "note.txt"}],
    }
).encode()


def until(predicate: Callable[[], bool], deadline_seconds: float = 60.0) -> None:
    """Wait for what is about to be true. Raises TimeoutError."""
    end = time.monotonic() + deadline_seconds
    while not predicate():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def children(parent: int) -> list[int]:
    """Direct children of a process, of any of its threads."""
    found = []
    for entry in os.scandir(f"/proc/{parent}/task"):
        found += Path(entry.path, "children").read_text().split()
    return sorted(map(int, found))


def memory(pid: int) -> Memory:
    """RSS and PSS of a process."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024 / 1e6
    return Memory(sizes["Rss"], sizes["Pss"])


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


def _seconds(pid: int) -> float:
    # utime and stime: proc_pid_stat(5), fields 14 and 15, of which two stand before the name's end
    return sum(map(int, _stat(pid)[11:13])) / _TICKS


def _seconds_of_the_dead(pid: int) -> float:
    return sum(map(int, _stat(pid)[13:15])) / _TICKS
