"""The parts of a daemon as processes that start in milliseconds, to be stopped at a point.

The crash matrix needs some thousand processes, and Python with all that spoold imports takes half
a second to start. So one process imports everything and forks: `python -m tests.crash.forking`
reads a task a line, forks a child that does it, and answers with its exit status. What a child
runs are the program's own parts, wired as `daemon` wires them, but for the workers: there is one,
in the same process.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spoold import cli, config, points
from spoold.actions import MODELS
from spoold.config import Config
from spoold.daemon.once import Once
from spoold.daemon.wiring import intake_settings, retention_settings, worker_settings
from spoold.daemon.work import work
from spoold.intake.loop import Intake
from spoold.queue.database import Database
from spoold.queue.store import Store
from spoold.retention import Retention
from spoold.spool import Spool
from spoold.trust import load_signer
from spoold.worker import supervisor
from spoold.worker.maintenance import Maintenance
from spoold.worker.recovery import recover

TOO_LONG = 99
_DEADLINE_SECONDS = 20.0
_ROUND_SECONDS = 0.01
_CLAIMABLE = """select count(*) from spoold.job where spool = %s
    and (state = 'queued' or state = 'publishing' and worker is null)"""


class Forks:
    """The other end: has tasks done, one after the other."""

    def __init__(self) -> None:
        # "spoold" in its command line: else a worker would be taken for dead by its daemon.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forking", "spoold"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, task: str, *arguments: str, log: Path, **environment: str) -> int:
        """The exit status of a process that did this, or minus what ended or stopped it."""
        return self._ask(
            {
                "task": task,
                "arguments": arguments,
                "log": str(log),
                "environment": environment,
            }
        )

    def _ask(self, order: dict[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def wake(self) -> int:
        """Have the first process that a signal stopped go on; its exit status."""
        return self._ask({"task": "wake"})

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# --- in the child ---------------------------------------------------------------------------------


def run_daemon(root: str) -> int:
    """Intake, maintenance and a worker, until every drop has its final status."""
    here = _Here(root)
    stop = threading.Event()
    intake = Intake(here.tree, here.store("intake"), intake_settings(here.config), MODELS)
    maintenance = Maintenance(
        here.tree,
        here.store("maintenance"),
        worker_settings(here.config),
        lambda: None,
        lambda worker: None,
    )
    signer = load_signer(here.config.signing_key, here.config.site)
    recover(here.tree, here.store("recovery"), signer)
    once = Once(intake)
    store = here.store("run")

    def done() -> bool:
        maintenance.wake()
        return once.is_done(store.busy()) and not store.unfinished()

    threads = [
        threading.Thread(target=intake.run, args=(stop,)),
        threading.Thread(target=maintenance.run, args=(stop,)),
    ]
    for thread in threads:
        thread.start()
    with _drained_when(done):
        work(here.config)
    stop.set()
    intake.wake()
    maintenance.wake()
    for thread in threads:
        thread.join()
    return 0


def run_intake(root: str) -> int:
    """Intake alone, until there is nothing more to take."""
    here = _Here(root)
    intake = Intake(here.tree, here.store("intake"), intake_settings(here.config), MODELS)
    end = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < end:
        report = intake.scan_once()
        if report.dry and not report.held:
            intake.close()
            return 0
        time.sleep(_ROUND_SECONDS)
    return TOO_LONG


def run_worker(root: str) -> int:
    """A worker alone, without anybody who takes back what the dead ones hold."""
    here = _Here(root)
    identity = uuid.uuid4()
    os.environ[supervisor.ID_VARIABLE] = str(identity)
    store = here.store("run")

    def done() -> bool:
        # In this order: what is claimed in between is not to be claimed any more, but held.
        row = store.database.connection.execute(_CLAIMABLE, (store.spool,)).fetchone()
        return row == (0,) and store.beat(identity) == frozenset()

    with _drained_when(done):
        work(here.config)
    return 0


def run_retention(root: str) -> int:
    """One round of retention."""
    here = _Here(root)
    settings = retention_settings(here.config)
    Retention(here.tree, here.store("retention"), settings, here.config.connections).round()
    return 0


def run_command(*arguments: str) -> int:
    """One command of the program."""
    sys.argv = ["spoold", *arguments]
    cli.main()


TASKS: dict[str, Callable[..., int]] = {
    "daemon": run_daemon,
    "intake": run_intake,
    "worker": run_worker,
    "retention": run_retention,
    "command": run_command,
}


class _Here:
    def __init__(self, root: str) -> None:
        self.tree = Spool.at(root)
        self.config: Config = config.load(self.tree)

    def store(self, application: str) -> Store:
        database = Database(self.config.database_url, f"spoold {application}")
        return Store(database, self.tree.identity().spool)


@contextmanager
def _drained_when(done: Callable[[], bool]) -> Iterator[None]:
    """Send this process SIGTERM as soon as something is so; end it where that takes too long."""

    def watch() -> None:
        try:
            wait()
        except BaseException:  # noqa: BLE001  # else nobody would ever end this process
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os.kill(os.getpid(), signal.SIGTERM)

    def wait() -> None:
        end = time.monotonic() + _DEADLINE_SECONDS
        # Before the worker has its handlers, the signal would just end the process.
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL or not done():
            if time.monotonic() > end:
                print(f"not done within {_DEADLINE_SECONDS} s", file=sys.stderr, flush=True)
                os._exit(TOO_LONG)
            time.sleep(_ROUND_SECONDS)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    thread.join()


def _child(order: dict[str, object]) -> int:
    # A worker ends its whole process group when its job is taken away.
    os.setsid()
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    environment, arguments = order["environment"], order["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.update(environment)
    points.arm(os.environ.get(points.VARIABLE))
    try:
        return TASKS[str(order["task"])](*arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001  # nothing may get back into the parent's loop
        traceback.print_exc()
        return 1


def _main() -> None:
    stopped: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        if order["task"] == "wake":
            pid = stopped.pop(0)
            os.kill(pid, signal.SIGCONT)
        else:
            pid = os.fork()
            if pid == 0:
                status = _child(order)
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            stopped.append(pid)
            print(-os.WSTOPSIG(status), flush=True)
        else:
            print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _main()
