"""`check`, `build`, `inspect`, `verify`, `restore`: no daemon, no database."""

import json
import os
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from spoold import schemas, trust, trust_store
from spoold.actions.bundle import threads
from spoold.actions.context import ActionSettings
from spoold.bundle import reader
from spoold.cli import cli
from spoold.spool import Spool
from tests.bundles import Forge
from tests.hostile.case import edited

KEY = Path("spool/.spoold/keys/signing.pem")

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


@pytest.mark.parametrize(
    ("case", "status", "first"),
    [
        ("good", 0, "good: "),
        ("unknown", 3, "not trusted: "),
        ("none", 4, "not a bundle: "),
        ("cut", 6, "broken: "),
    ],
)
def test_the_verdict_is_the_first_line_and_the_exit_status(
    case: str, status: int, first: str, bundle: str
) -> None:
    content = Path(bundle).read_bytes()
    spool = "other" if case == "unknown" else "spool"
    Path("b.tar.zst").write_bytes(
        {"none": b"no bundle at all", "cut": content[:-100_000]}.get(case, content)
    )
    result = run("verify", "b.tar.zst", "--spool", spool, status=status)
    assert result.stdout.splitlines()[0] == f"{first}b.tar.zst"
    stdin = Path("b.tar.zst").read_bytes()
    piped = run("verify", "-", "--spool", spool, status=status, stdin=stdin)
    assert piped.stdout.splitlines()[0] == f"{first}-"
    document = json.loads(
        run("verify", "b.tar.zst", "--spool", spool, "--json", status=status).stdout
    )
    assert document["verdict"] == first.removesuffix(": ")
    assert ("error" in document) is (case != "good")


def test_what_is_no_file_is_no_bundle_and_what_is_missing_is_no_verdict(bundle: str) -> None:
    os.mkfifo("fifo.tar.zst")
    os.symlink(bundle, "link.tar.zst")
    for name in ("fifo.tar.zst", "link.tar.zst", "evidence"):
        assert run("verify", name, status=4).stdout.startswith(f"not a bundle: {name}\n")
    assert run("verify", "nowhere.tar.zst", status=1).stdout == ""


def report(name: str) -> dict[str, object]:
    """A report, after its signature was checked as another program would."""
    content = Path(name).read_bytes()
    keys = trust_store.load_trust(Spool.at("spool"), trust.load_signer(KEY, "site-a"))
    verified = keys.verify_document(content, "spoold.verification/1", trust.Role.STATUS)
    assert verified.signed_by.site == "site-a"
    assert json.loads(content)["signatures"][0]["key_id"] == verified.signed_by.key_id
    return dict(verified.document)


def test_a_missing_bundle_has_a_hint_that_fits_a_command_line() -> None:
    assert "fix: check the name" in run("verify", "missing.tar.zst", status=1).stderr


def test_a_report_is_signed_and_says_what_was_found(bundle: str) -> None:
    run("verify", bundle, "--report", "report.json")
    found = report("report.json")
    with reader.open_bundle(bundle) as file:
        manifest_sha256 = reader.inspect(file).manifest_sha256
    assert set(found) == {
        "type", "verdict", "file", "manifest_sha256", "bundle_id", "from", "signed_by",
        "checked_at", "error", "site", "spoold",
    }  # fmt: skip
    assert (found["verdict"], found["error"]) == ("good", None)
    assert (found["from"], found["site"]) == ("site-a", "site-a")
    assert (found["file"], found["manifest_sha256"]) == (Path(bundle).name, manifest_sha256)
    assert Path(bundle).name == f"{found['bundle_id']}.tar.zst"


def test_a_report_vouches_for_nothing_that_nobody_trusted_has_signed(bundle: str) -> None:
    run("build", "request-demo.json", "-o", "foreign", "--spool", "other", status=1)  # no root
    with open("other/spoold.toml", "a") as file:
        file.write(f'\n[roots]\nevidence = "{Path("evidence").absolute()}"\n')
    built = run("build", "request-demo.json", "-o", "foreign", "--spool", "other", "--json")
    path = json.loads(built.stdout)["path"]
    run("verify", path, "--report", "report.json", status=3)
    found = report("report.json")
    assert found["verdict"] == "not trusted"
    assert (found["from"], found["bundle_id"], found["signed_by"]) == (None, None, [])
    assert found["manifest_sha256"] == json.loads(built.stdout)["manifest_sha256"]
    assert isinstance(found["error"], dict)
    assert found["error"]["code"] == "signature-untrusted"


def test_a_report_of_a_broken_bundle_says_who_had_signed_it(bundle: str) -> None:
    raw = bytearray(Path(bundle).read_bytes())
    raw[-60_000] ^= 1
    Path("changed.tar.zst").write_bytes(raw)
    run("verify", "changed.tar.zst", "--report", "report.json", status=6)
    found = report("report.json")
    assert (found["verdict"], found["from"]) == ("broken", "site-a")
    run("verify", "request-demo.json", "--report", "report.json", status=4)
    found = report("report.json")  # the older one is replaced
    assert (found["verdict"], found["manifest_sha256"]) == ("not a bundle", None)


def test_a_report_that_cannot_be_written_is_said_before_anything_is_read(bundle: str) -> None:
    for place in ("no/folder/report.json", bundle, "evidence"):
        said = run("verify", bundle, "--report", place, status=2)
        assert "--report" in said.stderr
        assert ": verify " not in said.stderr
    os.symlink(bundle, "report.json")
    run("verify", bundle, "--report", "report.json", status=2)
    run("verify", bundle)


def test_a_report_takes_the_place_of_a_file_only(bundle: str) -> None:
    os.symlink("elsewhere", "link")
    os.mkfifo("fifo")
    for place in ("link", "fifo"):
        said = run("verify", bundle, "--report", place, status=2).stderr
        assert f"{place} is no regular file" in said
    assert (os.readlink("link"), Path("fifo").is_fifo()) == ("elsewhere", True)


def test_a_report_needs_a_spool_and_that_is_said_before_anything_is_read(
    bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, path = str(Path("spool/site.pub").absolute()), str(Path(bundle).absolute())
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    arguments = ("verify", path, "--key", key, "--site", "site-a", "--report", "r.json")
    assert "spool-missing" in run(*arguments, status=78).stderr
    run(*arguments, "--spool", "../spool")
    assert os.listdir() == ["r.json"]


def test_resign_adds_this_sites_signature_and_a_threshold_counts_it(bundle: str) -> None:
    assert "threshold-not-met" in run("verify", bundle, "--threshold", "2", status=3).stderr
    assert "signature-untrusted" in run("resign", bundle, "--spool", "other", status=3).stderr
    run("keys", "trust", "spool/site.pub", "--site", "site-a", "--spool", "other")
    document = json.loads(run("resign", bundle, "--spool", "other", "--json").stdout)
    assert (document["path"], document["signatures"]) == (str(Path(bundle).absolute()), 2)
    assert "already-signed" in run("resign", bundle, "--spool", "other", status=1).stderr
    assert "already-signed" in run("resign", bundle, status=1).stderr
    run("verify", bundle, "--threshold", "2", "--spool", "other")
    said = run("verify", bundle, "--threshold", "2", status=3).stderr  # site-b is not known here
    assert "is not trusted here" in said
    run("keys", "trust", "other/site.pub", "--site", "site-b")
    with open("spool/spoold.toml", "a") as file:
        file.write("\n[trust]\nbundle_threshold = 2\n")
    also = json.loads(run("verify", bundle, "--json").stdout)["also_signed_by"]
    assert [each["site"] for each in also] == ["site-b"]
    key_id = also[0]["key_id"]
    run("keys", "revoke", key_id)
    assert "is revoked" in run("verify", bundle, status=3).stderr
    run("restore", bundle, "--to", "r", status=3)
    run("keys", "trust", "other/site.pub", "--site", "site-b", "--role", "status")
    assert "may not sign bundles" in run("verify", bundle, status=3).stderr
    run("verify", bundle, "--threshold", "1")


def test_resign_with_a_named_key_into_a_new_file(bundle: str) -> None:
    before = Path(bundle).read_bytes()
    key = "other/.spoold/keys/signing.pem"
    run("resign", bundle, "--key", key, "-o", "two.tar.zst")
    assert Path(bundle).read_bytes() == before
    assert (
        "target-exists" in run("resign", bundle, "--key", key, "-o", "two.tar.zst", status=1).stderr
    )
    run("keys", "trust", "other/site.pub", "--site", "site-b")
    run("verify", "two.tar.zst", "--threshold", "2")
    assert "codec-mismatch" in run("resign", bundle, "-o", "x.tar.gz", status=6).stderr
    os.chmod(key, 0o644)
    assert "key-unusable" in run("resign", bundle, "--key", key, status=3).stderr


def test_resign_says_what_to_check_where_it_cannot_write(bundle: str) -> None:
    said = run("resign", bundle, "--spool", "other", "--untrusted", "-o", "no/b.tar.zst", status=1)
    assert "check the path" in said.stderr


def test_resign_needs_no_spool_where_nobody_is_to_be_believed(
    bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(bundle).absolute()
    key = Path("other/.spoold/keys/signing.pem").absolute()
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    run("resign", str(path), "--key", str(key), status=78)
    run("resign", str(path), "--key", str(key), "--untrusted")


def test_inspect_says_who_has_signed_and_how_to_trust_who_is_missing(bundle: str) -> None:
    run("keys", "trust", "spool/site.pub", "--site", "site-a", "--spool", "other")
    run("resign", bundle, "--spool", "other")
    document = json.loads(run("inspect", bundle, "--json").stdout)
    assert [(each["first"], each["standing"], each["site"]) for each in document["signatures"]] == [
        (True, "trusted", "site-a"),
        (False, "unknown", None),
    ]
    assert document["missing_key"] is None
    run("init", "third", "--site", "site-c", "--algorithm", "ed25519")
    document = json.loads(run("inspect", bundle, "--spool", "third", "--json").stdout)
    assert document["signature"]["code"] == "signature-untrusted"
    missing = document["missing_key"]
    assert missing["key_id"] == document["manifest"]["key_id"]
    Path("site-a.pub").write_bytes(Path("spool/site.pub").read_bytes())
    said = run("inspect", bundle, "--spool", "third").stdout
    assert missing["command"] in said
    run(*missing["command"].split()[1:])  # word for word
    assert "signature good: site-a" in run("inspect", bundle, "--spool", "third").stdout
    assert "threshold-not-met" in run("inspect", bundle, "--threshold", "3").stdout


@pytest.mark.parametrize(
    ("command", "standing"),
    [
        (("keys", "revoke"), "revoked"),
        (("keys", "trust", "spool/site.pub", "--site", "site-a", "--role", "status"), "not for"),
    ],
)
def test_inspect_tells_what_is_wrong_with_a_known_key(
    command: tuple[str, ...], standing: str, bundle: str
) -> None:
    run("keys", "trust", "spool/site.pub", "--site", "site-a", "--spool", "other")
    key_id = json.loads(run("inspect", bundle, "--json").stdout)["manifest"]["key_id"]
    run(*command, *([key_id] if command[1] == "revoke" else []), "--spool", "other")
    assert f"{key_id}: {standing}" in run("inspect", bundle, "--spool", "other").stdout


def test_h100_inspect_proposes_no_command_with_a_name_that_is_none() -> None:
    forged = Forge.good(edit_manifest=edited(**{"from": "x; touch here #"}))
    Path("b.tar.zst").write_bytes(forged.build())
    assert "spoold keys trust x" not in run("inspect", "b.tar.zst").stdout
    assert json.loads(run("inspect", "b.tar.zst", "--json").stdout)["missing_key"] is None


def test_inspect_reads_the_head_only_also_from_a_pipe(bundle: str) -> None:
    content = Path(bundle).read_bytes()
    with reader.open_bundle(bundle) as file:
        head = content[: reader.inspect(file).frame_bytes]
    Path("head.tar.zst").write_bytes(head)
    assert "signature good" in run("inspect", "head.tar.zst").stdout
    assert "signature good" in run("inspect", "-", stdin=head).stdout


def test_inspect_shows_for_whom_until_when_and_what_was_left_out() -> None:
    os.chmod("evidence/x/a.txt", 0o644)
    fields = {
        "to": ["site-b", "site-c"],
        "not_after": "2099-01-01T01:00:00+01:00",
        "correlation_id": "case-7",
        "threads": 1,
    }
    Path("request-to.json").write_text(json.dumps({**REQUEST, **fields}))
    path = json.loads(run("build", "request-to.json", "-o", "out", "--json").stdout)["path"]
    said = run("inspect", path).stdout
    assert "not-addressed-here" in said
    for shown in (
        "site-b, site-c",
        "2099-01-01T00:00:00Z",
        "case=7",
        "case-7",
        "7 entries, 3 files",
    ):
        assert shown in said, shown
    run("keys", "trust", "spool/site.pub", "--site", "site-a", "--spool", "other")
    assert "signature good" in run("inspect", path, "--spool", "other").stdout
    run("verify", path, "--spool", "other")
    assert "not-addressed-here" in run("verify", path, status=3).stderr  # H29


def test_a_bundle_that_nobody_would_take_any_more_is_not_built() -> None:
    Path("request-old.json").write_text(
        json.dumps({**REQUEST, "not_after": "2020-01-01T00:00:00Z"})
    )
    said = run("build", "request-old.json", "-o", "out", "--json", status=4).stdout
    assert json.loads(said)["error"]["at"] == "not_after"
    assert os.listdir("out") == []


@pytest.mark.parametrize(
    "fields",
    [
        {"to": ["Site B"]},
        {"to": ["site-b", "site-b"]},
        {"to": "site-b"},
        {"not_after": "2099-01-01T00:00:00"},
        {"not_after": "9999-12-31T23:59:59-23:00"},
        {"threads": 0},
    ],
)
def test_check_refuses_what_cannot_be_addressed_or_timed(fields: dict[str, object]) -> None:
    Path("request-bad.json").write_text(json.dumps({**REQUEST, **fields}))
    document = json.loads(run("check", "request-bad.json", "--json", status=4).stdout)
    assert document["error"]["at"].startswith(next(iter(fields)))


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


@pytest.mark.parametrize(
    "command",
    [
        ("verify", ""),
        ("inspect", ""),
        ("resign", ""),
        ("resign", "b.tar.zst", "-o", ""),
        ("restore", "b.tar.zst", "--to", "", "--conflict", "replace"),
        ("build", "request-demo.json", "-o", ""),
        ("keys", "trust", "", "--site", "site-b"),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_folder_here(command: tuple[str, ...]) -> None:
    before = sorted(Path().rglob("*"))
    assert "a path is not empty" in run(*command, status=2).stderr
    assert sorted(Path().rglob("*")) == before


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


def test_a_gzip_bundle_is_warned_of_and_is_as_good() -> None:
    fields = {"compression": {"codec": "gzip", "level": 9}, "threads": 1}
    Path("request-gz.json").write_text(json.dumps({**REQUEST, **fields}))
    built = json.loads(run("build", "request-gz.json", "-o", "out", "--json").stdout)
    assert built["path"].endswith(".tar.gz")
    assert built["warnings"] == [
        "compressed with gzip, for receivers without zstd: larger and slower"
    ]
    run("keys", "trust", "spool/site.pub", "--site", "site-a", "--spool", "other")
    run("resign", built["path"], "--spool", "other")
    run("verify", built["path"], "--threshold", "2", "--spool", "other")
    assert "gzip 9" in run("inspect", built["path"]).stdout
    run("restore", built["path"], "--to", "restored")
    assert Path("restored/artifacts/large").read_bytes() == Path("evidence/x/large").read_bytes()


def test_a_request_cannot_take_more_threads_than_are_configured() -> None:
    settings = ActionSettings(threads=2)
    assert [threads(settings, wanted) for wanted in (None, 1, 2, 3)] == [2, 1, 2, 2]
    cores = len(os.sched_getaffinity(0))
    assert threads(ActionSettings(), 1024) == cores
