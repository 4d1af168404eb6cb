"""Run a handler's tool once, by way of its keeper, and wait for what became of it.

Guarantees: when `run` returns or raises, nothing of the tool is left; when this process dies, its
keeper ends the tool.
"""

import errno
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from spoold import errors
from spoold.errors import SpooldError
from spoold.handlers import keeper
from spoold.handlers.handler import Handler, Limits

_KEEPER: Final = keeper.__file__
_PATIENCE_SECONDS: Final = 10.0  # beyond the timeout: then the keeper is stuck
_CHECK_SECONDS: Final = 0.25
_READ_BYTES: Final = 65536
_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Spec(TypedDict):
    """What the keeper is told. Bytes stand as text with surrogates."""

    program: str
    command: list[str]
    environment: dict[str, str]
    folder: str
    user: tuple[int, int, list[int]] | None
    limits: dict[str, int]
    processes: int
    timeout_seconds: float
    log: str
    output_bytes: int


class Ended(TypedDict):
    """How a tool that was started ended; `why` is exit, timeout, processes or lifeline."""

    why: str
    status: int
    seconds: float
    cpu_seconds: float
    output_bytes: int
    left_out: int
    tail: str


class Answer(TypedDict):
    """What the keeper says: a tool that ended, or why there was none, with its errno."""

    error: tuple[int, str] | None
    ended: Ended | None


@dataclass(frozen=True, slots=True)
class User:
    """Whom a tool runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def named(cls, name: str) -> "User":
        """Raises LookupError."""
        entry = pwd.getpwnam(name)
        groups = os.getgrouplist(name, entry.pw_gid)
        return cls(name, entry.pw_uid, entry.pw_gid, tuple(groups))


def other_user(handler: Handler) -> User | None:
    """Whom a tool runs as, where that is not the daemon's own user. Raises LookupError."""
    if handler.user is None:
        return None
    user = User.named(handler.user)
    return None if user.uid == os.geteuid() else user


@dataclass(frozen=True, slots=True)
class Place:
    """The paths of one run, all absolute. `scratch` is the tool's own folder."""

    scratch: Path
    log: Path


def environment(handler: Handler, scratch: Path, daemon: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a tool: nothing of the daemon's but what is named."""
    passed = {name: daemon[name] for name in handler.environment if name in daemon}
    return {
        "PATH": daemon.get("PATH") or _DEFAULT_PATH,
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        **passed,
        **handler.variables,
    }


def find_program(program: str, variables: Mapping[str, str]) -> str | None:
    """The absolute path of a program, looked for on a tool's PATH; None where there is none."""
    if os.path.isabs(program):
        return program if _executable(program) else None
    for folder in variables["PATH"].split(":"):
        path = os.path.join(folder, program)
        if os.path.isabs(folder) and _executable(path):
            return path
    return None


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def run(
    handler: Handler,
    command: list[bytes],
    place: Place,
    check: Callable[[], None],
) -> Ended:
    """Run a filled command to its end.

    `check` is called a few times a second and may raise: the tool is ended then. Raises
    handler-not-started, handler-argument for arguments that are too long together, or
    handler-failed where the keeper itself was killed.
    """
    variables = environment(handler, place.scratch, os.environ)
    program = find_program(os.fsdecode(command[0]), variables)
    if program is None:
        shown = os.fsdecode(command[0])
        raise SpooldError(errors.HANDLER_NOT_STARTED, f"{shown}: no such program")
    user = other_user(handler)
    spec: Spec = {
        "program": program,
        "command": list(map(os.fsdecode, command)),
        "environment": variables,
        "folder": handler.working_directory or str(place.scratch),
        "user": None if user is None else (user.uid, user.gid, list(user.groups)),
        "limits": _limits(handler.limits, os.geteuid() if user is None else user.uid),
        "processes": handler.limits.processes,
        "timeout_seconds": handler.timeout_seconds,
        "log": str(place.log),
        "output_bytes": handler.limits.output_bytes,
    }
    answer = _keep(spec, check)
    if answer["error"] is not None:
        number, said = answer["error"]
        shown = os.fsdecode(said.encode("utf-8", "surrogateescape"))
        if said.startswith(spec["log"]):
            raise SpooldError(errors.disk_code(OSError(number, shown)), shown)
        if number == errno.E2BIG:
            raise SpooldError(errors.HANDLER_ARGUMENT, "the arguments are too long together")
        if number == errno.ENOENT and shown.startswith(program) and os.path.exists(program):
            shown = f"{program}: the interpreter that its first line or its header names is missing"
        raise SpooldError(errors.HANDLER_NOT_STARTED, shown)
    ended = answer["ended"]
    assert ended is not None
    return ended


def _keep(spec: Spec, check: Callable[[], None]) -> Answer:
    before = frozenset(keeper.children_of(os.getpid()))
    # What the tool let go comes to us, should the keeper be killed.
    keeper.be_subreaper(on=True)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", _KEEPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={},
        start_new_session=True,  # whoever ends our group must leave it alive to clean up
    )
    answer = b""
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(spec).encode() + b"\n")
            process.stdin.flush()
        answer = _listen(process, spec["timeout_seconds"], check)
    finally:
        _end(process, before)
        keeper.be_subreaper(on=False)
    try:
        found: Answer = json.loads(answer)
    except ValueError as error:
        raise SpooldError(
            errors.HANDLER_FAILED, "its keeper was killed, and it with that", transient=True
        ) from error
    return found


def _listen(
    process: subprocess.Popen[bytes], timeout_seconds: float, check: Callable[[], None]
) -> bytes:
    """What the keeper says until it ends; nothing where it should have, long ago."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + timeout_seconds + _PATIENCE_SECONDS
    answer = b""
    while time.monotonic() < deadline:
        check()
        # A tool of our own user can stop its keeper, and would have no timeout then.
        process.send_signal(signal.SIGCONT)
        readable, _, _ = select.select([descriptor], [], [], _CHECK_SECONDS)
        if readable:
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                return answer
            answer += data
    return b""


def _end(process: subprocess.Popen[bytes], before: frozenset[int]) -> None:
    """End the keeper, and what it may have left."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()  # the lifeline: a keeper that still runs ends its tool, then itself
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    if process.returncode != 0:
        keeper.kill_all(before)


def _limits(limits: Limits, uid: int) -> dict[str, int]:
    """The rlimits by name; those of 0 are left as they are."""
    wanted = {
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.result_bytes,
        # It counts all that the user has, whoever started it; the superuser has no such limit.
        "RLIMIT_NPROC": limits.processes + _tasks_of(uid) if limits.processes and uid else 0,
        "RLIMIT_DATA": limits.memory,
    }
    return {"RLIMIT_CORE": 0, **{name: value for name, value in wanted.items() if value}}


def _tasks_of(uid: int) -> int:
    """How many threads a user has now: proc(5), /proc/<pid>/task."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
    return count
