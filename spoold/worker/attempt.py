"""Run one claimed job to where it can be published: the action, and what its failure means.

A failure that may pass goes back to the queue with a delay while attempts are left; any other
ends the job. What is no fault of the job (a full disk, say) uses up no attempt: it is tried again
for ever. Whatever happens, the claim is given up by one guarded statement.
"""

import enum
import os
import random
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never

import structlog

from spoold import errors, points
from spoold.actions import ACTIONS
from spoold.actions.context import (
    ActionSettings,
    Context,
    KeyDoneError,
    KeyHeldError,
    Outcome,
    ResultError,
)
from spoold.canonical import error_document
from spoold.errors import SpooldError
from spoold.publish import Ending, Ready, standing
from spoold.publish.plan import Name, shown, target_path
from spoold.publish.publisher import restored_problem
from spoold.queue.answers import Key, Waiting
from spoold.queue.job import Claim, Job, RetryPolicy, State, may_retry, retry_delay
from spoold.queue.patience import patiently
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host, claimed_name
from spoold.trust import Signer, Trust
from spoold.worker import scratch as scratch_folder
from spoold.worker.live import LiveStatus
from spoold.worker.scratch import LeaseLostError

log = structlog.get_logger()

# So often is looked whether there is room again.
_LONGEST_POSTPONEMENT_SECONDS = 60.0
_USED_UP = "its attempts are used up: remove the cause that the message names, then `spoold retry`"


class Became(enum.StrEnum):
    """What became of a claimed job in one attempt."""

    PUBLISHED = "published"
    RETRIED = "retried"
    WAITS = "waits"
    DEFERRED = "deferred"
    POSTPONED = "postponed"
    LOST = "lost"


class _AnsweredError(Exception):
    """The job has its final status already; the row is of a time before that."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.state)
        self.ending = ending


@dataclass(frozen=True, slots=True)
class Site:
    """What every attempt of a worker shares."""

    tree: Spool
    host: Host
    signer: Signer
    load_trust: Callable[[], Trust]
    """Read anew for every attempt: keys are trusted and revoked while the daemon runs."""
    actions: ActionSettings
    retry: RetryPolicy


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claimed job and the means to work on it."""

    claim: Claim
    store: Store
    site: Site
    live: LiveStatus
    let_go: Callable[[], None]
    """Called before the claim is given up: from then on, not holding it is no reason to die."""
    require_lease: Callable[[], None]
    """Raises where the lease may run out: what acts outside of scratch must stop then."""

    def run(self) -> Ready | Became:
        """Take the job as far as it goes without its publication."""
        try:
            publishing = self.claim.job.state is State.PUBLISHING
            return self._go_on_publishing() if publishing else self._begin()
        except LeaseLostError:
            return self._stand_back()
        except OSError as error:  # not even the scratch folder could be made
            return self._postpone(None, errors.of_os_error(error))

    def _stand_back(self) -> Became:
        """Leave a job to a newer claim. Where its row knows of none, have it claimed again.

        Then the row is older than the tree: a server that took over had not heard of the latest
        commits, say. Each claim has a higher epoch, until no folder's is as high.
        """
        self.let_go()
        if self.claim.job.state is State.PUBLISHING:
            still_ours = patiently(self.store.defer_publishing, self.claim, 0.0)
        else:
            still_ours = patiently(self.store.release, self.claim)
        return Became.WAITS if still_ours else Became.LOST

    def _go_on_publishing(self) -> Ready:
        job = self.claim.job
        assert job.outcome is not None
        recorded = job.final_document is not None
        begin = scratch_folder.take_over if recorded else scratch_folder.begin
        ending = Ending.of(job.outcome)
        if ending.state is State.DUPLICATE and not recorded and ending.result is not None:
            ending = self._duplicate_of(uuid.UUID(str(ending.result["duplicate_of"])))
        scratch = begin(self.site.tree, self.claim)
        points.reached("scratch")
        if recorded:  # else the row is asked when it is recorded
            self._require_held()
        return Ready(self.claim, scratch, ending)

    def _begin(self) -> Ready | Became:
        scratch = scratch_folder.begin(self.site.tree, self.claim)
        points.reached("scratch")
        try:
            with self.live.of(self.claim, scratch):
                outcome = self._act(scratch)
        except KeyHeldError as held:
            return self._wait_for(scratch, held)
        except KeyDoneError as done:
            return self._ready(scratch, self._duplicate_of(done.job))
        except _AnsweredError as answered:
            return self._ready(scratch, answered.ending)
        except SpooldError as error:
            if not scratch.exists():  # a handler's tool has removed it: the answer needs one
                scratch.mkdir(mode=0o700)
                self._require_held()
            return self._fail(scratch, error)
        points.reached("act")
        ending = Ending(State.SUCCEEDED, outcome.result, None, outcome.warnings)
        return replace(self._ready(scratch, ending), made=outcome.made)

    def _ready(self, scratch: Path, ending: Ending) -> Ready:
        progress = replace(self.live.progress(), phase="publish").document()
        return Ready(self.claim, scratch, ending, progress=progress)

    def _act(self, scratch: Path) -> Outcome:
        job, site = self.claim.job, self.site
        name = os.fsdecode(claimed_name(job.id, job.drop_name))
        drop = site.tree.folder(Folder.CLAIMED) / name
        if not os.path.lexists(drop):
            if final := standing.find(site.tree, site.signer, job):
                self._take_key_again(final.ending)
                raise _AnsweredError(final.ending)
            raise SpooldError(errors.DROP_MISSING, f"{name} is not in .spoold/claimed")
        context = Context(
            request=job.request,
            request_sha256=job.request_sha256,
            digits=job.short_id,
            drop=drop,
            scratch=scratch,
            settings=site.actions,
            signer=site.signer,
            trust=site.load_trust(),
            report=self.live.report,
            take_key=self._take_key,
            require_place=self._require_place,
            drop_name=job.drop_name,
            job_id=str(job.id),
            droppers=site.tree.folder(Folder.INBOX).stat().st_gid,
            check=self.require_lease,
        )
        assert job.action is not None
        try:
            return ACTIONS[job.action].run(context)
        except (SpooldError, LeaseLostError, KeyHeldError, KeyDoneError):
            raise
        except OSError as error:
            raise errors.of_os_error(error) from error
        except Exception as error:  # the job fails with a code, the worker lives on
            # A thread needs a stack: Python has no other word for the lack of room for one.
            if isinstance(error, MemoryError) or str(error) == "can't start new thread":
                raise SpooldError(errors.OUT_OF_MEMORY) from error
            log.exception("attempt.crashed", job=str(job.id), attempt=job.attempt)
            raise SpooldError(errors.INTERNAL, f"{type(error).__name__}: {error}") from error

    def _take_key(self, key: bytes, content_sha256: bytes) -> None:
        answer = patiently(self.store.take_key, self.claim, key, content_sha256)
        match answer.verdict:
            case Key.TAKEN | Key.OTHER:
                points.reached("key")
            case Key.HELD:
                assert answer.job is not None
                raise KeyHeldError(answer.job, key, content_sha256)
            case Key.DONE:
                assert answer.job is not None
                raise KeyDoneError(answer.job)
            case Key.REUSED:
                raise SpooldError(errors.IDEMPOTENCY_KEY_REUSED)
            case Key.LOST:
                raise LeaseLostError
            case _:
                assert_never(answer.verdict)

    def _require_place(self, key: bytes, name: Name, manifest_sha256: bytes) -> None:
        job, store, tree = self.claim.job, self.store, self.site.tree
        holder = patiently(store.published_by, *name)
        problem = restored_problem(tree, job, holder, name, manifest_sha256.hex())
        if problem is not None and not patiently(store.is_done, key):
            raise problem

    def _take_key_again(self, ending: Ending) -> None:
        """What was done once is done, though the row had forgotten it."""
        action = self.claim.job.action
        if action and ending.state is State.SUCCEEDED and ending.result is not None:
            taken = ACTIONS[action].key_of(ending.result)
            if taken is not None:
                with suppress(KeyHeldError, KeyDoneError):
                    self._take_key(*taken)

    def _require_held(self) -> None:
        """Make sure that this folder was made in time; raises LeaseLostError.

        Whoever claims the job after this answer begins with moving the folder away, which fences
        off all that leaves it by path. One that was made later nobody would move.
        """
        if not patiently(self.store.holds, self.claim):
            scratch_folder.leave(self.site.tree, self.store, self.claim)
            raise LeaseLostError

    def _wait_for(self, scratch: Path, held: KeyHeldError) -> Became:
        self._require_held()
        self.live.held_up(self.claim.job, scratch)
        scratch_folder.end(self.site.tree, scratch)
        self.let_go()
        waiting = patiently(
            lambda: self.store.wait_for(self.claim, held.holder, held.key, held.content_sha256)
        )
        match waiting:
            case Waiting.WAITING:
                points.reached("wait_for")
                return Became.WAITS
            case Waiting.HOLDER_GONE:  # it ended in between: this job's turn comes at once
                patiently(self.store.release, self.claim)
                return Became.WAITS
            case Waiting.LOST:
                return Became.LOST
            case _:
                assert_never(waiting)

    def _duplicate_of(self, first: uuid.UUID) -> Ending:
        job = patiently(self.store.get, first)
        return Ending(
            State.DUPLICATE, {"duplicate_of": str(first), "stands": stands(self.site.tree, job)}
        )

    def _fail(self, scratch: Path, error: SpooldError) -> Ready | Became:
        if error.code in errors.CIRCUMSTANCES:
            return self._postpone(scratch, error)
        job = self.claim.job
        document = error_document(error)
        if not may_retry(job, transient=error.transient):
            if error.transient:  # its own hint speaks of another attempt
                document = {**document, "hint": _USED_UP}
            result = error.result if isinstance(error, ResultError) else None
            ending = Ending(State(error.code.state.value), result, document)
            return self._ready(scratch, ending)
        delay = retry_delay(job.attempt, self.site.retry, random.random())  # noqa: S311  # jitter
        self._say_scheduled(scratch, error, delay)
        kept = patiently(self.store.retry, self.claim, document, delay)
        points.reached("retry")
        return Became.RETRIED if kept else Became.LOST

    def _postpone(self, scratch: Path | None, error: SpooldError) -> Became:
        """Have the attempt made again, not counted; each time a little later."""
        job, document = self.claim.job, error_document(error)
        log.error("attempt.postponed", job=str(job.id), error=str(error), fix=error.hint)
        jitter = random.random()  # noqa: S311  # it spreads load
        delay = retry_delay(self.claim.epoch, self.site.retry, jitter)
        delay = min(delay, _LONGEST_POSTPONEMENT_SECONDS)
        if job.state is State.PUBLISHING:
            self.let_go()
            deferred = patiently(self.store.defer_publishing, self.claim, delay, document)
            return Became.DEFERRED if deferred else Became.LOST
        if scratch is not None:
            self._say_scheduled(scratch, error, delay)
        self.let_go()
        kept = patiently(self.store.postpone, self.claim, document, delay)
        points.reached("postpone")
        return Became.POSTPONED if kept else Became.LOST

    def _say_scheduled(self, scratch: Path, error: SpooldError, delay: float) -> None:
        """Show that it will be tried again and why, give the folder back, and let go."""
        self._require_held()
        # Before the row: once it is scheduled, the next attempt's statuses may be on their way.
        when = datetime.now(UTC) + timedelta(seconds=delay)
        self.live.scheduled(self.claim.job, scratch, error, when)
        scratch_folder.end(self.site.tree, scratch)
        self.let_go()


def stands(tree: Spool, job: Job | None) -> str | None:
    """Where the result of the job that stands for a duplicate is.

    None when it is not known, or is not there any more.
    """
    if job is None or job.outcome is None or not isinstance(job.outcome["result"], Mapping):
        return None
    result = job.outcome["result"]
    if "restored" in result:
        restored = str(result["restored"])
        return restored if (tree.root / restored).is_dir() else None
    published = [
        (move.folder, move.name) for move in job.sources if move.role in {"bundle", "result"}
    ]
    there = [name for name in published if os.path.lexists(target_path(tree, *name))]
    return shown(*there[0]) if there else None
