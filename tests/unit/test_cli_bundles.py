"""`check`, `build`, `inspect`, `verify`, `restore`: no daemon, no database."""

import json
import os
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from spoold import schemas
from spoold.bundle import reader
from spoold.cli import cli

REQUEST = {
    "type": "spoold.request/1",
    "action": "bundle",
    "name": "demo",
    "sources": [{"kind": "files", "root": "evidence", "path": "x", "into": "artifacts"}],
    "chunk_size": "1MiB",
    "timeout": "30m",
    "labels": {"case": "7"},
}


@pytest.fixture(autouse=True)
def _site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SPOOLD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    run("init", "spool", "--site", "site-a", "--algorithm", "ed25519")
    run("init", "other", "--site", "site-b", "--algorithm", "ed25519")
    with open("spool/spoold.toml", "a") as file:
        file.write(f'\n[roots]\nevidence = "{tmp_path}/evidence"\n')
    top = tmp_path / "evidence/x"
    (top / "sub/empty").mkdir(parents=True)
    (top / "a.txt").write_text("hello\n")
    (top / "sub/b c.log").write_text("log\n")
    (top / "large").write_bytes(os.urandom(3_000_000))
    (top / "link").symlink_to("a.txt")
    Path("request-demo.json").write_text(json.dumps(REQUEST))


def run(*arguments: str, status: int = 0, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, list(arguments), input=stdin)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def bundle() -> str:
    path: str = json.loads(run("build", "request-demo.json", "-o", "out", "--json").stdout)["path"]
    return path


def test_check_accepts_a_request() -> None:
    assert "a valid request" in run("check", "request-demo.json").stdout
    document = json.loads(run("check", "request-demo.json", "--json").stdout)
    assert (document["valid"], document["action"]) == (True, "bundle")
    run("check", "-", stdin=json.dumps(REQUEST).encode())


def test_check_tells_all_mistakes_and_exits_4() -> None:
    wrong = {**REQUEST, "pirority": 1, "chunk_size": "1M", "name": ""}
    Path("request-bad.json").write_text(json.dumps(wrong))
    said = run("check", "request-bad.json", status=4).stderr
    assert "error: request-invalid: " in said
    assert 'did you mean "priority"?' in said
    assert "chunk_size" in said
    error = json.loads(run("check", "request-bad.json", "--json", status=4).stdout)["error"]
    assert error["code"] == "request-invalid"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "drop-empty"), (b"{", "request-truncated"), (b" " * 2_000_000, "request-too-large")],
)
def test_check_refuses_what_is_no_request(content: bytes, code: str) -> None:
    assert code in run("check", "-", stdin=content, status=4).stderr


def test_build_makes_the_bundle_alone_and_whole(bundle: str) -> None:
    assert os.listdir("out") == [Path(bundle).name]
    run("verify", bundle)


def test_build_that_fails_leaves_nothing() -> None:
    request = {**REQUEST, "sources": [{"kind": "files", "root": "evidence", "path": "nowhere"}]}
    Path("request-bad.json").write_text(json.dumps(request))
    assert "source-missing" in run("build", "request-bad.json", "-o", "out", status=1).stderr
    assert os.listdir("out") == []


def test_build_refuses_a_request_to_restore() -> None:
    request = {
        "type": "spoold.request/1",
        "action": "rehydrate",
        "bundle": {"root": "evidence", "path": "b.tar.zst"},
    }
    Path("request-r.json").write_text(json.dumps(request))
    assert "spoold restore" in run("build", "request-r.json", "-o", "out", status=4).stderr


def test_verify_needs_no_spool_when_a_key_is_named(
    bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Path(bundle).read_bytes()
    key = str(Path("spool/site.pub").absolute())
    path = str(Path(bundle).absolute())
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    run("verify", path, "--key", key, "--site", "site-a")
    run("verify", "-", "--key", key, "--site", "site-a", stdin=content)
    assert "--key PEM" in run("verify", path, status=78).stderr
    run("verify", path, "--key", key, status=2)


def test_verify_by_the_trust_store(bundle: str) -> None:
    assert "signature-untrusted" in run("verify", bundle, "--spool", "other", status=3).stderr
    run("keys", "trust", "spool/site.pub", "--site", "site-a", "--spool", "other")
    document = json.loads(run("verify", bundle, "--spool", "other", "--json").stdout)
    assert (document["verdict"], document["signed_by"]["site"]) == ("good", "site-a")


def test_verify_tells_untrusted_no_bundle_and_broken_apart(bundle: str) -> None:
    run("verify", bundle, "--key", "other/site.pub", "--site", "site-b", status=3)
    run("verify", bundle, "--key", "spool/site.pub", "--site", "site-x", status=3)
    run("verify", "request-demo.json", status=4)
    raw = bytearray(Path(bundle).read_bytes())
    raw[-60_000] ^= 1
    Path("changed.tar.zst").write_bytes(raw)
    result = run("verify", "changed.tar.zst", "--json", status=6)
    assert json.loads(result.stdout)["error"]["code"]
    Path("cut.tar.zst").write_bytes(raw[:-100_000])
    run("verify", "cut.tar.zst", status=6)
    Path("gzip.tar.gz").write_bytes(Path(bundle).read_bytes())
    assert "codec-mismatch" in run("verify", "gzip.tar.gz", status=6).stderr


def test_inspect_shows_the_claims_and_whether_they_are_believed(bundle: str) -> None:
    assert "signature good: site-a" in run("inspect", bundle).stdout
    said = run("inspect", bundle, "--spool", "other").stdout
    assert "not believed here: signature-untrusted" in said
    assert "from      site-a" in said or "from " in said
    document = json.loads(run("inspect", bundle, "--json").stdout)
    assert document["manifest"]["labels"] == {"case": "7"}
    assert document["signature"]["trusted"] is True
    run("inspect", "request-demo.json", status=4)


def test_restore_gives_back_the_same_tree(bundle: str) -> None:
    run("restore", bundle, "--to", "restored")
    top = Path("evidence/x")
    for path in top.rglob("*"):
        found = Path("restored/artifacts") / path.relative_to(top)
        assert found.lstat().st_mode == path.lstat().st_mode
        if path.is_symlink():
            assert os.readlink(found) == os.readlink(path)
        elif path.is_file():
            assert found.read_bytes() == path.read_bytes()
            assert found.stat().st_mtime_ns == path.stat().st_mtime_ns
    assert {path.name for path in Path().iterdir() if path.name.startswith(".")} == set()


def test_restore_takes_an_empty_folder_and_refuses_a_full_one(bundle: str) -> None:
    os.mkdir("restored")
    run("restore", bundle, "--to", "restored")
    assert "target-exists" in run("restore", bundle, "--to", "restored", status=1).stderr
    assert "target-exists" in run("restore", bundle, "--to", "request-demo.json", status=1).stderr


def test_restore_only_what_matches_after_verifying_all(bundle: str) -> None:
    said = run("restore", bundle, "--to", "some", "--only", "artifacts/sub").stdout
    assert "restored 3 of 7 entries" in said
    assert (Path("some/artifacts/sub/b c.log").read_text()) == "log\n"
    assert not Path("some/artifacts/a.txt").exists()
    run("restore", bundle, "--to", "big", "--only", "**/large")
    assert Path("big/artifacts/large").read_bytes() == Path("evidence/x/large").read_bytes()
    run("restore", bundle, "--to", "none", "--only", "../x", status=2)


def test_a_changed_bundle_restores_nothing_of_what_is_asked_for(bundle: str) -> None:
    raw = bytearray(Path(bundle).read_bytes())
    raw[-60_000] ^= 1  # in `large`, far from `a.txt`
    Path("changed.tar.zst").write_bytes(raw)
    run("restore", "changed.tar.zst", "--to", "r", "--only", "artifacts/a.txt", status=6)
    assert not Path("r").exists()
    assert not [name for name in os.listdir() if name.startswith(".r")]


def test_a_dry_run_lists_and_makes_nothing(bundle: str) -> None:
    said = run("restore", bundle, "--to", "r", "--dry-run", "--only", "**/*.txt").stdout
    assert said.splitlines()[0] == "0644            6 artifacts/a.txt"
    assert "would restore 1 of 7 entries" in said
    assert not Path("r").exists()
    document = json.loads(run("restore", bundle, "--to", "r", "--dry-run", "--json").stdout)
    assert (document["matched"], document["restored"]) == (7, None)


def test_what_the_code_writes_fits_the_schemas(bundle: str) -> None:
    jsonschema.validate(REQUEST, schemas.request())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**REQUEST, "pirority": 1}, schemas.request())
    with reader.open_bundle(bundle) as file:
        manifest = dict(reader.inspect(file).claims().document())
    jsonschema.validate(manifest, schemas.manifest())
    for name in manifest:
        without = {key: value for key, value in manifest.items() if key != name}
        if name not in {"labels", "request_sha256"}:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(without, schemas.manifest())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, "volume": 1}, schemas.manifest())
