"""Restore a bundle into a folder of the caller's choice, whole or not at all.

Guarantees: the folder appears by one rename when every byte of the bundle has been verified, also
where only some entries are wanted.
Crash: `.<name>.<random>` may stay beside the target; nothing reads it.
"""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from spoold import errors
from spoold.bundle import reader
from spoold.bundle.entry import Entry, Kind, Report
from spoold.bundle.reader import Policy, VerifiedHead
from spoold.errors import SpooldError
from spoold.sinks.files import LinkPolicy, TreeSink
from spoold.sources.globs import Globs
from spoold.spool import rename_new, sync_folder
from spoold.status import show_name
from spoold.trust import Trust


class Restorer:
    """One restore. `matched` counts the entries that were wanted, `warnings` what to tell."""

    def __init__(
        self, target: Path, only: str | None = None, links: LinkPolicy = LinkPolicy.INSIDE
    ) -> None:
        self._target = Path(os.path.abspath(target))
        self._only = None if only is None else Globs([only])
        self._links = links
        self.matched = 0
        self.warnings: tuple[str, ...] = ()

    def restore(self, file: BinaryIO, trust: Trust, policy: Policy, report: Report) -> VerifiedHead:
        """Verify a bundle and make the target of it. Raises target-exists and what `verify` may."""
        self._check_target()
        parent = self._target.parent
        parent.mkdir(parents=True, exist_ok=True)
        quarantine = parent / f".{self._target.name[:200]}.{secrets.token_hex(6)}"
        sink = TreeSink(quarantine, links=self._links)
        try:
            visitor = _Filter(self, sink)
            head = reader.verify(
                file, trust, policy, visitor=visitor, scratch=parent, report=report, phase="restore"
            )
            sink.finish()
            self.warnings = tuple(sink.warnings)
            with suppress(FileNotFoundError):
                self._target.rmdir()  # an empty one
            rename_new(quarantine, self._target)
        except OSError as error:
            sink.abandon()
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise self._in_the_way() from error
            raise
        except BaseException:
            sink.abandon()
            raise
        sync_folder(parent)
        return head

    def rehearse(
        self,
        file: BinaryIO,
        trust: Trust,
        policy: Policy,
        report: Report,
        show: Callable[[str], None] | None,
    ) -> VerifiedHead:
        """Verify a bundle and show the lines of the entries that would be restored."""
        self._check_target()
        return reader.verify(file, trust, policy, visitor=_Rehearsal(self, show), report=report)

    def wants(self, entry: Entry) -> bool:
        """Whether an entry is wanted; each is asked about once."""
        wanted = self._only is None or _matches(self._only, entry)
        self.matched += wanted
        return wanted

    def _check_target(self) -> None:
        try:
            if any(self._target.iterdir()):
                raise self._in_the_way()
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            raise self._in_the_way() from error

    def _in_the_way(self) -> SpooldError:
        return SpooldError(errors.TARGET_EXISTS, f"{self._target} is there and not empty")


def _matches(globs: Globs, entry: Entry) -> bool:
    """Whether a pattern matches the entry, or a folder that it stands in."""
    path = os.fsdecode(entry.path)
    if globs.match(path, folder=entry.kind is Kind.DIR):
        return True
    cuts = (at for at, character in enumerate(path) if character == "/")
    return any(globs.match(path[:cut], folder=True) for cut in cuts)


class _Filter:
    """A visitor that passes on the wanted entries only."""

    def __init__(self, restorer: Restorer, sink: TreeSink) -> None:
        self._restorer = restorer
        self._sink = sink
        self._passing = False

    def entry(self, entry: Entry) -> None:
        """A folder or a symbolic link."""
        if self._restorer.wants(entry):
            self._sink.entry(entry)

    def whole(self, entry: Entry, content: memoryview) -> None:
        """A file whose hash matched."""
        if self._restorer.wants(entry):
            self._sink.whole(entry, content)

    def begin(self, entry: Entry) -> None:
        """A file that comes in pieces."""
        self._passing = self._restorer.wants(entry)
        if self._passing:
            self._sink.begin(entry)

    def write(self, content: memoryview) -> None:
        """The next piece."""
        if self._passing:
            self._sink.write(content)

    def commit(self) -> None:
        """The hash of the file that came in pieces matched."""
        if self._passing:
            self._sink.commit()


class _Rehearsal:
    """A visitor that shows what would be restored and keeps nothing."""

    def __init__(self, restorer: Restorer, show: Callable[[str], None] | None) -> None:
        self._restorer = restorer
        self._show = show

    def entry(self, entry: Entry) -> None:
        """A folder or a symbolic link."""
        self._tell(entry)

    def whole(self, entry: Entry, content: memoryview) -> None:
        """A file whose hash matched."""
        self._tell(entry)

    def begin(self, entry: Entry) -> None:
        """A file that comes in pieces."""
        self._tell(entry)

    def write(self, content: memoryview) -> None:
        """The next piece."""

    def commit(self) -> None:
        """The hash of the file that came in pieces matched."""

    def _tell(self, entry: Entry) -> None:
        if self._restorer.wants(entry) and self._show is not None:
            target = f" -> {show_name(entry.target)[0]}" if entry.target is not None else ""
            size = str(entry.size) if entry.kind is Kind.FILE else entry.kind.value
            self._show(f"{entry.mode:04o} {size:>12} {show_name(entry.path)[0]}{target}")
