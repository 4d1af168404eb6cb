"""`restore` into folders that have content, under other paths, by other rules."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spoold.cli import cli
from tests.bundles import Forge, file_entry, plain_entry, signer

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("SPOOLD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    from spoold import trust  # noqa: PLC0415

    Path("a.pub").write_bytes(trust.public_pem(signer().trusted().public))


def bundle(contents: dict[str, bytes], *others: dict[str, object], **changes: object) -> str:
    """A bundle of these files, and of entries that have no content."""
    entries = [file_entry(path, content, **changes) for path, content in contents.items()]
    entries = sorted(
        [*entries, *others], key=lambda entry: entry["path"] + "/" * (entry["kind"] == "dir")
    )
    members = {
        f"data/{entry['path']}": contents[entry["path"]]
        for entry in entries
        if entry["kind"] == "file"
    }
    Path("b.tar.zst").write_bytes(Forge(entries=entries, contents=members).build())
    return "b.tar.zst"


def restore(*arguments: str, status: int = 0) -> Result:
    command = ["restore", "b.tar.zst", "--to", "r", "--key", "a.pub", "--site", "site-a"]
    result = CliRunner().invoke(cli, [*command, *arguments])
    assert result.exit_code == status, result.output
    assert not [name for name in os.listdir() if name.startswith(".r.")], "quarantine is left"
    return result


def files(top: str = "r") -> dict[str, str]:
    return {
        str(path.relative_to(top)): path.read_text()
        for path in sorted(Path(top).rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


# --- into a folder that has content ---------------------------------------------------------------


@pytest.fixture
def standing() -> None:
    """A folder with one file of the bundle and one of its own."""
    bundle({"d/new": b"new", "d/same": b"theirs", "top": b"top"})
    os.makedirs("r/d")
    Path("r/d/same").write_text("ours")
    Path("r/d/own").write_text("own")


@pytest.mark.usefixtures("standing")
def test_a_folder_with_content_is_refused_unless_asked() -> None:
    assert "target-exists" in restore(status=1).stderr
    assert files() == {"d/own": "own", "d/same": "ours"}


@pytest.mark.usefixtures("standing")
def test_skip_keeps_what_stands_there() -> None:
    result = restore("--conflict", "skip", "--json")
    document = json.loads(result.stdout)
    assert (document["matched"], document["kept"], document["replaced"]) == (3, 1, 0)
    assert document["warnings"] == ["1 names stood there and were kept as they were"]
    assert files() == {"d/new": "new", "d/own": "own", "d/same": "ours", "top": "top"}


@pytest.mark.usefixtures("standing")
def test_replace_replaces_single_files_and_keeps_the_rest() -> None:
    before = os.stat("r/d/same").st_ino
    held = open("r/d/same")  # noqa: SIM115  # a reader keeps what it has opened
    document = json.loads(restore("--conflict", "replace", "--json").stdout)
    assert (document["kept"], document["replaced"]) == (0, 1)
    assert files() == {"d/new": "new", "d/own": "own", "d/same": "theirs", "top": "top"}
    assert os.stat("r/d/same").st_ino != before
    assert held.read() == "ours"
    held.close()
    restore("--conflict", "replace")  # again, to the same end
    assert files()["d/same"] == "theirs"


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize("conflict", ["skip", "replace"])
def test_a_broken_bundle_changes_nothing_of_what_stands(conflict: str) -> None:
    raw = bytearray(Path("b.tar.zst").read_bytes())
    raw[-30] ^= 1
    Path("b.tar.zst").write_bytes(raw)
    restore("--conflict", conflict, status=6)
    assert files() == {"d/own": "own", "d/same": "ours"}


def test_h48_no_link_that_stands_in_the_target_is_followed() -> None:
    bundle({"d/passwd": b"evil", "link": b"evil"})
    os.makedirs("outside")
    Path("outside/file").write_text("precious")
    for conflict, status in (("replace", 1), ("skip", 0)):
        os.makedirs("r")
        os.symlink("../outside", "r/d")
        os.symlink("../outside/file", "r/link")
        restore("--conflict", conflict, status=status)
        assert os.listdir("outside") == ["file"]
        assert Path("outside/file").read_text() == "precious"
        assert os.path.islink("r/d")
        assert os.path.islink("r/link")
        os.unlink("r/d")
        os.unlink("r/link")
        os.rmdir("r")


def test_h48_a_link_in_a_files_place_is_replaced_itself() -> None:
    bundle({"link": b"plain"})
    os.makedirs("r")
    Path("precious").write_text("precious")
    os.symlink("../precious", "r/link")
    restore("--conflict", "replace")
    assert not os.path.islink("r/link")
    assert Path("r/link").read_text() == "plain"
    assert Path("precious").read_text() == "precious"


def test_h48_a_target_that_is_a_link_is_refused() -> None:
    bundle({"a": b"a"})
    os.makedirs("real")
    os.symlink("real", "r")
    for conflict in ("refuse", "skip", "replace"):
        assert "symbolic link" in restore("--conflict", conflict, status=1).stderr
    assert os.listdir("real") == []


@pytest.mark.parametrize(
    ("made", "path"), [("folder", "x"), ("file", "x/y")], ids=["file on folder", "folder on file"]
)
def test_where_files_and_folders_meet_nothing_is_moved(made: str, path: str) -> None:
    bundle({"a": b"a", path: b"x", "z": b"z"})
    os.makedirs("r")
    if made == "folder":
        os.makedirs("r/x")
    else:
        Path("r/x").write_text("ours")
    Path("r/own").touch()
    said = restore("--conflict", "replace", status=1).stderr
    assert "target-exists" in said
    assert "r/x" in said
    assert sorted(os.listdir("r")) == ["own", "x"]
    restore("--conflict", "skip")
    assert sorted(os.listdir("r")) == ["a", "own", "x", "z"]
    assert os.path.isdir("r/x") is (made == "folder")


def test_folders_that_stand_take_the_modes_of_their_entries_with_replace_only() -> None:
    bundle(
        {"d/f": b"f", "implied/f": b"f", "n/f": b"f"},
        plain_entry("d", "dir", mode=0o500, mtime_ns="1000000000"),
        plain_entry("n", "dir", mode=0o555, mtime_ns="2000000000"),
    )
    for conflict, mode in (("skip", 0o711), ("replace", 0o500)):
        for name in ("d", "implied"):
            os.makedirs(f"r/{name}", exist_ok=True)
            os.chmod(f"r/{name}", 0o711)
        restore("--conflict", conflict)
        assert os.stat("r/d").st_mode & 0o777 == mode
        assert os.stat("r/implied").st_mode & 0o777 == 0o711
        assert os.stat("r/n").st_mode & 0o777 == 0o555  # new: as its entry says
        assert os.stat("r/n").st_mtime == 2
    assert os.stat("r/d").st_mtime == 1


# --- under other paths ----------------------------------------------------------------------------


def test_strip_leaves_out_leading_folders() -> None:
    bundle({"a/b/c": b"c", "a/d": b"d", "top": b"t"}, plain_entry("a/b", "dir", mode=0o750))
    said = restore("--strip", "1").stdout
    assert "restored 3 of 4 entries" in said
    assert files() == {"b/c": "c", "d": "d"}
    assert os.stat("r/b").st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "contents",
    [{"a/x": b"1", "b/x": b"2"}, {"a/x": b"1", "b/x/y": b"2"}, {"a/x/y": b"1", "b/x": b"2"}],
)
def test_strip_refuses_what_would_collide_before_anything_is_written(
    contents: dict[str, bytes],
) -> None:
    bundle(contents)
    assert "target-collides" in restore("--strip", "1", status=1).stderr
    assert "target-collides" in restore("--strip", "1", "--dry-run", status=1).stderr
    assert not os.path.lexists("r")
    restore("--strip", "1", "--only", "a")
    assert len(files()) == 1


def test_strip_lets_folders_meet() -> None:
    bundle({"a/d/x": b"1", "b/d/y": b"2"}, plain_entry("a/d", "dir"), plain_entry("b/d", "dir"))
    restore("--strip", "1")
    assert files() == {"d/x": "1", "d/y": "2"}


def test_strip_judges_links_where_they_come_to_stand() -> None:
    bundle({"a/b/f": b"f"}, plain_entry("a/b/link", "symlink", target="../../f"))
    restore()
    assert os.readlink("r/a/b/link") == "../../f"
    Path("r").rename("whole")
    assert "symlink-leaves" in restore("--strip", "1", status=6).stderr
    restore("--strip", "1", "--links", "skip")
    assert files() == {"b/f": "f"}


def test_a_dry_run_shows_the_paths_as_they_would_be() -> None:
    bundle({"a/b/c": b"c", "top": b"t"})
    said = restore("--strip", "2", "--dry-run").stdout.splitlines()
    assert said[0].split() == ["0644", "1", "c"]
    assert "would restore 1 of 2 entries" in said[1]
    assert not os.path.lexists("r")


@pytest.mark.parametrize("selection", [("--only", "no/**"), ("--strip", "2")])
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_where_nothing_is_wanted_nothing_is_restored_and_that_is_no_success(
    selection: tuple[str, ...], dry_run: tuple[str, ...]
) -> None:
    bundle({"a/b": b"b"})
    assert "nothing-to-restore" in restore(*selection, *dry_run, status=1).stderr
    assert not os.path.lexists("r")


def test_a_restore_that_fails_leaves_no_folder_that_it_has_made() -> None:
    bundle({"a": b"a"}, plain_entry("l", "symlink", target="/etc"))
    os.mkdir("n")
    restore("--to", "n/e/w/r", status=6)
    assert os.listdir("n") == []


# --- a dry run says what the restore would ----------------------------------------------------


def _both(*arguments: str, status: int = 0) -> dict[str, object]:
    """What a dry run and then the restore say; of the same, but where the tree is."""
    before = {path: path.lstat().st_mtime_ns for path in Path("r").rglob("*")}
    foreseen = json.loads(restore(*arguments, "--dry-run", "--json", status=status).stdout)
    assert {path: path.lstat().st_mtime_ns for path in Path("r").rglob("*")} == before
    done: dict[str, object] = json.loads(restore(*arguments, "--json", status=status).stdout)
    for document in (foreseen, done):
        document.pop("dry_run", None)
        document.pop("restored", None)
    assert foreseen == done
    return done


def test_a_dry_run_judges_links() -> None:
    bundle({"f": b"f"}, plain_entry("l", "symlink", target="/etc"))
    error = _both(status=6)["error"]
    assert isinstance(error, dict)
    assert error["code"] == "symlink-leaves"
    shown = restore("--links", "skip", "--dry-run")
    assert "/etc" not in shown.stdout
    assert "1 symbolic links that may lead outside were left out" in shown.stderr
    assert _both("--links", "skip")["warnings"]


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize("conflict", ["skip", "replace"])
def test_a_dry_run_counts_what_stands_there(conflict: str) -> None:
    done = _both("--conflict", conflict)
    assert done["kept" if conflict == "skip" else "replaced"] == 1


def test_a_dry_run_sees_where_files_and_folders_meet() -> None:
    bundle({"a/b/c": b"c", "a/b/d": b"d", "a/e": b"e", "f/g": b"g", "h": b"h"})
    os.makedirs("r/a/e")
    Path("r/a/b").write_text("a file")
    Path("r/f").symlink_to("a")
    error = _both("--conflict", "replace", status=1)["error"]
    assert isinstance(error, dict)
    assert error["code"] == "target-exists"
    # The folder b with all in it, e, and the link in the place of f.
    assert _both("--conflict", "skip")["kept"] == 3


@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_a_dry_run_knows_owners_that_cannot_be(kind: str) -> None:
    target = {"target": "f"} if kind == "symlink" else {}
    odd = {"uid": 2**32} if kind == "file" else {}
    others = [] if kind == "file" else [plain_entry("o", kind, uid=2**32, **target)]
    bundle({"f": b"f"}, *others, **odd)
    assert "no owner" in restore("--owners", "--dry-run", status=1).stderr


# --- what is restored with a file -----------------------------------------------------------------


@ROOT
def test_owners_are_restored_when_asked() -> None:
    bundle({"f": b"f"}, plain_entry("d", "dir", uid=4321, gid=1234), uid=4321, gid=1234)
    restore()
    assert os.stat("r/f").st_uid == os.geteuid()
    os.rename("r", "before")
    restore("--owners")
    for name in ("f", "d"):
        assert (os.stat(f"r/{name}").st_uid, os.stat(f"r/{name}").st_gid) == (4321, 1234)


def test_modes_and_times_are_restored() -> None:
    bundle({"f": b"f"}, mode=0o640, mtime_ns="1234567890123456789")
    restore()
    status = os.stat("r/f")
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 1234567890123456789)


def test_a_threshold_is_asked_before_anything_is_written() -> None:
    bundle({"f": b"f"})
    said = restore("--threshold", "2", status=3).stderr
    assert "threshold-not-met: signed by site-a" in said
    assert "1 more trusted key must sign" in said
    assert not os.path.lexists("r")


def test_an_empty_folder_keeps_its_mode() -> None:
    bundle({"f": b"f"})
    os.mkdir("r", 0o700)
    restore()
    assert os.stat("r").st_mode & 0o777 == 0o700
    assert files() == {"f": "f"}


@ROOT
def test_an_empty_folder_keeps_its_owner() -> None:
    bundle({"f": b"f"})
    os.mkdir("r", 0o500)
    os.chown("r", 4321, 1234)
    restore()
    status = os.stat("r")
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o500, 4321, 1234)


def test_the_folder_one_stands_in_is_filled_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle({"d/f": b"f"})
    os.mkdir("r")
    monkeypatch.chdir("r")
    command = ["restore", "../b.tar.zst", "--to", ".", "--key", "../a.pub", "--site", "site-a"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert files(".") == {"d/f": "f"}


def test_no_folder_is_made_for_what_nobody_has_signed() -> None:
    bundle({"f": b"f"})
    Path("b.tar.zst").write_bytes(b"no bundle")
    restore("--to", "new/folder/r", status=4)
    assert not os.path.exists("new")


def test_a_long_name_that_is_not_ascii() -> None:
    bundle({"f": b"f"})
    restore("--to", "ä" * 127)
    assert files("ä" * 127) == {"f": "f"}


@pytest.mark.parametrize("number", [2**32 - 1, 2**53 - 1])
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_an_owner_that_this_system_cannot_have_is_told(number: int, kind: str) -> None:
    others = [] if kind == "file" else [plain_entry("e", kind, gid=number)]
    if kind == "symlink":
        others[0]["target"] = "f"
    bundle({"f": b"f"}, *others, **({"uid": number} if kind == "file" else {}))
    if kind == "file" or os.geteuid() == 0:  # else the first file's owner is refused before
        assert "without --owners" in restore("--owners", status=1).stderr
        assert not os.path.exists("r")
    restore()
