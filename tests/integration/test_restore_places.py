"""`spoold restore --to`: where no rename refuses to replace, and into private folders."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold.bundle.reader import Policy
from spoold.disk import rename_new, rename_no_replace
from spoold.restore import Restorer
from spoold.sinks.merge import Conflict
from tests.bundles import Forge, file_entry, plain_entry, trusted
from tests.integration.file_systems import seen_from_afar

FILES = {"d/e/f": b"f", "d/g": b"g", "n/h": b"h", "top": b"top"}
MODES = {"d": 0o750, "n": 0o500}


def bundle() -> bytes:
    """Files, two folders that entries describe and one that none does."""
    others = [plain_entry(path, "dir", mode=mode) for path, mode in MODES.items()]
    entries = [*(file_entry(path, content) for path, content in FILES.items()), *others]
    entries.sort(key=lambda entry: entry["path"] + "/" * (entry["kind"] == "dir"))
    contents = {f"data/{path}": content for path, content in FILES.items()}
    return Forge(entries=entries, contents=contents).build()


def restore(target: Path, conflict: Conflict = Conflict.REFUSE) -> None:
    file = target.parent / "b.tar.zst"
    file.write_bytes(bundle())
    with file.open("rb") as opened:
        Restorer(target, conflict=conflict).restore(opened, trusted(), Policy(), _ignore)
    file.unlink()


def _ignore(*_: object) -> None:
    pass


def files(top: Path) -> dict[str, bytes]:
    found = [path for path in top.rglob("*") if path.is_file()]
    return {str(path.relative_to(top)): path.read_bytes() for path in found}


def modes(top: Path) -> dict[str, int]:
    return {name: (top / name).stat().st_mode & 0o7777 for name in MODES}


# --- where renameat2(2) knows no flag -------------------------------------------------------------


@pytest.fixture
def afar(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system without RENAME_NOREPLACE, as NFS, 9p and many others are."""
    with seen_from_afar(tmp_path) as (_, client):
        (client / "probe").mkdir()
        with pytest.raises(OSError, match="Invalid argument"):
            rename_no_replace(client / "probe", client / "probed")
        (client / "probe").rmdir()
        yield client


def test_a_folder_is_renamed_but_never_onto_anything(afar: Path) -> None:
    (afar / "a" / "b").mkdir(parents=True)
    (afar / "a").chmod(0o710)
    (afar / "file").write_text("ours")
    (afar / "empty").mkdir()
    (afar / "link").symlink_to("nowhere")
    for name in ("file", "empty", "link"):
        with pytest.raises(FileExistsError):
            rename_new(afar / "a", afar / name)
    assert (afar / "file").read_text() == "ours"
    with pytest.raises(OSError, match="Invalid argument"):
        rename_new(afar / "a", afar / "a" / "itself")
    assert os.listdir(afar / "a") == ["b"]
    rename_new(afar / "a", afar / "new")
    assert os.listdir(afar / "new") == ["b"]
    assert (afar / "new").stat().st_mode & 0o777 == 0o710
    assert not (afar / "a").exists()


@pytest.mark.parametrize("conflict", [Conflict.SKIP, Conflict.REPLACE])
def test_a_merge_moves_folders_that_are_new(afar: Path, conflict: Conflict) -> None:
    (afar / "r").mkdir()
    (afar / "r" / "own").write_bytes(b"own")
    for _ in range(2):  # and again, to the same end
        restore(afar / "r", conflict)
        assert files(afar / "r") == {**FILES, "own": b"own"}
        assert modes(afar / "r") == MODES
    assert os.listdir(afar) == ["r"]


@pytest.mark.parametrize("mode", [None, 0o755, 0o700, 0o500])
def test_a_folder_appears_in_the_place_of_none_or_an_empty_one(
    afar: Path, mode: int | None
) -> None:
    if mode is not None:
        (afar / "r").mkdir()
        (afar / "r").chmod(mode)
    restore(afar / "r")
    assert files(afar / "r") == FILES
    assert (afar / "r").stat().st_mode & 0o777 == (0o755 if mode is None else mode)
    assert os.listdir(afar) == ["r"]


# --- into what is private -------------------------------------------------------------------------


class Onlooker:
    """Looks at the quarantine beside a target, or in it, whenever this process is about to act.

    By audit events (PEP 578): of each file opened, and of each change of a mode or name.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.modes: set[int] = set()
        sys.addaudithook(self._look)

    def _look(self, event: str, _: object) -> None:
        if self.folder is None or event not in {"open", "os.chmod", "os.rename"}:
            return
        folder, self.folder = self.folder, None  # looking is an event too
        for found in folder.glob(".secret.*"):
            self.modes.add(found.stat().st_mode & 0o777)
        self.folder = folder


@pytest.fixture(scope="module")
def one_onlooker() -> Onlooker:
    return Onlooker()  # a hook stays for good


@pytest.fixture
def onlooker(one_onlooker: Onlooker, tmp_path: Path) -> Iterator[Onlooker]:
    one_onlooker.modes.clear()
    one_onlooker.folder = tmp_path
    yield one_onlooker
    one_onlooker.folder = None


def test_what_goes_into_an_empty_private_folder_is_never_open_to_others(
    tmp_path: Path, onlooker: Onlooker
) -> None:
    target = tmp_path / "secret"
    target.mkdir(0o700)
    restore(target)
    assert onlooker.modes == {0o700}
    assert target.stat().st_mode & 0o777 == 0o700
    assert files(target) == FILES


@pytest.mark.parametrize("conflict", [Conflict.SKIP, Conflict.REPLACE])
def test_what_is_merged_into_a_private_folder_is_never_open_to_others(
    tmp_path: Path, onlooker: Onlooker, conflict: Conflict
) -> None:
    target = tmp_path / "secret"
    target.mkdir(0o700)
    (target / "own").write_bytes(b"own")
    restore(target, conflict)
    assert onlooker.modes == {0o700}
    assert target.stat().st_mode & 0o777 == 0o700
    assert files(target) == {**FILES, "own": b"own"}


def test_a_folder_where_there_was_none_is_open_to_all(tmp_path: Path, onlooker: Onlooker) -> None:
    target = tmp_path / "secret"
    restore(target)
    assert onlooker.modes == {0o700, 0o755}  # the latter when it is about to get its name
    assert target.stat().st_mode & 0o777 == 0o755
