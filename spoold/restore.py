"""Restore a bundle into a folder of the caller's choice, verified before anything is visible.

Guarantees: a folder that is not there, or empty, appears by one rename when everything asked for
has been verified; until then it is its owner's alone. One that has content is merged into, file by
file, and only after the same.
Not guaranteed: where a part is asked for, that the rest of a bundle in a file is good: it is not
read. Head, index and every frame that is read are verified in full.
Crash: `.<name>.<random>` may stay beside the target, or in it where that is a mount; nothing reads
it. A merge that was cut off has moved some files, each of them whole: run again with
`Conflict.REPLACE` it comes to its end.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from spoold import canonical, errors
from spoold.bundle.entry import Entry, Kind, Report
from spoold.bundle.order import check_sorted, sort_key
from spoold.bundle.reader import (
    BundleReader,
    Discard,
    Index,
    Policy,
    VerifiedHead,
    Visitor,
    verify_head,
)
from spoold.bundle.scratch import LineSorter
from spoold.disk import rename_new, sync_folder
from spoold.errors import SpooldError
from spoold.sinks.merge import Conflict, Foresight, Merged, merge
from spoold.sinks.remove import remove_tree
from spoold.sinks.tree import Admission, LinkPolicy, TreeSink
from spoold.sources.globs import Globs
from spoold.status import show_name
from spoold.trust import Trust

_QUARANTINE_MODE = 0o700  # whom the target is open to, only publishing says
_TOP_MODE = 0o755  # of a folder that nothing stood in the place of
_SLASH = b"/".hex().encode()  # what the sort key of a folder ends in


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are wanted, by a glob pattern, and how many leading segments they lose."""

    only: Globs | None = None
    strip: int = 0

    def select(self, entry: Entry) -> Entry | None:
        """The entry under the path it is to have, or None where it is not wanted."""
        if self.only is not None and not _matches(self.only, entry):
            return None
        if not self.strip:
            return entry
        segments = entry.path.split(b"/", self.strip)
        # What has no more segments than are stripped has no name left.
        return entry._replace(path=segments[-1]) if len(segments) > self.strip else None

    def measure(self, index: Index, scratch: Path | None) -> "Selected":
        """Count what is wanted. Raises target-collides where two entries become one path."""
        if self.only is None and not self.strip:  # then the manifest knows
            manifest = index.head.manifest
            return Selected(manifest.entries.count, manifest.totals.bytes)
        found = Selected()
        with closing(LineSorter(scratch)) as sorter:
            for entry in index.entries():
                wanted = self.select(entry)
                if wanted is None:
                    continue
                found.entries += 1
                found.bytes += entry.size
                if self.strip:
                    sorter.add(sort_key(wanted))
            if self.strip:
                _check_paths(sorter)
        return found


@dataclass(slots=True)
class Selected:
    """How many entries are wanted, and the bytes of their content."""

    entries: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Restorer:
    """One restore. `matched` counts the entries that were wanted, `warnings` what to tell.

    `partial`: only what they needed was read and verified, besides head and index.
    """

    target: Path
    selection: Selection = Selection()
    links: LinkPolicy = LinkPolicy.INSIDE
    conflict: Conflict = Conflict.REFUSE
    owners: bool = False
    matched: int = 0
    partial: bool = False
    kept: int = 0
    replaced: int = 0
    warnings: tuple[str, ...] = ()
    _folders: set[bytes] = field(default_factory=set)  # digests of the paths that entries describe

    def restore(self, file: BinaryIO, trust: Trust, policy: Policy, report: Report) -> VerifiedHead:
        """Verify a bundle and restore what is wanted of it.

        Raises target-exists, target-collides, no-space and what `verify` may.
        """
        target = Path(os.path.abspath(self.target))
        merging = self._is_in_use(target)
        # Where the target is a file system of its own, nothing can be renamed into it.
        home = target if merging and _is_mount(target) else target.parent
        name = os.fsdecode(os.fsencode(target.name)[:200])
        quarantine = home / f".{name}.{secrets.token_hex(6)}"
        with BundleReader(file, scratch=home, report=report, phase="restore") as reader:
            head = verify_head(reader.read_head(), trust, policy)
            with _made(home):
                index = reader.read_index(head, policy)
                self._measure(index, home)
                sink = TreeSink(
                    quarantine,
                    links=self.links,
                    owners=self.owners,
                    scratch=home,
                    top_mode=_QUARANTINE_MODE,
                )
                try:
                    self._read(reader, index, _Chosen(self, sink))
                    sink.finish()
                    if merging:
                        self._merge(quarantine, target)
                    else:
                        self._publish(quarantine, target)
                except BaseException:
                    sink.abandon()
                    raise
        self.warnings += tuple(sink.warnings)
        return head

    def rehearse(
        self,
        file: BinaryIO,
        trust: Trust,
        policy: Policy,
        report: Report,
        show: Callable[[str], None] | None,
    ) -> VerifiedHead:
        """Verify a bundle, then show the lines of the entries that would be restored.

        Raises what `restore` would, but what only writing can tell: no-space, disk-error.
        """
        target = Path(os.path.abspath(self.target))
        merging = self._is_in_use(target)
        with BundleReader(file, report=report, phase="verify") as reader:
            head = verify_head(reader.read_head(), trust, policy)
            index = reader.read_index(head, policy)
            self._measure(index, None)
            reader.read_payload(index, Discard())
            with Foresight(target, self.conflict) if merging else nullcontext() as foresight:
                self._foresee(index, foresight, show)
        return head

    def _foresee(
        self, index: Index, foresight: Foresight | None, show: Callable[[str], None] | None
    ) -> None:
        admission = Admission(self.links, self.owners)
        for entry in index.entries():
            wanted = self.selection.select(entry)
            if wanted is None or not admission.judge(wanted):
                continue
            if foresight is not None:
                foresight.meet(wanted.path, is_folder=wanted.kind is Kind.DIR)
            if show is not None:
                show(_line(wanted))
        if foresight is not None:
            self._note(foresight.done)
        self.warnings += tuple(admission.warnings)

    def note(self, folder: Entry) -> None:
        """Remember a folder whose mode and times are to be set where it stands already."""
        if self.conflict is Conflict.REPLACE:
            self._folders.add(_digest(folder.path))

    def _read(self, reader: BundleReader, index: Index, visitor: Visitor) -> None:
        # Of a pipe nothing can be left out, and where all is wanted nothing is.
        if reader.seekable and self.matched < index.head.manifest.entries.count:
            self.partial = True
            reader.read_chosen(
                index, lambda entry: self.selection.select(entry) is not None, visitor
            )
        else:
            reader.read_payload(index, visitor)

    def _measure(self, index: Index, home: Path | None) -> None:
        """Without `home` space is no matter. Raises nothing-to-restore, no-space."""
        wanted = self.selection.measure(index, home)
        self.matched = wanted.entries
        if not wanted.entries:
            raise SpooldError(
                errors.NOTHING_TO_RESTORE,
                f"of {index.head.manifest.entries.count}",
                hint='check --only, globs over paths in the bundle as in "alerts/**", and --strip',
            )
        if home is None:
            return
        disk = os.statvfs(home)
        if wanted.bytes > disk.f_bavail * disk.f_frsize:
            raise SpooldError(
                errors.NO_SPACE,
                f"{wanted.bytes} bytes are wanted, {disk.f_bavail * disk.f_frsize} are free",
                hint="free some space, or restore a part with --only",
            )

    def _is_in_use(self, target: Path) -> bool:
        """Whether there is something to merge with. Raises target-exists where none may be."""
        if target.is_symlink():
            raise _in_the_way(target, "is a symbolic link: name the folder itself")
        try:
            with os.scandir(target) as found:
                full = next(found, None) is not None
        except FileNotFoundError:
            return False
        except NotADirectoryError as error:
            raise _in_the_way(target, "is no folder") from error
        if full and self.conflict is Conflict.REFUSE:
            raise _in_the_way(target, "is there and not empty")
        # Whoever stands in a folder would not see the one that takes its place.
        return full or _is_mount(target) or target.samefile(".")

    def _publish(self, quarantine: Path, target: Path) -> None:
        try:
            try:
                standing = target.lstat()
            except FileNotFoundError:
                quarantine.chmod(_TOP_MODE)
                sync_folder(quarantine)
                rename_new(quarantine, target)
            else:
                mode = _take_after(quarantine, standing)
                quarantine.rename(target)  # rename(2) replaces an empty folder, and nothing else
                if mode & 0o700 != 0o700:
                    target.chmod(mode)
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise _in_the_way(target, "is there and not empty") from error
            raise
        sync_folder(target.parent)

    def _merge(self, quarantine: Path, target: Path) -> None:
        done = merge(
            quarantine,
            target,
            self.conflict,
            described=lambda path: _digest(path) in self._folders,
            owners=self.owners,
        )
        self._note(done)
        remove_tree(quarantine)

    def _note(self, done: Merged) -> None:
        self.kept, self.replaced = done.kept, done.replaced
        if done.kept:
            self.warnings += (f"{done.kept} names stood there and were kept as they were",)


class _Chosen:
    """A visitor that passes on the wanted entries only, under the paths they shall have."""

    def __init__(self, restorer: Restorer, sink: Visitor) -> None:
        self._restorer = restorer
        self._sink = sink
        self._passing = False

    def entry(self, entry: Entry) -> None:
        """A folder or a symbolic link."""
        wanted = self._restorer.selection.select(entry)
        if wanted is not None:
            if wanted.kind is Kind.DIR:
                self._restorer.note(wanted)
            self._sink.entry(wanted)

    def whole(self, entry: Entry, content: memoryview) -> None:
        """A file whose hash matched."""
        wanted = self._restorer.selection.select(entry)
        if wanted is not None:
            self._sink.whole(wanted, content)

    def begin(self, entry: Entry) -> None:
        """A file that comes in pieces."""
        wanted = self._restorer.selection.select(entry)
        self._passing = wanted is not None
        if wanted is not None:
            self._sink.begin(wanted)

    def write(self, content: memoryview) -> None:
        """The next piece."""
        if self._passing:
            self._sink.write(content)

    def commit(self) -> None:
        """The hash of the file that came in pieces matched."""
        if self._passing:
            self._sink.commit()


def _matches(globs: Globs, entry: Entry) -> bool:
    return globs.cover(os.fsdecode(entry.path), folder=entry.kind is Kind.DIR)


def _check_paths(sorter: LineSorter) -> None:
    """Refuse two entries of one path; a folder may be there as often as it likes."""

    def once_each() -> Iterator[bytes]:
        last = b""
        for line in sorter:
            if line != last or not line.endswith(_SLASH):
                yield line
            last = line

    try:
        check_sorted(once_each())
    except SpooldError as error:
        if error.code is not errors.ENTRY_COLLIDES:  # a disk that is full, say
            raise
        raise SpooldError(
            errors.TARGET_COLLIDES,
            f"with leading folders stripped, {error.message}",
            hint="strip fewer of them, or restore a part with --only",
            at=error.at,
        ) from error


def _line(entry: Entry) -> str:
    target = f" -> {show_name(entry.target)[0]}" if entry.target is not None else ""
    size = str(entry.size) if entry.kind is Kind.FILE else entry.kind.value
    return f"{entry.mode:04o} {size:>12} {show_name(entry.path)[0]}{target}"


def _digest(path: bytes) -> bytes:
    return hashlib.blake2b(path, digest_size=16).digest()


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; if something fails then, they are gone again."""
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # it is in use
                each.rmdir()
        raise


def _is_mount(path: Path) -> bool:
    return path.is_dir() and path.stat().st_dev != path.parent.stat().st_dev


def _take_after(folder: Path, standing: os.stat_result) -> int:
    """Give a folder owner and mode of the empty one that it replaces: who may look stays the same.

    Returns that mode; without leave for its owner the folder could not be renamed yet.
    """
    mode = stat.S_IMODE(standing.st_mode)
    if os.geteuid() == 0:
        os.chown(folder, standing.st_uid, standing.st_gid)
    folder.chmod(mode | 0o700)
    sync_folder(folder)
    return mode


def _in_the_way(target: Path, why: str) -> SpooldError:
    return SpooldError(errors.TARGET_EXISTS, f"{canonical.text(str(target))} {why}")
