"""Handlers with the daemon: a drop in, a tool run, its result, log and signed status out."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold.handlers import keeper
from tests.conftest import wait_until
from tests.sites import Site, spoold

MakeSite = Callable[..., Site]

EXAMPLES = Path(__file__).parents[2] / "spool-layout" / "examples" / "handlers"


_TOOLS = """
[[handlers]]
pattern = "env-*.txt"
command = ["/usr/bin/env"]

[[handlers]]
pattern = "again-*.txt"
command = ["/bin/sh", "-c", "echo attempt; exit 75"]
max_attempts = 2

[[handlers]]
pattern = "vandal-*.txt"
command = ["/bin/sh", "-c", '''
  cd "$1/../.."; mkdir status
  case "$2" in *gone*) rm -rf "$PWD" ;; esac
  exit 75''', "-", "{out}", "{name}"]
max_attempts = 2

[retry]
base_seconds = 0.1
cap_seconds = 0.1

[[handlers]]
pattern = "stay-*.txt"
max_attempts = 1
command = ["/bin/sh", "-c", '''
  setsid sh -c 'sleep 600 & echo $! > "$1"; wait' - "$1.child" &
  echo $$ > "$1"; exec sleep 600''', "-", "{out}/../../../pids"]
"""


def configure(site: Site, text: str) -> None:
    with open(site.root / "spoold.toml", "a") as file:
        file.write(f"\n{text}\n")


@pytest.fixture(scope="module")
def examples() -> str:
    """The example configuration, for the tools where they stand."""
    return (EXAMPLES / "handlers.toml").read_text().replace("/usr/local/lib/spoold", str(EXAMPLES))


@pytest.fixture
def site(make_site: MakeSite, examples: str) -> Iterator[Site]:
    """A site with the examples, whose daemon runs."""
    site = make_site()
    site.environment["SECRET_TOKEN"] = "geheim"
    configure(site, examples + _TOOLS)
    site.start()
    yield site
    site.stop()
    assert site.leftovers() == []


def files(status: dict[str, object]) -> dict[str, str]:
    found = status["files"]
    assert isinstance(found, dict)
    return found


def test_the_four_examples_do_what_they_say(site: Site) -> None:
    site.drop("hang-1.txt", "x")
    site.drop("words-1.txt", "one two\nthree\n")
    site.drop("intent-1.json", EXAMPLES / "intent-1.json")
    site.drop("flood-1.txt", "x")

    words = site.final("words-1.txt")
    assert words["state"] == "succeeded", words
    assert words["action"] == "command"
    assert words["result"]["handler"] == "words"
    assert words["result"]["log_tail"] == ["counted words-1.txt"]
    assert words["drop_sha256"]
    assert files(words) == {
        "drop": "processed/words-1.txt",
        "result": "processed/counts.txt",
        "log": "processed/words-1.txt.log",
    }
    assert (site.root / "processed/counts.txt").read_text() == "lines 2\nwords 3\nbytes 14\n"
    assert (site.root / "processed/words-1.txt.log").read_text() == "counted words-1.txt\n"
    site.verified("words-1.txt")

    intent = site.final("intent-1.json")
    assert intent["state"] == "succeeded", intent
    assert intent["result"]["files"] == ["edge-a-1.json", "edge-a-2.json"]
    made = site.root / files(intent)["result"]
    assert made == site.root / "processed" / "intent-1.out"
    assert json.loads((made / "edge-a-2.json").read_text())["mode"] == "plan"
    gid = site.inbox.stat().st_gid
    assert {path.stat().st_gid for path in [made, *made.iterdir()]} == {gid}
    shown = spoold("status", "intent-1.json", "--spool", site.root).stdout
    assert "2 manifests for edge-a" in shown

    flood = site.final("flood-1.txt")
    assert flood["state"] == "succeeded", flood
    assert flood["result"]["log_tail"][-1] == "done"
    assert "not in the log" in flood["warnings"][0]
    assert (site.root / files(flood)["log"]).stat().st_size < 80_000

    hang = site.final("hang-1.txt")
    assert (hang["state"], hang["error"]["code"]) == ("failed", "handler-timeout")
    assert files(hang) == {"drop": "failed/hang-1.txt", "log": "failed/hang-1.txt.log"}
    assert hang["result"]["log_tail"] == ["hanging"]
    site.verified("hang-1.txt")
    # The daemon is well: another drop is done by the same workers.
    site.drop("words-2.txt", "x")
    assert site.final("words-2.txt")["state"] == "succeeded"
    assert "worker.died" not in site.log


def test_what_a_handler_refuses_and_what_fails_says_why(site: Site, tmp_path: Path) -> None:
    site.drop("intent-bad.json", '{"site": "--help", "replicas": 0}')
    site.drop("intent-no.json", "no JSON")
    site.drop("env-1.txt", "x")
    site.drop("again-1.txt", "x")
    site.drop("intent-many.json", '{"site": "edge-b", "replicas": 11}')
    (site.inbox / "intent-copied.json").write_text('{"site": "edge-c", "replicas": 1}')
    bad = site.final("intent-bad.json")
    assert (bad["state"], bad["error"]["code"]) == ("rejected", "drop-schema")
    assert "replicas: 0 is less than the minimum of 1" in bad["error"]["message"]
    assert bad["error"]["at"] in {"replicas", "site"}
    assert (site.root / "failed/intent-bad.json").is_file()
    assert "log" not in files(bad)  # the tool was not run
    assert site.final("intent-no.json")["error"]["code"] == "drop-not-json"
    many = site.final("intent-many.json")
    assert (many["state"], many["error"]["code"]) == ("failed", "handler-failed")
    assert many["error"]["message"] == "handler intent ended with exit status 3"
    assert many["result"]["exit_status"] == 3
    assert many["attempt"] == 1
    assert (site.root / files(many)["log"]).read_text() == "11 manifests for edge-b\n"
    assert site.final("intent-copied.json")["intake"]["method"] in {"no-writer", "settled"}

    again = site.final("again-1.txt")
    assert (again["state"], again["attempt"]) == ("failed", 2)
    assert again["error"]["retryable"]
    assert again["error"]["message"] == "handler again ended with exit status 75"
    # A tool sees nothing of the daemon's environment.
    lines = site.final("env-1.txt")["result"]["log_tail"]
    names = {line.partition("=")[0] for line in lines}
    assert names == {"PATH", "LANG", "LC_ALL", "HOME", "TMPDIR"}

    # Offline, the same answers.
    def check(name: str, content: str) -> tuple[int, str]:
        (tmp_path / name).write_text(content)
        done = spoold("check", tmp_path / name, "--spool", site.root, check=False)
        return done.returncode, done.stdout + done.stderr

    assert check("intent-x.json", '{"site": "a", "replicas": 1}')[0] == 0
    status, said = check("intent-y.json", '{"site": "a", "replicas": 0}')
    assert status == 4
    assert "drop-schema: replicas: 0 is less than the minimum of 1" in said
    # And by hand: submit knows the name, retry the handler.
    done = spoold("submit", tmp_path / "intent-x.json", "--wait", "--spool", site.root)
    assert "succeeded" in done.stdout
    spoold("retry", "intent-many.json", "--spool", site.root)
    again = site.final_after("intent-many.json", many["job_id"])
    assert again["error"]["code"] == "handler-failed"
    assert again["files"]["log"] == f"failed/intent-many~{again['job_id'][-12:]}.json.log"


def processes(marker: str) -> list[int]:
    """The processes whose working directory lies below a folder."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/cwd").startswith(marker):
                found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("drop", ["vandal-gone.txt", "vandal-status.txt"])
def test_a_tool_that_destroys_its_scratch_has_an_answer_all_the_same(site: Site, drop: str) -> None:
    site.drop(drop, "x")
    status = site.final(drop)
    assert (status["state"], status["error"]["code"]) == ("failed", "handler-failed")
    assert status["attempt"] == 2
    site.verified(drop)


@pytest.mark.parametrize("how", ["cancel", pytest.param("kill", marks=pytest.mark.nightly)])
def test_a_cancelled_tool_and_one_whose_worker_dies_end_with_all_they_started(
    make_site: MakeSite, how: str
) -> None:
    site = make_site(workers_count=1, workers_drain_seconds=2)
    configure(site, _TOOLS.replace("{out}/../../../pids", f"{site.root}/pids"))
    site.start()
    site.drop("stay-1.txt", "x")
    pids = [site.root / "pids", site.root / "pids.child"]
    wait_until(lambda: all(path.exists() and path.read_text().strip() for path in pids), 60)
    here = f"{site.root}/.spoold/work/"
    assert len(processes(here)) >= 2
    if how == "cancel":
        spoold("cancel", "stay-1.txt", "--spool", site.root)
        state = "cancelled"
    else:
        [daemon] = site.daemons
        [worker] = [
            child
            for child in keeper.children_of(daemon.pid)
            if b"\0worker\0" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        os.kill(worker, 9)
        state = "failed"
    began = time.monotonic()
    wait_until(lambda: not processes(here), 10)
    assert time.monotonic() - began < 5
    assert site.final("stay-1.txt")["state"] == state
    site.stop()
    assert site.leftovers() == []


@pytest.mark.nightly
def test_a_tool_is_ended_before_a_lease_that_cannot_be_renewed_runs_out(
    make_site: MakeSite,
) -> None:
    site = make_site(embedded=True, workers_drain_seconds=2)
    configure(site, _TOOLS.replace("{out}/../../../pids", f"{site.root}/pids"))
    daemon = site.start()
    site.drop("stay-1.txt", "x")
    here = f"{site.root}/.spoold/work/"
    wait_until(lambda: len(processes(here)) >= 2, 60)
    server = [
        process
        for process in keeper.descendants(daemon.pid)
        if b"postgres" in Path(f"/proc/{process}/cmdline").read_bytes().partition(b"\0")[0]
    ]
    stopped = time.monotonic()
    for process in server:
        os.kill(process, signal.SIGSTOP)
    try:
        wait_until(lambda: not processes(here), 30)
        assert 10 < time.monotonic() - stopped < 25  # two thirds of 30 s, since the last beat
    finally:
        for process in server:
            os.kill(process, signal.SIGCONT)
    # The tool failed nobody: it is run again, and no attempt is used up.
    wait_until(lambda: len(processes(here)) >= 2, 60)
    assert json.loads(site.status_path("stay-1.txt").read_bytes())["attempt"] == 1
    spoold("cancel", "stay-1.txt", "--spool", site.root)
    assert site.final("stay-1.txt")["state"] == "cancelled"
