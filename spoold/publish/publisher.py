"""Publishing as one story: plan, record, place, finish; and taking it up again after a crash.

Jobs that are ready at the same time go through the steps together, and share their commits and
fsyncs; what stands in the way of one stops no other.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spoold import canonical, disk, errors, points
from spoold.canonical import Document, error_document
from spoold.errors import SpooldError
from spoold.publish import standing
from spoold.publish.place import Placement
from spoold.publish.plan import (
    LOG_FILE,
    STATUS_FILE,
    TOGETHER,
    Ending,
    Made,
    Name,
    Planner,
    shown,
    target_path,
)
from spoold.queue.answers import Begun, Holder
from spoold.queue.job import Claim, Job, Publication, State
from spoold.queue.patience import patiently
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host, status_name
from spoold.trust import Signer

_FSYNC_EACH: Final = 3  # so many jobs are fsynced file by file; of more, the file system is at once
_NAME_ROUNDS: Final = 100


@dataclass(slots=True)
class Ready:
    """A claimed job whose ending is known, and what became of it once it was published.

    Neither `published` nor `error`: the claim was lost.
    """

    claim: Claim
    scratch: Path
    ending: Ending
    made: Sequence[Made] = ()
    progress: Document | None = None
    published: bool = False
    error: SpooldError | None = None
    """What stands in the way: to be tried again."""
    publication: Publication | None = None
    """What its row records, once it does."""
    placement: Placement | None = None
    taken: set[Name] = field(default_factory=set)
    """Names found to belong to others."""
    folders: set[Path] = field(default_factory=set)
    """Folders that it has changed since they were synced."""
    lost: bool = False

    @property
    def going(self) -> bool:
        """Whether there is a next step for it."""
        return self.error is None and not self.lost

    @property
    def answered(self) -> bool:
        """Whether its final status stands under `status/` already."""
        return self.placement is not None and self.placement.answered()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What goes wrong inside is this job's trouble alone."""
        try:
            yield
        except (SpooldError, OSError) as error:
            self.error = errors.of_failure(error)


class Publisher:
    """Publishes the jobs of one spool. For one thread."""

    def __init__(self, tree: Spool, store: Store, host: Host, signer: Signer) -> None:
        self._tree = tree
        self._store = store
        self._signer = signer
        self._planner = Planner(tree, host, signer)

    def publish(self, batch: Sequence[Ready]) -> None:
        """Take jobs through steps (1) to (7), each from where its row says that it stands."""
        for ready in batch:
            with ready.guarded():
                ready.publication = self._recorded(ready.claim.job)
        self._record([ready for ready in batch if ready.going and ready.publication is None])
        points.reached("publish.2")
        jobs = [ready for ready in batch if ready.going]
        for ready in jobs:
            with ready.guarded():
                self._make_room(ready)
        self._step(jobs, Placement.place_results, "publish.3")
        self._step(jobs, Placement.place_drop, "publish.4", sync=True)
        self._step(jobs, Placement.place_status, "publish.5", sync=True)
        self._step(jobs, Placement.link_status, "publish.6", sync=True)
        self._finish([ready for ready in jobs if ready.going])
        points.reached("publish.7")

    # --- (1) and (2) ----------------------------------------------------------------------------

    def _record(self, batch: Sequence[Ready]) -> None:
        """Plan, sync and commit; again with other names for those whose names are taken."""
        for _ in range(_NAME_ROUNDS):
            if not batch:
                return
            planned: list[tuple[Ready, Publication]] = []
            for ready in batch:
                with ready.guarded():
                    planned.append((ready, self._plan(ready)))
            self._sync_scratch([ready for ready, _ in planned])
            points.reached("publish.1")
            planned = [(ready, publication) for ready, publication in planned if ready.going]
            batch = []
            for (ready, publication), begun in zip(planned, self._begin(planned), strict=True):
                match begun:
                    case Begun.BEGUN:
                        ready.publication = publication
                    case Begun.LOST:
                        ready.lost = True
                    case Begun.NAME_TAKEN:
                        # None, where it was given up since: then the same names may do.
                        ready.taken |= self._names_of_others(ready.claim.job, publication)
                        batch.append(ready)
        for ready in batch:
            ready.error = SpooldError(
                errors.DATABASE_AWAY, f"the names of job {ready.claim.id} change hands too fast"
            )

    def _plan(self, ready: Ready) -> Publication:
        job = ready.claim.job
        if final := standing.find(self._tree, self._signer, job):
            return final.publication(self._tree, job, ready.taken)
        problem = self._restored_problem(job, ready.made, ready.ending.result)
        if problem is not None:
            ready.ending, ready.made = Ending(State.FAILED, error=error_document(problem)), ()
        return self._planner.plan(
            job, ready.scratch, ready.ending, ready.made, ready.progress, ready.taken
        )

    def _sync_scratch(self, batch: Sequence[Ready]) -> None:
        """What is to be published, durable before the row speaks of it."""
        if len(batch) > _FSYNC_EACH:
            with _guarded(batch):
                disk.sync_file_system(self._tree.folder(Folder.WORK))
            return
        for ready in batch:
            with ready.guarded():
                made = [ready.scratch / made.source for made in ready.made]
                for path in [*made, ready.scratch / LOG_FILE, ready.scratch / STATUS_FILE]:
                    if path.is_file():  # a folder's maker has synced it
                        disk.sync_file(path)
                disk.sync_folder(ready.scratch)

    def _begin(self, planned: Sequence[tuple[Ready, Publication]]) -> Iterator[Begun]:
        """Step (2): an answer each, in order. Rejected, cancelled, used up: publishing already."""
        answers: dict[int, Begun] = {}
        for state, record in (
            (State.RUNNING, self._store.begin_publishing),
            (State.PUBLISHING, self._store.amend_publishing),
        ):
            batch = [one for one in planned if one[0].claim.job.state is state]
            if batch:
                pairs = [(ready.claim, publication) for ready, publication in batch]
                begun = patiently(record, pairs)
                answers |= {id(one[0]): answer for one, answer in zip(batch, begun, strict=True)}
        return (answers[id(ready)] for ready, _ in planned)

    def _names_of_others(self, job: Job, publication: Publication) -> set[Name]:
        """The names that earlier jobs have published under, even if their files are gone."""
        holders = {name: patiently(self._store.published_by, *name) for name in publication.names}
        return {name for name, holder in holders.items() if holder and holder.job != job.id}

    # --- (3) to (7) -----------------------------------------------------------------------------

    def _make_room(self, ready: Ready) -> None:
        """Choose other names, in the row too, while foreign files stand where this job's go."""
        assert ready.publication is not None
        job = ready.claim.job
        while True:
            ready.placement = placement = Placement(
                self._tree,
                job,
                ready.scratch,
                ready.publication.sources,
                ready.publication.final_document,
            )
            foreign = placement.first_foreign()
            if foreign is None or placement.answered():
                return
            placement.take_back(TOGETHER if foreign.role in TOGETHER else frozenset({foreign.role}))
            points.reached("publish.taken-back")
            signed = canonical.decode(ready.publication.final_document)
            assert isinstance(signed, Mapping)
            document = {name: value for name, value in signed.items() if name != "signatures"}
            renamed = self._planner.rename(job, ready.scratch, ready.publication, document, foreign)
            amended = patiently(self._store.amend_publishing, [(ready.claim, renamed)])
            if amended != [Begun.BEGUN]:
                ready.lost = True
                return
            points.reached("publish.renamed")
            ready.publication = renamed

    def _step(
        self,
        jobs: Sequence[Ready],
        place: Callable[[Placement], set[Path]],
        point: str,
        *,
        sync: bool = False,
    ) -> None:
        """Make one step for all, then sync the folders that it and those before have changed."""
        for ready in jobs:
            if ready.going and ready.placement is not None and ready.placement.moves:
                with ready.guarded():
                    ready.folders |= place(ready.placement)
                points.reached(point)
        if not sync:
            return
        going = [ready for ready in jobs if ready.going]
        with _guarded(going):
            for folder in sorted(set().union(*(ready.folders for ready in going))):
                disk.sync_folder(folder)
        points.reached(f"{point}.synced")
        for ready in going:
            ready.folders.clear()

    def _finish(self, jobs: Sequence[Ready]) -> None:
        """Step (7)."""
        if not jobs:
            return
        answers = {ready.claim.id: status_name(ready.claim.job.drop_name) for ready in jobs}
        finished = patiently(self._store.finish, [ready.claim for ready in jobs], answers)
        for ready in jobs:
            ready.published = ready.claim.id in finished
            ready.lost = not ready.published

    # --- what may stand in the way --------------------------------------------------------------

    def _restored_problem(
        self, job: Job, made: Sequence[Made], result: Document | None
    ) -> SpooldError | None:
        """Why a folder beneath `restored/` cannot be had after all.

        The action has asked before it did anything outside of scratch; what has come since stands
        in the way all the same.
        """
        manifest_sha256 = result.get("manifest_sha256") if result else None
        for one in made:
            if not one.folder.startswith(Folder.RESTORED):
                continue
            name = (one.folder, one.name)
            holder = patiently(self._store.published_by, *name)
            problem = restored_problem(self._tree, job, holder, name, manifest_sha256)
            if problem is not None:
                return problem
            if holder is not None and holder.job != job.id:
                patiently(self._store.unpublish, holder.job, *name)
        return None

    def _recorded(self, job: Job) -> Publication | None:
        """What a claimed job's row records; None where it has no document, or an overtaken one."""
        if job.final_document is None:
            return None
        final = standing.find(self._tree, self._signer, job)
        if final is not None and final.content != job.final_document:
            return None  # of an older backup: files have changed their names since
        assert job.outcome is not None
        return Publication.of(job.outcome, job.final_document, job.sources)


def restored_problem(
    tree: Spool, job: Job, holder: Holder | None, name: Name, manifest_sha256: object
) -> SpooldError | None:
    """Why a job cannot have a folder beneath `restored/`: names there take no suffix.

    `holder` is whoever published it last. A name whose folder an operator has removed is free again
    for the same bundle.
    """
    if holder is not None and holder.job == job.id:
        return None
    where = shown(*name)
    if holder is not None and holder.manifest_sha256 not in {None, manifest_sha256}:
        return SpooldError(errors.BUNDLE_ID_TAKEN, f"{where} is of job {holder.job}")
    if os.path.lexists(target_path(tree, *name)):
        return SpooldError(errors.RESTORED_EXISTS, f"{where} is there")
    return None


@contextmanager
def _guarded(batch: Sequence[Ready]) -> Iterator[None]:
    """What goes wrong inside is the trouble of all of them."""
    try:
        yield
    except OSError as error:
        for ready in batch:
            ready.error = errors.of_os_error(error)
