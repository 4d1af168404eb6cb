"""Publishing as one story: plan, record, place, finish; and taking it up again after a crash."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from spoold import canonical, errors
from spoold.canonical import Document
from spoold.errors import SpooldError
from spoold.publish.place import Placement
from spoold.publish.plan import TOGETHER, Ending, Made, Name, Planner, shown, target_path
from spoold.queue.job import Begun, Claim, Job, Publication, State
from spoold.queue.patience import patiently
from spoold.queue.rows import error_document
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import TYPE as STATUS_TYPE
from spoold.status import Host, claimed_name, status_name
from spoold.trust import Role, Signer, Trust


class Publisher:
    """Publishes the jobs of one spool. `publish` and `resume` return False for a lost claim."""

    def __init__(self, tree: Spool, store: Store, host: Host, signer: Signer) -> None:
        self._tree = tree
        self._store = store
        self._signer = signer
        self._planner = Planner(tree, host, signer)

    def publish(
        self,
        claim: Claim,
        scratch: Path,
        ending: Ending,
        made: Sequence[Made] = (),
        progress: Document | None = None,
    ) -> bool:
        """Steps (1) to (7) for a job whose ending is known and not recorded yet."""
        publication = self._standing_final(claim.job)
        if publication is not None:
            return self._begin(claim, publication) is Begun.BEGUN and self._finish(claim)
        taken: set[Name] = set()
        while True:
            problem = self._restored_problem(claim.job, made, ending.result)
            if problem is not None:
                ending, made = Ending(State.FAILED, error=error_document(problem)), ()
            publication = self._planner.plan(claim.job, scratch, ending, made, progress, taken)
            match self._begin(claim, publication):
                case Begun.BEGUN:
                    return self._carry_out(claim, scratch, publication)
                case Begun.LOST:
                    return False
                case Begun.NAME_TAKEN:
                    others = self._names_of_others(claim.job, publication)
                    assert not others <= taken, "a name with the job's own digits is taken"
                    taken |= others

    def resume(self, claim: Claim, scratch: Path) -> bool:
        """Steps (3) to (7) for a job whose row holds its final document."""
        job = claim.job
        assert job.final_document is not None
        assert job.outcome is not None
        names = tuple((move.folder, move.name) for move in job.sources)
        publication = Publication(job.outcome, job.final_document, job.sources, names)
        return self._carry_out(claim, scratch, publication)

    def _begin(self, claim: Claim, publication: Publication) -> Begun:
        """Step (2)."""
        if claim.job.state is State.PUBLISHING:  # rejected, cancelled, used up: no document yet
            return patiently(self._store.amend_publishing, claim, publication)
        return patiently(self._store.begin_publishing, claim, publication)

    def _carry_out(self, claim: Claim, scratch: Path, publication: Publication) -> bool:
        while True:
            placement = Placement(
                self._tree, claim.job, scratch, publication.sources, publication.final_document
            )
            foreign = placement.first_foreign()
            if foreign is None or placement.answered():
                break
            placement.take_back(TOGETHER if foreign.role in TOGETHER else frozenset({foreign.role}))
            document = dict(_parsed(publication.final_document))
            del document["signatures"]
            renamed = self._planner.rename(claim.job, scratch, publication, document, foreign)
            amended = patiently(self._store.amend_publishing, claim, renamed)
            if amended is not Begun.BEGUN:
                return False
            publication = renamed
        placement.place()
        return self._finish(claim)

    def _names_of_others(self, job: Job, publication: Publication) -> set[Name]:
        """The names that earlier jobs have published under, even if their files are gone."""
        holders = {name: patiently(self._store.published_by, *name) for name in publication.names}
        return {name for name, holder in holders.items() if holder and holder.id != job.id}

    def _finish(self, claim: Claim) -> bool:
        """Step (7)."""
        return patiently(self._store.finish, claim)

    def _restored_problem(
        self, job: Job, made: Sequence[Made], result: Document | None
    ) -> SpooldError | None:
        """Why a folder beneath `restored/` cannot be had: names there take no suffix.

        A name whose folder an operator has removed is free again for the same bundle.
        """
        for one in made:
            if not one.folder.startswith(Folder.RESTORED):
                continue
            holder = self._holder(one)
            if holder is not None and holder.id == job.id:
                continue
            where = shown(one.folder, one.name)
            if holder is not None and _manifest(holder.outcome) != _manifest({"result": result}):
                return SpooldError(errors.BUNDLE_ID_TAKEN, f"{where} is of job {holder.id}")
            if os.path.lexists(target_path(self._tree, one.folder, one.name)):
                return SpooldError(errors.RESTORED_EXISTS, f"{where} is there")
            if holder is not None:
                self._give_up(holder, one)
        return None

    def _holder(self, made: Made) -> Job | None:
        return patiently(self._store.published_by, made.folder, made.name)

    def _give_up(self, holder: Job, made: Made) -> None:
        patiently(self._store.unpublish, holder.id, made.folder, made.name)

    def _standing_final(self, job: Job) -> Publication | None:
        """A signed final of this job that stands on disk while its drop is gone.

        It is there when the database was restored from an older backup: what was answered stays
        answered, and the row follows it.
        """
        claimed = target_path(self._tree, Folder.CLAIMED, claimed_name(job.id, job.drop_name))
        if os.path.lexists(claimed):
            return None
        path = target_path(self._tree, Folder.STATUS, status_name(job.drop_name))
        try:
            content = Path(os.fsdecode(path)).read_bytes()
            own = Trust([self._signer.trusted()])
            document = own.verify_document(content, STATUS_TYPE, Role.STATUS).document
        except (OSError, SpooldError):
            return None
        if document["job_id"] != str(job.id) or document["final"] is not True:
            return None
        outcome = {name: document[name] for name in ("state", "result", "error", "warnings")}
        return Publication(outcome, content, (), ())


def _parsed(content: bytes) -> Document:
    document = canonical.decode(content)
    assert isinstance(document, Mapping)
    return document


def _manifest(outcome: Document | None) -> object:
    result = outcome.get("result") if outcome else None
    return result.get("manifest_sha256") if isinstance(result, Mapping) else None
