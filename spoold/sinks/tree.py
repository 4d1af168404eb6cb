"""A bundle's entries as a tree, first in quarantine, then one rename.

`TreeSink` is a visitor of `bundle.reader`. It makes a folder of its own and in it only what it
reaches through handles of folders that it has opened without following links. A file of one frame
is written after its hash has matched; a larger one has no name (O_TMPFILE) until it has.

Guarantees: nothing outside its folder is touched; after `finish` the tree is complete and durable,
and its own folder can be renamed by its owner; if a restore fails, the folder is gone.
Not guaranteed: times that the file system cannot hold (ext4: after 2446) are what it makes of them.
Crash: the folder stays, private to whoever owns the folder above; `remove_tree` removes it.
"""

import enum
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from spoold import canonical, errors
from spoold.bundle.copying import write_all
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.lines import entry_lines, parse_entry
from spoold.bundle.paths import stays_inside
from spoold.bundle.reader import BundleReader, Index, VerifiedHead
from spoold.bundle.scratch import LineFile, LineSorter
from spoold.disk import begin_sync, sync_file_system
from spoold.errors import SpooldError
from spoold.sinks.places import FOLDER_FLAGS, NEW_FLAGS, UNFINISHED_MODE, Folders, LargeFile
from spoold.sinks.remove import remove_tree

_TOP_MODE: Final = 0o755  # where the caller names none
_MAX_ID: Final = 2**32 - 2  # one more is -1, by which chown(2) leaves the owner as it is
_FEW_ENTRIES: Final = 16  # so many are fsynced one by one; of more, the whole file system is


class LinkPolicy(enum.StrEnum):
    """What becomes of a symbolic link that cannot be shown to stay inside the tree."""

    INSIDE = "inside"  # the bundle is refused
    SKIP = "skip"  # it is left out, with a warning
    ANY = "any"  # it is made


@dataclass(slots=True)
class Admission:
    """Whether entries may become part of a tree here, judged by themselves."""

    links: LinkPolicy = LinkPolicy.INSIDE
    owners: bool = False
    left_out: int = 0

    def judge(self, entry: Entry) -> bool:
        """False where it is left out. Raises symlink-leaves, or disk-error for its owner."""
        if self.owners and max(entry.uid, entry.gid) > _MAX_ID:
            shown = canonical.text(entry.path)
            raise SpooldError(
                errors.DISK_ERROR,
                f"{shown}: this system has no owner {entry.uid}:{entry.gid}",
                hint="restore without --owners",
                at=shown,
            )
        if entry.kind is not Kind.SYMLINK or self.links is LinkPolicy.ANY:
            return True
        if stays_inside(entry.path, entry.target or b""):
            return True
        if self.links is LinkPolicy.SKIP:
            self.left_out += 1
            return False
        shown, target = canonical.text(entry.path), canonical.text(entry.target or b"")
        raise SpooldError(errors.SYMLINK_LEAVES, f"{shown} points to {target}", at=shown)

    @property
    def warnings(self) -> list[str]:
        """What is not in the tree, though it was in the bundle."""
        if not self.left_out:
            return []
        return [f"{self.left_out} symbolic links that may lead outside were left out"]


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished tree: whose it is, and what was left out of it."""

    head: VerifiedHead
    warnings: tuple[str, ...]


class TreeSink:
    """Writes a tree at `path`, which must not exist; the folder above must.

    `top_mode` is what `path` has in the end: 0700 at least, or its owner could not rename it.
    """

    def __init__(
        self,
        path: Path,
        *,
        links: LinkPolicy = LinkPolicy.INSIDE,
        owners: bool = False,
        scratch: Path | None = None,
        few: bool = False,
        top_mode: int = _TOP_MODE,
    ) -> None:
        assert top_mode & 0o700 == 0o700
        self._path, self._top_mode = path, top_mode
        self._few = few  # then each is fsynced; else the whole file system is, once
        self._used: set[bytes] = set()  # where they are few: the folders to fsync
        self._admission, self._owners = Admission(links, owners), owners
        self._plain_modes = 0o777 & ~_umask()  # what open(2) gives without a chmod
        self._large: tuple[LargeFile, Entry] | None = None
        self._unnamed = True
        try:
            os.mkdir(path, UNFINISHED_MODE)
        except FileExistsError as error:
            raise SpooldError(errors.TARGET_EXISTS, f"{path} exists") from error
        except OSError as error:
            raise _target_error(os.fsencode(path), error) from error
        self._tree = Folders(os.open(path, FOLDER_FLAGS))
        self._links, self._folders = LineFile(scratch), LineSorter(scratch)
        if _has_default_acl(self._tree.top):
            self._plain_modes = 0

    def entry(self, entry: Entry) -> None:
        """A folder is made now, its mode and times later; a link is noted for the end."""
        if not self._admission.judge(entry):
            return
        match entry.kind:
            case Kind.DIR:
                with _target_errors(entry.path):
                    self._tree.make(entry.path)
                if self._few:
                    self._used.add(entry.path)
                self._folders.add(_folder_line(entry))
            case Kind.SYMLINK:
                self._links.append(entry_lines(entry)[0] + b"\n")
            case Kind.FILE:
                raise AssertionError("a file comes with its content")
            case _:
                assert_never(entry.kind)

    def whole(self, entry: Entry, content: memoryview) -> None:
        """Write a file whose hash has matched."""
        folder, _, name = entry.path.rpartition(b"/")
        try:
            descriptor = os.open(name, NEW_FLAGS, entry.mode, dir_fd=self._handle(folder))
            try:
                write_all(descriptor, content)
                self._dress(descriptor, entry, opened_with=entry.mode)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _target_error(entry.path, error) from error

    def begin(self, entry: Entry) -> None:
        """Open an unnamed file for what comes in pieces."""
        folder, _, name = entry.path.rpartition(b"/")
        with _target_errors(entry.path):
            large = LargeFile(name, self._handle(folder), unnamed=self._unnamed)
        self._large = large, entry
        self._unnamed = large.is_unnamed

    def write(self, content: memoryview) -> None:
        """Append a piece to it."""
        assert self._large is not None
        large, entry = self._large
        with _target_errors(entry.path):
            write_all(large.descriptor, content)
            begin_sync(large.descriptor)

    def commit(self) -> None:
        """Its hash has matched: mode and times, then the name."""
        assert self._large is not None
        large, entry = self._large
        with _target_errors(entry.path):
            self._dress(large.descriptor, entry)
            large.give_name()
        large.close()
        self._large = None

    @property
    def warnings(self) -> list[str]:
        """What is not in the tree, though it was in the bundle."""
        return self._admission.warnings

    def finish(self) -> None:
        """Links, then folders' modes and times, deepest first; then all of it durable."""
        try:
            self._make_links()
            if self._few:
                self._sync_folders()
            self._dress_folders()
            with _target_errors(b"."):
                # Renaming a folder into another one needs leave to write in itself.
                os.fchmod(self._tree.top, self._top_mode)
                if self._few:
                    os.fsync(self._tree.top)
                else:
                    sync_file_system(self._path)
        finally:
            self.close()

    def close(self) -> None:
        """Give handles and scratch back; what was made stays as it is."""
        if self._large is not None:
            self._large[0].close()
            self._large = None
        self._tree.close()
        self._links.close()
        self._folders.close()

    def abandon(self) -> None:
        """Remove all that was made."""
        self.close()
        remove_tree(self._path)

    def _dress(self, descriptor: int, entry: Entry, opened_with: int = 0) -> None:
        if self._owners:
            self._admission.judge(entry)
            os.fchown(descriptor, entry.uid, entry.gid)
        if self._owners or opened_with != entry.mode or entry.mode & ~self._plain_modes:
            os.fchmod(descriptor, entry.mode)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
        if self._few:
            os.fsync(descriptor)

    def _handle(self, folder: bytes) -> int:
        if self._few:
            self._used.add(folder)
        return self._tree.handle(folder)

    def _make_links(self) -> None:
        for line in self._links:
            entry = parse_entry(line[:-1])
            assert entry.target is not None
            folder, _, name = entry.path.rpartition(b"/")
            with _target_errors(entry.path):
                handle = self._handle(folder)
                os.symlink(entry.target, name, dir_fd=handle)
                times = (entry.mtime_ns, entry.mtime_ns)
                if self._owners:
                    os.chown(name, entry.uid, entry.gid, dir_fd=handle, follow_symlinks=False)
                os.utime(name, ns=times, dir_fd=handle, follow_symlinks=False)

    def _dress_folders(self) -> None:
        for line in self._folders:
            path, mode, mtime_ns, uid, gid = _read_folder_line(line)
            parent, _, name = path.rpartition(b"/")
            with _target_errors(path):
                descriptor = os.open(name, FOLDER_FLAGS, dir_fd=self._tree.handle(parent))
                try:
                    if self._owners:
                        os.fchown(descriptor, uid, gid)
                    os.utime(descriptor, ns=(mtime_ns, mtime_ns))
                    os.fchmod(descriptor, mode)
                    if self._few:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _sync_folders(self) -> None:
        # Where they are few, each folder that got a name is fsynced while it can be opened.
        above = {b""}
        for folder in self._used:
            names = folder.split(b"/")
            above.update(b"/".join(names[:count]) for count in range(1, len(names) + 1))
        for folder in sorted(above):
            with _target_errors(folder):
                os.fsync(self._tree.handle(folder))


def _has_default_acl(folder: int) -> bool:
    # Then open(2) does not apply the umask, and modes come out otherwise than asked for.
    try:
        return "system.posix_acl_default" in os.listxattr(folder)
    except OSError:
        return False


def restore_payload(
    reader: BundleReader,
    index: Index,
    path: Path,
    *,
    links: LinkPolicy = LinkPolicy.INSIDE,
    owners: bool = False,
    scratch: Path | None = None,
    wanted: Callable[[Entry], bool] | None = None,
) -> Restored:
    """Write the tree of a verified index at `path`, durably. If anything fails, there is no tree.

    With `wanted` only those entries, of a file that can seek: see `BundleReader.read_chosen`.
    Raises what reading a payload does, target-exists, symlink-leaves, target-collides, no-space.
    """
    few = index.head.manifest.entries.count <= _FEW_ENTRIES
    sink = TreeSink(path, links=links, owners=owners, scratch=scratch, few=few)
    try:
        if wanted is None:
            reader.read_payload(index, sink)
        else:
            reader.read_chosen(index, wanted, sink)
        sink.finish()
    except BaseException:
        sink.abandon()
        raise
    return Restored(index.head, tuple(sink.warnings))


def _folder_line(entry: Entry) -> bytes:
    # Sorts deepest first.
    depth = 999 - entry.path.count(b"/")
    numbers = f"{entry.mode} {entry.mtime_ns} {entry.uid} {entry.gid}"
    return f"{depth:03d} {entry.path.hex()} {numbers}".encode()


def _read_folder_line(line: bytes) -> tuple[bytes, int, int, int, int]:
    _, path, mode, mtime_ns, uid, gid = line.decode().split(" ")
    return bytes.fromhex(path), int(mode), int(mtime_ns), int(uid), int(gid)


def _umask() -> int:
    # Asking with umask(2) would change it for all threads for a moment.
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777


@contextmanager
def _target_errors(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _target_error(path, error) from error


def _target_error(path: bytes, error: OSError) -> SpooldError:
    shown = canonical.text(path)
    if error.errno in {errno.EEXIST, errno.ENOTDIR, errno.ELOOP}:
        return SpooldError(
            errors.TARGET_COLLIDES, f"{shown}: another entry stands in its place", at=shown
        )
    return SpooldError(errors.disk_code(error), f"{shown}: {error.strerror}", at=shown)
