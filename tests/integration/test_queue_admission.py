"""Drops become jobs: batches, keys, names, what the database refuses, and real races."""

import re
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from spoold.queue.answers import Answer, Begun, Key, Verdict, Waiting
from spoold.queue.database import Database
from spoold.queue.job import Admission, Job, State
from spoold.queue.store import Store
from tests.integration.queue_drops import (
    amend_publishing,
    begin_publishing,
    digest,
    drop,
    end,
    finish,
    publication,
    worker,
)


@pytest.fixture
def store(shared_store: Store) -> Store:
    return shared_store


def _get(store: Store, job: uuid.UUID) -> Job:
    found = store.get(job)
    assert found is not None
    return found


def _admit(store: Store, admission: Admission) -> Answer:
    (answer,) = store.admit([admission])
    return answer


def _keyed(key: str = "k", **changes: object) -> Admission:
    return drop(dedup_key=digest(key), **changes)


def _run(store: Store, state: str = "succeeded") -> uuid.UUID:
    """Claim the next job and end it so."""
    (claim,) = store.claim(worker(store))
    end(store, claim, state)
    return claim.id


def _publish_next(store: Store) -> Job:
    """Take an ownerless job to its end, as its outcome says."""
    (claim,) = store.claim_publishing(worker(store))
    assert claim.job.outcome is not None
    plan = publication(claim, str(claim.job.outcome["state"]))
    assert amend_publishing(store, claim, plan) is Begun.BEGUN
    assert finish(store, claim)
    return claim.job


def test_a_batch_is_admitted_as_given(store: Store) -> None:
    full = drop(
        "\udcff odd\n".encode("utf-8", "surrogateescape").decode("latin-1"),
        priority=7,
        correlation_id="case-1",
        max_attempts=3,
        timeout_seconds=99,
        dedup_key=digest("k"),
        retry_of=uuid.uuid4(),
    )
    batch = [drop() for _ in range(99)] + [full]
    answers = store.admit(batch)
    assert [answer.id for answer in answers] == [admission.id for admission in batch]
    assert {answer.verdict for answer in answers} == {Verdict.ADMITTED}
    job = _get(store, full.id)
    for name in (
        *("drop_name", "drop_sha256", "drop_bytes", "action", "request", "request_sha256"),
        *("priority", "correlation_id", "max_attempts", "timeout_seconds", "dedup_key"),
        *("retry_of", "intake"),
    ):
        assert getattr(job, name) == getattr(full, name), name
    assert (job.state, job.epoch, job.attempt) == (State.QUEUED, 0, 0)
    assert job.rank - job.due_at == timedelta(seconds=7 * 60)


def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert store.admit([]) == []


def test_e09_the_same_id_again_is_known(store: Store) -> None:
    admission = _keyed()
    assert _admit(store, admission).verdict is Verdict.ADMITTED
    assert _admit(store, admission).verdict is Verdict.ALREADY
    _run(store)
    assert _admit(store, admission).verdict is Verdict.ALREADY


def test_e12_a_name_is_busy_until_its_job_is_final(store: Store) -> None:
    first, second = drop("same"), drop("same")
    assert _admit(store, first).verdict is Verdict.ADMITTED
    assert _admit(store, second) == Answer(second.id, Verdict.NAME_BUSY)
    assert store.busy_names([b"same", b"other"]) == {b"same"}
    assert store.get(second.id) is None
    _run(store, "failed")
    assert store.busy_names([b"same"]) == frozenset()
    assert _admit(store, second).verdict is Verdict.ADMITTED
    newest = store.find_name(b"same")
    assert newest is not None
    assert newest.id == second.id


def test_a_name_twice_in_one_batch_is_admitted_once(store: Store) -> None:
    answers = store.admit([drop("same"), drop("same")])
    assert [answer.verdict for answer in answers] == [Verdict.ADMITTED, Verdict.NAME_BUSY]


def test_a_job_that_is_not_due_is_scheduled(store: Store) -> None:
    later = drop(not_before=datetime.now(UTC) + timedelta(hours=1))
    past = drop(not_before=datetime.now(UTC) - timedelta(hours=1))
    store.admit([later, past])
    assert _get(store, later.id).state is State.SCHEDULED
    assert _get(store, past.id).state is State.QUEUED
    assert _get(store, past.id).due_at == _get(store, past.id).admitted_at


def test_a_rejected_drop_enters_without_owner_document_or_key(store: Store) -> None:
    error = {"code": "request-invalid", "message": "m", "hint": "h", "retryable": False, "at": None}
    bad = drop(action=None, request=None, request_sha256=None, error=error, dedup_key=digest("k"))
    assert _admit(store, bad).verdict is Verdict.ADMITTED
    job = _get(store, bad.id)
    assert (job.state, job.worker, job.final_document, job.dedup_key) == (
        State.PUBLISHING,
        None,
        None,
        None,
    )
    assert job.outcome == {"state": "rejected", "result": None, "error": error, "warnings": []}
    assert store.claim(worker(store)) == []
    assert _publish_next(store).id == bad.id
    assert _get(store, bad.id).state is State.REJECTED


def test_e13_without_a_key_the_same_request_runs_twice(store: Store) -> None:
    assert {a.verdict for a in store.admit([drop(), drop()])} == {Verdict.ADMITTED}


def test_e13_the_key_of_an_unfinished_job_is_waited_for(store: Store) -> None:
    first, second, third = _keyed(), _keyed(), _keyed()
    assert [answer.verdict for answer in store.admit([first, second])] == [
        Verdict.ADMITTED,
        Verdict.WAITS,
    ]
    assert _admit(store, third) == Answer(third.id, Verdict.WAITS, first.id)
    assert _get(store, second.id).waits_for == first.id
    assert store.promote() == 0
    _run(store)
    for waiting in (second, third):
        job = _get(store, waiting.id)
        assert (job.state, job.dedup_key, job.waits_for) == (State.PUBLISHING, None, None)
        assert job.outcome is not None
        assert job.outcome["state"] == "duplicate"
        assert job.outcome["result"] == {"duplicate_of": str(first.id)}


@pytest.mark.parametrize("ending", ["failed", "rejected", "cancelled"])
def test_e13_a_job_that_did_not_succeed_frees_the_first_that_waits(
    store: Store, ending: str
) -> None:
    jobs = [_keyed() for _ in range(4)]
    store.admit(jobs)
    _run(store, ending)
    freed = _get(store, jobs[1].id)
    assert (freed.state, freed.waits_for, freed.dedup_key) == (State.QUEUED, None, digest("k"))
    assert {_get(store, job.id).waits_for for job in jobs[2:]} == {jobs[1].id}
    _run(store)
    assert {_get(store, job.id).state for job in jobs[2:]} == {State.PUBLISHING}


def test_e13_the_key_of_a_succeeded_job_makes_a_duplicate(store: Store) -> None:
    first, second = _keyed(), _keyed()
    _admit(store, first)
    _run(store)
    assert _admit(store, second) == Answer(second.id, Verdict.DUPLICATE, first.id)
    assert _publish_next(store).id == second.id
    assert _get(store, second.id).state is State.DUPLICATE


def test_e13_the_key_of_another_request_is_refused(store: Store) -> None:
    first, other, late = _keyed(), _keyed(request={"action": "x"}), _keyed(request={"action": "y"})
    _admit(store, first)
    assert _admit(store, other) == Answer(other.id, Verdict.KEY_REUSED, first.id)
    _run(store)
    assert _admit(store, late) == Answer(late.id, Verdict.KEY_REUSED, first.id)
    for refused in (other, late):
        outcome = _get(store, refused.id).outcome
        assert outcome is not None
        assert outcome["state"] == "rejected"
        assert isinstance(outcome["error"], dict)
        assert outcome["error"]["code"] == "idempotency-key-reused"


def test_e14_a_key_can_be_used_again_after_a_failure(store: Store) -> None:
    _admit(store, _keyed())
    _run(store, "failed")
    assert _admit(store, _keyed(request={"action": "corrected"})).verdict is Verdict.ADMITTED


def test_a_forgotten_key_can_be_used_again(store: Store) -> None:
    first = _keyed()
    _admit(store, first)
    _run(store)
    assert store.forget(digest("k")) == first.id
    assert store.forget(digest("k")) is None
    assert _admit(store, _keyed()).verdict is Verdict.ADMITTED
    again = _run(store)
    assert store.forget_job(again)
    assert not store.forget_job(again)


def test_a_key_outlives_its_pruned_job(store: Store) -> None:
    first = _keyed()
    _admit(store, first)
    _run(store)
    assert store.next_to_prune(3600) == []
    assert store.prune(store.next_to_prune(-1)) == 1
    assert store.get(first.id) is None
    assert _admit(store, _keyed()).verdict is Verdict.DUPLICATE


def test_who_waits_for_a_cancelled_job_is_freed_when_it_has_ended(store: Store) -> None:
    holder, waiting, late = _keyed(), _keyed(), _keyed()
    store.admit([holder, waiting])
    store.cancel(holder.id)
    # The key is free at once: a cancelled job blocks nobody new.
    assert _admit(store, late).verdict is Verdict.ADMITTED
    assert _get(store, waiting.id).waits_for == holder.id
    assert _publish_next(store).id == holder.id
    # By then another job holds the key, so that one is waited for.
    assert _get(store, waiting.id).waits_for == late.id
    _run(store)
    assert _get(store, waiting.id).state is State.PUBLISHING


def test_who_waits_for_a_cancelled_job_learns_that_another_succeeded(store: Store) -> None:
    holder, waiting, late = _keyed(), _keyed(), _keyed()
    store.admit([holder, waiting])
    store.cancel(holder.id)
    _admit(store, late)
    _run(store)
    assert _publish_next(store).id == holder.id
    outcome = _get(store, waiting.id).outcome
    assert outcome is not None
    assert outcome["result"] == {"duplicate_of": str(late.id)}


def test_who_waits_meets_another_request_with_its_key(store: Store) -> None:
    holder, waiting = _keyed(), _keyed()
    late = _keyed(request={"action": "other"})
    store.admit([holder, waiting])
    store.cancel(holder.id)
    _admit(store, late)
    _publish_next(store)
    outcome = _get(store, waiting.id).outcome
    assert outcome is not None
    assert outcome["state"] == "rejected"


def test_the_sweep_frees_who_waits_for_a_job_that_is_gone(store: Store) -> None:
    holder, waiting = _keyed(), _keyed()
    store.admit([holder, waiting])
    store.database.connection.execute("delete from spoold.job where id = %s", (holder.id,))
    assert store.promote() == 1
    assert _get(store, waiting.id).state is State.QUEUED


def test_a_worker_takes_the_key_of_a_bundle(store: Store) -> None:
    key, request = digest("manifest"), digest("rehydrate")
    store.admit([drop("a.tar.zst"), drop("b.tar.zst"), drop("c.tar.zst")])
    first, second, third = store.claim(worker(store), limit=3)
    assert store.take_key(first, key, request).verdict is Key.TAKEN
    assert store.take_key(first, key, request).verdict is Key.TAKEN
    assert store.take_key(first, digest("other"), request).verdict is Key.OTHER
    answer = store.take_key(second, key, request)
    assert (answer.verdict, answer.job) == (Key.HELD, first.id)
    assert store.take_key(second, key, digest("another")).verdict is Key.REUSED
    assert store.wait_for(second, first.id, key, request) is Waiting.WAITING
    job = _get(store, second.id)
    assert (job.state, job.waits_for, job.attempt) == (State.SCHEDULED, first.id, 0)
    end(store, first)
    assert _get(store, second.id).state is State.PUBLISHING
    answer = store.take_key(third, key, request)
    assert (answer.verdict, answer.job) == (Key.DONE, first.id)
    assert _get(store, third.id).dedup_key is None
    assert store.wait_for(third, first.id, key, request) is Waiting.HOLDER_GONE
    # One that has a key of its own restores nothing twice either.
    assert store.take_key(third, digest("own"), request).verdict is Key.TAKEN
    answer = store.take_key(third, key, request)
    assert (answer.verdict, answer.job) == (Key.DONE, first.id)


@pytest.mark.parametrize(
    ("culprit", "says"),
    [
        ({"request": {"name": "a\0b"}}, "NUL|u0000"),
        ({"request": {"name": "\ud800"}}, "surrogate|input syntax"),
        ({"correlation_id": "a\0b"}, "NUL|0x00"),
        ({"correlation_id": "\ud800"}, "surrogate"),
        ({"priority": 40_000}, "range"),
        ({"priority": 1001}, "job_priority"),
        ({"max_attempts": 0}, "job_attempts"),
    ],
    ids=["nul", "surrogate", "text-nul", "text-surrogate", "overflow", "check", "attempts"],
)
def test_e38_the_culprit_alone_is_refused(
    store: Store, culprit: dict[str, object], says: str
) -> None:
    batch = [drop() for _ in range(99)]
    batch.insert(50, drop(**culprit, request_sha256=digest("x")))
    answers = store.admit(batch)
    assert answers[50].verdict is Verdict.REFUSED
    assert re.search(says, answers[50].message), answers[50].message
    assert {answer.verdict for answer in answers[:50] + answers[51:]} == {Verdict.ADMITTED}
    assert store.unfinished() == 99


def test_a_refused_drop_can_enter_as_rejected(store: Store) -> None:
    bad = drop("bad", request={"name": "\0"})
    assert _admit(store, bad).verdict is Verdict.REFUSED
    error = {"code": "drop-refused", "message": "m"}
    again = drop("bad", action=None, request=None, request_sha256=None, error=error)
    assert _admit(store, again).verdict is Verdict.ADMITTED


def _together(count: int, work: Callable[[int], None]) -> None:
    barrier = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_a_key_raced_for_by_many_runs_once(store: Store, shared_conninfo: str) -> None:
    """Threads admit drops with five keys, others run jobs; each key succeeds exactly once."""
    keys, drops_each = 5, 12
    admitted = threading.Semaphore(0)
    succeeded: list[bytes] = []

    def work(number: int) -> None:
        own = Store(Database(shared_conninfo, "tests"), store.spool)
        if number < 4:
            for turn in range(drops_each):
                batch = [_keyed(f"raced {key}") for key in range(keys)]
                for answer in own.admit(batch if turn % 2 else batch[::-1]):
                    assert answer.verdict in (Verdict.ADMITTED, Verdict.WAITS, Verdict.DUPLICATE)
            admitted.release()
        else:
            me = worker(own)
            idle = 0
            while idle < 3:
                idle += 1
                for claim in own.claim(me, limit=2):
                    idle = 0
                    # Every other attempt fails, so that keys change hands while they are raced for.
                    if claim.id.int % 2 and len(succeeded) % 3:
                        end(own, claim, "failed")
                    else:
                        end(own, claim)
                        assert claim.job.dedup_key is not None
                        succeeded.append(claim.job.dedup_key)
                for claim in own.claim_publishing(me, limit=10):
                    idle = 0
                    assert claim.job.outcome is not None
                    plan = publication(claim, str(claim.job.outcome["state"]))
                    assert amend_publishing(own, claim, plan) is Begun.BEGUN
                    assert finish(own, claim)
                own.promote()
                if idle and admitted.acquire(timeout=0.05):
                    admitted.release()
        own.database.close()

    _together(7, work)
    # Whatever the last runner left behind.
    me = worker(store)
    while claims := store.claim(me) or store.claim_publishing(me):
        (claim,) = claims
        if claim.job.outcome is None:
            end(store, claim)
            assert claim.job.dedup_key is not None
            succeeded.append(claim.job.dedup_key)
        else:
            plan = publication(claim, str(claim.job.outcome["state"]))
            assert amend_publishing(store, claim, plan) is Begun.BEGUN
            assert finish(store, claim)
        store.promote()
    assert store.backlog() == []
    assert sorted(succeeded) == sorted(digest(f"raced {key}") for key in range(keys))


def test_nobody_waits_for_ever_for_a_holder_that_ends_meanwhile(
    store: Store, shared_conninfo: str
) -> None:
    for turn in range(20):
        key = f"turn {turn}"
        _admit(store, _keyed(key))
        (claim,) = store.claim(worker(store))
        assert begin_publishing(store, claim, publication(claim)) is Begun.BEGUN
        late = _keyed(key)

        def work(number: int, late: Admission = late, claim: object = claim) -> None:
            own = Store(Database(shared_conninfo, "tests"), store.spool)
            assert not own.database.connection.closed
            if number:
                _admit(own, late)
            else:
                finish(own, claim)  # type: ignore[arg-type]
            own.database.close()

        _together(2, work)
        assert _get(store, late.id).state is State.PUBLISHING


def test_two_intakes_with_the_same_names_admit_each_once(
    store: Store, shared_conninfo: str
) -> None:
    answers: list[Answer] = []

    def work(number: int) -> None:
        own = Store(Database(shared_conninfo, "tests"), store.spool)
        batch = [drop(f"raced-{index}", dedup_key=digest(f"{index}")) for index in range(100)]
        answers.extend(own.admit(batch if number % 2 else batch[::-1]))
        own.database.close()

    _together(4, work)
    verdicts = [answer.verdict for answer in answers]
    assert verdicts.count(Verdict.ADMITTED) == 100
    assert verdicts.count(Verdict.NAME_BUSY) == 300
