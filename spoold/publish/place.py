"""Steps (3) to (6): the moves of a publication, each done once however often it is tried."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from spoold import disk, errors, points
from spoold.errors import SpooldError
from spoold.publish.plan import (
    DROP,
    LINK_FILE,
    LINK_TEMPORARY,
    STATUS,
    STATUS_FILE,
    shown,
    target_path,
    write_status,
)
from spoold.queue.job import Job, Move
from spoold.spool import Folder, Spool
from spoold.status import claimed_name, status_name


@dataclass(frozen=True, slots=True)
class Placement:
    """The files of one job, on their way out of its scratch folder."""

    tree: Spool
    job: Job
    scratch: Path
    moves: Sequence[Move]
    document: bytes

    def first_foreign(self) -> Move | None:
        """The first move still to be made whose target somebody else has taken.

        Beneath `restored/` no other name will do: there step (3) says so, and is tried again.
        """
        for move in self.moves:
            if (
                not move.folder.startswith(Folder.RESTORED)
                and _inode(self._target(move)) not in {None, move.inode}
                and _inode(self._source(move)) is not None
            ):
                return move
        return None

    def take_back(self, roles: frozenset[str]) -> None:
        """Undo the moves of these roles for good, so that they can be made to other names.

        A row with the new names knows nothing of a file that a power cut puts back to its old one.
        """
        folders = set()
        for move in self.moves:
            source, target = self._source(move), self._target(move)
            if move.role in roles:
                if _inode(target) == move.inode:
                    disk.rename_new(target, source)
                # Moved now, or before somebody was killed here.
                folders |= {os.path.dirname(source), os.path.dirname(target)}
        for folder in sorted(folders):
            disk.sync_folder(os.fsdecode(folder))

    def place_results(self) -> set[Path]:
        """Step (3); returns the folders to sync. Raises publish-lost or an OSError."""
        return self._place_all([move for move in self.moves if move.role not in {DROP, STATUS}])

    def place_drop(self) -> set[Path]:
        """Step (4)."""
        folders = self._place_all([move for move in self.moves if move.role == DROP])
        return {self.tree.folder(Folder.CLAIMED), *folders} if folders else folders

    def place_status(self) -> set[Path]:
        """Step (5). The row has the document, so that it can always be written again."""
        [move] = [move for move in self.moves if move.role == STATUS]
        # Where it stands already, whoever put it there may not have come to the sync.
        if not self.answered() and _inode(self._target(move)) != move.inode:
            if not (self.scratch / STATUS_FILE).exists():
                write_status(self.scratch, self.document)
            try:
                disk.rename_new(self._source(move), self._target(move))
            except FileExistsError as error:
                if not self._is_document(self._target(move)):  # else an earlier redo's: it will do
                    raise _taken(move) from error
        return {self.tree.root / move.folder}

    def link_status(self) -> set[Path]:
        """Step (6), by way of scratch: a rename replaces, and a zombie has no scratch."""
        [move] = [move for move in self.moves if move.role == STATUS]
        link = self.scratch / LINK_FILE
        with suppress(FileNotFoundError):
            link.unlink()
        with suppress(FileNotFoundError):  # a consumer was quick
            os.link(self._target(move), os.fsencode(link), follow_symlinks=False)
        # What somebody else has put there since is nobody's answer. (Its inode would not tell: that
        # of a removed file is given to the next.)
        if not self._is_document(os.fsencode(link)):
            disk.replace_content(link, self.document, self.scratch / LINK_TEMPORARY, durable=True)
        points.reached("publish.6.linked")
        disk.rename_over(link, self._answer())
        with suppress(OSError):  # empty by now: whoever sees the answer finds no scratch
            self.scratch.rmdir()
        return {self.tree.folder(Folder.STATUS)}

    def answered(self) -> bool:
        """Whether this very answer stands under `status/`: then a consumer may have been quick."""
        return self._is_document(self._answer())

    def _is_document(self, path: bytes) -> bool:
        with suppress(OSError), open(path, "rb") as file:
            return file.read(len(self.document) + 1) == self.document  # a stranger's may be huge
        return False

    def as_found(self) -> tuple[Move, ...]:
        """The moves with the inodes that their files have now: those of a copied tree are new."""
        return tuple(map(self._as_found, self.moves))

    def _as_found(self, move: Move) -> Move:
        # Not moved yet: what stands at the target is a stranger's.
        for path in (self._source(move), self._target(move)):
            with suppress(OSError):
                status = os.lstat(path)
                return replace(move, device=status.st_dev, inode=status.st_ino)
        return move

    def _place_all(self, moves: Sequence[Move]) -> set[Path]:
        if moves:
            answered = self.answered()
            for move in moves:
                self._place(move, answered=answered)
        return {self.tree.root / move.folder for move in moves}

    def _place(self, move: Move, *, answered: bool) -> None:
        target = self._target(move)
        if _inode(target) == move.inode:
            return
        self._make_restored_folder(move)
        try:
            disk.rename_new(self._source(move), target)
        except FileNotFoundError as error:
            if not (self.tree.root / move.folder).is_dir():
                raise SpooldError(
                    errors.SPOOL_INVALID,
                    f"the folder {move.folder} is gone",
                    hint="bring it back, or mount it again; the job goes on by itself",
                ) from error
            if not answered:
                raise SpooldError(
                    errors.PUBLISH_LOST, f"{shown(move.folder, move.name)} is nowhere to be found"
                ) from error
        except FileExistsError as error:
            raise _taken(move) from error

    def _make_restored_folder(self, move: Move) -> None:
        """`restored/<site>/`. Any other folder that is missing may be a mount that is gone."""
        folder = self.tree.root / move.folder
        if folder.parent == self.tree.folder(Folder.RESTORED) and not folder.is_dir():
            folder.mkdir(mode=0o755)
            disk.sync_folder(folder.parent)

    def _answer(self) -> bytes:
        return target_path(self.tree, Folder.STATUS, status_name(self.job.drop_name))

    def _target(self, move: Move) -> bytes:
        return target_path(self.tree, move.folder, move.name)

    def _source(self, move: Move) -> bytes:
        if move.role == DROP:
            name = claimed_name(self.job.id, self.job.drop_name)
            return target_path(self.tree, Folder.CLAIMED, name)
        return b"%s/%s" % (os.fsencode(self.scratch), os.fsencode(move.source))


def _taken(move: Move) -> SpooldError:
    return SpooldError(
        errors.PUBLISH_LOST,
        f"somebody else put {shown(move.folder, move.name)} there",
        hint="move it away; the job goes on by itself",
    )


def _inode(path: bytes) -> int | None:
    with suppress(OSError):
        return os.lstat(path).st_ino
    return None
