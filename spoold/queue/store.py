"""The store: every question to the queue and every change of it, for one spool.

Guarantees: each transition of job.TRANSITIONS is one named statement of queries.sql, guarded by
what it changes from; times and leases are on the database's clock; a lost connection raises
database-away and the next call connects again, and each call may then be repeated.
Not guaranteed: that a call which raised database-away did not commit.
"""

import math
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final, cast

from spoold import errors
from spoold.canonical import Document, error_document
from spoold.errors import SpooldError
from spoold.queue import admission, catching_up, claims, maintenance, waiters
from spoold.queue.answers import (
    Answer,
    Backlog,
    Begun,
    Cancelled,
    Holder,
    KeyAnswer,
    Rescued,
    Running,
    StateAndEpoch,
    Waiting,
    WorkerRow,
)
from spoold.queue.catching_up import Decided
from spoold.queue.database import Database
from spoold.queue.job import Admission, Claim, Job, Move, Publication, RetryPolicy, State, Verb
from spoold.queue.rows import dump, dump_moves, job_from, outcome

_READ_AT_ONCE: Final = 500


class Store:
    """The queue of one spool over one connection, for one thread."""

    def __init__(
        self, database: Database, spool: uuid.UUID, *, aging_seconds: float = 60.0
    ) -> None:
        self.database = database
        self.spool = spool
        self._aging_seconds = aging_seconds

    def transaction(self) -> AbstractContextManager[None]:
        """Several calls in one commit; inside another one, a savepoint."""
        return self.database.transaction()

    # --- workers --------------------------------------------------------------------------------

    def register_worker(self, worker: uuid.UUID, place: str, pid: int, version: str) -> None:
        """Announce a worker process; its claims hold while `beat` is called."""
        self.database.run(
            "register_worker", self._with(worker=worker, place=place, pid=pid, version=version)
        )

    def beat(self, worker: uuid.UUID) -> frozenset[tuple[uuid.UUID, int]] | None:
        """Renew the lease; the (job, epoch) pairs still held, or None: the row is gone, stop."""
        rows = self.database.rows("beat", self._with(worker=worker))
        if not rows:
            return None
        return frozenset((job, epoch) for job, epoch in rows if job is not None)

    def leave(self, worker: uuid.UUID) -> None:
        """Delete the worker's row: what it still holds is lost, and rescued at once."""
        self.database.run("leave", self._with(worker=worker))

    def disown(self, worker: uuid.UUID, keep: Collection[uuid.UUID] = ()) -> int:
        """Give back all the worker holds but `keep`; for claims whose answer never arrived."""
        parameters = self._with(worker=worker, keep=list(keep))
        running = self.database.rows("disown_running", parameters)
        return len(running) + len(self.database.rows("disown_publishing", parameters))

    def workers(self) -> list[WorkerRow]:
        """The worker processes that the database knows of."""
        return [WorkerRow(*row) for row in self.database.rows("workers", self._with())]

    # --- admission ------------------------------------------------------------------------------

    def admit(self, batch: Sequence[Admission]) -> list[Answer]:
        """Make drops into jobs, in one transaction; one answer each, in order."""
        return admission.admit(self.database, self.spool, self._aging_seconds, batch)

    def busy_names(self, names: Collection[bytes]) -> frozenset[bytes]:
        """Which of these drop names belong to unfinished jobs."""
        rows = self.database.rows("busy_names", self._with(names=list(names)))
        return frozenset(row[0] for row in rows)

    def existing(self, jobs: Collection[uuid.UUID]) -> dict[uuid.UUID, StateAndEpoch]:
        """How these jobs stand; ids without a row are left out."""
        rows = self.database.rows("existing", self._with(ids=list(jobs)))
        return {job: StateAndEpoch(State(state), epoch) for job, state, epoch in rows}

    # --- claims ---------------------------------------------------------------------------------

    def claim(self, worker: uuid.UUID, limit: int = 1) -> list[Claim]:
        """Claim due jobs, most urgent first. A job that has lost an attempt comes alone."""
        return claims.take(self.database, Verb.CLAIM, self.spool, worker, limit)

    def claim_publishing(self, worker: uuid.UUID, limit: int = 1) -> list[Claim]:
        """Claim jobs that are to be published and belong to nobody; no attempt is counted."""
        return claims.take(self.database, Verb.CLAIM_PUBLISHING, self.spool, worker, limit)

    def progress(self, claim: Claim, progress: Document) -> bool:
        """Show how far an attempt is; False if the lease is lost."""
        return claims.write(self.database, Verb.PROGRESS, claim, progress=dump(progress))

    def holds(self, claim: Claim) -> bool:
        """Whether the lease still stands."""
        return claims.write(self.database, "holds", claim)

    def is_done(self, dedup_key: bytes) -> bool:
        """Whether a job with that key has succeeded."""
        return bool(waiters.done(self.database, self.spool, [dedup_key]))

    def take_key(self, claim: Claim, dedup_key: bytes, request_sha256: bytes) -> KeyAnswer:
        """Make a key this running job's own, unless it is held or done."""
        return claims.take_key(self.database, claim, dedup_key, request_sha256)

    def wait_for(
        self, claim: Claim, holder: uuid.UUID, dedup_key: bytes, request_sha256: bytes
    ) -> Waiting:
        """Put the job back until the holder of its key has ended; the attempt is given back."""
        return claims.wait_for(self.database, claim, holder, dedup_key, request_sha256)

    def release(self, claim: Claim) -> bool:
        """Put a running job back into the queue, the attempt given back; False if lost."""
        return claims.write(self.database, Verb.RELEASE, claim)

    def retry(self, claim: Claim, error: Document, delay_seconds: float) -> bool:
        """Schedule the next attempt; False if the lease is lost or the attempts are used up."""
        return claims.write(
            self.database, Verb.RETRY, claim, error=dump(error), delay_seconds=delay_seconds
        )

    def postpone(self, claim: Claim, error: Document, delay_seconds: float) -> bool:
        """Schedule the attempt again, not counted: the job is not at fault; False if lost."""
        return claims.write(
            self.database, Verb.POSTPONE, claim, error=dump(error), delay_seconds=delay_seconds
        )

    def begin_publishing(self, batch: Sequence[tuple[Claim, Publication]]) -> list[Begun]:
        """Make the outcomes of running jobs durable, before their first rename.

        In one commit; an answer each, in order.
        """
        return claims.begin_publishing(self.database, self.spool, batch)

    def amend_publishing(self, batch: Sequence[tuple[Claim, Publication]]) -> list[Begun]:
        """Give publishing jobs their first documents, or other names for their files.

        In one commit; an answer each, in order.
        """
        return claims.amend_publishing(self.database, self.spool, batch)

    def defer_publishing(
        self, claim: Claim, delay_seconds: float, error: Document | None = None
    ) -> bool:
        """Give a publishing job up for a while: whoever claims it then goes on."""
        return claims.write(
            self.database,
            Verb.DEFER_PUBLISHING,
            claim,
            error=dump(error),
            delay_seconds=delay_seconds,
        )

    def finish(
        self, batch: Sequence[Claim], answers: Mapping[uuid.UUID, bytes]
    ) -> frozenset[uuid.UUID]:
        """End published jobs as their outcomes say, in one commit; the ids of those final now.

        `answers` are the names of their final statuses under `status/`.
        """
        return claims.finish(self.database, self.spool, batch, answers)

    # --- maintenance ----------------------------------------------------------------------------

    def promote(self) -> int:
        """Queue what has become due, and free who waits for a job that has ended."""
        return maintenance.promote(self.database, self.spool)

    def rescue(
        self,
        lease_seconds: float,
        policy: RetryPolicy,
        causes: Mapping[uuid.UUID, SpooldError] | None = None,
        watched_seconds: float = math.inf,
    ) -> list[Rescued]:
        """Take jobs back whose worker is gone, unseen for a lease, or past their deadline.

        `causes` says of some workers how they died; `watched_seconds` for how long a silent one
        would have been noticed.
        """
        watched = min(watched_seconds, self.database.connected_seconds())
        return maintenance.rescue(
            self.database, self.spool, lease_seconds, policy, causes or {}, watched
        )

    def prunable(self, older_than_seconds: float) -> int:
        """How many jobs ended so long ago."""
        row = self.database.row("prunable", self._with(seconds=older_than_seconds))
        assert row is not None
        return int(row[0])

    def next_to_prune(self, older_than_seconds: float, limit: int = 5000) -> list[uuid.UUID]:
        """The jobs that ended so long ago, the oldest first."""
        parameters = self._with(seconds=older_than_seconds, limit=limit)
        return [row[0] for row in self.database.rows("next_to_prune", parameters)]

    def prune(self, jobs: Collection[uuid.UUID]) -> int:
        """Delete these jobs, if they have ended; their keys stay done, and their names reserved."""
        return len(self.database.rows("prune", self._with(jobs=list(jobs))))

    def erase(self) -> None:
        """Delete all rows of this spool, unless a tree is bound to it: for one of a self-test."""
        self.database.run("erase", self._with())

    # --- a database that is older than the tree ---------------------------------------------------

    def decide(self, decided: Decided) -> bool:
        """Have a job published whose outcome the row does not know; False if there is no need."""
        return catching_up.decide(self.database, self.spool, decided)

    def raise_epoch(self, job: uuid.UUID, epoch: int) -> bool:
        """Let no claim of a job have an epoch again; False if its row is as far."""
        return catching_up.raise_epoch(self.database, self.spool, job, epoch)

    def scheduled(self) -> list[uuid.UUID]:
        """The jobs that wait for their time."""
        return [row[0] for row in self.database.rows("scheduled", self._with())]

    def hasten(self, jobs: Sequence[uuid.UUID]) -> int:
        """Make scheduled jobs due; how many."""
        return catching_up.hasten(self.database, self.spool, jobs)

    # --- operators and readers ------------------------------------------------------------------

    def cancel(self, job: uuid.UUID) -> Cancelled:
        """Cancel a job that is not yet being published. Raises job-unknown or job-state."""
        ending = outcome(State.CANCELLED, error=error_document(SpooldError(errors.CANCELLED)))
        row = self.database.row("cancel", self._with(job=job, outcome=dump(ending)))
        if row is not None:
            return Cancelled(job, row[0])
        present = self.existing([job]).get(job)
        if present is None:
            raise SpooldError(errors.JOB_UNKNOWN, f"there is no job {job}")
        raise SpooldError(errors.JOB_STATE, f"job {job} is {present.state}: too late to cancel")

    def forget(self, dedup_key: bytes) -> uuid.UUID | None:
        """Let a done key be used again; the job that had it, None if it was not done."""
        row = self.database.row("forget", self._with(dedup_key=dedup_key))
        return None if row is None else uuid.UUID(str(row[0]))

    def forget_job(self, job: uuid.UUID) -> bool:
        """Let the key of a succeeded job be used again; False if it has none."""
        return self.database.row("forget_job", self._with(job=job)) is not None

    def repoint(self, job: Job, moves: Sequence[Move]) -> bool:
        """Record other inodes for the files of a job that is being published by nobody."""
        parameters = self._with(job=job.id, epoch=job.epoch, sources=dump_moves(moves))
        return self.database.row("repoint", parameters) is not None

    def get(self, job: uuid.UUID) -> Job | None:
        """A job by its id."""
        return self._one("get", job=job)

    def find_name(self, drop_name: bytes) -> Job | None:
        """The newest job of a drop name."""
        return self.newest_of([drop_name]).get(drop_name)

    def newest_of(self, drop_names: Collection[bytes]) -> dict[bytes, Job]:
        """The newest job of each of these drop names; names without one are left out."""
        rows = self.database.rows("newest_of", self._with(names=list(drop_names)))
        return {job.drop_name: job for job in map(job_from, rows)}

    def find_short(self, digits: str) -> list[Job]:
        """Jobs whose id ends in these hex digits, newest first, at most 20."""
        return [
            job_from(row) for row in self.database.rows("find_short", self._with(digits=digits))
        ]

    def jobs(self, states: Collection[State] = (), limit: int = 100) -> list[Job]:
        """The newest jobs, of all states or of these."""
        parameters = self._with(states=[state.value for state in states], limit=limit)
        return [job_from(row) for row in self.database.rows("jobs", parameters)]

    def to_retry(
        self, states: Collection[State], code: str | None, older_than_seconds: float
    ) -> Iterator[Job]:
        """Jobs that ended so, with that error code where one is given, so long ago; oldest first.

        Of each drop name the newest job only: one that was retried already is left out.
        """
        after: uuid.UUID | None = None
        while True:
            parameters = self._with(
                states=[state.value for state in states],
                code=code,
                older_than_seconds=older_than_seconds,
                after=after,
                limit=_READ_AT_ONCE,
            )
            found = [job_from(row) for row in self.database.rows("to_retry", parameters)]
            yield from found
            if len(found) < _READ_AT_ONCE:
                return
            after = found[-1].id

    def backlog(self) -> list[Backlog]:
        """Unfinished jobs counted by state and action."""
        return [
            Backlog(State(state), action, jobs, oldest)
            for state, action, jobs, oldest in self.database.rows("backlog", self._with())
        ]

    def running(self) -> list[Running]:
        """How far running attempts are, by action."""
        return [
            Running(action, *(amount or 0.0 for amount in amounts))
            for action, *amounts in self.database.rows("running", self._with())
        ]

    def busy(self) -> bool:
        """Whether a job is due, under a lease or being published; not how many."""
        row = self.database.row("busy", self._with())
        assert row is not None
        return bool(row[0])

    def unfinished(self) -> int:
        """How many jobs are not final."""
        return sum(entry.jobs for entry in self.backlog())

    def require_writable(self) -> None:
        """Raise database-away where the database does not answer, or can only be read."""
        self.database.require_writable()

    def now(self) -> datetime:
        """The database's clock."""
        row = self.database.row("now", {})
        assert row is not None
        return cast(datetime, row[0])

    def ended_since(self, moment: datetime) -> dict[State, int]:
        """How many jobs have become final since then, by state."""
        rows = self.database.rows("ended_since", self._with(moment=moment))
        return {State(state): count for state, count in rows}

    def published_by(self, folder: str, name: bytes) -> Holder | None:
        """The job that a published name belongs to; its row may be gone."""
        row = self.database.row("published_by", self._with(folder=folder, name=name))
        return None if row is None else Holder(*row)

    def unpublish(self, job: uuid.UUID, folder: str, name: bytes) -> bool:
        """Give up one name of a job whose file is gone; False if it had none."""
        parameters = self._with(job=job, folder=folder, name=name)
        return self.database.row("unpublish", parameters) is not None

    def _one(self, statement: str, **parameters: object) -> Job | None:
        row = self.database.row(statement, self._with(**parameters))
        return None if row is None else job_from(row)

    def _with(self, **parameters: object) -> dict[str, object]:
        return {"spool": self.spool, **parameters}
