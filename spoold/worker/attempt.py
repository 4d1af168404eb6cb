"""Run one claimed job to its end: the action, what its failure means, and publishing.

A failure that may pass goes back to the queue with a delay while attempts are left; any other
ends the job. Whatever happens, the claim is given up by one guarded statement.
"""

import enum
import errno
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never

import structlog

from spoold import errors
from spoold.actions import ACTIONS
from spoold.actions.context import ActionSettings, Context, KeyDoneError, KeyHeldError, Outcome
from spoold.errors import SpooldError
from spoold.publish import Ending, Made, Publisher
from spoold.publish.plan import shown
from spoold.queue.job import Claim, Job, Key, RetryPolicy, State, Waiting, may_retry, retry_delay
from spoold.queue.patience import patiently
from spoold.queue.rows import error_document
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host, claimed_name
from spoold.trust import Signer, Trust
from spoold.worker import scratch as scratch_folder
from spoold.worker.live import LiveStatus

log = structlog.get_logger()

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PUBLISH_AGAIN_SECONDS = 5.0
_USED_UP = "its attempts are used up: remove the cause that the message names, then `spoold retry`"


class Became(enum.StrEnum):
    """What became of a claimed job in one attempt."""

    PUBLISHED = "published"
    RETRIED = "retried"
    WAITS = "waits"
    DEFERRED = "deferred"
    LOST = "lost"


class LeaseLostError(Exception):
    """The job is somebody else's by now: this attempt publishes nothing."""


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

    def run(self) -> tuple[Became, Ending | None]:
        """Take the job as far as it goes; the ending where there is one."""
        job, tree = self.claim.job, self.site.tree
        if job.state is State.PUBLISHING:
            assert job.outcome is not None
            again = job.final_document is not None
            begin = scratch_folder.take_over if again else scratch_folder.begin
            ending = Ending.of(job.outcome)
            if ending.state is State.DUPLICATE and not again and ending.result is not None:
                ending = self._duplicate_of(uuid.UUID(str(ending.result["duplicate_of"])))
            return self._publish(begin(tree, self.claim), ending, resume=again)
        scratch = scratch_folder.begin(tree, self.claim)
        try:
            with self.live.of(job, scratch):
                outcome = self._act(scratch)
        except LeaseLostError:
            return Became.LOST, None
        except KeyHeldError as held:
            return self._wait_for(scratch, held)
        except KeyDoneError as done:
            return self._publish(scratch, self._duplicate_of(done.job))
        except SpooldError as error:
            return self._fail(scratch, error)
        ending = Ending(State.SUCCEEDED, outcome.result, None, outcome.warnings)
        return self._publish(scratch, ending, outcome.made)

    def _act(self, scratch: Path) -> Outcome:
        job, site = self.claim.job, self.site
        name = os.fsdecode(claimed_name(job.id, job.drop_name))
        drop = site.tree.folder(Folder.CLAIMED) / name
        if not os.path.lexists(drop):
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
        )
        assert job.action is not None
        try:
            return ACTIONS[job.action].run(context)
        except (SpooldError, LeaseLostError, KeyHeldError, KeyDoneError):
            raise
        except OSError as error:
            raise disk_error(error) from error
        except Exception as error:  # the job fails with a code, the worker lives on
            log.exception("attempt.crashed", job=str(job.id), attempt=job.attempt)
            raise SpooldError(errors.INTERNAL, f"{type(error).__name__}: {error}") from error

    def _take_key(self, key: bytes, content_sha256: bytes) -> None:
        answer = patiently(self.store.take_key, self.claim, key, content_sha256)
        match answer.verdict:
            case Key.TAKEN | Key.OTHER:
                return
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

    def _wait_for(self, scratch: Path, held: KeyHeldError) -> tuple[Became, Ending | None]:
        self.live.held_up(self.claim.job, scratch)
        scratch_folder.end(self.site.tree, scratch)
        self.let_go()
        waiting = patiently(
            lambda: self.store.wait_for(self.claim, held.holder, held.key, held.content_sha256)
        )
        match waiting:
            case Waiting.WAITING:
                return Became.WAITS, None
            case Waiting.HOLDER_GONE:  # it ended in between: this job's turn comes at once
                patiently(self.store.release, self.claim)
                return Became.WAITS, None
            case Waiting.LOST:
                return Became.LOST, None
            case _:
                assert_never(waiting)

    def _duplicate_of(self, first: uuid.UUID) -> Ending:
        job = patiently(self.store.get, first)
        return Ending(State.DUPLICATE, {"duplicate_of": str(first), "stands": stands(job)})

    def _fail(self, scratch: Path, error: SpooldError) -> tuple[Became, Ending | None]:
        job = self.claim.job
        document = error_document(error)
        if not may_retry(job, transient=error.code.transient):
            if error.code.transient:  # its own hint speaks of another attempt
                document = {**document, "hint": _USED_UP}
            ending = Ending(State(error.code.state.value), error=document)
            return self._publish(scratch, ending)
        delay = retry_delay(job.attempt, self.site.retry, random.random())  # noqa: S311  # jitter
        # Before the row: once it is scheduled, the next attempt's statuses may be on their way.
        self.live.scheduled(job, scratch, error, datetime.now(UTC) + timedelta(seconds=delay))
        scratch_folder.end(self.site.tree, scratch)
        self.let_go()
        kept = patiently(self.store.retry, self.claim, document, delay)
        return (Became.RETRIED if kept else Became.LOST), None

    def _publish(
        self, scratch: Path, ending: Ending, made: Sequence[Made] = (), *, resume: bool = False
    ) -> tuple[Became, Ending | None]:
        """Publish; what stands in the way is tried again for ever, by whoever claims it then."""
        publisher = Publisher(self.site.tree, self.store, self.site.host, self.site.signer)
        try:
            if resume:
                kept = publisher.resume(self.claim, scratch)
            else:
                progress = replace(self.live.progress(), phase="publish").document()
                kept = publisher.publish(self.claim, scratch, ending, made, progress)
        except (SpooldError, OSError) as error:
            return self._defer(error if isinstance(error, SpooldError) else disk_error(error))
        scratch_folder.end(self.site.tree, scratch)
        return (Became.PUBLISHED, ending) if kept else (Became.LOST, None)

    def _defer(self, error: SpooldError) -> tuple[Became, Ending | None]:
        """Give a publication back for a while; one without a document begins again."""
        log.error("publish.failed", job=str(self.claim.job.id), error=str(error), fix=error.hint)
        self.let_go()
        document = error_document(error)
        if patiently(
            lambda: self.store.defer_publishing(self.claim, _PUBLISH_AGAIN_SECONDS, document)
        ):
            return Became.DEFERRED, None
        # No document yet: its own disk was full. The attempt is made again, and not counted.
        time.sleep(_PUBLISH_AGAIN_SECONDS)
        kept = patiently(self.store.release, self.claim)
        return (Became.RETRIED if kept else Became.LOST), None


def disk_error(error: OSError) -> SpooldError:
    """A system call's failure as an error of ours."""
    code = errors.NO_SPACE if error.errno in _FULL else errors.DISK_ERROR
    where = error.filename2 or error.filename
    shown = f"{os.fsdecode(where)}: " if isinstance(where, str | bytes) else ""
    return SpooldError(code, f"{shown}{error.strerror or error}")


def stands(job: Job | None) -> str | None:
    """Where the result of the job that stands for a duplicate is; None when it is not known."""
    if job is None or job.outcome is None or not isinstance(job.outcome["result"], Mapping):
        return None
    result = job.outcome["result"]
    if "restored" in result:
        return str(result["restored"])
    published = [move for move in job.sources if move.role == "bundle"]
    return shown(published[0].folder, published[0].name) if published else None
