"""A request can name configured roots, and nothing else: what an attacker would try, one by one.

`secret` stands beside the root, readable for the daemon; none of its bytes may ever come out.
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold.actions import MODELS
from spoold.bundle.entry import SourceEntry
from spoold.config import load
from spoold.errors import SpooldError
from spoold.intake.request import parse
from spoold.queue.store import Store
from spoold.sources.files import FilesSource, FilesSpec
from spoold.spool import Folder, Spool
from tests.integration.inboxes import opened, request

SECRET = b"the secret of somebody else"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices and mounts")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with ordinary content, and a secret beside it."""
    root = tmp_path / "root"
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "x.log").write_bytes(b"content")
    (root / "a.txt").write_bytes(b"content")
    (tmp_path / "root-of-others").mkdir()
    (tmp_path / "secret").mkdir()
    for place in ("secret", "root-of-others"):
        (tmp_path / place / "x.log").write_bytes(SECRET)
    return root


def walk(
    root: Path, path: str = "", meanwhile: Callable[[SourceEntry], None] | None = None
) -> tuple[dict[bytes, bytes | None], list[str]]:
    """All that a request for a path gets: contents by path (None: no file), and the problems."""
    problems: list[str] = []
    source = FilesSource(FilesSpec(kind="files", root="r", path=path), {"r": root})
    found: dict[bytes, bytes | None] = {}
    for entry in source.entries(lambda _, error: problems.append(error.code.name)):
        if meanwhile is not None:
            meanwhile(entry)
        found[entry.path] = None
        if isinstance(entry.content, int):
            with open(entry.content, "rb") as file:
                found[entry.path] = file.read(1_000_000)
    assert SECRET not in b"".join(filter(None, found.values()))
    return found, problems


def refusal(root: Path, path: str) -> str:
    with pytest.raises(SpooldError) as caught:
        walk(root, path)
    return caught.value.code.name


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../secret",
        "../root-of-others/x.log",  # its name begins with the root's
        "logs/../../secret/x.log",
        "logs/..",
        "./../secret",
        "/",
        "/etc/passwd",
        "//etc/passwd",
        "/proc/self/environ",
        "a.txt\0",
        "logs\0/../../secret",
    ],
)
def test_no_path_leads_out(root: Path, path: str) -> None:
    assert refusal(root, path) == "path-outside-root"


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/secret", "..\\secret", "~", "~root", "$HOME", "a.txt/../../secret", "...", "file:///"],
)
def test_what_only_looks_like_a_way_out_is_a_name(root: Path, path: str) -> None:
    assert refusal(root, path) in {"source-missing", "path-outside-root"}


@pytest.mark.parametrize("name", ["", "..", "/", "/etc", "r/../other", "R", "r ", "r\0", "*"])
def test_only_configured_roots_have_a_name(root: Path, name: str) -> None:
    content = json.loads(request())
    content["sources"] = [{"kind": "files", "root": name, "path": ""}]
    content = json.dumps(content).encode()
    with pytest.raises(SpooldError) as caught:
        FilesSource(parse(content, MODELS).envelope.sources[0], {"r": root})  # type: ignore[attr-defined]
    assert caught.value.code.name in {"root-unknown", "request-invalid"}


LINKS = {
    "file": "../secret/x.log",
    "folder": "../secret",
    "absolute": "/etc/passwd",
    "root": "/",
    "environ": "/proc/self/environ",
    "proc-root": "/proc/self/root",
    "proc-cwd": "/proc/self/cwd",
    "own-descriptors": "/proc/self/fd/3",
    "zero": "/dev/zero",
    "nowhere": "/nowhere",
    "loop": "loop",
}


@pytest.mark.parametrize(("name", "target"), LINKS.items())
def test_a_symbolic_link_is_carried_as_a_link_and_leads_nowhere(
    root: Path, name: str, target: str
) -> None:
    (root / "logs" / name).symlink_to(target)
    found, problems = walk(root)
    assert found[b"logs/" + name.encode()] is None
    assert found[b"logs/x.log"] == b"content"
    assert not problems
    assert refusal(root, f"logs/{name}") == "path-outside-root"
    assert refusal(root, f"logs/{name}/x.log") == "path-outside-root"


def test_a_hard_link_in_the_root_is_content_of_the_root(root: Path, tmp_path: Path) -> None:
    # A name is what a file is reached by, and the root has one. The kernel (protected_hardlinks)
    # keeps users from linking what they cannot write.
    (tmp_path / "elsewhere").write_bytes(b"of two names")
    os.link(tmp_path / "elsewhere", root / "linked")
    assert walk(root)[0][b"linked"] == b"of two names"


def test_fifos_and_sockets_are_neither_waited_for_nor_carried(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(root)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
    found, problems = walk(root)
    assert set(found) == {b"a.txt", b"logs", b"logs/x.log"}
    assert not problems
    assert refusal(root, "fifo") == "source-missing"
    assert refusal(root, "socket") == "source-missing"


@needs_root
def test_devices_are_not_opened(root: Path) -> None:
    os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    # A device that nobody drives: opening it would fail, and be told as a problem.
    os.mknod(root / "none", stat.S_IFBLK | 0o666, os.makedev(250, 250))
    found, problems = walk(root)
    assert set(found) == {b"a.txt", b"logs", b"logs/x.log"}
    assert not problems
    assert refusal(root, "zero") == "source-missing"


def swaps(root: Path, secret: Path) -> dict[str, Callable[[], None]]:
    """What can stand where a file was when it was listed."""
    path = root / "logs" / "x.log"

    def replace(make: Callable[[], None]) -> Callable[[], None]:
        def swap() -> None:
            path.unlink()
            make()

        return swap

    return {
        "link": replace(lambda: path.symlink_to(secret / "x.log")),
        "fifo": replace(lambda: os.mkfifo(path)),
        "folder": replace(path.mkdir),
        "nothing": replace(lambda: None),
    }


@pytest.mark.parametrize("what", ["link", "fifo", "folder", "nothing"])
def test_a_file_that_is_swapped_after_it_was_listed_is_a_problem(
    root: Path, tmp_path: Path, what: str
) -> None:
    swap = swaps(root, tmp_path / "secret")[what]

    def meanwhile(entry: SourceEntry) -> None:
        if entry.path == b"logs":  # listed, its files not opened yet
            swap()

    found, problems = walk(root, meanwhile=meanwhile)
    assert b"logs/x.log" not in found
    assert problems == ["source-changed"]


def test_a_folder_that_is_swapped_before_it_is_entered_is_a_problem(
    root: Path, tmp_path: Path
) -> None:
    def meanwhile(entry: SourceEntry) -> None:
        if entry.path == b"a.txt":
            shutil.rmtree(root / "logs")
            (root / "logs").symlink_to(tmp_path / "secret")

    found, problems = walk(root, meanwhile=meanwhile)
    assert set(found) == {b"a.txt"}
    assert problems == ["source-changed"]


@pytest.mark.parametrize("when", [b"a.txt", b"logs"])
def test_a_root_that_is_swapped_during_the_walk_stays_the_one_that_was_opened(
    root: Path, tmp_path: Path, when: bytes
) -> None:
    def meanwhile(entry: SourceEntry) -> None:
        if entry.path == when:
            root.rename(tmp_path / "was-root")
            root.symlink_to(tmp_path / "secret")

    found, problems = walk(root, meanwhile=meanwhile)
    assert found[b"logs/x.log"] == b"content"
    assert not problems


def test_a_root_may_be_a_link_since_the_operator_says_so(root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    assert walk(tmp_path / "current", "logs")[0] == {b"x.log": b"content"}


@pytest.mark.parametrize("place", [".spoold", ".spoold/keys", ""])
def test_a_root_that_becomes_a_link_to_the_spools_keys_gives_none_of_them(
    root: Path, tmp_path: Path, place: str
) -> None:
    spool = Spool.at(tmp_path / "spool")
    spool.create()
    (spool.folder(Folder.KEYS) / "signing.pem").write_bytes(SECRET)
    shutil.rmtree(root)
    root.symlink_to(spool.root / place)
    if place:
        assert refusal(root, "") == "path-outside-root"
        return
    # The spool's own folder: what is beside the private one is no secret.
    found, problems = walk(root)
    assert not [path for path in found if path.startswith(b".spoold")]
    assert problems == ["path-outside-root"]
    assert refusal(root, ".spoold/keys") == "path-outside-root"
    assert refusal(root, ".spoold/keys/signing.pem") == "path-outside-root"


def test_a_root_that_reaches_the_spool_is_refused_at_the_start(tmp_path: Path) -> None:
    spool = Spool.at(tmp_path / "spool")
    spool.create()
    (tmp_path / "alias").symlink_to(spool.root)
    for path in ("..", ".", ".spoold/keys", str(tmp_path / "alias")):
        (spool.root / "spoold.toml").write_text(f'site = "a"\n[roots]\nr = "{path}"\n')
        with pytest.raises(SpooldError) as caught:
            load(spool, environment={})
        assert "keys" in caught.value.message


@needs_root
def test_what_is_mounted_beneath_a_root_is_content_of_the_root(root: Path) -> None:
    # Only root mounts: the operator's word, as the root itself. The mount is this process's alone.
    program = (
        "import os, sys; from pathlib import Path\n"
        "from tests.integration.test_root_attacks import walk\n"
        "sys.stdout.buffer.write(walk(Path(sys.argv[1]))[0][b'logs/mounted'])"
    )
    script = 'mount -t tmpfs none "$1/logs" && echo here > "$1/logs/mounted" && "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", root, sys.executable, program],
        capture_output=True,
        check=False,
    )
    if b"permission denied" in done.stderr.lower():
        pytest.skip("no mounts here")
    assert done.stdout == b"here\n", done.stderr


@pytest.mark.parametrize("name", [b"a\nb", b"-rf", b"\xff\xfe", b"a\x1b[2J", b"...", b" ", b"\\"])
def test_odd_names_are_names(root: Path, name: bytes) -> None:
    with open(os.path.join(os.fsencode(root), b"logs", name), "wb") as file:
        file.write(b"odd")
    assert walk(root)[0][b"logs/" + name] == b"odd"


def test_e35_no_drop_can_write_anothers_answer(spool: Spool, store: Store) -> None:
    forged = b'{"type":"spoold.status/1","state":"succeeded","final":true,"signatures":[]}'
    names = [
        "request-victim.json.status.json",
        "request-victim.json.log",
        "request-victim~0123456789ab.json",
        "bundle~0123456789ab.tar.zst",
        "request-victim.json.status.json.part",
        ".spoold.json",
        ".spoold",
    ]
    with opened(spool, store) as inbox:
        inbox.copy("request-victim.json")
        inbox.admitted()
        answer = inbox.status_path("request-victim.json")
        before = answer.read_bytes()
        for make in (
            lambda path: path.write_bytes(forged),
            lambda path: path.mkdir(),
            lambda path: path.symlink_to(answer),
        ):
            for name in names:
                make(inbox.path / name)
            assert inbox.scan().drops == 0
            assert answer.read_bytes() == before
            assert [path.name for path in answer.parent.iterdir()] == [answer.name]
            for name in names:
                path = inbox.path / name
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
