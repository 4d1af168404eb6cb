"""Configuration: where values come from, and every mistake told at once with its place."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from spoold import config, errors
from spoold.config.lines import key_lines, line_of
from spoold.config.sections import SECTIONS
from spoold.daemon.wiring import action_settings
from spoold.errors import SpooldError
from spoold.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool.at(tmp_path / "spool")


def write(spool: Spool, text: str) -> Path:
    path = spool.root / "spoold.toml"
    path.write_text(text)
    return path


def load(
    spool: Spool,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> config.Config:
    return config.load(spool, path, flags, environment or {})


def refusal(
    spool: Spool,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> str:
    with pytest.raises(SpooldError) as caught:
        load(spool, environment, flags, path)
    assert caught.value.code is errors.CONFIG_INVALID
    return caught.value.message


def test_an_empty_file_is_valid_and_means_the_defaults(spool: Spool) -> None:
    write(spool, "")
    found = load(spool)
    assert found.intake.settle_seconds == 2.0
    assert found.intake.max_request_bytes == 1024**2
    assert found.intake.max_bundle_bytes == 1024**4
    assert found.workers.timeout_seconds == 21600
    assert found.retry.max_attempts == 5
    assert found.http.address() == ("127.0.0.1", 9094)
    assert found.retention.jobs == 0
    assert found.trust.bundle_threshold == 1
    assert (found.restore.links, found.restore.max_bytes) == ("inside", 1024**4)
    assert found.signing_key == spool.root / ".spoold/keys/signing.pem"


def test_the_template_with_its_comments_taken_away_gives_the_defaults(spool: Spool) -> None:
    text = config.template("site-a")
    uncommented = "\n".join(
        line.removeprefix("#") if line.startswith("#") and not line.startswith("# ") else line
        for line in text.splitlines()
    )
    write(spool, uncommented)
    everything = load(spool)
    write(spool, text)
    bare = load(spool)
    assert everything.roots == {"evidence": Path("/srv/evidence")}
    for name in ("site", "database_url", *SECTIONS):
        assert getattr(everything, name) == getattr(bare, name)
    commented = {key for key in bare.origins if bare.origins[key].kind == "default"}
    assert commented == set(bare.origins) - {"site"}


def test_flag_beats_environment_beats_file_beats_default(spool: Spool) -> None:
    path = write(spool, "[workers]\ncount = 1\ndrain_seconds = 1\ntimeout_seconds = 1\n")
    found = load(
        spool,
        {"SPOOLD_WORKERS_COUNT": "2", "SPOOLD_WORKERS_DRAIN_SECONDS": "2.5"},
        {"workers.count": "3"},
    )
    assert found.workers.count == 3
    assert found.workers.drain_seconds == 2.5
    assert found.workers.timeout_seconds == 1
    assert found.workers.aging_seconds == 60
    origins = {key: str(origin) for key, origin in found.origins.items()}
    assert origins["workers.count"] == "--set workers.count"
    assert origins["workers.drain_seconds"] == "SPOOLD_WORKERS_DRAIN_SECONDS"
    assert origins["workers.timeout_seconds"] == f"{path}:4"
    assert origins["workers.aging_seconds"] == "default"


def test_a_child_sees_the_same_configuration(spool: Spool, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.toml"
    path.write_text('site = "site-x"\n')
    parent = load(spool, {}, {"workers.count": "3", "site": "site-y"}, path)
    child = load(spool, parent.child_environment())
    assert (child.path, child.site, child.workers) == (path, "site-y", parent.workers)


def test_the_file_named_is_taken_before_the_variable_and_the_spool(
    spool: Spool, tmp_path: Path
) -> None:
    for name in ("flag", "variable"):
        (tmp_path / name).write_text(f'site = "{name}"\n')
    write(spool, 'site = "spool"\n')
    environment = {"SPOOLD_CONFIG": str(tmp_path / "variable")}
    assert load(spool, environment, path=tmp_path / "flag").site == "flag"
    assert load(spool, environment).site == "variable"
    assert load(spool).site == "spool"


def test_a_named_file_that_is_missing_is_refused(spool: Spool, tmp_path: Path) -> None:
    assert "No such file" in refusal(spool, path=tmp_path / "nowhere.toml")


def test_every_mistake_is_told_at_once_with_its_line(spool: Spool) -> None:
    path = write(
        spool,
        """\
site = "Site A"
[intake]
setle_seconds = 3
settle_seconds = "soon"
max_request_bytes = "1M"
max_attempts = 3
[workerz]
count = 1
[workers]
count = true
drain_seconds = inf
[retry]
base_seconds = 5000
[retention]
jobs = 30
""",
    )
    message = refusal(spool)
    for line, key, text in (
        (1, "site", "no site name"),
        (3, "intake.setle_seconds", "did you mean intake.settle_seconds?"),
        (4, "intake.settle_seconds", "not a valid number"),
        (5, "intake.max_request_bytes", "no size"),
        (6, "intake.max_attempts", "it belongs under [retry]"),
        (7, "workerz", "did you mean workers?"),
        (10, "workers.count", "not a valid integer"),
        (11, "workers.drain_seconds", "finite"),
        (12, "retry", "cap_seconds is less"),
        (15, "retention.jobs", '"30d"'),
    ):
        found = [each for each in message.splitlines() if f"{path}:{line}: {key}: " in each]
        assert len(found) == 1, message
        assert text in found[0]
    assert message.startswith("10 mistakes:")


def test_a_misspelled_variable_is_refused_and_a_foreign_one_is_not(spool: Spool) -> None:
    message = refusal(spool, {"SPOOLD_WORKERS_CUONT": "1"})
    assert message == "SPOOLD_WORKERS_CUONT: no such key; did you mean SPOOLD_WORKERS_COUNT?"
    load(spool, {"SPOOLD_PORT": "tcp://10.0.0.1:9094", "SPOOLD_SERVICE_HOST": "10.0.0.1"})


def test_a_wrong_value_in_the_environment_names_the_variable(spool: Spool) -> None:
    message = refusal(spool, {"SPOOLD_WORKERS_COUNT": "many"})
    assert message.startswith("SPOOLD_WORKERS_COUNT: workers.count: ")


def test_a_wrong_flag_names_the_flag(spool: Spool) -> None:
    assert refusal(spool, flags={"a.b.c": "1"}).startswith("--set a.b.c: a: no such key")


@pytest.mark.parametrize("text", ["site = ", "\x00", 'site = "a"\nsite = "b"', "[" * 5000])
def test_what_is_no_toml_is_refused_with_the_file(spool: Spool, text: str) -> None:
    path = write(spool, text)
    assert str(path) in refusal(spool)


def test_a_byte_order_mark_is_taken(spool: Spool) -> None:
    write(spool, '\ufeffsite = "site-a"\n')
    assert load(spool).site == "site-a"


def test_sizes_and_durations_are_read_from_everywhere(spool: Spool) -> None:
    write(spool, '[retention]\nfailed = "36h"\n[intake]\nmax_bundle_bytes = 5000\n')
    found = load(
        spool,
        {"SPOOLD_INTAKE_MIN_FREE_BYTES": "2GiB", "SPOOLD_RETENTION_JOBS": "7d"},
        {"intake.max_request_bytes": "2048"},
    )
    assert found.retention.failed == 36 * 3600
    assert found.retention.jobs == 7 * 86400
    assert found.intake.min_free_bytes == 2 * 1024**3
    assert found.intake.max_bundle_bytes == 5000
    assert found.intake.max_request_bytes == 2048


def test_quotas_of_0_are_none_and_others_reach_the_actions(spool: Spool) -> None:
    write(
        spool,
        """
[restore]
max_bytes = "0"
max_entries = 5
max_depth = 7
links = "skip"
[trust]
bundle_threshold = 2
[workers]
threads = 3
[intake]
min_free_bytes = 11
""",
    )
    settings = action_settings(load(spool, {"SPOOLD_RESTORE_MAX_EXPANSION": "100"}))
    quotas = settings.quotas
    assert (quotas.max_bytes, quotas.max_entries) == (None, 5)
    assert (quotas.max_depth, quotas.max_expansion) == (7, 100)
    assert (settings.threshold, settings.threads, settings.links.value) == (2, 3, "skip")
    assert settings.min_free_bytes == 11


@pytest.mark.parametrize("text", ["bundle_threshold = 0", "bundle_threshold = 18", "role = 1"])
def test_a_threshold_that_no_bundle_could_meet_is_refused(spool: Spool, text: str) -> None:
    write(spool, f"[trust]\n{text}\n")
    assert "trust." in refusal(spool)


def test_the_database_url_comes_from_a_file_first_then_a_credential(
    spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("postgresql:///file\n")
    (tmp_path / "database_url").write_text("postgresql:///credential\n")
    environment = {
        "SPOOLD_DATABASE_URL": "postgresql:///variable",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "SPOOLD_DATABASE_URL_FILE": str(tmp_path / "url"),
    }
    assert load(spool, environment).database_url == "postgresql:///file"
    del environment["SPOOLD_DATABASE_URL_FILE"]
    assert load(spool, environment).database_url == "postgresql:///credential"
    environment["CREDENTIALS_DIRECTORY"] = str(spool.root)
    assert load(spool, environment).database_url == "postgresql:///variable"
    assert "No such file" in refusal(spool, {"SPOOLD_DATABASE_URL_FILE": str(tmp_path / "no")})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("postgresql://u:s3cret@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:s3c@ret@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:s3c?ret@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:s3c#ret@h/db?sslmode=require", "postgresql://u:***@h/db?sslmode=require"),
        ("postgresql://u?v:s3cret@h/db", "postgresql://u?v:***@h/db"),
        ("postgres://h/db?password=s3cret&x=1", "postgres://h/db?password=***&x=1"),
        (r"host=h password='s3 \'cret' user=u", "host=h password=*** user=u"),
        ("host=h password = s3cret", "host=h password = ***"),
        ("postgresql://h/db", "postgresql://h/db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert config.scrubbed(url) == shown


def test_a_password_in_a_file_that_all_may_read_is_warned_of(spool: Spool) -> None:
    path = write(spool, 'site = "a"\ndatabase_url = "postgresql://u:p@h/d"\n')
    path.chmod(0o644)
    assert any("chmod o-r" in warning for warning in load(spool).warnings)
    path.chmod(0o640)
    assert load(spool).warnings == ()


def test_a_relative_root_begins_at_the_folder_of_the_file(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc/spoold.toml"
    path.write_text('[roots]\nevidence = "evidence"\nother = "/srv/other"\n')
    roots = load(spool, path=path).roots
    assert roots == {"evidence": tmp_path / "etc/evidence", "other": Path("/srv/other")}


@pytest.mark.parametrize("root", ["/", ".", ".spoold", ".spoold/keys", "link", "../spool"])
def test_a_root_that_reaches_the_keys_is_refused(spool: Spool, root: str) -> None:
    (spool.root / ".spoold").mkdir()
    (spool.root / "link").symlink_to(spool.root)
    write(spool, f'[roots]\nr = "{root}"\n')
    assert "could read the site's keys" in refusal(spool)


def test_a_root_inside_the_spool_beside_the_keys_is_allowed(spool: Spool) -> None:
    write(spool, '[roots]\nr = "restored"\n')
    assert load(spool).roots == {"r": spool.root / "restored"}


def test_a_root_may_come_from_the_environment_if_absolute(spool: Spool) -> None:
    assert load(spool, {"SPOOLD_ROOTS_USB": "/media/usb"}).roots == {"usb": Path("/media/usb")}
    assert "not absolute" in refusal(spool, {"SPOOLD_ROOTS_USB": "media"})


def test_without_a_site_the_host_stands_for_it_and_that_is_said(spool: Spool) -> None:
    found = load(spool)
    assert found.site == config.host_site()
    assert any("no site is set" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("listen", "address"),
    [("", None), ("[::1]:0", ("::1", 0)), ("localhost:80", ("localhost", 80))],
)
def test_listen_is_an_address_or_nothing(
    spool: Spool, listen: str, address: tuple[str, int] | None
) -> None:
    write(spool, f'[http]\nlisten = "{listen}"\n')
    assert load(spool).http.address() == address


@pytest.mark.parametrize("listen", ["9094", ":9094", "host:99999", "::1:80", "a b:80"])
def test_what_is_no_address_is_refused(spool: Spool, listen: str) -> None:
    write(spool, f'[http]\nlisten = "{listen}"\n')
    assert "no address" in refusal(spool)


def test_lines_are_found_past_multi_line_strings_and_dotted_keys() -> None:
    text = 'a = """\nb = 1\n[c]\n"""\n[t."x y"]\nk.l = 1\n[[h]]\np = 1\n[[h]]\np = 2\n'
    lines = key_lines(text)
    assert ("b",) not in lines
    assert lines[("t", "x y", "k", "l")] == 6
    assert (lines[("h", "0", "p")], lines[("h", "1", "p")]) == (8, 10)
    assert line_of(lines, ("t", "x y", "zzz")) == 5
    assert line_of(lines, ("nowhere",)) is None


def test_a_variable_that_is_nearly_a_key_is_warned_of(spool: Spool) -> None:
    found = load(spool, {"SPOOLD_WORKER_COUNT": "1", "SPOOLD_SITE": "a"})
    assert found.warnings == (
        "SPOOLD_WORKER_COUNT is not read; did you mean SPOOLD_WORKERS_COUNT?",
    )
    names = ("SPOOLD_WORKER_ID", "SPOOLD_WORKER_LIFELINE", "SPOOLD_WORKER_EVENTS")
    assert load(spool, {**dict.fromkeys(names, "1"), "SPOOLD_SITE": "a"}).warnings == ()


def test_a_table_may_be_added_at_the_end_of_the_template(spool: Spool) -> None:
    write(spool, config.template("site-a") + '[roots]\nevidence = "/srv/evidence"\n')
    assert load(spool).roots == {"evidence": Path("/srv/evidence")}


def test_a_key_outside_its_table_is_told_where_it_belongs(spool: Spool) -> None:
    write(spool, 'settle_seconds = 1\n[intake]\nsite = "a"\n')
    message = refusal(spool)
    assert "settle_seconds: no such key; it belongs under [intake]" in message
    assert "intake.site: no such key; it belongs above all tables" in message
