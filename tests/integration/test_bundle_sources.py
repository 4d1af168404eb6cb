"""The files source: what it takes, what it leaves out, and that it never leaves its root."""

import os
import resource
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic
import pytest

from spoold import errors
from spoold.bundle.entry import Kind, SourceEntry
from spoold.errors import SpooldError
from spoold.sources.counting import Counter
from spoold.sources.files import FilesSource, FilesSpec
from spoold.sources.source import labels

TREE = ["a.txt", "a.tmp", "logs/x.log", "logs/old/y.log", "logs/old/z.tmp", ".git/config", "w.d/e"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "hollow").mkdir()
    return root


def close(entries: Iterable[SourceEntry]) -> list[SourceEntry]:
    found = []
    for entry in entries:
        if isinstance(entry.content, int):
            os.close(entry.content)
        found.append(entry)
    return found


def paths(root: Path, **spec: Any) -> list[str]:
    source = FilesSource(FilesSpec(kind="files", root="r", **spec), {"r": root})
    return [
        os.fsdecode(entry.path) + "/" * (entry.kind is Kind.DIR)
        for entry in close(source.entries())
    ]


def code(root: Path, **spec: Any) -> str:
    with pytest.raises(SpooldError) as caught:
        paths(root, **spec)
    return caught.value.code.name


ALL = [
    *(".git/", ".git/config", "a.tmp", "a.txt", "hollow/", "logs/", "logs/old/"),
    *("logs/old/y.log", "logs/old/z.tmp", "logs/x.log", "w.d/", "w.d/e"),
]


def test_a_walk_is_sorted_with_folders_as_name_slash(tree: Path) -> None:
    assert paths(tree) == ALL
    (tree / "logs-1").write_text("")
    (tree / "logs.d").mkdir()
    found = paths(tree)
    assert found == sorted(found)
    assert found.index("logs-1") < found.index("logs.d/") < found.index("logs/")


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["**"], ["**/*.tmp"], [name for name in ALL if not name.endswith(".tmp")]),
        (["*.txt"], [], ["a.txt"]),
        (["**/*.log"], [], ["logs/", "logs/old/", "logs/old/y.log", "logs/x.log"]),
        (["logs/*.log"], [], ["logs/", "logs/x.log"]),
        (["logs/**"], [], [name for name in ALL if name.startswith("logs/")]),
        (["logs"], [], [name for name in ALL if name.startswith("logs/")]),
        (["logs"], ["logs/old"], ["logs/", "logs/x.log"]),
        (["**"], ["logs/", ".git"], ["a.tmp", "a.txt", "hollow/", "w.d/", "w.d/e"]),
        (["*/"], ["*/*"], [".git/", "hollow/", "logs/", "w.d/"]),
        (["?.t[xm]p", "?.t[!m]t"], [], ["a.tmp", "a.txt"]),
        (["w.d/e", "nothing"], [], ["w.d/", "w.d/e"]),
        (["LOGS/**"], [], []),
        (["**/old/**/*.log"], [], ["logs/", "logs/old/", "logs/old/y.log"]),
    ],
)
def test_include_and_exclude(
    tree: Path, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    assert paths(tree, include=include, exclude=exclude) == expected


def test_path_and_into(tree: Path) -> None:
    assert paths(tree, path="logs/old") == ["y.log", "z.tmp"]
    assert paths(tree, path="logs/old", into="in/to") == ["in/to/", "in/to/y.log", "in/to/z.tmp"]
    assert paths(tree, path="logs/x.log") == ["x.log"]
    assert paths(tree, path="logs/x.log", into="to") == ["to/x.log"]
    assert paths(tree, path="./logs//old/") == ["y.log", "z.tmp"]
    assert paths(tree, path="logs/x.log", include=["*.txt"]) == []


@pytest.mark.parametrize("path", ["..", "../x", "logs/../..", "/etc", "logs/../a.txt", "a\0b"])
def test_a_path_that_leaves_its_root_is_refused(tree: Path, path: str) -> None:
    assert code(tree, path=path) == "path-outside-root"


def test_symbolic_links_are_never_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tree / "out").symlink_to(outside)
    (tree / "logs" / "out").symlink_to(outside / "secret")
    assert code(tree, path="out") == "path-outside-root"
    assert code(tree, path="out/secret") == "path-outside-root"
    assert code(tree, path="logs/out") == "path-outside-root"
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    links = [entry for entry in close(source.entries()) if entry.kind is Kind.SYMLINK]
    assert [entry.path for entry in links] == [b"logs/out", b"out"]
    assert links[1].target == os.fsencode(outside)


def test_a_folder_swapped_for_a_link_during_the_walk_does_not_escape(
    tree: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "old").mkdir(parents=True)
    (outside / "x.log").write_text("secret")
    problems: list[tuple[bytes, SpooldError]] = []
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    found = []
    for entry in source.entries(lambda path, error: problems.append((path, error))):
        found += close([entry])
        if entry.path == b"a.txt":  # listed, not yet entered
            (tree / "logs").rename(tree / "was-logs")
            (tree / "logs").symlink_to(outside)
    assert [path for path, _ in problems] == [b"logs"]
    assert problems[0][1].code is errors.SOURCE_CHANGED
    assert not [entry for entry in found if entry.path.startswith(b"logs/")]


def test_a_walk_goes_on_in_the_folder_that_it_opened(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.log").write_text("secret, and longer than the other")
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    for entry in source.entries():
        if entry.path == b"logs":
            (tree / "logs").rename(tree / "was-logs")
            (tree / "logs").symlink_to(outside)
        if isinstance(entry.content, int):
            assert b"secret" not in os.read(entry.content, 100)
        close([entry])


def test_what_vanishes_or_cannot_be_read_is_told_by_entry(tree: Path) -> None:
    problems: list[tuple[bytes, SpooldError]] = []
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    found = []
    for entry in source.entries(lambda path, error: problems.append((path, error))):
        found += close([entry])
        if entry.path == b"logs":
            (tree / "logs" / "x.log").unlink()
            (tree / "logs" / "x.log").symlink_to("/etc/passwd")
        if entry.path == b"a.tmp":
            (tree / "a.txt").unlink()
    assert [path for path, _ in problems] == [b"a.txt", b"logs/x.log"]
    assert {error.code.name for _, error in problems} == {"source-changed"}
    (tree / "logs" / "x.log").unlink()
    walk = source.entries()
    assert next(walk).path == b".git"
    (tree / ".git" / "config").unlink()
    with pytest.raises(SpooldError) as caught:
        next(walk)
    assert caught.value.at == ".git/config"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_e26_an_unreadable_file_is_told_by_entry(tree: Path) -> None:
    (tree / "a.txt").chmod(0)
    (tree / "logs").chmod(0)
    problems: list[bytes] = []
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    close(source.entries(lambda path, error: problems.append(path)))
    assert problems == [b"a.txt", b"logs"]
    (tree / "logs").chmod(0o700)


def test_e16_nodes_that_are_no_files_are_counted_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
    os.link(tree / "a.txt", tree / "a.hard")
    with open(tree / "sparse", "wb") as file:
        file.truncate(10_000_000)
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    found = {entry.path for entry in close(source.entries())}
    assert not found & {b"fifo", b"socket"}
    told = " ".join(source.warnings)
    assert "2 FIFOs, sockets or devices" in told
    assert "1 sparse" in told
    assert "2 files have further hard links" in told


def test_extended_attributes_are_counted(tree: Path) -> None:
    try:
        os.setxattr(tree / "a.txt", "user.note", b"x")
    except OSError:
        pytest.skip("no extended attributes here")
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    close(source.entries())
    assert any("1 files or folders have extended attributes" in line for line in source.warnings)


def test_sources_that_do_not_exist(tree: Path) -> None:
    assert code(tree, path="missing") == "source-missing"
    assert code(tree, path="a.txt/b") == "source-missing"
    assert code(tree / "missing") == "source-missing"
    os.mkfifo(tree / "fifo")
    assert code(tree, path="fifo") == "source-missing"
    with pytest.raises(SpooldError) as caught:
        FilesSource(FilesSpec(kind="files", root="other"), {"r": tree})
    assert caught.value.code is errors.ROOT_UNKNOWN


def test_a_tree_deeper_than_a_bundle_is_told(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["d"] * 130)
    folder.mkdir(parents=True)
    (folder / "f").write_text("")
    problems: list[str] = []
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tmp_path})
    found = close(source.entries(lambda _, error: problems.append(error.code.name)))
    assert problems == ["path-unsupported"]
    assert len(found) == 128


@pytest.mark.parametrize(
    "wrong",
    [
        {"include": []},
        {"include": [""]},
        {"include": ["/a"]},
        {"exclude": ["../a"]},
        {"exclude": ["a//b"]},
        {"into": "/abs"},
        {"into": ""},
        {"into": "a/../b"},
        {"unknown": 1},
        {"root": ""},
        {"path": 1},
        {"include": "**"},
        {"path": "\ud800"},
        {"into": "\udcff"},
        {"exclude": ["\ud800"]},
    ],
)
def test_specs_are_strict(wrong: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        FilesSpec.model_validate({"kind": "files", "root": "r", **wrong})


def test_labels_differ() -> None:
    specs = [FilesSpec(kind="files", root="r", path=path) for path in ("a", "", "a", "b", "a")]
    assert labels(specs) == ["files:r/a", "files:r", "files:r/a (2)", "files:r/b", "files:r/a (3)"]


def test_a_label_fits_into_a_signed_document() -> None:
    assert labels([FilesSpec(kind="files", root="r", path="a\nb")]) == ["files:r/a\\x0ab"]


@pytest.mark.parametrize(
    ("spec", "files"),
    [
        ({}, 7),
        ({"exclude": ["**/*.tmp"]}, 5),
        ({"include": ["logs/**"]}, 3),
        ({"path": "logs"}, 3),
        ({"path": "a.txt"}, 1),
        ({"path": "a.txt", "exclude": ["*.txt"]}, 0),
    ],
)
def test_a_measure_is_what_the_walk_gives(tree: Path, spec: dict[str, Any], files: int) -> None:
    source = FilesSource(FilesSpec(kind="files", root="r", **spec), {"r": tree})
    found = [entry for entry in close(source.entries()) if entry.kind is Kind.FILE]
    assert source.measure() == sum(entry.size or 0 for entry in found)
    assert len(found) == files


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    """Lets so many more be opened, and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(more: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        probe = os.open("/", os.O_RDONLY)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe + more, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_folder_that_cannot_be_listed_leaves_no_descriptor_behind(
    tree: Path, few_descriptors: Callable[[int], None]
) -> None:
    source = FilesSource(FilesSpec(kind="files", root="r"), {"r": tree})
    before = len(os.listdir("/proc/self/fd"))
    for more in range(1, 8):
        few_descriptors(more)
        for walk in (lambda: close(source.entries()), source.measure):
            with suppress(SpooldError, OSError):
                walk()
        few_descriptors(100)
        assert len(os.listdir("/proc/self/fd")) == before, more


def test_a_measure_leaves_out_a_folder_that_cannot_be_listed(
    tmp_path: Path, few_descriptors: Callable[[int], None]
) -> None:
    (tmp_path / "here").write_bytes(b"12345")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "there").write_bytes(b"67")
    top = os.open(tmp_path, os.O_RDONLY)
    try:
        few_descriptors(2)
        counter = Counter(None)
        counter.count(top, taken=True)
    finally:
        os.close(top)
    assert counter.bytes == 5
