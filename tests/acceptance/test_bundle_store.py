"""The bundles of a site by the installed program: listed, kept, removed, by hand and by time."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from spoold.cli import cli
from tests.conftest import wait_until
from tests.sites import Site, request, spoold, trust

MakeSite = Callable[..., Site]


def document(site: Site, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
    words = [*map(str, arguments), "--json", "--spool", str(site.root)]
    done = CliRunner().invoke(cli, words, env=site.environment)
    assert done.exit_code == status, done.output
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def processed(site: Site) -> set[str]:
    return {path.name for path in (site.root / "processed").iterdir()}


def test_bundles_are_listed_pinned_deleted_and_pruned(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    site_a = make_site("site-a", roots={"evidence": evidence})
    site_b = make_site("site-b", roots={"own": tmp_path / "site-b" / "processed"})
    trust(site_b, site_a)
    site_a.start()
    made = []
    for number in range(3):
        site_a.drop(f"request-{number}.json", request())
        made.append(site_a.final(f"request-{number}.json")["result"]["bundle"])
    ids = [name.removesuffix(".tar.zst") for name in made]

    listed = document(site_a, "bundles", "list")["bundles"]
    assert [each["bundle_id"] for each in listed] == ids[::-1]
    assert {each["from"] for each in listed} == {"site-a"}
    assert document(site_a, "bundles", "list", "--from", "site-b") == {"bundles": []}
    shown = document(site_a, "bundles", "show", ids[0][-12:])
    assert shown["there"] is True
    assert shown["file"] == f"processed/{made[0]}"
    assert document(site_a, "bundles", "show", "demo", status=1)["error"]["code"] == (
        "bundle-unknown"
    )

    document(site_a, "bundles", "pin", ids[0])
    dry = document(site_a, "bundles", "prune", "--keep", "1", "--dry-run")
    assert [each["bundle_id"] for each in dry["would_remove"]] == [ids[1]]
    assert set(made) <= processed(site_a)
    done = document(site_a, "bundles", "prune", "--keep", "1")
    assert [each["bundle_id"] for each in done["removed"]] == [ids[1]]
    assert {made[0], made[2]} == set(made) & processed(site_a)
    both = document(site_a, "bundles", "delete", ids[0], ids[2], "nothing", status=1)
    assert both["removed"] == [ids[2]]
    assert [each["error"]["code"] for each in both["refused"]] == [
        "bundle-pinned",
        "bundle-unknown",
    ]
    assert document(site_a, "bundles", "show", ids[2])["removed_at"] is not None
    assert document(site_a, "bundles", "prune", status=2)["error"]["code"] == "usage"
    # What is removed is no reason to make it again under its key, nor to lose the answers.
    assert "request-2.json.status.json" in processed(site_a)

    site_b.start()
    site_b.drop("carried.tar.zst", site_a.root / "processed" / made[0])
    assert site_b.final("carried.tar.zst")["state"] == "succeeded"
    [received] = document(site_b, "bundles", "list", "--from", "site-a")["bundles"]
    assert (received["received"], received["bundle_id"]) == (True, ids[0])
    again = {
        "type": "spoold.request/1",
        "action": "rehydrate",
        "bundle": {"root": "own", "path": "carried.tar.zst"},
        "not_before": "2099-01-01T00:00:00Z",
    }
    site_b.drop("request-again.json", again)
    wait_until(lambda: site_b.status_path("request-again.json").exists())
    wait_until(lambda: document(site_b, "jobs", "--state", "scheduled")["jobs"] != [])
    refused = document(site_b, "bundles", "delete", ids[0], status=75)
    assert refused["error"]["code"] == "bundle-needed"
    older = ("bundles", "prune", "--older-than", "1s")
    wait_until(lambda: document(site_b, *older, "--dry-run")["held"] != [])
    assert [each["reason"] for each in document(site_b, *older)["held"]] == ["needed"]
    document(site_b, "cancel", "request-again.json")
    site_b.final("request-again.json")
    assert document(site_b, "bundles", "delete", ids[0])["removed"] == [ids[0]]
    assert "carried.tar.zst" not in processed(site_b)


def test_the_daemons_of_a_spool_remove_what_is_due_and_doctor_counts_the_rest(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    site.environment |= {
        "SPOOLD_RETENTION_PROCESSED": "1s",
        "SPOOLD_RETENTION_STATUS": "4s",
        "SPOOLD_HTTP_LISTEN": "",
    }
    site.start()
    site.start()
    for number in range(20):
        site.drop(f"request-{number}.json", request())
    (site.root / "processed" / "foreign.txt").write_text("somebody else's")
    for number in range(20):
        assert site.final(f"request-{number}.json")["state"] == "succeeded"
    wait_until(lambda: processed(site) == {"foreign.txt"}, 60)
    wait_until(lambda: not list((site.root / "status").glob("request-*")), 60)
    findings = document(site, "doctor")["checks"]
    [found] = [each for each in findings if each["check"] == "published"]
    assert "1 names in processed/" in found["detail"]
    assert "retention.removed" in site.log
    assert "retention.failed" not in site.log
    assert len(document(site, "jobs")["jobs"]) == 20
    assert document(site, "bundles", "list") == {"bundles": []}
    # The names are free again.
    site.drop("request-0.json", request())
    assert site.final("request-0.json")["files"]["drop"] == "processed/request-0.json"


def test_a_tree_that_was_copied_and_adopted_is_kept_as_long(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    site.drop("request-demo.json", request())
    assert site.run_once() == 0
    copy = tmp_path / "copy"
    shutil.copytree(site.root, copy, symlinks=True)
    shutil.rmtree(site.root)
    copy.rename(site.root)
    done = spoold("adopt", site.root, check=False, environment=site.environment)
    assert done.returncode == 0, done.stderr
    site.environment["SPOOLD_RETENTION_PROCESSED"] = "1s"
    site.start()
    wait_until(lambda: processed(site) == set(), 60)
