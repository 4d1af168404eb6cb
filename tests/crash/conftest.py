"""Scenes: spools whose processes are stopped, with a database and a few files to work on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundles import build_tree, signer
from tests.crash.forking import Forks
from tests.crash.scene import Scene
from tests.crash.table import FROM_SITE


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.end()


@pytest.fixture(scope="module")
def small_evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a folder to bundle."""
    root = tmp_path_factory.mktemp("evidence")
    folder = root / "incident-123" / "logs"
    folder.mkdir(parents=True)
    (folder / "auth.log").write_bytes(b"login failed\n" * 1000)
    (folder / "empty").touch()
    (root / "incident-123" / "notes.txt").write_text("what happened\n")
    return root


@pytest.fixture(scope="module")
def small_bundle(small_evidence: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bundle of that folder, from another site."""
    scratch = tmp_path_factory.mktemp("bundle")
    by = signer(FROM_SITE)
    return build_tree(small_evidence, scratch, by=by, path="incident-123").path.read_bytes()


@pytest.fixture
def make_scene(
    tmp_path: Path, module_conninfo: str, forks: Forks, small_evidence: Path, small_bundle: bytes
) -> Iterator[Callable[..., Scene]]:
    """Make scenes, each with a spool of its own in one database."""
    scenes: list[Scene] = []

    def make(evidence: Path = small_evidence) -> Scene:
        folder = tmp_path / str(len(scenes))
        folder.mkdir()
        scenes.append(Scene.make(folder, module_conninfo, forks, evidence, small_bundle))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.store.database.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()
