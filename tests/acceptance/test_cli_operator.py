"""The operator's commands against a running daemon: submit, jobs, retry, cancel, forget."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import wait_until
from tests.sites import Site, request, spoold, trust

MakeSite = Callable[..., Site]


def command(site: Site, *arguments: str | Path, status: int = 0) -> str:
    done = spoold(*arguments, "--spool", site.root, check=False, environment=site.environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def document(site: Site, *arguments: str | Path, status: int = 0) -> dict[str, object]:
    parsed: dict[str, object] = json.loads(command(site, *arguments, "--json", status=status))
    return parsed


@contextmanager
def submitting(site: Site, path: Path) -> Iterator[subprocess.Popen[str]]:
    """`submit --wait` as a process, which does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spoold", "submit", path, "--wait", "--spool", site.root],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_submit_waits_and_tells_the_outcome(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    site.start()
    good = tmp_path / "request-good.json"
    good.write_text(json.dumps(request(idempotency_key="k/1")))
    said = command(site, "submit", good, "--timeout", "60")
    assert said.startswith("request-good.json: succeeded\n")
    assert "file: bundle" in said
    assert document(site, "submit", good, "--wait", status=5)["state"] == "duplicate"

    bad = tmp_path / "request-bad.json"
    bad.write_text(json.dumps({**request(), "pirority": 1}))
    said = command(site, "submit", bad, "--wait", status=4)
    assert "request-invalid" in said
    bad.write_text(json.dumps(request(path="nowhere")))
    assert "source-missing" in command(site, "submit", bad, "--wait", status=1)
    # The answer to the newest drop of that name is the one at the name's path.
    answer = document(site, "status", "request-bad.json", "--verify")
    assert answer["state"] == "failed"


def test_jobs_are_listed_and_a_failed_one_is_retried(make_site: MakeSite, evidence: Path) -> None:
    site = make_site(roots={"evidence": evidence})
    site.start()
    site.drop("request-late.json", request(path="late", max_attempts=1))
    old = site.final("request-late.json")
    assert old["state"] == "failed"
    shutil.copytree(evidence / "incident-123", evidence / "late")

    jobs = document(site, "jobs", "--state", "failed")["jobs"]
    assert isinstance(jobs, list)
    assert [job["job_id"] for job in jobs] == [old["job_id"]]
    assert "request-late.json" in command(site, "jobs")
    made = document(site, "retry", old["job_id"][-12:])
    assert made["retry_of"] == old["job_id"]
    new = site.final_after("request-late.json", old["job_id"])
    assert new["state"] == "succeeded"
    assert new["job_id"] == made["job_id"]
    # The old answer stays where it was.
    kept = json.loads((site.root / "failed/request-late.json.status.json").read_bytes())
    assert kept["job_id"] == old["job_id"]
    assert document(site, "status", old["job_id"])["state"] == "failed"
    wait_until(lambda: site.leftovers() == [], 5)


def test_a_scheduled_job_is_cancelled(make_site: MakeSite, evidence: Path, tmp_path: Path) -> None:
    site = make_site(roots={"evidence": evidence})
    site.start()
    later = tmp_path / "request-later.json"
    later.write_text(json.dumps(request(not_before="2099-01-01T00:00:00Z")))
    with submitting(site, later) as waiting:
        wait_until(site.status_path(later.name).exists)  # the daemon is up
        wait_until(lambda: "scheduled" in command(site, "jobs"))
        command(site, "retry", "request-later.json", status=1)
        command(site, "cancel", "request-later.json")
        said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 8, said
    assert "cancelled" in said
    command(site, "cancel", "request-later.json", status=1)


def test_a_forgotten_bundle_is_restored_again(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    first = make_site("site-a", roots={"evidence": evidence})
    second = make_site("site-b")
    trust(second, first)
    wanted = tmp_path / "request-demo.json"
    wanted.write_text(json.dumps(request()))
    bundle = Path(str(document(first, "build", wanted, "-o", tmp_path)["path"]))
    second.start()
    done = document(second, "submit", bundle, "--wait")
    assert document(second, "submit", bundle, "--wait", status=5)["state"] == "duplicate"
    assert document(second, "forget", bundle)["job_id"] == done["job_id"]
    command(second, "forget", bundle, status=1)
    result = done["result"]
    assert isinstance(result, dict)
    shutil.rmtree(second.root / result["restored"])
    assert document(second, "submit", bundle, "--wait")["state"] == "succeeded"


def test_without_a_daemon_the_queue_is_away_and_files_still_answer(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, embedded=True)
    site.drop("request-demo.json", request())
    assert site.run_once() == 0
    assert "database-away" in document(site, "jobs", status=69)["error"]["code"]  # type: ignore[index]
    assert document(site, "status", "request-demo.json", "--verify")["state"] == "succeeded"
    assert document(site, "doctor")["ok"] is True


def test_an_interrupted_submit_leaves_the_drop_and_exits_130(
    make_site: MakeSite, tmp_path: Path
) -> None:
    site = make_site()
    path = tmp_path / "request-demo.json"
    path.write_text(json.dumps(request()))
    with submitting(site, path) as waiting:
        wait_until((site.inbox / "request-demo.json").exists)
        time.sleep(0.1)
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert (site.inbox / "request-demo.json").exists()


def test_a_reader_that_goes_away_is_no_error_to_shout_about(make_site: MakeSite) -> None:
    site = make_site()
    done = subprocess.run(
        f"{sys.executable} -m spoold schema request --help | head -c 1; "
        f"{sys.executable} -m spoold config --spool {site.root} | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_rows_of_old_jobs_are_pruned_and_their_files_stay(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    site.start()
    keyed = request(idempotency_key="k/1")
    for number in range(3):
        site.drop(f"request-{number}.json", request() if number else keyed)
    before = [site.final(f"request-{number}.json") for number in range(3)]
    assert document(site, "jobs", "prune", "--older-than", "1h") == {"pruned": 0}
    wait_until(
        lambda: (
            document(site, "jobs", "prune", "--older-than", "0s", "--dry-run") == {"would_prune": 3}
        )
    )
    assert len(document(site, "jobs")["jobs"]) == 3  # type: ignore[arg-type]
    assert command(site, "jobs", "prune", "--older-than", "0s") == "pruned 3\n"
    assert document(site, "jobs") == {"jobs": []}
    assert [site.final(f"request-{number}.json") for number in range(3)] == before
    site.drop("request-again.json", keyed)
    assert site.final("request-again.json")["state"] == "duplicate"
    command(site, "jobs", "prune", status=2)
    command(site, "jobs", "prune", "--older-than", "soon", status=2)
