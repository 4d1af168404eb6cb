"""Handlers' tools as real processes: what they are given, what ends them, what becomes of it."""

import dataclasses
import json
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold import errors
from spoold.actions.context import Outcome, ResultError
from spoold.errors import SpooldError
from spoold.handlers import Handler, Handlers, Limits, keeper, process
from spoold.handlers.reach import open_way, problems
from spoold.handlers.results import collect
from spoold.sinks.remove import remove_tree
from spoold.spool import Folder, Spool, faults
from tests.conftest import wait_until
from tests.integration.inboxes import powerless
from tests.tools import Run, alive, handler, python, root

WORKERS_LIMITS = (resource.RLIMIT_DATA, resource.RLIMIT_CPU)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def children() -> set[int]:
    return set(keeper.children_of(os.getpid()))


def failure(run: Run) -> ResultError:
    with pytest.raises(ResultError) as caught:
        run.act()
    return caught.value


def results(run: Run, outcome: Outcome) -> dict[str, bytes]:
    """The published files, by name."""
    [made] = outcome.made
    top = run.scratch / made.source
    assert made.folder == "processed"
    if top.is_file():
        return {os.fsdecode(made.name): top.read_bytes()}
    return {
        f"{os.fsdecode(made.name)}/{path.relative_to(top)}": path.read_bytes()
        for path in top.rglob("*")
        if path.is_file()
    }


# --- what a tool is given -------------------------------------------------------------------------


def test_a_tool_reads_its_drop_and_writes_its_result(tmp_path: Path) -> None:
    tool = python(
        """
        print("reading", os.path.basename(file))
        print("to the error stream", file=sys.stderr)
        open(os.path.join(out, "answer.txt"), "w").write(open(file).read().upper())
        """
    )
    run = Run(tmp_path, tool, content=b"abc")
    outcome = run.act()
    assert results(run, outcome) == {"answer.txt": b"ABC"}
    assert sorted(run.log.splitlines()) == ["reading intent-1.json", "to the error stream"]
    assert outcome.result["handler"] == "intent"
    assert outcome.result["exit_status"] == 0
    assert outcome.result["files"] == ["answer.txt"]
    assert outcome.result["bytes"] == 3
    assert sorted(outcome.result["log_tail"]) == sorted(run.log.splitlines())
    # of all that it stood on nothing is left but what is published
    assert sorted(os.listdir(run.scratch)) == ["log", "result"]


@pytest.mark.parametrize(
    "name",
    [b"--help.json", b"a b.json", b"a\nb.json", b"$(id).json", b"\xff.json", b"*", b"x" * 255],
)
def test_a_name_is_a_name_whatever_it_looks_like(tmp_path: Path, name: bytes) -> None:
    tool = python(
        "print(rest, os.fsencode(os.path.basename(file)), file.startswith('/'))", "x{name}"
    )
    run = Run(tmp_path, tool, drop=name)
    run.act()
    assert run.log == f"{['x' + os.fsdecode(name)]!r} {name!r} True\n"


def test_a_tool_has_no_environment_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPOOLD_DATABASE_URL", "postgresql://u:secret@host/db")
    monkeypatch.setenv("PGPASSWORD", "secret")
    monkeypatch.setenv("MINE", "passed")
    tool = python(
        "import json; print(json.dumps(dict(os.environ)))",
        environment=("MINE", "MISSING"),
        variables={"FIXED": "ä=1", "LANG": "C"},
    )
    run = Run(tmp_path, tool)
    run.act()
    scratch = str(run.scratch / "tool" / "tmp")
    assert json.loads(run.log) == {
        "PATH": os.environ["PATH"],
        "LANG": "C",
        "LC_ALL": "C.UTF-8",
        "HOME": scratch,
        "TMPDIR": scratch,
        "MINE": "passed",
        "FIXED": "ä=1",
    }


def test_a_tool_inherits_nothing_but_its_three_streams(tmp_path: Path) -> None:
    tool = python(
        """
        import stat
        print(sorted(os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")))
        print(os.readlink("/proc/self/fd/0"), os.getcwd() == os.environ["HOME"])
        print(os.getsid(0) == os.getpgid(0) == os.getpid(), oct(os.umask(0)))
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
        status = open("/proc/self/status").read()
        for key in ("NoNewPrivs", "SigIgn", "SigBlk"):
            print(status.split(key + ":")[1].split()[0].lstrip("0"))
        """
    )
    run = Run(tmp_path, tool)
    with open(tmp_path / "held", "w"):
        run.act()
    # the fourth is that of the listing; Python itself ignores SIGPIPE and SIGXFSZ
    assert run.log.splitlines() == [
        "['0', '1', '2'] 4",
        "/dev/null True",
        "True 0o27",
        "True",
        "1",
        "1001000",
        "",
    ]


def test_the_limits_of_a_worker_are_not_those_of_its_tools(tmp_path: Path) -> None:
    limits = {number: resource.getrlimit(number) for number in WORKERS_LIMITS}
    for number, (soft, hard) in limits.items():
        resource.setrlimit(number, (1 << 40 if soft == resource.RLIM_INFINITY else soft, hard))
    try:
        run = Run(
            tmp_path,
            python(f"""
            import resource
            for number in {WORKERS_LIMITS}:
                soft, hard = resource.getrlimit(number)
                print(soft == hard)
            """),
        )
        run.act()
    finally:
        for number, both in limits.items():
            resource.setrlimit(number, both)
    assert run.log == "True\nTrue\n"


def test_a_tool_may_have_another_working_directory(tmp_path: Path) -> None:
    run = Run(tmp_path, python("print(os.getcwd())", working_directory="/usr"))
    run.act()
    assert run.log == "/usr\n"
    other = Run(tmp_path / "other", python("", working_directory=str(tmp_path / "gone")))
    other.folder.mkdir()
    with pytest.raises(SpooldError) as caught:
        other.act()
    assert caught.value.code is errors.HANDLER_NOT_STARTED
    assert "gone" in caught.value.message


def test_the_drop_is_a_copy_that_a_tool_may_spoil(tmp_path: Path) -> None:
    tool = python(
        """
        print(oct(os.stat(file).st_mode & 0o777))
        os.chmod(file, 0o600)
        open(file, "w").write("spoilt")
        """
    )
    run = Run(tmp_path, tool, content=b"the drop")
    run.act()
    assert run.log == "0o400\n"
    assert (tmp_path / "claimed").read_bytes() == b"the drop"


def test_fields_of_the_drop_are_arguments(tmp_path: Path) -> None:
    tool = python("print(rest)", "--site={json.site}", "{json.count}", structured=True)
    run = Run(tmp_path, tool, content=b'{"site": "a b; echo x", "count": 3}')
    run.act()
    assert run.log == "['--site=a b; echo x', '3']\n"


# --- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "fields", "transient"),
    [
        ("sys.exit(1)", {}, False),
        ("sys.exit(75)", {}, True),
        ("sys.exit(75)", {"retry_codes": frozenset()}, False),
        ("sys.exit(0)", {"success_codes": frozenset({3})}, False),
        ("os.kill(os.getpid(), signal.SIGKILL)", {}, True),
        ("os.kill(os.getpid(), signal.SIGSEGV)", {}, False),
    ],
)
def test_how_a_tool_ends_says_whether_it_is_tried_again(
    tmp_path: Path, code: str, fields: dict[str, object], transient: bool
) -> None:
    error = failure(Run(tmp_path, python(f"print('so far'); sys.stdout.flush(); {code}", **fields)))
    assert error.code is errors.HANDLER_FAILED
    assert error.transient is transient
    assert error.result["log_tail"] == ["so far"]
    assert "exit status" in error.message or "signal" in error.message


def test_another_status_may_be_success(tmp_path: Path) -> None:
    tool = python("sys.exit(3)", success_codes=frozenset({0, 3}))
    outcome = Run(tmp_path, tool).act()
    assert outcome.result["exit_status"] == 3
    assert outcome.made == []


@pytest.mark.parametrize("program", ["/nowhere/porch", "no-such-porch"])
def test_a_program_that_is_missing_may_come_back(tmp_path: Path, program: str) -> None:
    with pytest.raises(SpooldError) as caught:
        Run(tmp_path, handler(program, "{file}")).act()
    assert caught.value.code is errors.HANDLER_NOT_STARTED
    assert caught.value.transient


def test_a_program_is_found_on_the_handlers_own_path(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "porch"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho porch $0\n")
    tool.chmod(0o755)
    run = Run(tmp_path, handler("porch", variables={"PATH": str(tool.parent)}))
    run.act()
    assert run.log == f"porch {tool}\n"


def test_a_program_of_no_known_kind_is_not_started(tmp_path: Path) -> None:
    tool = tmp_path / "porch"
    tool.write_bytes(b"\0\1\2")
    tool.chmod(0o755)
    with pytest.raises(SpooldError) as caught:
        Run(tmp_path, handler(str(tool))).act()
    assert caught.value.code is errors.HANDLER_NOT_STARTED
    assert "Exec format error" in caught.value.message


def test_a_script_whose_interpreter_is_missing_is_told_from_one_that_is(tmp_path: Path) -> None:
    tool = tmp_path / "porch"
    tool.write_text("#!/no/such/interpreter\n")
    tool.chmod(0o755)
    with pytest.raises(SpooldError) as caught:
        Run(tmp_path, handler(str(tool))).act()
    assert caught.value.code is errors.HANDLER_NOT_STARTED
    assert "the interpreter" in caught.value.message


# What `code` starts writes the ids of its processes to the file named: nothing of them may stay.
_STUBBORN = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pids = os.open(rest[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(pids, b"%d\\n" % os.getpid())
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(pids, b"%d\\n" % os.getpid())
            os.closerange(0, 100)
            time.sleep(600)
        os._exit(0)
    os.closerange(0, 100)
    time.sleep(600)
"""


def started(pids: Path, count: int = 2) -> list[int]:
    """The ids of the tool's processes, when all have come."""
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == count)
    return [int(line) for line in pids.read_text().split()]


def test_a_tool_that_ignores_sigterm_forks_and_closes_its_streams_is_gone_2_s_after_its_timeout(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    error = failure(Run(tmp_path, python(_STUBBORN, str(pids), timeout_seconds=1)))
    assert time.monotonic() - began < 1 + 2 + 0.5  # the keeper itself must start, too
    assert error.code is errors.HANDLER_TIMEOUT
    assert not error.transient
    found = started(pids)
    assert not any(map(alive, found))


def test_a_tool_that_stops_its_keeper_and_itself_has_a_timeout_all_the_same(
    tmp_path: Path,
) -> None:
    code = "os.kill(os.getppid(), signal.SIGSTOP); os.kill(0, signal.SIGSTOP)"
    began = time.monotonic()
    error = failure(Run(tmp_path, python(code, timeout_seconds=1)))
    assert error.code is errors.HANDLER_TIMEOUT
    assert time.monotonic() - began < 1 + 2 + 0.5


def test_a_tool_may_tidy_up_at_its_timeout(tmp_path: Path) -> None:
    tool = python(
        """
        signal.signal(signal.SIGTERM, lambda *_: (print("tidy", flush=True), sys.exit(0)))
        time.sleep(600)
        """,
        timeout_seconds=1,
    )
    error = failure(Run(tmp_path, tool))
    assert error.code is errors.HANDLER_TIMEOUT
    assert error.result["log_tail"] == ["tidy"]


def test_what_a_tool_leaves_running_does_not_outlive_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    tool = python(
        """
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            open(rest[0], "w").write("%d\\n" % os.getpid())
            os.write(ready[1], b"x")
            time.sleep(600)
        os.read(ready[0], 1)
        """.replace("if os.fork() == 0:", "ready = os.pipe()\n        if os.fork() == 0:", 1),
        str(pids),
    )
    began = time.monotonic()
    outcome = Run(tmp_path, tool).act()
    assert time.monotonic() - began < 5
    assert outcome.result["exit_status"] == 0
    assert not any(map(alive, started(pids, 1)))


@pytest.mark.parametrize("hop", ["os.setsid()", "pass"])
def test_what_a_tool_leaves_running_is_ended_however_fast_it_forks(
    tmp_path: Path, hop: str
) -> None:
    """Each lives for an instant: looked for, it has another number already."""
    os.mkfifo(tmp_path / "held")
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    tool = python(
        f"""
        os.open(rest[0], os.O_WRONLY)
        if os.fork():
            time.sleep(0.1)
            os._exit(0)
        os.setsid()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            {hop}
        """,
        str(tmp_path / "held"),
    )
    try:
        assert Run(tmp_path, tool).act().result["exit_status"] == 0
        assert os.read(held, 1) == b""  # nobody has it open: else there would be no end yet
    finally:
        os.close(held)


def test_a_tool_is_ended_when_the_attempt_may_not_go_on(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def check() -> None:
        if pids.exists() and len(pids.read_text().split()) == 2:
            raise SpooldError(errors.DATABASE_AWAY)

    with pytest.raises(SpooldError) as caught:
        Run(tmp_path, python(_STUBBORN, str(pids)), check=check).act()
    assert caught.value.code is errors.DATABASE_AWAY
    assert not any(map(alive, started(pids)))


_ATTEMPT = """
import sys
from pathlib import Path
from tests.tools import Run, python
code, folder, pids = sys.argv[1:]
Run(Path(folder), python(code, pids)).act()
"""


@pytest.mark.parametrize("victim", ["worker", "keeper"])
def test_a_tool_ends_with_its_worker_and_with_its_keeper(tmp_path: Path, victim: str) -> None:
    pids = tmp_path / "pids"
    worker = subprocess.Popen(
        [sys.executable, "-c", _ATTEMPT, _STUBBORN, str(tmp_path), str(pids)],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    found = started(pids)
    assert all(map(alive, found))
    [kept] = keeper.children_of(worker.pid)
    os.kill(kept if victim == "keeper" else worker.pid, 9)
    wait_until(lambda: not any(map(alive, [*found, kept])), 5)
    assert worker.stderr is not None
    said = worker.stderr.read()
    worker.stderr.close()
    assert worker.wait() == (-9 if victim == "worker" else 1)
    assert (b"keeper was killed" in said) is (victim == "keeper")


# --- limits ---------------------------------------------------------------------------------------


def test_a_flood_is_drained_counted_and_bounded(tmp_path: Path) -> None:
    tool = python(
        """
        block = b"flood " * 10923
        left = 1 << 30
        while left > 0:
            left -= os.write(1, block[:left])
        os.write(1, b"\\x1b[2Jthe \\xffend\\n")
        """,
        limits=Limits(output_bytes=100_000),
    )
    run = Run(tmp_path, tool)
    outcome = run.act()
    log = (run.scratch / "log").read_bytes()
    assert len(log) < 100_000 + 4096 + 100
    assert log.startswith(b"flood flood")
    assert log.endswith(b"\x1b[2Jthe \xffend\n")
    assert b"bytes are left out here]" in log
    assert outcome.result["log_tail"][-1].endswith("\\x1b[2Jthe \\xffend")
    assert sum(len(line) for line in outcome.result["log_tail"]) < 5000
    [warning] = outcome.warnings
    assert "not in the log" in warning


@pytest.mark.parametrize(
    ("code", "limits", "message"),
    [
        ("x = bytearray(1 << 30)", Limits(memory=512 * 1024**2), "exit status 1"),
        ("while True: pass", Limits(cpu_seconds=1), "cpu_seconds"),
        pytest.param(
            "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            Limits(cpu_seconds=1),
            "cpu_seconds",
            marks=pytest.mark.nightly,
        ),
        ("f = [open('/dev/null') for _ in range(64)]", Limits(open_files=32), "exit status 1"),
        (
            "signal.signal(25, signal.SIG_DFL); open(out + '/x', 'wb').truncate(5000)",
            Limits(result_bytes=4096),
            "result_bytes",
        ),
    ],
    ids=["memory", "cpu", "cpu-ignored", "files", "size"],
)
def test_limits_end_a_tool_for_good(
    tmp_path: Path, code: str, limits: Limits, message: str
) -> None:
    error = failure(Run(tmp_path, python(code, limits=limits)))
    assert error.code is errors.HANDLER_FAILED
    assert message in error.message
    assert not error.transient


_BOMB = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(9):  # 512 of them, were they let
        try:
            os.fork()
        except OSError as error:
            os.write(1, b"refused\\n")
    time.sleep(600)
"""


def test_a_fork_bomb_is_ended(tmp_path: Path) -> None:
    error = failure(Run(tmp_path, python(_BOMB, limits=Limits(processes=20))))
    assert error.code is errors.HANDLER_FAILED
    # Where it is not root's the kernel has refused already, and the bomb only sleeps.
    assert "processes" in error.message


# --- another user ---------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(not root(), reason="only root can become another user")


@needs_root
def test_a_tool_may_be_another_user(public_folder: Path) -> None:
    tool = python(
        """
        print(os.getuid(), os.geteuid(), os.getgroups(), open(file).read())
        open(os.path.join(out, "x"), "w").write("made")
        os.mkdir(os.path.join(out, "d"), 0o700)
        open(os.path.join(out, "d", "y"), "w").write("made")
        try:
            os.listdir(os.path.dirname(os.path.dirname(out)))
        except PermissionError:
            print("closed")
        """,
        user="nobody",
    )
    # the interpreter of the tests may be one that nobody can reach
    tool = with_program(tool, "/usr/bin/python3")
    spool = Spool.at(public_folder / "spool")
    spool.create()
    open_way(Handlers(tool), spool)
    assert list(faults(spool)) == []  # passing through is not wider than it should be
    run = Run(spool.folder(Folder.WORK), tool, content=b"content")
    outcome = run.act()
    assert run.log == "65534 65534 [65534] content\nclosed\n"
    assert results(run, outcome) == {"intent-1.out/x": b"made", "intent-1.out/d/y": b"made"}
    for path in [run.scratch / "result", *(run.scratch / "result").rglob("*")]:
        assert path.stat().st_uid == 0


@needs_root
def test_a_user_who_cannot_get_to_scratch_is_refused_at_the_start(public_folder: Path) -> None:
    spool = Spool.at(public_folder / "spool")
    spool.create()
    public_folder.chmod(0o750)
    with pytest.raises(SpooldError) as caught:
        open_way(Handlers(handler("true", user="nobody")), spool)
    assert caught.value.code is errors.CONFIG_INVALID
    assert caught.value.hint == f"chmod o+x {public_folder}"


@needs_root
def test_only_root_can_run_a_tool_as_somebody_else(spool: Spool) -> None:
    os.seteuid(65534)
    try:
        [(_, what, fix)] = problems(Handlers(handler("true", user="root")), spool)
        assert list(problems(Handlers(handler("true", user="nobody")), spool)) == []
    finally:
        os.seteuid(0)
    assert "only a daemon that is root's" in what
    assert "run the daemon as root" in fix


@needs_root
def test_a_fork_bomb_of_another_user_is_refused_by_the_kernel(public_folder: Path) -> None:
    tool = python(_BOMB, user="nobody", limits=Limits(processes=20), timeout_seconds=1)
    run = Run(public_folder, with_program(tool, "/usr/bin/python3"))
    assert failure(run).code in {errors.HANDLER_TIMEOUT, errors.HANDLER_FAILED}
    assert "refused" in run.log


@needs_root
def test_a_tool_of_another_user_has_root_change_nothing_elsewhere(
    public_folder: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    (victim / "below").mkdir(parents=True)
    (victim / "file").touch(mode=0o604)
    for path in (victim, victim / "below"):
        path.chmod(0o705)
    tool = python(
        """
        place = os.path.dirname(out)
        for act in (
            lambda: os.rename(place, place + "2"),
            lambda: os.rename(out, out + "2"),
            lambda: os.rmdir(out),
            lambda: os.symlink(rest[0], os.path.join(place, "x")),
        ):
            try:
                act()
                print("done")
            except OSError:
                pass
        """,
        str(victim),
        user="nobody",
    )
    run = Run(public_folder, with_program(tool, "/usr/bin/python3"))
    run.act()
    assert run.log == ""
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (victim, victim / "below")]
    assert modes == [0o705, 0o705]


@needs_root
def test_who_has_a_result_open_cannot_change_what_is_published(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "d" / "x").write_bytes(b"as it was")
    for path in (out, out / "d", out / "d" / "x"):
        os.chown(path, 65534, 65534)
    with open(out / "d" / "x", "r+b") as held:
        collect(out, tmp_path, b"intent-1.json", 1024, None, 65534)
        held.write(b"otherwise")
    assert (tmp_path / "result" / "d" / "x").read_bytes() == b"as it was"
    assert (tmp_path / "result" / "d").stat().st_uid == 0


@needs_root
def test_a_link_to_a_file_of_somebody_else_is_no_result_of_another_user(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("geheim")
    out = tmp_path / "out"
    out.mkdir()
    os.link(secret, out / "x")
    with pytest.raises(SpooldError) as caught:
        collect(out, tmp_path, b"intent-1.json", 1024, None, 65534)
    assert caught.value.code is errors.HANDLER_OUTPUT_INVALID
    assert caught.value.at == "x"


def with_program(tool: Handler, program: str) -> Handler:
    if not os.access(program, os.X_OK):
        pytest.skip(f"{program} is not installed")
    return dataclasses.replace(tool, command=((program,), *tool.command[1:]))


# --- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("open(out + '/a.csv', 'w')", {"a.csv": b""}),
        ("open(out + '/intent-1.json', 'w')", {"intent-1.out.json": b""}),
        ("open(out + '/x.log', 'w')", {"intent-1.out/x.log": b""}),
        ("open(out + '/.x', 'w')", {"intent-1.out/.x": b""}),
        (
            "open(out + '/request-2.json.status.json', 'w')",
            {"intent-1.out/request-2.json.status.json": b""},
        ),
        ("open(out + '/a\\nb', 'w')", {"intent-1.out/a\nb": b""}),
        (
            "open(out + '/a', 'w'); open(out + '/b', 'w')",
            {"intent-1.out/a": b"", "intent-1.out/b": b""},
        ),
        (
            "os.mkdir(out + '/d'); open(out + '/d/a', 'w'); os.chmod(out + '/d', 0)",
            {"intent-1.out/d/a": b""},
        ),
    ],
)
def test_one_file_keeps_its_name_and_more_become_a_folder(
    tmp_path: Path, code: str, found: dict[str, bytes]
) -> None:
    run = Run(tmp_path, python(code))
    assert results(run, run.act()) == found


def test_results_are_readable_and_never_set_user_id(tmp_path: Path) -> None:
    tool = python(
        """
        for name, mode in (("s", 0o6755), ("x", 0o100), ("r", 0o777), ("n", 0)):
            open(f"{out}/{name}", "w")
            os.chmod(f"{out}/{name}", mode)
        os.mkdir(f"{out}/d")
        os.chmod(f"{out}/d", 0o3777)
        os.symlink("../s", f"{out}/d/link")
        """
    )
    run = Run(tmp_path, tool)
    outcome = run.act()
    top = run.scratch / "result"
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in top.iterdir()}
    assert modes == {"s": 0o750, "x": 0o750, "r": 0o750, "n": 0o640, "d": 0o750}
    assert (top / "d" / "link").samefile(top / "s")
    assert outcome.result["files"] == ["d/link", "n", "r", "s", "x"]


@pytest.mark.parametrize(
    "code",
    [
        "os.symlink('/etc/passwd', out + '/x')",
        "os.symlink('../../x', out + '/x')",
        "os.symlink('.', out + '/a'); os.symlink('a/..', out + '/b')",
        "os.symlink(out + '/y', out + '/x')",
        # they end inside only as long as the folders have these names
        "open(out + '/s', 'w'); os.symlink('../out/s', out + '/x')",
        "open(out + '/s', 'w'); os.symlink('../../tool/out/s', out + '/x')",
        "open(out + '/s', 'w'); os.mkdir(out + '/d'); os.symlink('../../out/s', out + '/d/x')",
        "os.symlink('.', out + '/a'); os.symlink('a/../out/a', out + '/x')",
        "os.mkfifo(out + '/x')",
        "import socket; socket.socket(socket.AF_UNIX).bind('../out/x')",
        "open(out + '/x', 'w').write('x' * 3000); open(out + '/y', 'w').write('x' * 3000)",
    ],
)
def test_what_cannot_be_published_is_refused(tmp_path: Path, code: str) -> None:
    error = failure(Run(tmp_path, python(code, limits=Limits(result_bytes=4096))))
    assert error.code is errors.HANDLER_OUTPUT_INVALID
    assert not error.transient
    assert error.result["exit_status"] == 0


@pytest.mark.parametrize("code", ["pass", "open(out, 'w')", "os.symlink(rest[0], out)"])
def test_a_tool_that_replaces_its_folder_is_refused_and_nothing_followed(
    tmp_path: Path, code: str
) -> None:
    victim = tmp_path / "victim"
    (victim / "below").mkdir(parents=True)
    for path in (victim, victim / "below"):
        path.chmod(0o755)
    error = failure(Run(tmp_path, python(f"os.rmdir(out); {code}", str(victim))))
    assert error.code is errors.HANDLER_OUTPUT_INVALID
    assert not error.transient
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (victim, victim / "below")]
    assert modes == [0o755, 0o755]


def test_what_a_tool_does_around_its_folder_is_undone(tmp_path: Path) -> None:
    """What stayed there would keep the answer from being written."""
    tool = python(
        """
        open(out + "/x", "w").close()
        place = os.path.dirname(out)
        scratch = os.path.dirname(place)
        for name in ("status", "status.tmp", "link", "result", "copy"):
            os.makedirs(f"{scratch}/{name}/full")
        for folder in (place, scratch):
            os.chmod(folder, 0)
        """
    )
    run = Run(tmp_path, tool)
    with powerless():  # as a daemon that is no root's
        assert run.act().result["files"] == ["x"]
        assert sorted(os.listdir(run.scratch)) == ["log", "result"]


def test_a_log_that_cannot_be_made_is_told_as_such(tmp_path: Path) -> None:
    place = process.Place(tmp_path, tmp_path / "log")
    place.log.touch()
    with pytest.raises(SpooldError) as caught:
        process.run(handler("true"), [b"true"], place, lambda: None)
    assert caught.value.code is errors.DISK_ERROR
    assert caught.value.message == f"{place.log}: File exists"


def test_a_tool_that_replaces_its_log_has_none(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch(mode=0o600)
    code = "log = out + '/../../log'; os.unlink(log); os.symlink(rest[0], log)"
    run = Run(tmp_path, python(code, str(victim)))
    run.act()
    assert not os.path.lexists(run.scratch / "log")
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


@pytest.mark.parametrize(("depth", "name"), [(200, "d"), (30, "d" * 200)])
def test_folders_that_are_too_deep_are_refused_and_removed(
    tmp_path: Path, depth: int, name: str
) -> None:
    code = f"for _ in range({depth}): os.mkdir({name!r}); os.chdir({name!r})"
    run = Run(tmp_path, python(f"os.chdir(out)\n{code}"))
    error = failure(run)
    assert error.code is errors.HANDLER_OUTPUT_INVALID
    assert "too deep" in error.message
    remove_tree(run.scratch)
    assert not run.scratch.exists()


def test_a_tree_deeper_than_there_are_descriptors_can_be_removed(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "for _ in range(900): os.mkdir('d'); os.chdir('d'); open('f', 'w')"
    run = Run(tmp_path, python(code))
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, limits[1]))
    try:
        run.act()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert sorted(os.listdir(run.scratch)) == ["log"]


def test_a_result_with_another_name_is_copied_from_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"of somebody")
    source.chmod(0o604)
    run = Run(tmp_path, python("os.link(rest[0], out + '/x')", str(source)))
    assert results(run, run.act()) == {"x": b"of somebody"}
    assert not (run.scratch / "result").samefile(source)
    assert stat.S_IMODE(source.stat().st_mode) == 0o604


def test_a_status_names_a_hundred_files_at_most(tmp_path: Path) -> None:
    run = Run(tmp_path, python("for n in range(120): open(f'{out}/{n:03}', 'w').write('x')"))
    outcome = run.act()
    assert len(outcome.result["files"]) == 100
    assert outcome.result["bytes"] == 120
