"""`sign`, `check` of what is signed, and keys that are made outside of any spool."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spoold.cli import cli

REQUEST = {
    "type": "spoold.request/1",
    "action": "bundle",
    "sources": [{"kind": "files", "root": "evidence"}],
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SPOOLD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("request-a.json").write_text(json.dumps(REQUEST, indent=2))
    run("keys", "generate", "-o", "partner.pem", "--algorithm", "ed25519")


def run(*arguments: str, status: int = 0, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, list(arguments), input=stdin)
    assert result.exit_code == status, result.output
    return result


def checked(file: str = "request-a.json", *, status: int = 0, by: str = "partner.pub") -> Result:
    return run("check", file, "--key", by, "--site", "partner", "--json", status=status)


def test_a_key_apart_is_a_pair_of_files_and_replaces_nothing() -> None:
    assert Path("partner.pem").stat().st_mode & 0o777 == 0o600
    assert Path("partner.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----")
    run("keys", "generate", "-o", "partner.pem", status=1)
    run("keys", "generate", "-o", "partner.pub", status=2)
    run("keys", "generate", "-o", "other.pem", "--rotate", status=2)
    made = json.loads(run("keys", "generate", "-o", "other.pem", "--json").stdout)
    assert (made["algorithm"], made["public_file"]) == ("rsa-pss-sha256", "other.pub")


def test_a_request_is_signed_in_place_and_keeps_its_mode() -> None:
    Path("request-a.json").chmod(0o640)
    before = json.loads(run("check", "request-a.json", "--json").stdout)
    done = json.loads(run("sign", "request-a.json", "--key", "partner.pem", "--json").stdout)
    document = json.loads(Path("request-a.json").read_text())
    [signature] = document.pop("signatures")
    assert document == REQUEST
    assert signature["key_id"] == done["key_id"]
    assert Path("request-a.json").stat().st_mode & 0o777 == 0o640
    after = json.loads(checked().stdout)
    assert after["signed_by"] == {"site": "partner", "key_id": done["key_id"]}
    # Signed or not, it is the same request.
    assert before["request_sha256"] == after["request_sha256"] == done["request_sha256"]


def test_signing_again_renews_ones_own_signature_and_keeps_others() -> None:
    run("keys", "generate", "-o", "other.pem", "--algorithm", "ed25519")
    for key in ("partner.pem", "other.pem", "partner.pem"):
        run("sign", "request-a.json", "--key", key)
    assert len(json.loads(Path("request-a.json").read_text())["signatures"]) == 2
    checked()
    checked(by="other.pub")


def test_a_new_file_appears_whole_and_never_over_another() -> None:
    run("sign", "request-a.json", "--key", "partner.pem", "-o", "request-b.json")
    checked("request-b.json")
    assert "signatures" not in Path("request-a.json").read_text()
    said = run("sign", "request-a.json", "--key", "partner.pem", "-o", "request-b.json", status=1)
    assert "target-exists" in said.stderr
    assert sorted(path.name for path in Path().iterdir()) == [
        "partner.pem",
        "partner.pub",
        "request-a.json",
        "request-b.json",
    ]


def test_it_goes_through_a_pipe() -> None:
    content = Path("request-a.json").read_bytes()
    piped = run("sign", "-", "--key", "partner.pem", stdin=content).stdout_bytes
    Path("request-b.json").write_bytes(piped)
    checked("request-b.json")
    run("sign", "-", "--key", "partner.pem", "--json", stdin=content, status=2)


def test_what_is_no_request_is_not_signed() -> None:
    Path("request-a.json").write_text("{}")
    run("sign", "request-a.json", "--key", "partner.pem", status=4)
    run("sign", "request-a.json", "--key", "partner.pub", status=3)


def test_a_changed_request_does_not_pass_the_check() -> None:
    run("sign", "request-a.json", "--key", "partner.pem")
    path = Path("request-a.json")
    path.write_text(path.read_text().replace("evidence", "secrets"))
    assert "signature-invalid" in checked(status=6).stdout
    run("keys", "generate", "-o", "other.pem", "--algorithm", "ed25519")
    checked(by="other.pub", status=3)


def test_without_anybody_to_believe_a_signature_is_said_to_be_unchecked() -> None:
    run("sign", "request-a.json", "--key", "partner.pem")
    said = run("check", "request-a.json")
    assert "not checked" in said.stderr
    assert json.loads(run("check", "request-a.json", "--json").stdout)["signed_by"] is None


def test_a_spool_is_asked_for_its_keys_and_whether_it_wants_a_signature() -> None:
    run("init", "spool", "--site", "site-a", "--algorithm", "ed25519")
    with open("spool/spoold.toml", "a") as file:
        file.write('\n[roots]\nevidence = "/srv/evidence"\n')
    run("check", "request-a.json")
    with open("spool/spoold.toml", "a") as file:
        file.write("\n[intake]\nrequire_signed = true\n")
    assert "request-unsigned" in run("check", "request-a.json", status=3).stderr
    run("sign", "request-a.json", "--key", "partner.pem")
    run("check", "request-a.json", status=3)
    run("keys", "trust", "partner.pub", "--site", "partner", "--role", "bundle")
    assert "key-role" in run("check", "request-a.json", status=3).stderr
    run("keys", "trust", "partner.pub", "--site", "partner", "--role", "request")
    assert "signed by partner" in run("check", "request-a.json").stdout
    # the site's own key may sign, too
    Path("request-b.json").write_text(json.dumps(REQUEST))
    run("sign", "request-b.json")
    assert "signed by site-a" in run("check", "request-b.json").stdout


def test_the_spool_says_how_large_a_request_may_be() -> None:
    run("init", "spool", "--site", "site-a", "--algorithm", "ed25519")
    with open("spool/spoold.toml", "a") as file:
        file.write('\n[roots]\nevidence = "/srv/evidence"\n[intake]\nmax_request_bytes = "2MiB"\n')
    Path("request-a.json").write_text(json.dumps(REQUEST) + " " * 1024**2)
    run("check", "request-a.json")
    Path("request-a.json").write_text(json.dumps(REQUEST) + " " * 2 * 1024**2)
    assert "request-too-large" in run("check", "request-a.json", status=4).stderr


def test_a_request_whose_time_has_passed_does_not_pass_the_check() -> None:
    late = {**REQUEST, "expires_at": "2001-01-01T00:00:00Z"}
    Path("request-a.json").write_text(json.dumps(late))
    assert "request-expired" in run("check", "request-a.json", status=4).stderr


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_a_partner_without_spoold_signs_with_openssl_as_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "spool-layout" / "README.md").read_text()
    [block] = [
        block.partition("```\n")[0]
        for block in page.split("```sh\n")[1:]
        if "openssl pkeyutl -sign" in block
    ]
    Path("partner.pem").unlink()
    subprocess.run(["sh", "-euc", block], check=True, capture_output=True)
    checked("signed.json")
