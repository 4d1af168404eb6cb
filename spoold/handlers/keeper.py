"""Keeps one tool: starts it within limits, copies its output to a log, ends all of it.

A program of its own, run by path as `python -I -S keeper.py`: it has one thread, starts in
milliseconds and has no environment. The standard input brings one line of JSON, what to run, and
stays open as a lifeline: where it ends, the tool is killed. The standard output takes one line,
what became of the tool.

The keeper is a child subreaper (prctl(2)): a process that the tool let go becomes its child,
whatever session, group or streams it has, so that none escapes. All are found in /proc.

Guarantees: when it has ended by itself, nothing of the tool is left. At the timeout the tool's
process group gets SIGTERM, and a second later all that is left SIGKILL.
Not guaranteed: anything against a tool of the same user that kills its keeper on purpose; what is
then left becomes the worker's, and is ended by it.
Crash: the tool dies with the keeper (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False  # importing `typing` for it takes longer than the rest
if TYPE_CHECKING:
    from spoold.handlers.process import Answer, Spec

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_GRACE_SECONDS = 1.0
_ROUND_SECONDS = 0.25
_KILL_SECONDS = 5.0
_PAUSE_SECONDS = 0.002
_READ_BYTES = 65536
TAIL_BYTES = 4096

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def be_subreaper(*, on: bool) -> None:
    """Have descendants whose parents end become children of this process, or not any more."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def children_of(process: int) -> list[int]:
    """The children of a process, the dead ones that nobody has waited for among them.

    Where there are none this is one look at all, which nothing slips through: proc(5),
    /proc/<pid>/task/<tid>/children.
    """
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, file.readall().split())
    except FileNotFoundError:  # a kernel without it, or a thread that has ended
        return _families().get(process, [])
    return found


def descendants(*ancestors: int) -> list[int]:
    """The living processes below some."""
    families = _families()
    found: list[int] = []
    todo = list(ancestors)
    while todo:
        below = families.get(todo.pop(), [])
        found += below
        todo += below
    return found


def kill_all(spared: frozenset[int] = frozenset()) -> bool:
    """Kill whatever is below this process but some of its children; False where something stays.

    Only children need be killed: whose parent ends becomes one. What forks and ends at once must be
    met in its instant, so nothing is done between finding and killing, and no pause made while
    there are new ones.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    met: set[int] = set()
    while left := {child for child in children_of(os.getpid()) if child not in spared}:
        for child in left:
            with suppress(ProcessLookupError, PermissionError):
                # A whole group at once: what one of them is starting just now does not start then.
                # In a session of the tool's own there is nobody else.
                if os.getsid(child) != os.getsid(0):
                    os.killpg(os.getpgid(child), signal.SIGKILL)
                os.kill(child, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        if time.monotonic() > deadline:
            return False
        if left <= met:
            time.sleep(_PAUSE_SECONDS)
        met |= left
    return True


def _families() -> dict[int, list[int]]:
    """Children by parent, of all processes that have not ended: proc(5), /proc/<pid>/stat."""
    families: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # After the last `)`: the name before it may hold anything.
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state not in {b"Z", b"X"}:
                families.setdefault(int(parent), []).append(int(name))
    return families


class _Log:
    """The tool's output: its beginning and, where that is not all, its end and a count between."""

    def __init__(self, path: bytes, most_bytes: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._room = most_bytes
        self.total = 0
        self.left_out = 0
        self.tail = b""

    def add(self, data: bytes) -> None:
        """Take what the tool has written."""
        self.total += len(data)
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        kept = data[: self._room]
        self._room -= len(kept)
        self.left_out += len(data) - len(kept)
        self._write(kept)

    def end(self) -> None:
        """Say how much is left out, and show how it ended."""
        if self.left_out:
            end = self.tail[-self.left_out :]
            self.left_out -= len(end)
            if self.left_out:
                self._write(b"\n[spoold: %d bytes are left out here]\n" % self.left_out)
            self._write(end)
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        # A full disk is not the tool's trouble: what cannot be kept is left out.
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            self.left_out += len(view)
            self._room = 0


class _Tool:
    """The running tool and its output."""

    def __init__(self, process: int, output: int, log: _Log, most_processes: int) -> None:
        self._process = process
        self._output = output
        self._log = log
        self._most_processes = most_processes
        self._counted = 0.0

    def watch(self, deadline: float) -> str:
        """Take output until the end of something: `exit`, `timeout`, `processes`, `lifeline`."""
        poll = select.poll()
        lifeline = 0
        pidfd = os.pidfd_open(self._process)
        for descriptor in (lifeline, pidfd, self._output):
            poll.register(descriptor, select.POLLIN)
        try:
            while (left := deadline - time.monotonic()) > 0:
                ready = [
                    descriptor for descriptor, _ in poll.poll(1000 * min(left, _ROUND_SECONDS))
                ]
                if lifeline in ready:
                    return "lifeline"
                if self._output in ready and self.read() == 0:
                    poll.unregister(self._output)  # it has closed its streams
                if self._has_ended():
                    return "exit"
                if self._too_many():
                    return "processes"
        finally:
            os.close(pidfd)
        return "timeout"

    def read(self) -> int | None:
        """Take output; 0 where there is none to come, None where there is none now."""
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return None
        self._log.add(data)
        return len(data)

    def signal(self, number: int) -> None:
        """Signal the process group. It is ours as long as the tool is not reaped, dead or not."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process, number)

    def end(self) -> tuple[int, float]:
        """Kill all that is left; the exit status as `waitstatus_to_exitcode`, and CPU seconds."""
        self.signal(signal.SIGKILL)  # at once: nothing in it can start more meanwhile
        _, status, usage = os.wait4(self._process, 0)
        gone = kill_all()
        while gone and self.read():
            pass
        return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime

    def _has_ended(self) -> bool:
        """Whether the tool has; it is not reaped. What else has ended is."""
        while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if found.si_pid == self._process:
                return True
            os.waitpid(found.si_pid, 0)
        return False

    def _too_many(self) -> bool:
        now = time.monotonic()
        if not self._most_processes or now - self._counted < _ROUND_SECONDS:
            return False
        self._counted = now
        return len(descendants(os.getpid())) > self._most_processes


def _raw(text: str) -> bytes:
    """What stands in JSON for any bytes."""
    return text.encode("utf-8", "surrogateescape")


def _start(spec: Spec, output: int) -> int:
    """Fork and execute the tool; returns its process id. Raises OSError, with what it was at."""
    said, tell = os.pipe()
    keeper = os.getpid()
    process = os.fork()
    if not process:
        _become(spec, output, tell, keeper)
    os.close(tell)
    with open(said, "rb") as file:
        problem = file.read()
    if problem:
        os.waitpid(process, 0)
        number, _, what = problem.partition(b" ")
        raise OSError(int(number), what.decode(errors="replace"))
    return process


def _become(spec: Spec, output: int, tell: int, keeper: int) -> None:
    """In the child: become the tool. Never returns."""
    at = "session"
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for target, source in enumerate((null, output, output)):
            os.dup2(source, target)
        os.closerange(3, tell)
        os.closerange(tell + 1, os.sysconf("SC_OPEN_MAX"))
        for number in signal.valid_signals():  # an ignored one would stay ignored
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o027)
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")  # where memory runs out, rather it than the worker
        command = [_raw(part) for part in spec["command"]]
        environment = {_raw(name): _raw(value) for name, value in spec["environment"].items()}
        if spec["user"] is not None:
            at = "the change of users"
            user, group, groups = spec["user"]
            os.setgroups(groups)
            os.setgid(group)
            os.setuid(user)
        at = f"its working directory, {spec['folder']}"
        os.chdir(_raw(spec["folder"]))
        # After the change of users, which takes it away. A keeper that is dead sends nothing.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(127)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        at = "its limits"
        for name, value in spec["limits"].items():
            _limit(getattr(resource, name), value)
        at = spec["program"]
        os.execve(_raw(spec["program"]), command, environment)  # noqa: S606  # that is the point
    except OSError as error:
        os.write(tell, f"{error.errno} {at}: {error.strerror}".encode(errors="replace"))
    except BaseException as error:  # noqa: BLE001  # nothing may go on in the keeper's own code
        os.write(tell, f"0 {at}: {error}".encode(errors="replace"))
    os._exit(127)


def _limit(number: int, value: int) -> None:
    hard = resource.getrlimit(number)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # At the soft limit SIGXCPU; a second later the hard one ends what takes no notice.
    room = hard == resource.RLIM_INFINITY or most < hard
    above = most + 1 if number == resource.RLIMIT_CPU and room else most
    resource.setrlimit(number, (most, above))


def _keep(spec: Spec) -> Answer:
    """Run the tool to its end, or to ours."""
    started = time.monotonic()
    try:
        log = _Log(_raw(spec["log"]), spec["output_bytes"])
    except OSError as error:
        return {"error": (error.errno or 0, f"{spec['log']}: {error.strerror}"), "ended": None}
    output, writing = os.pipe()
    try:
        process = _start(spec, writing)
        os.close(writing)
        os.set_blocking(output, False)
        tool = _Tool(process, output, log, spec["processes"])
        why = tool.watch(started + spec["timeout_seconds"])
        if why == "timeout":
            tool.signal(signal.SIGTERM)
            tool.watch(time.monotonic() + _GRACE_SECONDS)
        status, cpu_seconds = tool.end()
    except OSError as error:
        return {"error": (error.errno or 0, error.strerror or str(error)), "ended": None}
    finally:
        log.end()
    return {
        "error": None,
        "ended": {
            "why": why,
            "status": status,
            "seconds": time.monotonic() - started,
            "cpu_seconds": cpu_seconds,
            "output_bytes": log.total,
            "left_out": log.left_out,
            "tail": log.tail.decode("utf-8", "surrogateescape"),
        },
    }


def main() -> None:
    """Read what to run, run it, say what became of it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the lifeline's end is what ends it
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, _READ_BYTES)
        if not data:
            return
        line += data
    be_subreaper(on=True)
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_CPU):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (hard, hard))  # the soft ones were meant for the worker
    answer = _keep(json.loads(line))
    with suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    if children_of(os.getpid()):
        sys.exit(1)  # they are the worker's then


if __name__ == "__main__":
    main()
