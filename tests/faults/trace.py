"""What a program asked of the kernel, as strace(1) has recorded it, replayed on a model of a disk.

The model knows names and inodes, and which of them a power cut would take away: a file is durable
when nothing was written to it since its last fsync(2), a name when its folder was fsynced after it
was made, moved or removed. syncfs(2) makes everything durable. A file that the program did not
write came from somebody else, and is not durable before it is fsynced here.
"""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

import pytest

CALLS: Final = (
    "open,openat,creat,write,writev,pwrite64,pwritev,pwritev2,copy_file_range,sendfile,splice,"
    "fallocate,truncate,ftruncate,mmap,fsync,fdatasync,syncfs,rename,renameat,renameat2,link,"
    "linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,sendto,sendmsg,recvfrom,recvmsg"
)

_LINE: Final = re.compile(r"(\d+) +(.*)", re.DOTALL)
_WHOLE: Final = re.compile(r"(\w+)\((.*)\) += (.*)", re.DOTALL)
_BEGUN: Final = re.compile(r"(\w+)\((.*) <unfinished \.\.\.>", re.DOTALL)
_ENDED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)\) += (.*)", re.DOTALL)
# A descriptor with its path, `AT_FDCWD` with that of the process, or a string.
_ARGUMENT: Final = re.compile(
    r'(?:(\d+|AT_FDCWD)<(.*?)>(\(deleted\))?|"((?:[^"\\]|\\.)*)")(?=[,.]|$)'
)
_UNNAMED: Final = "(deleted)"  # before the path of a file that has no name
_ESCAPE: Final = re.compile(r"\\([0-7]{1,3}|.)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f"}

Replay = Callable[["Call", "Disk"], None]


def _plain(text: str) -> str:
    """What stands in a string of strace, each character a byte."""

    def character(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code, 8)) if code[0].isdigit() else _ESCAPES.get(code, code)

    return _ESCAPE.sub(character, text)


@dataclass(frozen=True, slots=True)
class Call:
    """One system call. `began` and `ended` are its places in the order of things."""

    process: int
    name: str
    arguments: str
    result: str
    began: int
    ended: int

    @property
    def failed(self) -> bool:
        return self.result.startswith("-1 ")

    @property
    def paths(self) -> list[str]:
        """The paths it names, in order; a name that is relative to a descriptor made whole."""
        beside = self.name.endswith(("at", "at2"))
        found: list[str] = []
        folder = ""
        for match in _ARGUMENT.finditer(self.arguments):
            if match[4] is not None:
                found.append(os.path.join(folder, _plain(match[4])))
            elif beside:
                folder = match[2]
            else:
                found.append(_UNNAMED + match[2] if match[3] else match[2])
        return found

    @property
    def data(self) -> str:
        """The bytes that it sends."""
        found = re.search(r'"((?:[^"\\]|\\.)*)"', self.arguments)
        return _plain(found[1]) if found else ""

    @property
    def channel(self) -> tuple[int, str]:
        """The thread and the descriptor that it writes to or reads from."""
        return self.process, self.arguments.partition("<")[0]

    @property
    def opened(self) -> str | None:
        """The path of the descriptor that it returns."""
        found = re.fullmatch(r"\d+<(.*)>(\(deleted\))?", self.result)
        return None if found is None else _UNNAMED + found[1] if found[2] else found[1]


def parse(text: str) -> list[Call]:
    """The calls of a record, in the order of their ends."""
    begun: dict[int, tuple[str, str, int]] = {}
    calls = []
    for number, line in enumerate(text.splitlines()):
        matched = _LINE.fullmatch(line)
        assert matched is not None, line
        process, rest = int(matched[1]), matched[2]
        if whole := _WHOLE.fullmatch(rest):
            calls.append(Call(process, *whole.groups(), began=number, ended=number))
        elif first := _BEGUN.fullmatch(rest):
            begun[process] = (first[1], first[2], number)
        elif (second := _ENDED.fullmatch(rest)) and process in begun:
            name, arguments, began = begun.pop(process)
            assert name == second[1], line
            calls.append(Call(process, name, arguments + second[2], second[3], began, number))
    return calls


@dataclass(slots=True)
class Disk:
    """The names and inodes that the calls have touched, and what of them is not durable yet."""

    inodes: dict[str, int] = field(default_factory=dict)
    unsynced: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    """Paths that have come or gone, and a power cut would undo that."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _descriptors: dict[tuple[int, str], str] = field(default_factory=dict)

    def inode(self, path: str) -> int:
        """The inode of a path; one that is met for the first time is somebody else's work."""
        if path not in self.inodes:
            self.inodes[path] = next(self._numbers)
            self.unsynced.add(self.inodes[path])
        return self.inodes[path]

    def lacks(self, *, files: Sequence[str] = (), names: Sequence[str] = ()) -> list[str]:
        """What a power cut would take of these files' contents and of these names."""
        lost = [f"content of {path}" for path in files if self.inode(path) in self.unsynced]
        return lost + [f"name {path}" for path in names if path in self.names]

    def beneath(self, path: str) -> tuple[list[str], list[str]]:
        """The known files at and beneath a path, and the names beneath it that may be lost."""
        inside = path + "/"
        files = [name for name in self.inodes if name == path or name.startswith(inside)]
        return files, [name for name in self.names if name.startswith(inside)]

    def take(self, call: Call) -> None:
        """Do to the model what an ended call has done to the disk."""
        if call.failed:
            return
        match call.name:
            case "open" | "openat" | "creat":
                self._open(call)
            case "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "sendfile":
                self._write(call.paths[0])
            case "ftruncate" | "truncate" | "fallocate":
                self._write(call.paths[0])
            case "copy_file_range" | "splice":
                self._write(call.paths[1])
            case "mmap":
                assert not ("MAP_SHARED" in call.arguments and "PROT_WRITE" in call.arguments), call
            case "fsync" | "fdatasync":
                synced = call.paths[0]
                self.unsynced.discard(self.inode(synced))
                self.names -= {name for name in self.names if os.path.dirname(name) == synced}
            case "syncfs":
                self.unsynced.clear()
                self.names.clear()
            case "rename" | "renameat" | "renameat2":
                self._rename(*call.paths)
            case "link" | "linkat":
                self._link(call)
            # A link's target is part of its name.
            case "symlink" | "symlinkat" | "mkdir" | "mkdirat" | "rmdir":
                self.names.add(call.paths[-1])
            case "unlink" | "unlinkat":
                self.inodes.pop(call.paths[0], None)
                self.names.add(call.paths[0])

    def _open(self, call: Call) -> None:
        path = call.opened
        if path is None:
            return
        descriptor = call.result.partition("<")[0]
        self._descriptors[call.process, descriptor] = path
        if "O_TMPFILE" in call.arguments:
            self.inode(path)
        elif "O_CREAT" in call.arguments and path not in self.inodes:
            self.inodes[path] = next(self._numbers)  # if it was there: empty, and nothing to lose
            self.names.add(path)

    def _write(self, path: str) -> None:
        self.unsynced.add(self.inode(path))

    def _rename(self, source: str, target: str) -> None:
        files, names = self.beneath(source)
        if not files and not names:
            self.inode(source)
            files = [source]
        for name in files:
            self.inodes[target + name[len(source) :]] = self.inodes.pop(name)
        for name in names:
            self.names.discard(name)
            self.names.add(target + name[len(source) :])
        self.names |= {source, target}

    def _link(self, call: Call) -> None:
        source, target = call.paths
        if found := re.search(r"/proc/self/fd/(\d+)$", source):
            source = self._descriptors[call.process, found[1]]
        self.inodes[target] = self.inode(source)
        self.names.add(target)


def replay(calls: Sequence[Call], before: Replay) -> None:
    """Go through the calls; `before` sees each one, and the disk as it is when that one begins."""
    disk = Disk()
    moments = [(call.began, 0, call) for call in calls] + [(call.ended, 1, call) for call in calls]
    for _, end, call in sorted(moments, key=lambda moment: moment[:2]):
        if end:
            disk.take(call)
        else:
            before(call, disk)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement sent to the database: when it is committed by whoever sent it, and answered."""

    name: str
    text: str
    committed: int
    answered: int


def statements(calls: Sequence[Call], queries: dict[str, bytes]) -> list[Statement]:
    """The named statements in a record of calls, in the order of their commits."""
    beginnings = {name: sql.decode().partition("%(")[0] for name, sql in queries.items()}
    found = []
    for number, call in enumerate(calls):
        if call.name not in {"sendto", "sendmsg"}:
            continue
        data = call.data
        for name, beginning in beginnings.items():
            if beginning in data:
                commit = _commit(calls, number)
                found.append(Statement(name, data, commit.began, _answer(calls, commit)))
    return sorted(found, key=lambda statement: statement.committed)


def _commit(calls: Sequence[Call], number: int) -> Call:
    """The call that commits what the call at `number` sends: itself, or the end of its block."""
    sent = calls[number]
    same = [call for call in calls if call.channel == sent.channel and call.name == sent.name]
    place = same.index(sent)
    for earlier in reversed(same[:place]):
        if "COMMIT\0" in earlier.data or "ROLLBACK\0" in earlier.data:
            return sent
        if "BEGIN\0" in earlier.data:
            return next(call for call in same[place:] if "COMMIT\0" in call.data)
    return sent


def _answer(calls: Sequence[Call], commit: Call) -> int:
    received = (
        call.ended
        for call in calls
        if call.name in {"recvfrom", "recvmsg"}
        and call.channel == commit.channel
        and call.ended > commit.ended
        and not call.failed
    )
    return next(received)


def without_syncs(calls: Sequence[Call]) -> list[Call]:
    """The same calls by a program that makes nothing durable."""
    return [call for call in calls if call.name not in {"fsync", "fdatasync", "syncfs"}]


def record(
    command: Sequence[str | Path],
    output: Path,
    environment: dict[str, str],
    root: Path,
    status: int = 0,
) -> list[Call]:
    """Run a command to that end; what it and its children did beneath `root` and by sockets."""
    strace = ["strace", "-f", "-y", "-s", "4096", "--seccomp-bpf", "-e", f"trace={CALLS}"]
    done = subprocess.run(
        [*strace, "-e", "signal=none", "-qq", "-o", output, "--", *command],
        env=environment,
        check=False,
        timeout=90,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == status, done.stderr
    talk = {"sendto", "sendmsg", "recvfrom", "recvmsg", "syncfs"}
    return [
        call
        for call in parse(output.read_text(errors="replace"))
        if call.name in talk or f"{root}/" in call.arguments + call.result
    ]


@cache
def _why_not() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-q", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "ptrace is not permitted here"


def need_strace() -> None:
    """Skip where no calls can be recorded."""
    if why := _why_not():
        pytest.skip(why)
