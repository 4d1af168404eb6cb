"""A job's signed final status that stands on disk while its row knows nothing of it.

So it is after the database was restored from an older backup, or lost. What was answered stays
answered: the row follows the document, byte for byte, and its names are reserved again.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from spoold import canonical
from spoold.canonical import Document
from spoold.errors import SpooldError
from spoold.publish.plan import (
    DROP,
    LOG,
    STATUS,
    STATUS_FILE,
    Ending,
    Name,
    found_move,
    log_name,
    shown,
    target_path,
)
from spoold.queue.job import Job, Move, Publication, short_id
from spoold.spool import Folder, Spool
from spoold.status import TYPE, claimed_name, status_name, suffixed_name, true_name
from spoold.trust import Role, Signer, Trust
from spoold.trust_store import load_trust

_MAX_STATUS_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FinalStatus:
    """A final document whose signature is this site's own, and where it stands."""

    document: Document
    content: bytes
    linked: bool
    """Nothing is to be done under `status/`: it has this one, or that of a newer drop."""

    @property
    def ending(self) -> Ending:
        """How the job ended."""
        return Ending.of(self.document)

    def publication(self, tree: Spool, job: Job, taken: Collection[Name]) -> Publication:
        """What the job's row is to record; the link under `status/` may be all that is left."""
        names = names_of(self.document)
        standing: dict[str, Move] = {}
        for role, name in names.items():
            with suppress(FileNotFoundError):
                source = STATUS_FILE if role == STATUS else ""
                standing[role] = found_move(role, source, name, os.lstat(target_path(tree, *name)))
        to_link = STATUS in standing and not self.linked
        reserved = tuple(name for name in names.values() if name not in taken)
        return Publication(
            self.ending.outcome(),
            self.content,
            (standing[STATUS],) if to_link else (),
            reserved,
            tuple(standing.values()),
        )


def find(tree: Spool, signer: Signer, job: Job) -> FinalStatus | None:
    """The final document of a job whose drop has left `claimed/`; None where there is none."""
    if os.path.lexists(target_path(tree, Folder.CLAIMED, claimed_name(job.id, job.drop_name))):
        return None
    own = own_trust(tree, signer)
    answer = _read(target_path(tree, Folder.STATUS, status_name(job.drop_name)))
    for content in (answer, *_beside(tree, job)):
        document = verified(own, content, str(job.id))
        if document is not None:
            assert content is not None
            linked = answer == content or _is_of_another(answer, str(job.id))
            return FinalStatus(document, content, linked)
    return None


def verified(own: Trust, content: bytes | None, job_id: str) -> Document | None:
    """A final status document of this job, signed by this site; None for anything else."""
    if content is None or b'"final":true' not in content:
        return None
    try:
        document = own.verify_document(content, TYPE, Role.STATUS).document
    except SpooldError:
        return None
    return document if document["job_id"] == job_id and document["final"] is True else None


def own_trust(tree: Spool, signer: Signer) -> Trust:
    """The keys that this site has signed with: its own, and those it has replaced."""
    return Trust([key for key in load_trust(tree, signer) if key.site == signer.site])


def names_of(document: Document) -> dict[str, Name]:
    """The names that a final document's files have, and its own beside the drop, by role."""
    files, folder = document["files"], Ending.of(document).folder
    assert isinstance(files, Mapping)
    drop = true_name(document)
    suffixed = suffixed_name(drop, str(document["job_id"])[-12:])
    if files.get(DROP) == shown(folder, suffixed):
        drop = suffixed
    names: dict[str, Name] = {}
    for role, path in files.items():
        where, _, name = str(path).rpartition("/")
        # Names of results are plain; that of a drop is anything.
        raw = {DROP: drop, LOG: log_name(drop)}.get(role, name.encode())
        names[role] = (where, raw)
    return {**names, STATUS: (str(folder), status_name(drop))}


def _beside(tree: Spool, job: Job) -> Iterator[bytes | None]:
    for name in (job.drop_name, suffixed_name(job.drop_name, short_id(job.id))):
        for folder in (Folder.PROCESSED, Folder.FAILED):
            yield _read(target_path(tree, folder, status_name(name)))


def _is_of_another(answer: bytes | None, job_id: str) -> bool:
    if answer is None:
        return False
    try:
        document = canonical.decode(answer)
    except ValueError:
        return False
    return isinstance(document, Mapping) and document.get("job_id") != job_id


def _read(path: bytes) -> bytes | None:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(_MAX_STATUS_BYTES)  # what is cut off here is a stranger's
    return None
