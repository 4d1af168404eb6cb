"""Every verb from every state, by its owner and by others: what the table allows, and no more."""

import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from spoold.errors import SpooldError
from spoold.queue.answers import Begun, Key, Waiting
from spoold.queue.job import TRANSITIONS, Claim, Job, RetryPolicy, State, Verb
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

Act = Callable[[Store, Claim], object]


@pytest.fixture
def store(shared_store: Store) -> Store:
    """A spool of its own in a shared database: a store sees only its spool."""
    return shared_store


def _holder(store: Store) -> uuid.UUID:
    """A job that holds the key which every claim here could wait for."""
    found = store.find_name(b"holder")
    if found is not None:
        return found.id
    holder = drop("holder", dedup_key=digest("key"), priority=1000)
    store.admit([holder])
    return holder.id


FENCED: dict[Verb, Act] = {
    Verb.PROGRESS: lambda store, claim: store.progress(claim, {"phase": "read"}),
    Verb.TAKE_KEY: lambda store, claim: (
        store.take_key(claim, digest("own key"), digest("own request")).verdict is Key.TAKEN
    ),
    Verb.WAIT: lambda store, claim: (
        store.wait_for(claim, _holder(store), digest("key"), digest("x")) is Waiting.WAITING
    ),
    Verb.RELEASE: lambda store, claim: store.release(claim),
    Verb.RETRY: lambda store, claim: store.retry(claim, {"code": "disk-error"}, 60),
    Verb.POSTPONE: lambda store, claim: store.postpone(claim, {"code": "no-space"}, 60),
    Verb.BEGIN_PUBLISHING: lambda store, claim: (
        begin_publishing(store, claim, publication(claim)) is Begun.BEGUN
    ),
    Verb.AMEND_PUBLISHING: lambda store, claim: (
        amend_publishing(store, claim, publication(claim, name=b"another")) is Begun.BEGUN
    ),
    Verb.DEFER_PUBLISHING: lambda store, claim: store.defer_publishing(claim, 60),
    Verb.FINISH: finish,
}
BATCHED = {Verb.BEGIN_PUBLISHING, Verb.AMEND_PUBLISHING, Verb.FINISH}


def reach(store: Store, state: State) -> Claim:
    """A job in this state, and the claim of who holds it or held it last."""
    admission = drop()
    store.admit([admission])
    owner = worker(store)
    (claim,) = store.claim(owner)
    assert claim.id == admission.id
    match state:
        case State.RUNNING:
            pass
        case State.SCHEDULED:
            assert store.retry(claim, {"code": "x"}, 3600)
        case State.QUEUED:
            assert store.release(claim)
        case State.PUBLISHING:
            assert begin_publishing(store, claim, publication(claim)) is Begun.BEGUN
        case _:
            end(store, claim, state.value)
    job = store.get(claim.id)
    assert job is not None
    assert job.state is state
    return Claim(job, claim.epoch, owner)


def _get(store: Store, job: uuid.UUID) -> Job:
    found = store.get(job)
    assert found is not None
    return found


@pytest.mark.parametrize("verb", FENCED, ids=str)
@pytest.mark.parametrize("state", State, ids=str)
def test_a_fenced_verb_works_from_its_states_only(store: Store, verb: Verb, state: State) -> None:
    claim = reach(store, state)
    if verb is Verb.WAIT:
        _holder(store)
    before = _get(store, claim.id)
    done = FENCED[verb](store, claim)
    after = _get(store, claim.id)
    transition = TRANSITIONS[verb]
    if state in transition.source:
        assert done
        assert after.state in transition.target
    else:
        # Finishing again what this very claim finished, or beginning again what it began, says
        # so: the answer to the first may have been lost.
        again = (verb is Verb.FINISH and state.final) or (
            verb is Verb.BEGIN_PUBLISHING and state is State.PUBLISHING
        )
        assert bool(done) is again
        assert after == before


@pytest.mark.parametrize("verb", FENCED, ids=str)
@pytest.mark.parametrize("stale", ["epoch", "worker", "job", "spool"])
def test_a_stale_report_changes_nothing(store: Store, verb: Verb, stale: str) -> None:
    (state,) = TRANSITIONS[verb].source
    claim = reach(store, state)
    if verb is Verb.WAIT:
        _holder(store)
    before = _get(store, claim.id)
    match stale:
        case "epoch":
            forged = replace(claim, epoch=claim.epoch - 1)
        case "worker":
            forged = replace(claim, worker=worker(store))
        case "job":
            forged = replace(claim, job=replace(claim.job, id=uuid.uuid4()))
        case _:
            forged = replace(claim, job=replace(claim.job, spool=uuid.uuid4()))
    if stale == "spool" and verb in BATCHED:  # a store is of one spool in any case
        return
    assert not FENCED[verb](store, forged)
    assert _get(store, claim.id) == before


@pytest.mark.parametrize("state", State, ids=str)
def test_claim_takes_queued_jobs_only(store: Store, state: State) -> None:
    before = reach(store, state).job
    claims = store.claim(worker(store), limit=10)
    if state is State.QUEUED:
        assert [claim.id for claim in claims] == [before.id]
        assert claims[0].epoch == before.epoch + 1
        assert claims[0].job.attempt == before.attempt + 1
    else:
        assert claims == []
        assert _get(store, before.id) == before


@pytest.mark.parametrize("state", State, ids=str)
def test_cancel_works_until_publishing(store: Store, state: State) -> None:
    claim = reach(store, state)
    if state in TRANSITIONS[Verb.CANCEL].source:
        cancelled = store.cancel(claim.id)
        assert cancelled.worker == (claim.worker if state is State.RUNNING else None)
        job = _get(store, claim.id)
        assert (job.state, job.worker, job.final_document) == (State.PUBLISHING, None, None)
        assert job.outcome is not None
        assert job.outcome["state"] == "cancelled"
        assert (job.dedup_key, job.waits_for) == (None, None)
    else:
        with pytest.raises(SpooldError, match="job-state"):
            store.cancel(claim.id)


def test_postponing_counts_no_attempt(store: Store) -> None:
    claim = reach(store, State.RUNNING)
    assert store.postpone(claim, {"code": "no-space"}, 60)
    job = _get(store, claim.id)
    assert (job.state, job.attempt, job.worker) == (State.SCHEDULED, 0, None)
    assert job.error == {"code": "no-space"}


def test_one_taken_name_stops_no_other_job_of_a_batch(store: Store) -> None:
    first, second, third = (reach(store, State.RUNNING) for _ in range(3))
    assert begin_publishing(store, first, publication(first, name=b"same")) is Begun.BEGUN
    batch = [(second, publication(second, name=b"same")), (third, publication(third, name=b"3"))]
    assert store.begin_publishing(batch) == [Begun.NAME_TAKEN, Begun.BEGUN]
    assert _get(store, second.id).state is State.RUNNING
    assert _get(store, third.id).state is State.PUBLISHING


def test_what_was_held_up_is_as_old_as_its_answer_and_its_names_are_its_own_until_then(
    store: Store,
) -> None:
    claim = reach(store, State.PUBLISHING)
    name = claim.job.drop_name
    store.database.connection.execute(
        "update spoold.published set at = at - interval '3 days' where job = %s", (claim.id,)
    )
    assert not store.unpublish(claim.id, "processed", name)
    assert finish(store, claim)
    row = store.database.connection.execute(
        "select now() - at < interval '1 hour' from spoold.published where job = %s and name = %s",
        (claim.id, name),
    ).fetchone()
    assert row == (True,)
    assert store.unpublish(claim.id, "processed", name)


def test_cancelling_an_unknown_job_says_so(store: Store) -> None:
    with pytest.raises(SpooldError, match="job-unknown"):
        store.cancel(uuid.uuid4())


@pytest.mark.parametrize("state", State, ids=str)
def test_promote_takes_due_scheduled_jobs_only(store: Store, state: State) -> None:
    claim = reach(store, state)
    before = _get(store, claim.id)
    assert store.promote() == 0
    assert _get(store, claim.id) == before
    if state is State.SCHEDULED:
        store.database.connection.execute(
            "update spoold.job set due_at = now(), rank = now() where id = %s", (claim.id,)
        )
        assert store.promote() == 1
        assert _get(store, claim.id).state is State.QUEUED


@pytest.mark.parametrize("state", State, ids=str)
def test_rescue_takes_held_jobs_only(store: Store, state: State) -> None:
    claim = reach(store, state)
    before = _get(store, claim.id)
    store.leave(claim.worker)
    rescued = store.rescue(3600, RetryPolicy())
    after = _get(store, claim.id)
    match state:
        case State.RUNNING:
            assert [(one.id, one.code) for one in rescued] == [(claim.id, "worker-lost")]
            assert (after.state, after.worker) == (State.SCHEDULED, None)
            assert after.attempt == before.attempt
            assert after.error is not None
        case State.PUBLISHING:
            assert [(one.id, one.code) for one in rescued] == [(claim.id, None)]
            assert after == replace(before, worker=None)
        case _:
            assert rescued == []
            assert after == before


def test_the_epoch_only_rises_and_the_attempt_is_given_back(store: Store) -> None:
    store.admit([drop()])
    owner = worker(store)
    for epoch in range(1, 5):
        (claim,) = store.claim(owner)
        assert (claim.epoch, claim.job.attempt) == (epoch, 1)
        assert store.release(claim)


def test_attempts_run_out_and_are_not_retried(store: Store) -> None:
    store.admit([drop(max_attempts=2)])
    owner = worker(store)
    (claim,) = store.claim(owner)
    assert store.retry(claim, {"code": "x"}, 0)
    assert store.promote() == 1
    (claim,) = store.claim(owner)
    assert claim.job.attempt == 2
    assert not store.retry(claim, {"code": "x"}, 0)
    assert _get(store, claim.id).state is State.RUNNING


def test_taking_over_a_publication_keeps_attempt_and_start(store: Store) -> None:
    claim = reach(store, State.PUBLISHING)
    assert store.claim_publishing(worker(store)) == []
    assert store.defer_publishing(claim, 0, {"code": "no-space"})
    other = worker(store)
    (taken,) = store.claim_publishing(other)
    assert (taken.id, taken.epoch, taken.worker) == (claim.id, claim.epoch + 1, other)
    assert taken.job.attempt == claim.job.attempt
    assert taken.job.claimed_at == claim.job.claimed_at
    assert taken.job.final_document == b"{}\n"
    assert taken.job.sources == publication(claim).sources
    assert not finish(store, claim)
    assert finish(store, taken)


def test_a_deferred_publication_waits_for_its_time(store: Store) -> None:
    claim = reach(store, State.PUBLISHING)
    assert store.defer_publishing(claim, 3600)
    assert store.claim_publishing(worker(store)) == []


def test_a_name_taken_by_another_job_refuses_the_whole_step(store: Store) -> None:
    store.admit([drop(), drop()])
    owner = worker(store)
    first, second = store.claim(owner, limit=2)
    assert begin_publishing(store, first, publication(first, name=b"same")) is Begun.BEGUN
    clashing = publication(second, name=b"free")
    clashing = replace(clashing, names=(("processed", b"free"), ("processed", b"same")))
    before = _get(store, second.id)
    assert begin_publishing(store, second, clashing) is Begun.NAME_TAKEN
    assert _get(store, second.id) == before
    with store.transaction():  # a refusal does not end a transaction around it
        assert begin_publishing(store, second, clashing) is Begun.NAME_TAKEN
        assert begin_publishing(store, second, publication(second, name=b"free")) is Begun.BEGUN
    assert amend_publishing(store, second, clashing) is Begun.NAME_TAKEN
    assert amend_publishing(store, second, publication(second, name=b"other")) is Begun.BEGUN
    # The name given up by the amendment is free for others, its own is kept.
    assert amend_publishing(store, first, publication(first, name=b"free")) is Begun.BEGUN
    assert amend_publishing(store, first, publication(first, name=b"other")) is Begun.NAME_TAKEN


def test_the_same_name_in_another_folder_is_free(store: Store) -> None:
    store.admit([drop(), drop()])
    first, second = store.claim(worker(store), limit=2)
    assert begin_publishing(store, first, publication(first, name=b"same")) is Begun.BEGUN
    elsewhere = replace(publication(second), names=(("failed", b"same"),))
    assert begin_publishing(store, second, elsewhere) is Begun.BEGUN


def test_moves_keep_every_byte_of_a_name(store: Store) -> None:
    name = bytes(byte for byte in range(1, 256) if byte != 0x2F)
    store.admit([drop()])
    (claim,) = store.claim(worker(store))
    plan = publication(claim, name=name)
    move = replace(plan.sources[0], source="claimed/\udcff\n", inode=2**64 - 1)
    assert begin_publishing(store, claim, replace(plan, sources=(move,))) is Begun.BEGUN
    assert _get(store, claim.id).sources == (move,)


def test_several_jobs_finish_in_one_commit(store: Store) -> None:
    store.admit([drop() for _ in range(20)])
    claims = store.claim(worker(store), limit=20)
    for claim in claims:
        assert begin_publishing(store, claim, publication(claim)) is Begun.BEGUN
    stale = replace(claims[0], epoch=99)
    assert store.finish([stale, *claims[1:]], {}) == {claim.id for claim in claims[1:]}
    assert _get(store, claims[0].id).state is State.PUBLISHING
