"""Steps (3) to (6): the moves of a publication on the disk, each done once however often tried."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spoold import errors, spool
from spoold.errors import SpooldError
from spoold.publish.plan import DROP, STATUS, STATUS_FILE, Planner, shown, target_path
from spoold.queue.job import Job, Move
from spoold.spool import Folder, Spool
from spoold.status import claimed_name, status_name

_LINK_FILE = "link"


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

        Beneath `restored/` no other name will do: there `place` says so, and is tried again.
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
        """Undo the moves of these roles, so that they can be made to other names."""
        for move in self.moves:
            if move.role in roles and _inode(self._target(move)) == move.inode:
                spool.rename_new(self._target(move), self._source(move))

    def place(self) -> None:
        """Steps (3) to (6). Raises publish-lost or an OSError; all of it can be tried again."""
        answered = self.answered()
        files = [move for move in self.moves if move.role != STATUS]
        for move in files:
            self._place(move, answered=answered)
        for folder in sorted({move.folder for move in files}):
            spool.sync_folder(self.tree.root / folder)
        if files:
            spool.sync_folder(self.tree.folder(Folder.CLAIMED))
        for move in self.moves:
            if move.role == STATUS:
                self._place_status(move, answered=answered)
                self._link_status(move)

    def answered(self) -> bool:
        """Whether this very answer stands under `status/`: then a consumer may have been quick."""
        with suppress(OSError):
            return Path(os.fsdecode(self._answer())).read_bytes() == self.document
        return False

    def _place(self, move: Move, *, answered: bool) -> None:
        target = self._target(move)
        if _inode(target) == move.inode:
            return
        self._make_restored_folder(move)
        try:
            spool.rename_new(self._source(move), target)
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
            raise SpooldError(
                errors.PUBLISH_LOST,
                f"somebody else put {shown(move.folder, move.name)} there",
                hint="move it away; the job goes on by itself",
            ) from error

    def _make_restored_folder(self, move: Move) -> None:
        """`restored/<site>/`. Any other folder that is missing may be a mount that is gone."""
        folder = self.tree.root / move.folder
        if folder.parent == self.tree.folder(Folder.RESTORED) and not folder.is_dir():
            folder.mkdir(mode=0o755)
            spool.sync_folder(folder.parent)

    def _place_status(self, move: Move, *, answered: bool) -> None:
        """Step (5). The row has the document, so that it can always be written again."""
        if answered or _inode(self._target(move)) == move.inode:
            return
        if not (self.scratch / STATUS_FILE).exists():
            Planner.write_status(self.scratch, self.document)
        with suppress(FileExistsError):  # written again by an earlier redo: the same bytes
            spool.rename_new(self._source(move), self._target(move))
        spool.sync_folder(self.tree.root / move.folder)

    def _link_status(self, move: Move) -> None:
        """Step (6), by way of scratch: a rename replaces, and a zombie has no scratch."""
        link = self.scratch / _LINK_FILE
        with suppress(FileNotFoundError):
            link.unlink()
        try:
            os.link(self._target(move), os.fsencode(link), follow_symlinks=False)
        except FileNotFoundError:  # a consumer was quick
            spool.replace_content(link, self.document, self.scratch / "link.tmp", durable=True)
        os.rename(os.fsencode(link), self._answer())
        with suppress(FileNotFoundError):  # rename(2) does nothing where both are one inode
            link.unlink()
        with suppress(OSError):  # empty by now: whoever sees the answer finds no scratch
            self.scratch.rmdir()
        spool.sync_folder(self.tree.folder(Folder.STATUS))

    def _answer(self) -> bytes:
        return target_path(self.tree, Folder.STATUS, status_name(self.job.drop_name))

    def _target(self, move: Move) -> bytes:
        return target_path(self.tree, move.folder, move.name)

    def _source(self, move: Move) -> bytes:
        if move.role == DROP:
            name = claimed_name(self.job.id, self.job.drop_name)
            return target_path(self.tree, Folder.CLAIMED, name)
        return os.fsencode(self.scratch / move.source)


def _inode(path: bytes) -> int | None:
    with suppress(OSError):
        return os.lstat(path).st_ino
    return None
