"""Drops become jobs: a batch in one statement, and what conflicts with a row is asked about.

Guarantees: all of a batch in one transaction; a row whose values the database refuses does not
stop the others; a key is taken before it is looked up among the done ones, in a later statement,
so that none runs twice.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import psycopg

from spoold import errors
from spoold.canonical import Document
from spoold.errors import SpooldError
from spoold.queue.answers import Answer, Verdict
from spoold.queue.database import Database
from spoold.queue.job import Admission, State
from spoold.queue.rows import dump, outcome
from spoold.queue.waiters import Keyed, done, lock_holder, reused_outcome, settle

# What the values of one row can be guilty of. UnicodeError: a lone surrogate in a text column.
_GUILTY: Final = (psycopg.DataError, psycopg.IntegrityError, UnicodeError)
# A conflict whose cause is gone when it is asked about is tried again; the cause cannot come and
# go for ever.
_ROUNDS: Final = 100


def admit(
    database: Database, spool: uuid.UUID, aging_seconds: float, batch: Sequence[Admission]
) -> list[Answer]:
    """Admit a batch, all or row by row; one answer each, in order. Raises database-away."""
    admitting = _Admitting(database, spool, aging_seconds)
    try:
        answers = database.atomically(lambda: admitting.all(batch))
    except _GUILTY:
        answers = database.atomically(lambda: admitting.each(batch))
    by_id = {answer.id: answer for answer in answers}
    return [by_id[admission.id] for admission in batch]


class _Admitting:
    def __init__(self, database: Database, spool: uuid.UUID, aging_seconds: float) -> None:
        self._database = database
        self._spool = spool
        self._aging_seconds = aging_seconds

    def each(self, batch: Sequence[Admission]) -> list[Answer]:
        """Row by row, each in a savepoint: the guilty ones are refused, the others admitted."""
        answers = []
        for admission in batch:
            try:
                with self._database.transaction():
                    answers += self.all([admission])
            except _GUILTY as error:
                answers.append(Answer(admission.id, Verdict.REFUSED, message=_why(error)))
        return answers

    def all(self, batch: Sequence[Admission]) -> list[Answer]:
        """A batch in few statements, inside a transaction."""
        if any(admission.dedup_key is not None for admission in batch):
            # Two that insert and then contend, each for what the other has inserted, would be ended
            # as deadlocks, however often they tried again.
            self._database.run("keyed_one_at_a_time", {"spool": self._spool})
        inserted = self._insert(batch)
        answers = [Answer(job, Verdict.ADMITTED) for job in inserted]
        if len(inserted) < len(batch):
            rest = [admission for admission in batch if admission.id not in inserted]
            answers += self._conflicting(rest)
        return self._look_up_done(batch, answers)

    def _insert(
        self,
        batch: Sequence[Admission],
        *,
        waits_for: uuid.UUID | None = None,
        ending: Document | None = None,
    ) -> set[uuid.UUID]:
        outcomes = [_outcome(admission) if ending is None else ending for admission in batch]
        rows = self._database.rows(
            "admit",
            {
                "spool": self._spool,
                "aging_seconds": self._aging_seconds,
                "id": [a.id for a in batch],
                "drop_name": [a.drop_name for a in batch],
                "drop_sha256": [a.drop_sha256 for a in batch],
                "drop_bytes": [a.drop_bytes for a in batch],
                "action": [a.action for a in batch],
                "request": [dump(a.request) for a in batch],
                "request_sha256": [a.request_sha256 for a in batch],
                "priority": [a.priority for a in batch],
                "correlation_id": [a.correlation_id for a in batch],
                "not_before": [a.not_before for a in batch],
                "max_attempts": [a.max_attempts for a in batch],
                "timeout_seconds": [a.timeout_seconds for a in batch],
                "dedup_key": [
                    a.dedup_key if end is None else None
                    for a, end in zip(batch, outcomes, strict=True)
                ],
                "waits_for": [waits_for] * len(batch),
                "retry_of": [a.retry_of for a in batch],
                "intake": [dump(a.intake) for a in batch],
                "outcome": [dump(end) for end in outcomes],
            },
        )
        return {row[0] for row in rows}

    def _conflicting(self, rest: Sequence[Admission]) -> Iterable[Answer]:
        ids = [admission.id for admission in rest]
        rows = self._database.rows("known", {"spool": self._spool, "ids": ids})
        known: dict[uuid.UUID, bool] = dict(rows)
        busy = self._busy([a.drop_name for a in rest if a.id not in known])
        keyed = []
        for admission in rest:
            if admission.id in known:
                ours = known[admission.id]
                yield Answer(admission.id, Verdict.ALREADY if ours else Verdict.ELSEWHERE)
            elif admission.drop_name in busy:
                yield Answer(admission.id, Verdict.NAME_BUSY)
            else:
                keyed.append(admission)
        for admission in sorted(keyed, key=lambda a: (a.dedup_key or b"", a.id)):
            yield self._contend(admission)

    def _contend(self, admission: Admission) -> Answer:
        """Admit one whose key an unfinished job had a moment ago."""
        for _ in range(_ROUNDS):
            present = None
            if admission.dedup_key is not None and admission.error is None:
                present = lock_holder(self._database, self._spool, admission.dedup_key)
            if present is None:
                inserted = self._insert([admission])
                answer = Answer(admission.id, Verdict.ADMITTED)
            elif present.request_sha256 != admission.request_sha256:
                inserted = self._insert([admission], ending=reused_outcome(present.job))
                answer = Answer(admission.id, Verdict.KEY_REUSED, present.job)
            else:
                inserted = self._insert([admission], waits_for=present.job)
                answer = Answer(admission.id, Verdict.WAITS, present.job)
            if inserted:
                return answer
            if self._busy([admission.drop_name]):
                return Answer(admission.id, Verdict.NAME_BUSY)
        raise SpooldError(
            errors.DATABASE_AWAY, f"job {admission.id} conflicts with rows that cannot be seen"
        )

    def _busy(self, names: Sequence[bytes]) -> set[bytes]:
        rows = self._database.rows("busy_names", {"spool": self._spool, "names": list(names)})
        return {row[0] for row in rows}

    def _look_up_done(self, batch: Sequence[Admission], answers: list[Answer]) -> list[Answer]:
        admitted = {answer.id for answer in answers if answer.verdict is Verdict.ADMITTED}
        keyed = {
            a.id: Keyed(a.id, a.dedup_key, a.request_sha256 or b"")
            for a in batch
            if a.id in admitted and a.dedup_key is not None and a.error is None
        }
        if not keyed:
            return answers
        owners = done(self._database, self._spool, [job.dedup_key for job in keyed.values()])
        if not owners:
            return answers
        changed = []
        for answer in answers:
            job = keyed.get(answer.id)
            owner = owners.get(job.dedup_key) if job else None
            if job is None or owner is None:
                changed.append(answer)
                continue
            settle(self._database, self._spool, [job], owner)
            same = job.request_sha256 == owner.request_sha256
            verdict = Verdict.DUPLICATE if same else Verdict.KEY_REUSED
            changed.append(Answer(answer.id, verdict, owner.job))
        return changed


def _outcome(admission: Admission) -> Document | None:
    if admission.error is None:
        return None
    return outcome(State.REJECTED, error=admission.error)


def _why(error: Exception) -> str:
    message = str(error).partition("\n")[0]
    if isinstance(error, psycopg.DataError) and error.diag.message_detail:
        return f"{message}: {error.diag.message_detail}"
    return message
