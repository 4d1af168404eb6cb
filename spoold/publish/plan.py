"""Step (1): choose names that are free, and sign the final document with them."""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from spoold import disk
from spoold.canonical import Document, Json
from spoold.queue.job import Job, Move, Publication, State
from spoold.spool import Folder, Spool
from spoold.status import (
    LOG_SUFFIX,
    Host,
    Status,
    claimed_name,
    show_name,
    status_name,
    suffixed_name,
)
from spoold.trust import Signer, sign_document

LOG_FILE: Final = "log"
"""A file of this name in scratch is published as `<drop>.log`."""

STATUS_FILE: Final = "status"
"""The signed final document in scratch."""

LINK_FILE: Final = "link"
"""What becomes the final status under `status/`, by a rename."""

_STATUS_TEMPORARY: Final = "status.tmp"
LINK_TEMPORARY: Final = "link.tmp"

OWN_FILES: Final = frozenset({LOG_FILE, STATUS_FILE, _STATUS_TEMPORARY, LINK_FILE, LINK_TEMPORARY})
"""The names of publishing itself in scratch: any other one is a result's, or a live status's."""

DROP: Final = "drop"
LOG: Final = "log"
STATUS: Final = "status"
TOGETHER: Final = frozenset({DROP, LOG, STATUS})
"""Roles that keep their names or change them together."""

_MAX_NAME_BYTES = 255

Name = tuple[str, bytes]
"""A folder relative to the spool, and a name in it."""


@dataclass(frozen=True, slots=True)
class Made:
    """A file or folder in scratch that an attempt made, complete; a folder is fsynced as well.

    `folder` is where it is published, relative to the spool; `role` its key in `files`.
    """

    role: str
    source: str
    folder: str
    name: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ends: what its final document says."""

    state: State
    result: Document | None = None
    error: Document | None = None
    warnings: Sequence[str] = ()

    @property
    def folder(self) -> Folder:
        """Where the drop goes."""
        good = self.state in {State.SUCCEEDED, State.DUPLICATE}
        return Folder.PROCESSED if good else Folder.FAILED

    def outcome(self) -> dict[str, Json]:
        """As the job's row records it."""
        return {
            "state": str(self.state),
            "result": self.result,
            "error": self.error,
            "warnings": list(self.warnings),
        }

    @classmethod
    def of(cls, outcome: Document) -> Self:
        """The ending that a row's `outcome` records."""
        result, error, warnings = outcome["result"], outcome["error"], outcome["warnings"]
        assert result is None or isinstance(result, Mapping)
        assert error is None or isinstance(error, Mapping)
        assert isinstance(warnings, list)
        return cls(State(str(outcome["state"])), result, error, [str(line) for line in warnings])


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes the publications of one spool."""

    tree: Spool
    host: Host
    signer: Signer

    def plan(
        self,
        job: Job,
        scratch: Path,
        ending: Ending,
        made: Sequence[Made],
        progress: Document | None,
        taken: Collection[Name],
    ) -> Publication:
        """The publication of a job that ends so; `taken` are names known to belong to others.

        The signed document is in scratch then, not synced: that is done for a batch at once. A
        move's `source` is its name in scratch; that of the drop is empty, since its name in
        `claimed/` follows from the job.
        """
        for one in made:
            self._let_droppers_read(scratch / one.source)
        moves = [
            _move(one.role, scratch / one.source, one.source, self._free(job, one, taken))
            for one in made
        ]
        has_log = (scratch / LOG_FILE).exists()
        drop = self._free_drop(job, ending.folder, taken, has_log=has_log)
        claimed = target_path(self.tree, Folder.CLAIMED, claimed_name(job.id, job.drop_name))
        with suppress(FileNotFoundError):  # then the ending says `drop-missing`
            moves.append(_move(DROP, claimed, "", (ending.folder, drop)))
        if has_log:
            name = (ending.folder, log_name(drop))
            moves.append(_move(LOG, scratch / LOG_FILE, LOG_FILE, name))
        status = Status.of(job, ending.state)
        document = replace(
            status,
            finished_at=datetime.now(UTC),
            progress=progress or job.progress,
            result=ending.result,
            error=ending.error,
            warnings=[*status.warnings, *ending.warnings],
            files=_files(moves),
        ).document(self.host)
        content = sign_document(document, self.signer)
        (scratch / STATUS_FILE).write_bytes(content)  # nobody looks for it until its row says so
        (scratch / STATUS_FILE).chmod(0o644)
        answer = (ending.folder, status_name(drop))
        moves.append(_move(STATUS, scratch / STATUS_FILE, STATUS_FILE, answer))
        return Publication.of(ending.outcome(), content, moves)

    def rename(
        self, job: Job, scratch: Path, publication: Publication, document: Document, foreign: Move
    ) -> Publication:
        """The same publication, where a name was taken by a foreign file after step (2).

        `document` is the final document without its signatures; it is signed again.
        """
        changing = TOGETHER if foreign.role in TOGETHER else {foreign.role}
        drop = suffixed_name(job.drop_name, job.short_id)
        names = {DROP: drop, LOG: log_name(drop), STATUS: status_name(drop)}
        moves = [
            replace(move, name=names.get(move.role, suffixed_name(move.name, job.short_id)))
            if move.role in changing
            else move
            for move in publication.sources
        ]
        content = sign_document({**document, "files": _files(moves)}, self.signer)
        write_status(scratch, content)
        moves = [
            _move(STATUS, scratch / STATUS_FILE, STATUS_FILE, (move.folder, move.name))
            if move.role == STATUS
            else move
            for move in moves
        ]
        return Publication.of(publication.outcome, content, moves)

    def _let_droppers_read(self, path: Path) -> None:
        """Whoever may drop may fetch the result, and nobody else; a restored tree has its modes."""
        if path.is_dir():
            return
        with suppress(PermissionError):  # the daemon's user is not of the droppers' group
            os.chown(path, -1, self.tree.folder(Folder.INBOX).stat().st_gid)
        path.chmod(0o640)

    def _free(self, job: Job, made: Made, taken: Collection[Name]) -> Name:
        """A free name for a result; a bundle's ends in its job's digits and is hardly ever taken.

        Names beneath `restored/` take no suffix: the publisher has looked at them before.
        """
        name = made.name
        if not made.folder.startswith(Folder.RESTORED) and self._is_taken(made.folder, name, taken):
            name = suffixed_name(name, job.short_id)
        return made.folder, name

    def _free_drop(
        self, job: Job, folder: Folder, taken: Collection[Name], *, has_log: bool
    ) -> bytes:
        drop = job.drop_name
        together = [drop, status_name(drop), *([log_name(drop)] if has_log else [])]
        if any(self._is_taken(folder, name, taken) for name in together):
            return suffixed_name(drop, job.short_id)
        return drop

    def _is_taken(self, folder: str, name: bytes, taken: Collection[Name]) -> bool:
        return (folder, name) in taken or os.path.lexists(target_path(self.tree, folder, name))


def write_status(scratch: Path, content: bytes) -> None:
    """Write the final document into scratch, durably."""
    temporary = scratch / _STATUS_TEMPORARY
    disk.replace_content(scratch / STATUS_FILE, content, temporary, durable=True)
    disk.sync_folder(scratch)


def log_name(drop: bytes) -> bytes:
    """The name of a drop's log beside it."""
    return drop[: _MAX_NAME_BYTES - len(LOG_SUFFIX)] + LOG_SUFFIX


def target_path(tree: Spool, folder: str, name: bytes) -> bytes:
    """The absolute path of a published name."""
    # Joined by hand: some twenty paths a job, and pathlib takes its time.
    return b"%s/%s/%s" % (os.fsencode(tree.root), folder.encode(), name)


def shown(folder: str, name: bytes) -> str:
    """A published name as status files show it, relative to the spool."""
    return f"{folder}/{show_name(name)[0]}"


def found_move(role: str, source: str, name: Name, found: os.stat_result) -> Move:
    """The move of a file as it was found, to or at a name."""
    device, inode, size = found.st_dev, found.st_ino, found.st_size
    return Move(role, source, str(name[0]), name[1], device, inode, size, found.st_mtime_ns)


def _move(role: str, path: Path | bytes, source: str, name: Name) -> Move:
    found = os.lstat(path)
    return found_move(role, source, name, found)


def _files(moves: Sequence[Move]) -> dict[str, str]:
    return {move.role: shown(move.folder, move.name) for move in moves if move.role != STATUS}
