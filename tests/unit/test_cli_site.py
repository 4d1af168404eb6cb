"""`init`, `config`, `doctor` and how commands fail."""

import json
import os
import stat
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from spoold import trust
from spoold.cli import COMMANDS, cli
from spoold.spool import TREE, Spool, faults
from tests.integration.inboxes import powerless


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SPOOLD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, status: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(cli, list(arguments), input=stdin)
    assert result.exit_code == status, result.output
    return result


def init(place: str = "spool", *arguments: str) -> Spool:
    run("init", place, "--algorithm", "ed25519", *(arguments or ("--site", "site-a")))
    return Spool.at(place)


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [root, *root.rglob("*")]
    }


def test_init_makes_the_tree_a_key_and_the_configuration() -> None:
    spool = init()
    for node in TREE:
        assert stat.S_IMODE(spool.folder(node.folder).stat().st_mode) == node.mode
    key = spool.root / ".spoold/keys/signing.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.public_key.stat().st_mode) == 0o644
    signer = trust.load_signer(key, "site-a")
    assert spool.public_key.read_bytes() == trust.public_pem(signer.trusted().public)
    assert signer.algorithm is trust.Algorithm.ED25519
    assert 'site = "site-a"' in (spool.root / "spoold.toml").read_text()


def test_init_makes_an_rsa_key_unless_asked_otherwise() -> None:
    run("init", "spool", "--site", "site-a")
    key = Spool.at("spool").root / ".spoold/keys/signing.pem"
    assert trust.load_signer(key, "site-a").algorithm is trust.Algorithm.RSA


def test_init_again_changes_nothing_and_says_so() -> None:
    spool = init()
    (spool.root / "inbox").chmod(0o3770)  # the operator's own choice stays
    before = snapshot(spool.root)
    for arguments in ((), ("--site", "site-a")):
        assert "nothing to do" in run("init", "spool", *arguments).stdout
    assert snapshot(spool.root) == before


def test_init_completes_what_is_missing() -> None:
    spool = init()
    (spool.root / "failed").rmdir()
    spool.public_key.unlink()
    said = run("init", "spool").stdout
    assert "completed the spool" in said
    assert "wrote the public key" in said
    assert (spool.root / "failed").is_dir()


def test_init_with_another_site_is_refused_with_the_fix() -> None:
    spool = init()
    before = snapshot(spool.root)
    said = run("init", "spool", "--site", "site-b", status=78).stderr
    assert "this is site site-a" in said
    assert "fix: " in said
    assert snapshot(spool.root) == before


def test_init_without_a_site_makes_one_up_and_says_so() -> None:
    said = run("init", "spool", "--algorithm", "ed25519").stdout
    assert "made up from the host's name" in said
    site = json.loads(run("config", "--json").stdout)["values"]["site"]["value"]
    assert trust.SITE_NAME.fullmatch(site)
    assert f"{site} (" in said


def test_init_takes_the_site_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOLD_SITE", "site-e")
    run("init", "spool", "--algorithm", "ed25519")
    assert 'site = "site-e"' in Path("spool/spoold.toml").read_text()


@pytest.mark.parametrize("site", ["Site", "-a", "a b", "", "a" * 64])
def test_init_refuses_what_is_no_site_name(site: str) -> None:
    run("init", "spool", f"--site={site}", status=2)
    assert not Path("spool").exists()


def test_init_makes_the_key_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOLD_SIGNING_KEY", ".spoold/keys/other.pem")
    spool = init()
    assert os.listdir(spool.root / ".spoold/keys") == ["other.pem"]


def test_init_leaves_a_configuration_elsewhere_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("etc.toml").write_text('site = "site-c"\n')
    monkeypatch.setenv("SPOOLD_CONFIG", "etc.toml")
    run("init", "spool", "--algorithm", "ed25519")
    assert not Path("spool/spoold.toml").exists()
    assert "site-c" in run("init", "spool").stdout


def test_the_spool_is_argument_then_option_then_variable_then_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("one", "two", "three", "spool"):
        init(name, "--site", name)

    def site(*arguments: str) -> object:
        return json.loads(run("config", "--json", *arguments).stdout)["values"]["site"]["value"]

    assert site() == "spool"
    monkeypatch.setenv("SPOOLD_SPOOL", "three")
    assert site() == "three"
    assert site("--spool", "two") == "two"
    assert site("one") == "one"
    assert "two spools" in run("config", "one", "--spool", "two", status=2).stderr


def test_config_shows_values_with_their_origin_and_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    init()
    monkeypatch.setenv("SPOOLD_DATABASE_URL", "postgresql://u:s3cret@h/d")
    said = run("config", "--set", "workers.count=4")
    lines = {line.split()[0]: line for line in said.stdout.splitlines()}
    assert "--set workers.count" in lines["workers.count"]
    assert "SPOOLD_DATABASE_URL" in lines["database_url"]
    assert "spoold.toml:" in lines["site"]
    document = run("config", "--json")
    assert "s3cret" not in said.output + document.output
    assert document.stderr == ""
    values = json.loads(document.stdout)["values"]
    assert values["database_url"]["value"] == "postgresql://u:***@h/d"
    assert values["retry.max_attempts"]["origin"]["kind"] == "default"


def test_config_of_a_missing_spool_exits_78() -> None:
    assert "spool-missing" in run("config", "nowhere", status=78).stderr


def test_config_shows_a_size_of_nothing_as_such() -> None:
    init()
    said = run("config", "--set", "intake.min_free_bytes=0").stdout
    lines = {line.split()[0]: line for line in said.splitlines()}
    assert lines["intake.min_free_bytes"].split()[1] == '"0B"'


def test_an_empty_path_is_not_the_folder_here() -> None:
    for command in ("init", "run", "config", "doctor"):
        assert "a path is not empty" in run(command, "", status=2).stderr
    assert os.listdir() == []


def test_a_mistake_in_the_configuration_exits_78_with_its_line() -> None:
    spool = init()
    (spool.root / "spoold.toml").write_text('site = "a"\n[intake]\nsetle_seconds = 1\n')
    said = run("config", status=78).stderr
    assert "spoold.toml:3: intake.setle_seconds: no such key" in said
    assert "did you mean intake.settle_seconds?" in said


def test_doctor_finds_nothing_wrong_with_a_new_spool() -> None:
    init()
    said = run("doctor", "spool").stdout
    assert "FAIL" not in said
    document = json.loads(run("doctor", "spool", "--json").stdout)
    assert document["ok"] is True
    assert {"tree", "keys", "database", "inbox", "leases", "space"} <= {
        check["check"] for check in document["checks"]
    }


def test_doctor_leaves_nothing_behind() -> None:
    spool = init()
    before = {path: path.lstat().st_ino for path in spool.root.rglob("*")}
    run("doctor", "spool")
    assert {path: path.lstat().st_ino for path in spool.root.rglob("*")} == before


def test_doctor_says_what_the_inbox_can_do_and_what_follows() -> None:
    spool = init()
    checks = {
        check["check"]: check
        for check in json.loads(run("doctor", "spool", "--json").stdout)["checks"]
    }
    assert "with events (tried)" in checks["inbox"]["detail"]
    assert {"leases", "hard links", "rename", "unnamed files", "inotify"} <= set(checks)
    with (spool.root / "spoold.toml").open("a") as file:
        file.write('\n[intake]\nwatch = "polling"\n')
    said = run("doctor", "spool").stdout
    assert "polled every second" in said
    assert "[intake] watch says so" in said


def leases(spool: Spool) -> dict[str, str]:
    said = CliRunner().invoke(cli, ["doctor", str(spool.root), "--json"]).stdout
    [found] = [check for check in json.loads(said)["checks"] if check["check"] == "leases"]
    return found


def test_doctor_says_whose_files_must_settle() -> None:
    spool = init()
    with powerless():
        found = leases(spool)
    assert found["level"] == "warn"
    assert "no CAP_LEASE" in found["detail"]
    assert "others' must settle" in found["detail"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lease the files of others")
def test_doctor_says_who_sees_the_writers_of_everybodys_files() -> None:
    spool = init()
    assert leases(spool)["detail"] == "a file's writers can be seen, whoever owns it"
    os.chown(spool.root, 12345, 12345)  # of the daemon of another user nobody can tell
    assert "without CAP_LEASE other users' must settle" in leases(spool)["detail"]


def test_doctor_heeds_that_writers_are_not_asked_for() -> None:
    spool = init()
    with (spool.root / "spoold.toml").open("a") as file:
        file.write('\n[intake]\nwriter_check = "settle"\n')
    assert "drops settle" in leases(spool)["detail"]


def test_doctor_tells_each_fault_with_its_fix_and_exits_1() -> None:
    spool = init()
    (spool.root / "failed").rmdir()
    (spool.root / ".spoold").chmod(0o755)
    (spool.root / ".spoold/keys/signing.pem").chmod(0o644)
    document = json.loads(run("doctor", "spool", "--json", status=1).stdout)
    failed = [check for check in document["checks"] if check["level"] == "fail"]
    assert {check["check"] for check in failed} == {"tree", "keys"}
    assert all(check["fix"] for check in failed)


@pytest.mark.parametrize("mode", [0o730, 0o770, 0o2730])
def test_doctor_misses_the_sticky_bit_where_others_may_write(mode: int) -> None:
    spool = init()
    inbox = spool.root / "inbox"
    for harmless in (0o700, 0o710, 0o1720, 0o3730):
        inbox.chmod(harmless)
        assert list(faults(spool)) == []
    inbox.chmod(mode)
    [fault] = faults(spool)
    assert fault.path == inbox
    assert not fault.fatal
    assert f"{mode:04o}" in fault.what
    assert fault.fix == f"chmod 1730 {inbox}"


@pytest.mark.parametrize("content", [b"x", b"{}", None])
def test_doctor_goes_on_where_the_daemons_own_status_is_none(content: bytes | None) -> None:
    path = init().root / "status/.spoold.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    document = json.loads(run("doctor", "spool", "--json", status=1).stdout)
    checks = {check["check"]: check for check in document["checks"]}
    assert checks["daemon"]["level"] == "fail"
    assert ".spoold.json" in checks["daemon"]["detail"]
    assert "remove it" in checks["daemon"]["fix"]
    assert checks["space"]["level"] == "ok"  # the last one


def test_doctor_says_which_folders_are_closed_to_it_and_goes_on(tmp_path: Path) -> None:
    spool = init()
    (tmp_path / "closed/root").mkdir(parents=True)
    with (spool.root / "spoold.toml").open("a") as file:
        file.write('[roots]\nevidence = "../closed/root"\n')
    (spool.root / "failed").chmod(0)
    (tmp_path / "closed").chmod(0)
    with powerless():
        document = json.loads(run("doctor", "spool", "--json", status=1).stdout)
    (tmp_path / "closed").chmod(0o700)
    checks = {check["check"]: check for check in document["checks"]}
    assert checks["root evidence"]["detail"].endswith("closed/root cannot be read")
    assert checks["tree"]["fix"] == f"chmod 0755 {spool.root}/failed"
    assert checks["space"]["level"] == "ok"


def test_doctor_has_its_checks_for_somebody_who_cannot_reach_the_spool(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    run("init", "closed/spool", "--site", "site-a", status=0)
    (tmp_path / "closed").chmod(0)
    with powerless():
        document = json.loads(run("doctor", "closed/spool", "--json", status=1).stdout)
    (tmp_path / "closed").chmod(0o700)
    (check,) = document["checks"]
    assert (check["check"], check["level"]) == ("spool", "fail")
    assert check["detail"].endswith("closed/spool/.spoold is closed to this user")
    assert check["fix"] == "run this as the spool's owner"


def test_doctor_tells_of_sinks_that_could_not_take_anything() -> None:
    spool = init()
    sinks = [("one", "../one"), ("two", "../two"), ("three", '../one"\nowner = "no-such-user')]
    with (spool.root / "spoold.toml").open("a") as file:
        for name, store in sinks:
            file.write(f'[[sinks]]\nname = "{name}"\nkind = "files"\nentries = ["**"]\n')
            file.write(f'store = "{store}"\n')
    (spool.root.parent / "one").mkdir()
    document = json.loads(run("doctor", "spool", "--json", status=1).stdout)
    levels = {check["check"]: check["level"] for check in document["checks"]}
    assert [levels[f"sink {name}"] for name, _ in sinks] == ["ok", "warn", "fail"]


def test_doctor_lists_strays_E16_E35() -> None:  # noqa: N802
    spool = init()
    inbox = spool.root / "inbox"
    (inbox / "notes.txt").touch()
    (inbox / "request-x.json.status.json").touch()
    (inbox / "request-dir.json").mkdir()
    os.mkfifo(inbox / "request-fifo.json")
    (inbox / "request-fine.json").touch()
    (inbox / "request-new.json.part").touch()
    (inbox / "old.part").touch()
    os.utime(inbox / "old.part", (0, 0))
    document = json.loads(run("doctor", "spool", "--json").stdout)
    strays = {
        check["detail"].split(":")[0] for check in document["checks"] if check["check"] == "stray"
    }
    assert strays == {
        "notes.txt",
        "request-x.json.status.json",
        "request-dir.json",
        "request-fifo.json",
        "old.part",
    }


def test_doctor_where_there_is_no_spool_exits_1_with_the_fix() -> None:
    assert "spoold init" in run("doctor", "nowhere", status=1).stdout


def test_an_error_with_json_is_one_document_and_nothing_else() -> None:
    result = run("status", "x", "--json", status=78)
    assert json.loads(result.stdout)["error"]["code"] == "spool-missing"
    assert result.stderr == ""
    result = run("check", "--json", status=2)
    assert json.loads(result.stdout)["error"]["code"] == "usage"


def test_an_error_names_its_code_and_its_fix() -> None:
    said = run("status", "x", status=78).stderr
    assert said.startswith("error: spool-missing: ")
    assert "\n  fix: make it with `spoold init" in said


@pytest.mark.parametrize("name", [entry.name for entries in COMMANDS.values() for entry in entries])
def test_every_command_helps_with_its_exit_statuses_and_an_example(name: str) -> None:
    commands = [[name]]
    if name == "keys":
        commands = [[name, each] for each in ("show", "trust", "list", "revoke", "generate")]
    if name == "bundles":
        commands = [[name, each] for each in ("list", "show", "delete", "pin", "unpin", "prune")]
    if name == "selftest":
        commands = [[name, "fence"]]
    for command in commands:
        said = run(*command, "--help").stdout
        assert "Exit status: 0 " in said
        assert "Example: " in said


def test_the_help_of_the_group_names_every_command() -> None:
    said = run("--help").stdout
    assert all(entry.name in said for entries in COMMANDS.values() for entry in entries)
    assert "78 bad configuration" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    assert "_SPOOLD_COMPLETE" in run("completion", shell).stdout


@pytest.mark.parametrize("name", ["request", "status", "manifest"])
def test_schemas_are_valid_json_schemas(name: str) -> None:
    schema = json.loads(run("schema", name).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
