"""From a publication to the rows that reserve its names, with what proves later whose a file is.

Pure. A name outlives its job's row: it goes when its file does.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from spoold.queue.job import Job, Move, Publication, State
from spoold.queue.rows import to_bigint
from spoold.queue.tree_rows import Area

_BUNDLE_SUFFIXES: Final = (b".tar.zst", b".tar.gz")


@dataclass(frozen=True, slots=True)
class Owner:
    """What of a job decides where its files belong."""

    job: uuid.UUID
    action: str | None
    drop_name: bytes

    @classmethod
    def of(cls, job: Job) -> "Owner":
        """Those of a row."""
        return cls(job.id, job.action, job.drop_name)


def area_of(owner: Owner, state: State, folder: str, role: str) -> Area:
    """The area of one name."""
    made = owner.action == "bundle" and role == "bundle"
    received = (
        owner.action == "rehydrate"
        and role == "drop"
        and owner.drop_name.endswith(_BUNDLE_SUFFIXES)
    )
    if state is State.SUCCEEDED and (made or received):
        return Area.BUNDLES
    return Area(folder.partition("/")[0])


def reservations(
    batch: Iterable[tuple[Owner, Publication]],
) -> dict[str, object]:
    """The arrays that the statements which reserve names want."""
    rows = [
        (owner, publication, name) for owner, publication in batch for name in publication.names
    ]
    moves = [_by_name(publication).get(name) for _, publication, name in rows]
    roles = [move.role if move else "" for move in moves]
    return {
        "owners": [owner.job for owner, _, _ in rows],
        "folders": [folder for _, _, (folder, _) in rows],
        "names": [name for _, _, (_, name) in rows],
        "roles": roles,
        "areas": [
            area_of(owner, State(str(publication.outcome["state"])), folder, role).value
            for (owner, publication, (folder, _)), role in zip(rows, roles, strict=True)
        ],
        "inodes": [to_bigint(move.inode) if move else None for move in moves],
        "sizes": [move.size if move else None for move in moves],
        "mtimes": [move.mtime_ns if move else None for move in moves],
    }


def _by_name(publication: Publication) -> Mapping[tuple[str, bytes], Move]:
    moves = (*publication.standing, *publication.sources)
    return {(move.folder, move.name): move for move in moves}
