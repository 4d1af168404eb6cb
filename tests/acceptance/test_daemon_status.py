"""`status/.spoold.json`: whether the daemon lives, for whoever sees the folder."""

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships none
from click.testing import CliRunner

from spoold import postgres, schemas
from spoold.cli import cli
from spoold.daemon_status import is_alive
from spoold.spool import Spool
from tests.acceptance.test_docs import free_port, page
from tests.conftest import wait_until
from tests.sites import DEADLINE_SECONDS, Site, request

MakeSite = Callable[..., Site]


def path_of(site: Site) -> Path:
    return site.root / "status" / ".spoold.json"


def told(site: Site) -> dict[str, Any]:
    """The document; empty while there is none. It is never half of one."""
    try:
        document: dict[str, Any] = json.loads(path_of(site).read_bytes())
    except FileNotFoundError:
        return {}
    return document


def wait_for(site: Site, predicate: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    wait_until(lambda: bool(told(site)) and predicate(told(site)), DEADLINE_SECONDS)
    return told(site)


def said(site: Site, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["status", "--spool", str(site.root), *options])
    return done.exit_code, done.output


def diagnosis(site: Site) -> str:
    return CliRunner().invoke(cli, ["doctor", str(site.root)]).output


def test_a_daemon_says_what_it_does_and_that_it_has_ended(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(
        roots={"evidence": evidence}, algorithm="rsa", workers_count=2, intake_renew_seconds=1
    )
    assert said(site)[0] == 69
    daemon = site.start()
    first = wait_for(site, lambda _: True)
    assert (first["state"], first["site"], first["pid"]) == ("running", "site-a", daemon.pid)
    assert first["workers"]["configured"] == 2
    assert path_of(site).stat().st_mode & 0o777 == 0o644
    # what it does, what it lacks, what went wrong
    site.drop("request-later.json", request(not_before="2100-01-01T00:00:00Z"))
    site.drop("request-bad.json", "{")
    site.drop("notes.txt", "no drop")
    document = wait_for(
        site,
        lambda told: (
            told["backlog"] == {"scheduled": 1}
            and told["last_error"] is not None
            and told["inbox"]["strays"] == 1
            and told["mode"] == "events"
            and told["workers"]["alive"] == 2
        ),
    )
    assert document["renewed_at"] > first["renewed_at"]
    assert document["started_at"] == first["started_at"]
    assert document["last_error"]["code"] == "request-truncated"
    assert document["database"] == {"state": "up", "since": None}
    jsonschema.validate(document, schemas.daemon(), jsonschema.Draft202012Validator)
    status, text = said(site)
    assert status == 0
    assert "running" in text
    assert "signature good: site-a" in text
    assert json.loads(said(site, "--json")[1])["type"] == "spoold.daemon/1"
    assert "OK    daemon: running" in diagnosis(site)

    site.stop()
    openssl_agrees(site)
    last = told(site)
    assert last["state"] == "stopped"
    assert last["expires_at"] == last["renewed_at"]
    status, text = said(site)
    assert status == 69
    assert "stopped" in text
    assert "OK    daemon: stopped" in diagnosis(site)


def test_a_killed_daemons_word_expires_a_forged_one_does_not_count_and_a_successor_speaks(
    make_site: MakeSite,
) -> None:
    site = make_site(embedded=True, intake_renew_seconds=0.7)
    first = site.start()
    wait_for(site, lambda told: told["pid"] == first.pid)
    first.kill()
    first.wait()
    site.daemons.remove(first)
    wait_until(lambda: not is_alive(told(site), datetime.now(UTC)), 5)
    status, text = said(site)
    assert status == 69
    assert "no sign of life" in text
    assert "WARN  daemon: no sign of life" in diagnosis(site)

    forged = {**told(site), "expires_at": "2100-01-01T00:00:00.000Z"}
    path_of(site).write_text(json.dumps(forged, sort_keys=True, separators=(",", ":")) + "\n")
    status, text = said(site)
    assert status == 6
    assert "signature-invalid" in text

    second = site.start()
    wait_for(site, lambda told: told["pid"] == second.pid)
    third = site.start()
    wait_until(lambda: "intake.standing_by" in site.log, DEADLINE_SECONDS)
    assert told(site)["pid"] == second.pid
    # One's last word does not cover that of a successor.
    site.stop(second)
    wait_for(site, lambda told: (told["pid"], told["state"]) == (third.pid, "running"))

    # A database that hangs is told of, and not taken for the daemon's end.
    with (
        postgres.connect(postgres.find(Spool.at(site.root)), "tests") as connection,
        connection.transaction(),
    ):
        connection.execute("lock table spoold.job in access exclusive mode")
        document = wait_for(site, lambda told: told["database"]["state"] == "away")
        assert document["backlog"] is None
        assert document["database"]["since"] is not None
        assert is_alive(document, datetime.now(UTC))
    wait_for(site, lambda told: told["database"]["state"] == "up")
    site.stop(third)
    assert (told(site)["pid"], told(site)["state"]) == (third.pid, "stopped")


def test_what_keeps_drops_waiting_is_told(make_site: MakeSite) -> None:
    site = make_site(intake_renew_seconds=0.5, intake_min_free_bytes="1PiB")
    site.start()
    site.drop("request-demo.json", request())
    document = wait_for(site, lambda told: (told["oldest_wait_seconds"] or 0) >= 1)
    assert document["inbox"]["waiting"] == {"space": 1}
    assert document["last_error"]["code"] == "no-space"
    assert document["backlog"] == {}


def openssl_agrees(site: Site) -> None:
    """Check the signature as the README says for status files."""
    if not all(map(shutil.which, ("bash", "jq", "openssl"))):
        return
    page = (Path(__file__).parents[2] / "README.md").read_text()
    [block] = [
        block.partition("```\n")[0]
        for block in page.split("```bash\n")[1:]
        if "status=site-a/status/" in block
    ]
    here = site.root.parent
    shutil.copy(site.root / "site.pub", here / "site-a.pub")
    block = block.replace("request-demo.json.status.json", ".spoold.json")
    done = subprocess.run(
        ["bash", "-euc", block], cwd=here, capture_output=True, text=True, check=False
    )
    assert "Verified OK" in done.stdout, done.stderr


def test_a_daemon_that_polls_is_healthy_and_says_so(make_site: MakeSite, evidence: Path) -> None:
    site = make_site(roots={"evidence": evidence}, workers_count=1, intake_watch="polling")
    port = free_port()
    site.environment["SPOOLD_HTTP_LISTEN"] = f"127.0.0.1:{port}"
    site.start()
    # `page` has something of answers with success only.
    wait_until(lambda: "[intake] watch says so" in page(port, "/healthz"), DEADLINE_SECONDS)
    document = json.loads(page(port, "/healthz"))
    assert document["healthy"] is True
    assert document["checks"]["watch"]["text"].startswith("polling: ")
