"""Two sites sign, a third believes them only together; requests say for whom and until when."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.conftest import wait_until
from tests.sites import Site, request, spoold, trust

MakeSite = Callable[..., Site]


def built(site: Site, folder: Path, **fields: Any) -> Path:
    """A bundle made by a site, outside its spool."""
    path = folder / "request-demo.json"
    path.write_text(json.dumps(request(**fields)))
    done = spoold("build", path, "-o", folder, "--spool", site.root, "--json")
    return Path(json.loads(done.stdout)["path"])


def carried(site: Site, bundle: Path, name: str) -> dict[str, Any]:
    """Drop a bundle and give its final status."""
    site.drop(name, bundle)
    site.run_once()
    return site.final(name)


def test_a_bundle_is_restored_when_as_many_have_signed_as_must(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    a = make_site("site-a", {"evidence": evidence})
    b, c = make_site("site-b"), make_site("site-c", trust_bundle_threshold=2)
    trust(b, a)
    trust(c, a)
    trust(c, b)
    bundle = built(a, tmp_path)
    status = carried(c, bundle, "one.tar.zst")
    assert (status["state"], status["error"]["code"]) == ("rejected", "threshold-not-met")
    assert "signed by site-a" in status["error"]["message"]
    assert status["error"]["retryable"] is False
    spoold("resign", bundle, "--spool", b.root)
    status = carried(c, bundle, "two.tar.zst")
    assert status["state"] == "succeeded"
    assert (c.root / status["result"]["restored"]).is_dir()
    # the same bundle with more signatures is the same bundle
    spoold("resign", bundle, "--spool", c.root)
    assert carried(c, bundle, "three.tar.zst")["state"] == "duplicate"


def test_h29_a_request_addresses_its_bundle(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    a = make_site("site-a", {"evidence": evidence})
    b, c = make_site("site-b"), make_site("site-c", restore_max_entries=2)
    trust(b, a)
    trust(c, a)
    a.drop("request-demo.json", request(to=["site-b"], not_after="2099-01-01T00:00:00Z"))
    assert a.run_once() == 0
    bundle = a.root / "processed" / a.final("request-demo.json")["result"]["bundle"]
    c.drop("addressed.tar.zst", bundle)
    status = carried(c, built(a, tmp_path), "large.tar.zst")
    assert (status["state"], status["error"]["code"]) == ("rejected", "quota-exceeded")
    error = c.final("addressed.tar.zst")["error"]
    assert (error["code"], error["retryable"]) == ("not-addressed-here", False)
    assert carried(b, bundle, "b.tar.zst")["state"] == "succeeded"


def test_h30_a_request_ends_the_time_of_its_bundle(
    make_site: MakeSite, evidence: Path, tmp_path: Path
) -> None:
    a = make_site("site-a", {"evidence": evidence})
    b = make_site("site-b")
    trust(b, a)
    not_after = datetime.now(UTC) + timedelta(seconds=20)
    bundle = built(a, tmp_path, not_after=not_after.isoformat())
    wait_until(lambda: datetime.now(UTC) > not_after)
    said = spoold("verify", bundle, "--spool", b.root, check=False)
    assert (said.returncode, said.stdout.splitlines()[0]) == (3, f"not trusted: {bundle}")
    assert "error: expired: " in said.stderr
    status = carried(b, bundle, "b.tar.zst")
    assert (status["state"], status["error"]["code"]) == ("rejected", "expired")
