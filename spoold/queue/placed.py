"""What jobs have put into the tree, by name: what of it is due, what holds it, what is gone.

Guarantees: a name is only given up for the job that had it.
"""

import enum
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from spoold.canonical import Document
from spoold.queue.rows import to_bigint
from spoold.queue.store import Store
from spoold.queue.tree_rows import Area, Placed

_PAGE: Final = 500
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_FIRST_JOB: Final = uuid.UUID(int=0)


class Hold(enum.StrEnum):
    """Why the files of a job are kept, in the words of logs and metrics."""

    UNFINISHED = "unfinished"  # itself, or who waits for it
    DUPLICATE = "duplicate"  # another job's answer, not older than the rule, names its result
    PINNED = "pinned"
    NEEDED = "needed"  # an unfinished request names a path to it


class Places:
    """The names of one spool's jobs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def due(self, area: Area, seconds: float) -> Iterator[list[uuid.UUID]]:
        """Jobs that have had names in an area for so long, the oldest first, page by page."""
        after, job = _EARLIEST, _FIRST_JOB
        while True:
            rows = self._rows(
                "due", area=area.value, seconds=seconds, after=after, job=job, limit=_PAGE
            )
            if rows:
                yield [row[1] for row in rows]
            if len(rows) < _PAGE:
                return
            after, job = rows[-1]

    def held(
        self, jobs: Collection[uuid.UUID], seconds: float, *, pins: bool = True
    ) -> Mapping[uuid.UUID, Hold]:
        """Which of these jobs' files something still speaks of, and why.

        A duplicate's answer names the first one's result: that is held for as long after it.
        """
        texts = [str(job) for job in jobs]
        rows = self._rows("held", jobs=list(jobs), texts=texts, seconds=seconds)
        if pins:
            rows = [*rows, *self._rows("pinned", jobs=list(jobs))]
        return {job: Hold(reason) for job, reason in reversed(rows)}

    def of(self, jobs: Collection[uuid.UUID], areas: Collection[Area]) -> list[Placed]:
        """The names of these jobs in these areas: job by job, its status file last."""
        wanted = [area.value for area in areas]
        return [Placed.of(row) for row in self._rows("placed", jobs=list(jobs), areas=wanted)]

    def at(self, folder: str, names: Collection[bytes]) -> list[Placed]:
        """Whose these names in one folder are, of those that are anybody's."""
        return [Placed.of(row) for row in self._rows("placed_at", folder=folder, names=list(names))]

    def all(self) -> Iterator[list[Placed]]:
        """Every name, page by page."""
        folder, name = "", b""
        while True:
            page = [
                Placed.of(row)
                for row in self._rows("all_placed", folder=folder, name=name, limit=_PAGE)
            ]
            if page:
                yield page
            if len(page) < _PAGE:
                return
            folder, name = page[-1].folder, page[-1].name

    def give_up(self, gone: Sequence[Placed]) -> None:
        """Free names whose files are gone; bundles among them are marked as removed."""
        if gone:
            parameters = {"spool": self._store.spool, **_names(gone)}
            self._store.database.atomically(lambda: self._store.database.run("give_up", parameters))

    def found_again(self, found: Sequence[Placed]) -> None:
        """Record what proves that these files are those that were published, anew."""
        self._store.database.run(
            "found_again",
            {
                "spool": self._store.spool,
                **_names(found),
                "inodes": [None if one.inode is None else to_bigint(one.inode) for one in found],
                "sizes": [one.size for one in found],
                "mtimes": [one.mtime_ns for one in found],
            },
        )

    def reading(self, actions: Collection[str]) -> Iterator[tuple[str, Document]]:
        """The unfinished requests of these actions."""
        after = b""
        while True:
            rows = self._rows("reading", actions=list(actions), after=after, limit=_PAGE)
            yield from ((action, request) for _, action, request in rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def _rows(self, statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        return self._store.database.rows(statement, {"spool": self._store.spool, **parameters})


def _names(placed: Sequence[Placed]) -> dict[str, object]:
    return {
        "owners": [one.job for one in placed],
        "folders": [one.folder for one in placed],
        "names": [one.name for one in placed],
    }
