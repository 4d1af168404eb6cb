"""Trees into bundles and back: equal in names, contents, modes, times and links."""

import io
import os
import random
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spoold import errors
from spoold.bundle.entry import Kind, SourceEntry
from spoold.bundle.frames import Codec
from spoold.bundle.reader import Policy, open_bundle, verify
from spoold.bundle.writer import BundleWriter, ManifestFields
from spoold.errors import SpooldError
from spoold.sinks.remove import remove_tree
from spoold.sinks.tree import LinkPolicy, Restored
from spoold.sources.files import FilesSource, FilesSpec
from spoold.sources.source import labels
from tests.bundles import (
    BUNDLE_ID,
    CREATED_AT,
    Forge,
    build_tree,
    file_entry,
    frame_edges,
    listing,
    plain_entry,
    refusal,
    restore,
    signer,
    stream_entry,
    trusted,
)

MIB = 1024 * 1024
CODECS = pytest.mark.parametrize("codec", list(Codec))


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder whose content is removed again, whatever its modes."""
    yield tmp_path
    for path in tmp_path.iterdir():
        remove_tree(path)


def make_awkward(tree: Path) -> None:
    """Every kind of name and node that a bundle carries."""
    tree.mkdir()
    base = os.fsencode(tree)
    names: list[bytes] = [
        b"plain.txt",
        b"with space",
        b" leading and trailing ",
        "umlaut \u00e4\u00f6\u00fc".encode(),
        "umlaut a\u0308".encode(),
        "\U0001f600 emoji".encode(),
        b"100%.txt",
        b"back\\slash",
        b"new\nline",
        b"not utf-8 \xff\xfe",
        b"-dash",
        b"--checkpoint-action=exec=sh",
        b".hidden",
        b"x.chunk",
        b"UPPER",
        b"upper",
        b"s" * 255,
        "\u00fc".encode() * 127,
        b"empty",
        b"fetch.txt",
        b"manifest.json",
    ]
    for number, name in enumerate(names):
        with open(os.path.join(base, name), "wb") as file:
            file.write(name * number)
    (tree / "big.bin").write_bytes(random.Random(1).randbytes(5 * MIB + 123))
    (tree / "exact.bin").write_bytes(bytes(MIB))
    deep = tree.joinpath(*["deep"] * 40)
    deep.mkdir(parents=True)
    (deep / "bottom").write_text("here")
    for folder in ("empty folder", "Folder", "folder", "_x", "a", "a-b"):
        (tree / folder).mkdir()
    for inner in ("Folder", "folder", "_x", "a", "a-b"):
        (tree / inner / "file").write_text(inner)
    (tree / "a.txt").write_text("sorts between a-b and a/")
    (tree / "link").symlink_to("plain.txt")
    (tree / "a" / "link up").symlink_to("../plain.txt")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "not utf-8").symlink_to(b"\xff".decode("utf-8", "surrogateescape"))
    (tree / "read only").write_text("0444")
    (tree / "read only").chmod(0o444)
    (tree / "program").write_text("#!/bin/sh\n")
    (tree / "program").chmod(0o755)
    if os.geteuid() == 0:  # nobody else could read it
        (tree / "no mode").touch(mode=0o000)
    moment = 1_234_567_890_123_456_789
    for path in (tree / "plain.txt", tree / "a", tree / "empty folder"):
        os.utime(path, ns=(moment, moment))
    os.utime(tree / "program", ns=(-5, -5))
    (tree / "folder").chmod(0o500)
    (tree / "Folder").chmod(0o511)


def back(data: Path, target: Path, **options: object) -> Restored:
    with open_bundle(data) as file:
        return restore(file, target, trusted(), Policy(), threads=2, **options)  # type: ignore[arg-type]


@CODECS
def test_an_awkward_tree_comes_back_equal(codec: Codec, scratch: Path) -> None:
    tree = scratch / "tree"
    make_awkward(tree)
    built = build_tree(tree, scratch / "work", codec=codec, chunk_size=MIB)
    restored = back(built.path, scratch / "back")
    assert restored.head.manifest_sha256 == built.manifest_sha256
    assert listing(scratch / "back") == listing(tree)
    subprocess.run(["diff", "-r", "--no-dereference", tree, scratch / "back"], check=True)
    assert stat.S_IMODE((scratch / "back").stat().st_mode) == 0o755
    assert not [name for name in os.listdir(scratch / "work") if name != built.path.name]


def test_both_codecs_chunkings_and_thread_counts_have_equal_content(scratch: Path) -> None:
    tree = scratch / "tree"
    make_awkward(tree)
    one = build_tree(tree, scratch / "1", chunk_size=MIB, threads=1)
    two = build_tree(tree, scratch / "2", chunk_size=MIB, threads=3)
    other = build_tree(tree, scratch / "3", codec=Codec.GZIP)
    assert one.path.read_bytes() == two.path.read_bytes(), "Ed25519 and fixed times: reproducible"
    assert one.manifest.content_sha256 == other.manifest.content_sha256
    assert one.manifest_sha256 != other.manifest_sha256


def test_insert_range_and_copy_give_the_same_bytes(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = scratch / "tree"
    make_awkward(tree)
    first = build_tree(tree, scratch / "1")
    # The kernel's refusal is what other file systems give; nothing else is different.
    monkeypatch.setattr("spoold.bundle.assembly._INSERT_RANGE", 0x4000)
    second = build_tree(tree, scratch / "2")
    assert first.path.suffix != second.path.suffix, "one of the two ways was not taken"
    assert first.path.read_bytes() == second.path.read_bytes()


def test_a_bundle_is_read_from_a_pipe(scratch: Path) -> None:
    tree = scratch / "tree"
    make_awkward(tree)
    built = build_tree(tree, scratch / "work")
    with subprocess.Popen(["cat", built.path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        head = verify(process.stdout, trusted(), Policy())
    assert head.manifest_sha256 == built.manifest_sha256


@pytest.mark.parametrize("chunk", [MIB, 5 * MIB])
def test_streams_of_unknown_length_are_chunked_as_files_are(scratch: Path, chunk: int) -> None:
    sizes = [0, 5, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 7]
    manifests = []
    for known in (True, False):
        folder = scratch / str(known)
        folder.mkdir()
        with BundleWriter(folder, bundle_id=BUNDLE_ID, chunk_size=chunk) as writer:
            for number, size in enumerate(sizes):
                content = random.Random(size).randbytes(size)
                entry = stream_entry(b"%d" % number, content, size=-1 if known else None)
                assert writer.add(entry)
            built = writer.finish(ManifestFields("demo", CREATED_AT), signer())
        manifests.append(built.manifest)
        assert refusal(built.path.read_bytes()) == "accepted"
    assert manifests[0] == manifests[1]


class _Failing(io.RawIOBase):
    """A stream that gives some bytes, then an error."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, count: int = -1) -> bytes:
        if not self._left:
            raise OSError(5, "Input/output error")
        count = min(count, self._left)
        self._left -= count
        return b"x" * count


@pytest.mark.parametrize("size", [100, 3 * MIB, 9 * MIB])
def test_an_entry_that_fails_leaves_no_byte(size: int, scratch: Path) -> None:
    datas = []
    for broken in (False, True):
        folder = scratch / str(broken)
        folder.mkdir()
        with BundleWriter(folder, bundle_id=BUNDLE_ID, chunk_size=2 * MIB) as writer:
            writer.add(stream_entry(b"a", b"1" * 3 * MIB))
            if broken:
                entry = stream_entry(b"b", b"")._replace(
                    content=_Failing(size),  # type: ignore[arg-type]
                    size=size + 1 if size % 2 else None,
                )
                with pytest.raises(SpooldError) as caught:
                    writer.add(entry)
                assert caught.value.code is errors.SOURCE_UNREADABLE
                assert caught.value.at == "b"
            writer.add(stream_entry(b"c", b"3" * 100))
            built = writer.finish(ManifestFields("demo", CREATED_AT), signer())
        datas.append(built.path.read_bytes())
    assert datas[0] == datas[1]


@pytest.mark.parametrize("size", [1000, 5 * MIB, 20 * MIB])
@pytest.mark.parametrize("change", ["shorter", "longer", "touched"])
def test_a_file_that_changes_while_it_is_read_is_an_error(
    change: str, size: int, scratch: Path
) -> None:
    path = scratch / "file"
    path.write_bytes(bytes(size))
    folder = scratch / "work"
    folder.mkdir()
    source = FilesSource(FilesSpec(kind="files", root="r", path="file"), {"r": scratch})
    with BundleWriter(folder, bundle_id=BUNDLE_ID, chunk_size=8 * MIB) as writer:
        for entry in source.entries():
            match change:
                case "shorter":
                    os.truncate(path, size - 1)
                case "longer":
                    os.truncate(path, size + 1)
                case _:
                    os.utime(path, ns=(1, 1))
            with pytest.raises(SpooldError) as caught:
                writer.add(entry)
            assert caught.value.code is errors.SOURCE_CHANGED
            writer.skip(entry.path, caught.value)
        writer.add(stream_entry(b"z", b"z", source="other"))
        built = writer.finish(ManifestFields("demo", CREATED_AT), signer())
    assert built.manifest.skipped_count == 1
    assert built.manifest.skipped[0].path == b"file"
    assert refusal(built.path.read_bytes()) == "accepted"


def test_only_what_is_wrong_with_one_entry_is_skipped(scratch: Path) -> None:
    full = SpooldError(errors.NO_SPACE, "the disk is full")
    with BundleWriter(scratch, bundle_id=BUNDLE_ID) as writer:
        with pytest.raises(SpooldError) as caught:
            writer.skip(b"a", full)
        assert caught.value is full
        assert not writer.skipped


def test_nothing_to_bundle(scratch: Path) -> None:
    (scratch / "tree" / "empty").mkdir(parents=True)
    with pytest.raises(SpooldError) as caught:
        build_tree(scratch / "tree", scratch / "work")
    assert caught.value.code is errors.NOTHING_TO_BUNDLE
    assert not os.listdir(scratch / "work")


def test_two_sources_share_folders_but_no_files(scratch: Path) -> None:
    for name, files in (("one", ["logs/a", "logs/b"]), ("two", ["logs/c"]), ("three", ["logs/b"])):
        for file in files:
            path = scratch / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def build(*names: str) -> bytes:
        specs = [FilesSpec(kind="files", root="r", path=name) for name in names]
        folder = scratch / "-".join(names)
        folder.mkdir(exist_ok=True)
        with BundleWriter(folder, bundle_id=BUNDLE_ID) as writer:
            for spec, label in zip(specs, labels(specs), strict=True):
                for entry in FilesSource(spec, {"r": scratch}, label=label).entries():
                    writer.add(entry)
            return writer.finish(ManifestFields("demo", CREATED_AT), signer()).path.read_bytes()

    assert refusal(build("one", "two")) == "accepted"
    for names in (("one", "three"), ("one", "one")):
        with pytest.raises(SpooldError) as caught:
            build(*names)
        assert caught.value.code is errors.SOURCES_COLLIDE


def test_a_disk_that_fails_while_sources_are_compared_is_no_collision(scratch: Path) -> None:
    work = scratch / "work"
    work.mkdir()
    with BundleWriter(work, bundle_id=BUNDLE_ID) as writer:
        writer.add(stream_entry(b"file", b"", source="one"))
        for number in range(40_000):  # more than are sorted in memory
            path = b"%05d" % number
            writer.add(SourceEntry(path, Kind.DIR, 0o755, 0, 0, 0, "two"))
        remove_tree(work)
        with pytest.raises(SpooldError) as caught:
            writer.finish(ManifestFields("demo", CREATED_AT), signer())
    assert caught.value.code is errors.DISK_ERROR


# --- restoring ------------------------------------------------------------------------------------


def _restore(data: bytes, target: Path, **options: object) -> str:
    try:
        restore(io.BytesIO(data), target, trusted(), Policy(), threads=1, **options)  # type: ignore[arg-type]
    except SpooldError as error:
        return error.code.name
    return "restored"


def test_a_refused_bundle_leaves_nothing(scratch: Path) -> None:
    data = Forge.of({"a": bytes(3 * MIB), "b": bytes(6 * MIB), "c": b"x"}).build()
    outside = scratch / "outside"
    outside.mkdir()
    edges = frame_edges(data, Codec.ZSTD)
    for cut in (10, edges[1], edges[-3], edges[-2], edges[-1], len(data) - 1):
        assert _restore(data[:cut], scratch / "back") in {"bundle-truncated"}
        assert sorted(os.listdir(scratch)) == ["outside"]
    assert _restore(data + b"x", scratch / "back") == "trailing-data"
    assert sorted(os.listdir(scratch)) == ["outside"]
    assert _restore(data, scratch / "back") == "restored"
    assert (scratch / "back" / "b").stat().st_size == 6 * MIB


def test_a_target_that_exists_is_not_touched(scratch: Path) -> None:
    (scratch / "back").mkdir()
    (scratch / "back" / "mine").write_text("mine")
    assert _restore(Forge.good().build(), scratch / "back") == "target-exists"
    assert (scratch / "back" / "mine").read_text() == "mine"
    (scratch / "link").symlink_to(scratch / "back")
    assert _restore(Forge.good().build(), scratch / "link") == "target-exists"


@pytest.mark.parametrize(
    ("path", "target", "inside"),
    [
        ("l", "a", True),
        ("d/l", "../a", True),
        ("d/e/l", "../../a", True),
        ("d/l", ".././a", True),
        ("l", ".", True),
        ("l", "/etc/passwd", False),
        ("l", "../a", False),
        ("l", "..", False),
        ("d/l", "../../a", False),
        ("l", "d/../../a", False),
        ("l", "d/../a", False),
        ("d/l", "..//../a", False),
    ],
)
def test_h48_links_that_may_leave_the_tree(
    path: str, target: str, inside: bool, scratch: Path
) -> None:
    entries = [file_entry("a", b"x"), plain_entry(path, "symlink", target=target)]
    data = Forge(entries=entries, contents={"data/a": b"x"}).build()
    back = scratch / "back"
    assert _restore(data, back) == ("restored" if inside else "symlink-leaves")
    assert back.exists() is inside
    remove_tree(back)
    assert _restore(data, back, links=LinkPolicy.ANY) == "restored"
    assert os.readlink(back / path) == target
    remove_tree(back)
    assert _restore(data, back, links=LinkPolicy.SKIP) == "restored"
    assert os.path.lexists(back / path) is inside


def test_folders_get_their_modes_last_and_deepest_first(scratch: Path) -> None:
    entries = [
        plain_entry("a", "dir", mode=0o000, mtime_ns="1000000000"),
        plain_entry("a/b", "dir", mode=0o500, mtime_ns="2000000000"),
        file_entry("a/b/c", b"x", mode=0o400),
        plain_entry("z/y", "dir", mode=0o700, source="other"),
        plain_entry("z", "dir", mode=0o100, source="third"),
    ]
    data = Forge(entries=entries, contents={"data/a/b/c": b"x"}).build()
    assert _restore(data, scratch / "back") == "restored"
    outer = (scratch / "back" / "a").stat()
    assert (stat.S_IMODE(outer.st_mode), outer.st_mtime_ns) == (0o000, 1_000_000_000)
    (scratch / "back" / "a").chmod(0o500)
    inner = (scratch / "back" / "a" / "b").stat()
    assert (stat.S_IMODE(inner.st_mode), inner.st_mtime_ns) == (0o500, 2_000_000_000)
    assert stat.S_IMODE((scratch / "back" / "z").stat().st_mode) == 0o100
    (scratch / "back").rename(scratch / "published")
    (scratch / "published").rename(scratch / "back")
    remove_tree(scratch / "back")
    assert not (scratch / "back").exists()


def test_removing_a_tree_never_follows_a_link(scratch: Path) -> None:
    outside = scratch / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    tree = scratch / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (scratch / "top").symlink_to(tree)
    remove_tree(scratch / "top")
    assert tree.is_dir()
    remove_tree(tree)
    remove_tree(scratch / "never was")
    remove_tree(scratch / "never" / "was")
    assert not tree.exists()
    assert (outside / "file").read_text() == "stays"


# Puts a link in the place of a folder just before the step of the given number, whichever it is, as
# a second process could. The interpreter tells its hooks of each step on a file beforehand.
_SWAPPING = """
import contextlib, os, sys
from spoold.sinks.remove import remove_tree

tree, outside, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

def meanwhile(event, arguments):
    global left
    if event.startswith(("os.", "open")):
        left -= 1
        if left == 0:
            with contextlib.suppress(FileNotFoundError):
                os.rename(tree + "/closed", tree + "/aside")
                os.symlink(outside, tree + "/closed")

sys.addaudithook(meanwhile)
with contextlib.suppress(OSError):
    remove_tree(tree)
sys.exit(3 if left > 0 else 0)
"""


def test_removing_a_tree_never_follows_a_link_that_is_put_there_meanwhile(scratch: Path) -> None:
    outside = scratch / "outside"
    (outside / "below").mkdir(parents=True)
    for path in (outside, outside / "below"):
        path.chmod(0o555)
    for step in range(1, 100):
        tree = scratch / f"tree{step}"
        (tree / "closed" / "below").mkdir(parents=True)
        for path in (tree / "closed" / "below", tree / "closed"):
            path.chmod(0)
        command = [sys.executable, "-c", _SWAPPING, tree, outside, str(step)]
        done = subprocess.run(command, check=False)
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (outside, outside / "below")]
        assert modes == [0o555, 0o555], step
        if done.returncode == 3:  # it has no more steps
            break
        assert done.returncode == 0
    assert step > 5
    assert not tree.exists()


def test_a_file_system_without_unnamed_files_will_do(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What open(2) makes of O_TMPFILE where nobody knows it: a folder opened for writing, EISDIR.
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    files = {"a": bytes(5 * MIB), "b/c": bytes(9 * MIB), "d": b"x"}
    data = Forge.of(files).build()
    assert _restore(data, scratch / "back") == "restored"
    assert sorted(line[0] for line in listing(scratch / "back")) == ["a", "b", "b/c", "d"]
    damaged = Forge.of(files, edit_members=lambda m: [m[0], m[1][:-1024] + b"x" * 1024, m[2]])
    assert _restore(damaged.build(), scratch / "other") != "restored"
    assert not (scratch / "other").exists()


def test_many_entries_are_made_durable_together(scratch: Path) -> None:
    files = {f"{n // 10}/{n:03d}": b"%d" % n for n in range(100)}
    assert _restore(Forge.of(files).build(), scratch / "back") == "restored"
    assert (scratch / "back" / "3" / "034").read_bytes() == b"34"


def test_h90_a_bundle_that_is_no_plain_file(scratch: Path) -> None:
    os.mkfifo(scratch / "fifo")
    (scratch / "bundle").write_bytes(Forge.good().build())
    (scratch / "link").symlink_to("bundle")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(scratch / "socket"))
    for name, code in (
        ("fifo", errors.NOT_A_BUNDLE),
        ("link", errors.NOT_A_BUNDLE),
        ("socket", errors.NOT_A_BUNDLE),
        (".", errors.NOT_A_BUNDLE),
        ("missing", errors.SOURCE_MISSING),
    ):
        with pytest.raises(SpooldError) as caught:
            open_bundle(scratch / name)
        assert caught.value.code is code, name
