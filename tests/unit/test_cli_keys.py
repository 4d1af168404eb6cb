"""`keys`: show, trust, list, revoke, generate."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import rsa

from spoold import trust, trust_store
from spoold.cli import cli
from spoold.spool import Spool


@pytest.fixture(autouse=True)
def _spools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SPOOLD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    run("init", "spool", "--site", "site-a", "--algorithm", "ed25519")
    run("init", "other", "--site", "site-b", "--algorithm", "ed25519")


def run(*arguments: str, status: int = 0, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, list(arguments), input=stdin)
    assert result.exit_code == status, result.output
    return result


def listed() -> list[dict[str, object]]:
    keys: list[dict[str, object]] = json.loads(run("keys", "list", "--json").stdout)["keys"]
    return keys


def own_id(place: str) -> str:
    key_id: str = json.loads(run("keys", "show", "--spool", place, "--json").stdout)["key_id"]
    return key_id


def test_show_prints_the_pem_alone_and_the_id_beside() -> None:
    result = run("keys", "show")
    assert result.stdout == Path("spool/site.pub").read_text()
    assert own_id("spool") in result.stderr


def test_show_needs_no_right_to_look_into_the_private_folder() -> None:
    Path("spool/spoold.toml").unlink()
    os.rename("spool/.spoold", "elsewhere")
    assert run("keys", "show").stdout.startswith("-----BEGIN PUBLIC KEY-----")


def test_a_trusted_key_is_listed_with_its_roles() -> None:
    run("keys", "trust", "other/site.pub", "--site", "site-b", "--role", "bundle")
    [key] = listed()
    assert key["key_id"] == own_id("other")
    assert (key["site"], key["roles"], key["revoked"]) == ("site-b", ["bundle"], False)
    said = run("keys", "list").stdout
    assert own_id("other")[:16] in said
    assert "this site" in said


def test_a_key_may_come_by_the_standard_input() -> None:
    pem = Path("other/site.pub").read_bytes()
    run("keys", "trust", "-", "--site", "site-b", stdin=pem)
    assert listed()[0]["roles"] == ["bundle", "request", "status"]


def test_trusting_again_replaces_and_says_what_was() -> None:
    run("keys", "trust", "other/site.pub", "--site", "site-x")
    run("keys", "revoke", own_id("other"))
    said = run("keys", "trust", "other/site.pub", "--site", "site-b").stderr
    assert "trusted as site-x before" in said
    assert "revoked before" in said
    [key] = listed()
    assert (key["site"], key["revoked"]) == ("site-b", False)


def test_trusting_ones_own_key_or_name_is_said() -> None:
    assert "own key" in run("keys", "trust", "spool/site.pub", "--site", "site-a").stderr
    assert "own name" in run("keys", "trust", "other/site.pub", "--site", "site-a").stderr


def test_a_second_key_of_a_site_is_said() -> None:
    run("init", "third", "--site", "site-b2", "--algorithm", "ed25519")
    run("keys", "trust", "other/site.pub", "--site", "site-b")
    said = run("keys", "trust", "third/site.pub", "--site", "site-b").stderr
    assert f"another trusted key too: {own_id('other')[:16]}" in said
    assert len(listed()) == 2


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(content: bytes) -> None:
    Path("bad.pub").write_bytes(content)
    assert "key-unusable" in run("keys", "trust", "bad.pub", "--site", "b", status=3).stderr
    assert listed() == []


def test_a_file_of_several_keys_is_refused_not_half_read() -> None:
    both = Path("spool/site.pub").read_text() + Path("other/site.pub").read_text()
    Path("both.pub").write_text(both)
    assert "more than one key" in run("keys", "trust", "both.pub", "--site", "b", status=3).stderr
    assert listed() == []


def test_a_private_key_is_not_taken_for_a_public_one() -> None:
    run("keys", "trust", "spool/.spoold/keys/signing.pem", "--site", "b", status=3)


def test_revoke_matches_16_digits_or_more_and_can_be_undone() -> None:
    run("keys", "trust", "other/site.pub", "--site", "site-b")
    key_id = own_id("other")
    run("keys", "revoke", key_id[:15], status=2)
    run("keys", "revoke", "not-a-key-id-at-all", status=2)
    run("keys", "revoke", key_id[:16])
    assert listed()[0]["revoked"] is True
    run("keys", "revoke", key_id, "--undo")
    assert listed()[0]["revoked"] is False
    said = json.loads(run("keys", "revoke", key_id, "--json").stdout)
    assert said == listed()[0]
    assert said["revoked"] is True


def test_revoking_an_unknown_or_the_own_key_is_an_error() -> None:
    assert "key-unknown" in run("keys", "revoke", "0" * 16, status=1).stderr
    assert "--rotate" in run("keys", "revoke", own_id("spool"), status=1).stderr


def test_generate_does_not_replace_a_key_unasked() -> None:
    before = own_id("spool")
    run("keys", "generate", status=1)
    assert own_id("spool") == before


def test_rotate_keeps_the_old_key_and_what_it_signed_stays_trusted() -> None:
    spool = Spool.at("spool")
    path = spool.root / ".spoold/keys/signing.pem"
    old = trust.load_signer(path, "site-a")
    document = trust.sign_document({"type": "t"}, old)
    run("keys", "generate", "--rotate", "--algorithm", "ed25519")
    new = trust.load_signer(path, "site-a")
    assert new.key_id != old.key_id
    assert own_id("spool") == new.key_id
    aside = path.with_name(f"signing.{old.key_id[:16]}.pem")
    assert trust.load_signer(aside, "site-a").key_id == old.key_id
    verified = trust_store.load_trust(spool, new).verify_document(document, "t", trust.Role.STATUS)
    assert verified.signed_by.key_id == old.key_id


def test_generate_makes_a_missing_key() -> None:
    Path("spool/.spoold/keys/signing.pem").unlink()
    before = own_id("spool")
    run("keys", "generate", "--algorithm", "ed25519")
    assert own_id("spool") != before
    run("doctor", "spool")


@pytest.mark.parametrize(
    ("bits", "exponent", "said"),
    [(2048, 65537, "RSA of 2048 bits, below 3072"), (3072, 3, "RSA exponent is not 65537")],
)
def test_h09_a_weak_key_is_not_trusted(bits: int, exponent: int, said: str) -> None:
    weak = rsa.generate_private_key(exponent, bits)
    Path("weak.pub").write_bytes(trust.public_pem(weak.public_key()))
    assert said in run("keys", "trust", "weak.pub", "--site", "site-w", status=3).stderr
    assert listed() == []
    assert (
        said in run("verify", "x.tar.zst", "--key", "weak.pub", "--site", "site-w", status=3).stderr
    )
    path = Path("spool/.spoold/keys/signing.pem")
    path.write_bytes(trust.private_pem(weak))
    assert said in run("resign", "x.tar.zst", status=3).stderr


def test_roles_can_be_changed_by_trusting_again() -> None:
    run("keys", "trust", "other/site.pub", "--site", "site-b")
    run(
        "keys",
        "trust",
        "other/site.pub",
        "--site",
        "site-b",
        "--role",
        "bundle",
        "--role",
        "status",
    )
    assert listed()[0]["roles"] == ["bundle", "status"]
    run("keys", "revoke", own_id("other"))
    assert listed()[0]["roles"] == ["bundle", "status"]  # a revocation keeps them


@pytest.mark.parametrize("place", [".spoold/trust", ".spoold/trust/KEY.json"])
def test_a_trust_store_that_others_may_write_stops_every_command_that_asks_it(place: str) -> None:
    run("keys", "trust", "other/site.pub", "--site", "site-b")
    path = Path("spool", place.replace("KEY", own_id("other")))
    path.chmod(path.stat().st_mode | 0o020)
    for command in (
        ("keys", "list"),
        ("keys", "trust", "spool/site.pub", "--site", "site-a"),
        ("keys", "revoke", own_id("other")),
        ("verify", "x.tar.zst"),
        ("restore", "x.tar.zst", "--to", "r"),
    ):
        said = run(*command, status=3).stderr
        assert "others can write it" in said
        assert f"fix: chmod go-w {path.absolute()}" in said
    assert "chmod go-w" in run("doctor", "spool", status=1).stdout
    path.chmod(path.stat().st_mode & ~0o020)
    run("keys", "list")
