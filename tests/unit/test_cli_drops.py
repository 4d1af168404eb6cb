"""`submit` and `status`, against an inbox whose daemon is played by hand, file by file."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spoold import client, errors, trust
from spoold.canonical import Json
from spoold.cli import cli
from spoold.client import Answer
from spoold.errors import SpooldError
from spoold.spool import Spool
from spoold.status import show_name, status_name

JOB = "0199aaaa-0000-7000-8000-5f21c09a77d1"
OTHER = "0199bbbb-0000-7000-8000-0123456789ab"
_HEAVY = ("pydantic", "psycopg", "cryptography", "rich", "structlog", "watchdog", "zstandard")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SPOOLD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def spool() -> Spool:
    run("init", "spool", "--site", "site-a", "--algorithm", "ed25519")
    return Spool.at("spool")


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == status, result.output
    return result


def say(spool: Spool, name: str, state: str, job: str | None = JOB, **more: Json) -> bytes:
    """Write a drop's status, as the daemon does; final ones are signed."""
    final = state in {"succeeded", "duplicate", "failed", "rejected", "cancelled"}
    document: dict[str, Json] = {
        "type": "spoold.status/1",
        "drop": name,
        "job_id": job,
        "state": state,
        "final": final,
        "site": "site-a",
        **more,
    }
    if final:
        signer = trust.load_signer(spool.root / ".spoold/keys/signing.pem", "site-a")
        raw = trust.sign_document(document, signer)
    else:
        raw = json.dumps({**document, "signatures": []}, separators=(",", ":")).encode()
    path = spool.root / "status" / os.fsdecode(status_name(os.fsencode(name)))
    temporary = path.with_name(".tmp")
    temporary.write_bytes(raw)
    temporary.rename(path)
    return raw


def play(spool: Spool, name: str, *steps: Callable[[], object]) -> threading.Thread:
    """Once the drop is there: the steps one after the other."""

    def daemon() -> None:
        deadline = time.monotonic() + 20
        while not os.path.lexists(spool.root / "inbox" / name) and time.monotonic() < deadline:
            time.sleep(0.002)
        for step in steps:
            step()

    thread = threading.Thread(target=daemon, daemon=True)
    thread.start()
    return thread


def take(spool: Spool, name: str) -> Callable[[], object]:
    return lambda: os.unlink(spool.root / "inbox" / name)


def request(name: str = "request-a.json", content: str = "{}") -> str:
    Path(name).write_text(content)
    return name


def test_submit_copies_whole_and_leaves_nothing_else(spool: Spool) -> None:
    content = "x" * 3_000_000
    run("submit", request(content=content))
    assert os.listdir(spool.root / "inbox") == ["request-a.json"]
    assert (spool.root / "inbox/request-a.json").read_text() == content


def test_submit_does_not_wait_for_a_fifo(spool: Spool) -> None:
    os.mkfifo("request-fifo.json")
    assert "no regular file" in run("submit", "request-fifo.json", status=1).stderr
    assert not os.listdir(spool.root / "inbox")


def test_submit_under_another_name(spool: Spool) -> None:
    Path("anything").write_text("{}")
    run("submit", "anything", "--as", "request-b.json")
    assert os.listdir(spool.root / "inbox") == ["request-b.json"]
    run("submit", "anything", "--as", "../request-b.json", status=2)


def test_submit_never_replaces_a_drop_E12(spool: Spool) -> None:  # noqa: N802
    run("submit", request(content="first"))
    request(content="second")
    assert "name-busy" in run("submit", "request-a.json", status=75).stderr
    assert (spool.root / "inbox/request-a.json").read_text() == "first"
    assert len(os.listdir(spool.root / "inbox")) == 1


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".request-a.json",
        "request-a.json.part",
        "request-a.json.status.json",
        "request-a~0123456789ab.json",
        "request-a.log",
    ],
)
def test_submit_refuses_what_is_no_drop_before_copying_E35(  # noqa: N802
    spool: Spool, name: str
) -> None:
    Path(name).write_text("{}")
    assert "drop-name" in run("submit", name, status=2).stderr
    assert os.listdir(spool.root / "inbox") == []


def test_submit_says_that_a_name_is_too_long(spool: Spool) -> None:
    name = f"request-{'x' * 255}.json"
    assert "it has 268 bytes" in run("submit", request(), "--as", name, status=2).stderr
    assert os.listdir(spool.root / "inbox") == []


def test_submit_keeps_the_mode_where_the_daemon_is_the_same_user(spool: Spool) -> None:
    Path(request()).chmod(0o400)
    run("submit", "request-a.json")
    mode = stat.S_IMODE((spool.root / "inbox/request-a.json").stat().st_mode)
    assert mode == 0o600


def test_submit_of_what_is_no_file_fails_and_leaves_nothing(spool: Spool) -> None:
    run("submit", "/dev/null", "--as", "request-a.json", status=1)
    run("submit", "missing.json", status=2)
    assert os.listdir(spool.root / "inbox") == []


def test_submit_of_a_file_of_proc_takes_its_content(spool: Spool) -> None:
    run("submit", "/proc/self/status", "--as", "request-a.json")
    assert (spool.root / "inbox/request-a.json").stat().st_size > 100


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        ("succeeded", None, 0),
        ("duplicate", None, 5),
        ("cancelled", errors.CANCELLED, 8),
        ("rejected", errors.REQUEST_INVALID, 4),
        ("rejected", errors.SIGNATURE_UNTRUSTED, 3),
        ("rejected", errors.FRAME_DIGEST, 6),
        ("failed", errors.SOURCE_MISSING, 1),
        ("failed", None, 1),
    ],
)
def test_submit_exits_with_the_final_status(
    spool: Spool, state: str, code: errors.Code | None, status: int
) -> None:
    name = request()
    error = {"code": code.name, "message": "m", "hint": "h", "at": None} if code else None
    play(
        spool,
        name,
        lambda: say(spool, name, "queued"),
        take(spool, name),
        lambda: say(spool, name, state, error=error),
    )
    result = run("submit", name, "--wait", "--timeout", "20", "--json", status=status)
    assert result.stdout_bytes == (spool.root / "status" / f"{name}.status.json").read_bytes()


def test_submit_does_not_believe_yesterdays_final_status_E39(spool: Spool) -> None:  # noqa: N802
    name = request()
    say(spool, name, "succeeded", OTHER)
    play(
        spool,
        name,
        lambda: time.sleep(0.1),
        lambda: say(spool, name, "queued"),
        take(spool, name),
        lambda: time.sleep(0.1),
        lambda: say(spool, name, "failed"),
    )
    result = run("submit", name, "--wait", "--timeout", "20", "--json", status=1)
    assert json.loads(result.stdout)["job_id"] == JOB


def test_submit_finds_its_answer_after_a_later_drop_took_the_name(spool: Spool) -> None:
    name = request()
    dropped = client.drop(spool, Path(name), name.encode())
    answers = client.follow(spool, dropped, 20)
    take(spool, name)()
    say(spool, name, "queued")
    assert next(answers).state == "queued"
    raw = say(spool, name, "succeeded")
    (spool.root / "processed/request-a.json.status.json").write_bytes(raw)
    say(spool, name, "queued", OTHER)
    last = list(answers)[-1]
    assert (last.job_id, last.final) == (JOB, True)


def test_submit_tells_when_the_drop_is_taken_away(spool: Spool) -> None:
    name = request()
    say(spool, name, "succeeded", OTHER)
    play(spool, name, take(spool, name))
    assert "drop-gone" in run("submit", name, "--timeout", "20", status=1).stderr


def test_submit_times_out_with_7(spool: Spool) -> None:
    said = run("submit", request(), "--timeout", "0.1", status=7).stderr
    assert "wait-timeout" in said
    assert "request-a.json is in the inbox" in said


@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_submit_refuses_what_is_no_time_to_wait(spool: Spool, seconds: str) -> None:
    run("submit", request(), f"--timeout={seconds}", status=2)
    assert os.listdir(spool.root / "inbox") == []


def test_submit_shows_each_state_once(spool: Spool) -> None:
    name = request()
    play(
        spool,
        name,
        lambda: say(spool, name, "waiting", None, reason="database-away"),
        lambda: time.sleep(0.4),
        lambda: say(spool, name, "queued"),
        take(spool, name),
        lambda: time.sleep(0.4),
        lambda: say(spool, name, "succeeded"),
    )
    lines = run("submit", name, "--wait").stderr.splitlines()
    assert "request-a.json: waiting (database-away)" in lines
    assert lines.count("request-a.json: queued") == 1


def test_status_finds_a_drop_and_a_job(spool: Spool) -> None:
    raw = say(spool, "request-a.json", "succeeded", files={"drop": "processed/request-a.json"})
    say(spool, "request-b.json", "queued", OTHER)
    for name in ("request-a.json", "inbox/request-a.json", JOB, JOB[-12:], JOB[-12:].upper()):
        assert run("status", name, "--json").stdout_bytes == raw
    said = run("status", "request-a.json").stdout
    assert said.startswith("request-a.json: succeeded\n")
    assert JOB in said


def test_status_finds_a_job_whose_name_was_taken_by_a_later_one(spool: Spool) -> None:
    raw = say(spool, "request-a.json", "failed")
    (spool.root / "failed/request-a~5f21c09a77d1.json.status.json").write_bytes(raw)
    say(spool, "request-a.json", "queued", OTHER)
    assert run("status", JOB[-12:], "--json").stdout_bytes == raw


@pytest.mark.parametrize(
    "raw", [b"request-\xff.json", b"request-\n.json", b"request-" + b"x" * 240 + b".json"]
)
def test_status_finds_odd_names_as_they_are_and_as_they_are_shown_E20(  # noqa: N802
    spool: Spool, raw: bytes
) -> None:
    path = os.path.join(os.fsencode(spool.root / "status"), status_name(raw))
    with open(path, "wb") as file:
        file.write(b'{"state":"queued","final":false}')
    for name in (os.fsdecode(raw), show_name(raw)[0]):
        answer = client.find(spool, name)
        assert answer.state == "queued"


def test_status_of_nothing_exits_1(spool: Spool) -> None:
    assert "job-unknown" in run("status", "request-a.json", status=1).stderr
    run("status", JOB, status=1)
    run("submit", request())
    assert "stands in the inbox" in run("status", "request-a.json", status=1).stderr


def test_what_a_status_file_holds_cannot_steer_the_terminal(spool: Spool) -> None:
    say(spool, "request-a.json", "queued", action="\x1b[2J\x9b")
    said = run("status", "request-a.json").stdout
    assert "\x1b" not in said
    assert "\x9b" not in said
    assert "\\x1b[2J\\xc2\\x9b" in said


def test_a_status_file_that_is_none_is_told_as_such(spool: Spool) -> None:
    (spool.root / "status/request-a.json.status.json").write_text("nonsense")
    assert "document-invalid" in run("status", "request-a.json", status=6).stderr


def test_status_verifies_with_the_sites_own_key(spool: Spool) -> None:
    say(spool, "request-a.json", "succeeded")
    said = run("status", "request-a.json", "--verify")
    assert "signature good: site-a" in said.stderr
    run("keys", "generate", "--rotate", "--algorithm", "ed25519")
    run("status", "request-a.json", "--verify")


def test_status_verify_refuses_another_key_with_3_and_a_changed_document_with_6(
    spool: Spool,
) -> None:
    raw = say(spool, "request-a.json", "succeeded")
    path = spool.root / "status/request-a.json.status.json"
    path.write_bytes(raw.replace(b'"succeeded"', b'"duplicate"'))
    assert "signature-invalid" in run("status", "request-a.json", "--verify", status=6).stderr
    run("init", "other", "--site", "site-b", "--algorithm", "ed25519")
    other = Spool.at("other")
    foreign = say(other, "request-a.json", "succeeded")
    path.write_bytes(foreign)
    assert "signature-untrusted" in run("status", "request-a.json", "--verify", status=3).stderr
    run("keys", "trust", "other/site.pub", "--site", "site-b")
    result = run("status", "request-a.json", "--verify", status=3)
    assert "site-mismatch" in result.stderr  # it says site-a, and site-b's key signed it


def test_status_verify_of_a_live_status_says_that_it_is_not_final(spool: Spool) -> None:
    say(spool, "request-a.json", "running")
    assert (
        "only final statuses are signed"
        in run("status", "request-a.json", "--verify", status=3).stderr
    )


def test_status_starts_without_the_heavy_libraries(spool: Spool) -> None:
    say(spool, "request-a.json", "succeeded")
    code = (
        "import sys\nfrom spoold.cli import cli\n"
        "try: cli.main(['status', 'request-a.json', '--json'])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"print(sorted(set({_HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_an_answer_without_fields_is_no_trap() -> None:
    answer = Answer(Path("x"), b"{}", {})
    assert (answer.final, answer.job_id, answer.error_code) == (False, None, None)


def test_a_full_disk_is_told_as_such(spool: Spool) -> None:
    name = request(content="x" * 100_000)
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from spoold.cli import cli\n"
        f"cli.main(['submit', {name!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "disk-error" in done.stderr
    assert os.listdir(spool.root / "inbox") == []


def test_an_unknown_name_is_refused_by_the_function_too(spool: Spool) -> None:
    with pytest.raises(SpooldError) as caught:
        client.drop(spool, Path(request()), b"x" * 300 + b".tar.zst")
    assert caught.value.code is errors.DROP_NAME
