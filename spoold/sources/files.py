"""The files source: a folder or file beneath a configured root, walked without following links.

As above it (see `roots`), every step is relative to a directory handle and with O_NOFOLLOW: a
folder that is swapped for a symbolic link during the walk is left out or ends it with an error.

Which paths: a file, link or folder is taken when `include` matches it or a folder above it and
`exclude` matches neither (see `globs`); folders above what is taken come along. The path in the
bundle is `<into>/<path under the source>`; a single file's path under the source is its name.
Symbolic links are recorded, not followed. FIFOs, sockets and devices are left out and counted.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import Field

from spoold import canonical, errors
from spoold.bundle.content import changed, unreadable
from spoold.bundle.entry import SYMLINK_MODE, Kind, SourceEntry, clamp_mtime
from spoold.bundle.paths import path_fault, stays_inside
from spoold.errors import SpooldError
from spoold.sources import globs
from spoold.sources.counting import Counter
from spoold.sources.fields import Include, Into, Patterns, Text
from spoold.sources.losses import NotCarried
from spoold.sources.roots import (
    FILE_FLAGS,
    FOLDER_FLAGS,
    PRIVATE_NAME,
    RootedPath,
    require_public,
)
from spoold.sources.source import Gathering, Problem, SourceSpec, raise_it

# A listing's lines sort by name, a folder's as "name/", and carry what the name is.
_MARK: Final = b"\x00"
_ENCODING: Final = sys.getfilesystemencoding()
_ERRORS: Final = sys.getfilesystemencodeerrors()
_PRIVATE: Final = PRIVATE_NAME + b"/"
_FILE, _LINK, _OTHER, _DIR = b"f", b"l", b"o", b"d"


class FilesSpec(SourceSpec):
    """A request's source of kind `files`."""

    kind: Literal["files"]
    root: Text = Field(description="a key of [roots] in the configuration", min_length=1)
    path: Text = Field(
        default="", description="a folder or file beneath the root; empty: all of it"
    )
    include: Include = Field(default=["**"], description="globs over paths beneath it")
    exclude: Patterns = Field(default=[], description="globs: what they match is left out")
    into: Into | None = Field(default=None, description="the folder in the bundle")

    def title(self) -> str:
        """Kind, root and path."""
        return "/".join(filter(None, (f"files:{self.root}", self.path.strip("/"))))

    def name(self) -> str:
        """The last part of the path, or the root."""
        return Path(self.path).name or self.root


class FilesSource:
    """Walks what one spec names."""

    Spec: ClassVar[type[FilesSpec]] = FilesSpec

    def __init__(
        self, spec: FilesSpec, roots: Mapping[str, Path], *, label: str | None = None
    ) -> None:
        self._top = RootedPath(spec.root, spec.path, roots)
        self._into = b"" if spec.into is None else spec.into.encode()
        self._include, self._exclude = globs.Globs(spec.include), globs.Globs(spec.exclude)
        self._not_carried = NotCarried()
        self.label = label or canonical.text(spec.title())

    @classmethod
    def open(cls, spec: FilesSpec, gathering: Gathering, label: str) -> "FilesSource":
        """The source that a spec names. Raises root-unknown or path-outside-root."""
        return cls(spec, gathering.connections.roots, label=label)

    @property
    def warnings(self) -> list[str]:
        """After the walk: what was met and is not carried."""
        return self._not_carried.warnings()

    def entries(self, on_problem: Problem = raise_it) -> Iterator[SourceEntry]:
        """Yield the entries in bundle order; whoever takes one closes its content.

        Raises path-outside-root, source-missing or source-unreadable for the source itself. A
        file or folder in it that is unreadable, has vanished or is too deep goes to `on_problem`,
        and, where that returns, is left out.
        """
        folder, name = self._top.open()
        try:
            if name is None:
                yield from self._walk(folder, on_problem)
                return
            path = b"/".join(filter(None, (self._into, name)))
            if self._takes(name, folder=False, taken=self._include.all):
                entry = self._leaf(folder, name, _FILE, path, on_problem)
                if entry is not None:
                    yield entry
        finally:
            os.close(folder)

    def measure(self) -> int:
        """The bytes that a walk would find now: for progress, so no file is opened for it."""
        folder, name = self._top.open()
        try:
            if name is not None:
                if not self._takes(name, folder=False, taken=self._include.all):
                    return 0
                return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            everything = self._include.all and self._exclude.empty
            counter = Counter(
                None
                if everything
                else lambda path, is_folder, taken: self._takes(path, folder=is_folder, taken=taken)
            )
            counter.count(folder, taken=self._include.all)
            return counter.bytes
        except OSError as error:
            raise self._top.failure(error, canonical.text(name or b"")) from error
        finally:
            os.close(folder)

    def _walk(self, top: int, on_problem: Problem) -> Iterator[SourceEntry]:
        # Depth first with a stack of open folders: depth costs handles, not nested generators.
        entry = self._folder(top, self._into) if self._into else None
        names = _listing(top)
        stack = [_Level(os.dup(top), b"", self._include.all, names, entry)]
        try:
            if self._include.all:
                yield from _come_along(stack)
            while stack:
                level = stack[-1]
                if not level.names:
                    os.close(stack.pop().descriptor)
                    continue
                name, _, kind = level.names.pop().rpartition(_MARK)
                under = level.under + name
                taken = level.taken
                if not taken or not self._exclude.empty:
                    answer = self._takes(under.rstrip(b"/"), folder=kind == _DIR, taken=taken)
                    if answer is None:
                        continue
                    taken = answer
                path = b"/".join((self._into, under)) if self._into else under
                if kind == _DIR:
                    below = self._descend(level, name, path[:-1], on_problem)
                    if below is not None:
                        stack.append(_Level(below[0], under, taken, below[1], below[2]))
                        if taken:
                            yield from _come_along(stack)
                elif taken:
                    found = self._leaf(level.descriptor, name, kind, path, on_problem)
                    if found is not None:
                        # Of one that is taken itself, they came along when it was entered.
                        yield from () if level.taken else _come_along(stack)
                        yield found
        finally:
            for level in stack:
                os.close(level.descriptor)

    def _takes(self, under: bytes, *, folder: bool, taken: bool) -> bool | None:
        """None: left out with all beneath. Else whether it is taken, and so all beneath it."""
        text = under.decode("utf-8", "surrogateescape")
        if self._exclude.match(text, folder=folder):
            return None
        return taken or self._include.match(text, folder=folder)

    def _leaf(
        self, folder: int, name: bytes, kind: bytes, path: bytes, on_problem: Problem
    ) -> SourceEntry | None:
        if kind == _OTHER:
            self._not_carried.others += 1
            return None
        try:
            return (
                self._file(folder, name, path) if kind == _FILE else self._link(folder, name, path)
            )
        except OSError as error:
            on_problem(path, _problem(path, error))
        except SpooldError as error:
            on_problem(path, error)
        return None

    def _link(self, folder: int, name: bytes, path: bytes) -> SourceEntry:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        target = os.readlink(name, dir_fd=folder)
        self._not_carried.links_out += not stays_inside(path, target)
        return SourceEntry(
            path,
            Kind.SYMLINK,
            SYMLINK_MODE,
            clamp_mtime(status.st_mtime_ns),
            status.st_uid,
            status.st_gid,
            self.label,
            target=target,
        )

    def _file(self, folder: int, name: bytes, path: bytes) -> SourceEntry:
        descriptor = os.open(name, FILE_FLAGS, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise changed(path, "it is no regular file any more")
            self._not_carried.look(descriptor, status)
        except BaseException:
            os.close(descriptor)
            raise
        return SourceEntry(
            path,
            Kind.FILE,
            status.st_mode & 0o777,
            clamp_mtime(status.st_mtime_ns),
            status.st_uid,
            status.st_gid,
            self.label,
            status.st_size,
            None,
            None,
            descriptor,
        )

    def _descend(
        self, level: "_Level", name: bytes, path: bytes, on_problem: Problem
    ) -> tuple[int, list[bytes], SourceEntry] | None:
        if fault := path_fault(path):
            shown = canonical.text(path[:200])
            on_problem(path, SpooldError(errors.PATH_UNSUPPORTED, f"{shown}: {fault}", at=shown))
            return None
        try:
            descriptor = os.open(name[:-1], FOLDER_FLAGS, dir_fd=level.descriptor)
            try:
                if name == _PRIVATE:
                    require_public(descriptor)
                return descriptor, _listing(descriptor), self._folder(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            on_problem(path, _problem(path, error))
        except SpooldError as error:
            on_problem(path, error)
        return None

    def _folder(self, descriptor: int, path: bytes) -> SourceEntry:
        status = os.fstat(descriptor)
        self._not_carried.look(descriptor, status)
        return SourceEntry(
            path,
            Kind.DIR,
            status.st_mode & 0o777,
            clamp_mtime(status.st_mtime_ns),
            status.st_uid,
            status.st_gid,
            self.label,
        )


@dataclass(slots=True)
class _Level:
    """A folder that is being walked."""

    descriptor: int
    under: bytes  # its path beneath the source, with a "/" at its end
    taken: bool  # with all that is in it
    names: list[bytes]  # what is left of its listing, the next one last
    waiting: SourceEntry | None  # its own entry, until something in it is taken


def _come_along(stack: list[_Level]) -> Iterator[SourceEntry]:
    for level in stack:
        if level.waiting is not None:
            entry, level.waiting = level.waiting, None
            yield entry


def _listing(descriptor: int) -> list[bytes]:
    # One small bytes object a name, for folders with a million of them. Devices are told apart
    # here, before anything is opened: opening one can already do something.
    lines = []
    with os.scandir(descriptor) as found:
        for item in found:
            name = item.name.encode(_ENCODING, _ERRORS)
            if item.is_file(follow_symlinks=False):
                lines.append(name + _MARK + _FILE)
            elif item.is_dir(follow_symlinks=False):
                lines.append(name + b"/" + _MARK + _DIR)
            elif item.is_symlink():
                lines.append(name + _MARK + _LINK)
            else:
                lines.append(name + _MARK + _OTHER)
    lines.sort(reverse=True)
    return lines


def _problem(path: bytes, error: OSError) -> SpooldError:
    # What vanished, or became a link or a file, after it was listed.
    if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EINVAL}:
        return changed(path, "it vanished or became something else while it was read")
    return unreadable(path, error)
