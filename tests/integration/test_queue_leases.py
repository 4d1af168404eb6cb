"""Claims, leases and rescue: order, fences under stress, the database's clock, lost connections."""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from spoold.errors import SpooldError
from spoold.queue.answers import Begun, Running, WorkerRow
from spoold.queue.database import Database
from spoold.queue.job import Claim, Job, RetryPolicy, State
from spoold.queue.listen import Channel, Listener
from spoold.queue.store import Store
from spoold.status import Progress
from tests.conftest import wait_until
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
from tests.integration.queue_rows import insert_rows

POLICY = RetryPolicy(base_seconds=0.01, cap_seconds=0.02)


@pytest.fixture
def store(shared_store: Store) -> Store:
    return shared_store


def _get(store: Store, job: uuid.UUID) -> Job:
    found = store.get(job)
    assert found is not None
    return found


def _sql(store: Store, statement: str, *values: object) -> None:
    store.database.connection.execute(statement.encode(), values)


def _open(store: Store, conninfo: str) -> Store:
    own = Store(Database(conninfo, "tests"), store.spool)
    assert not own.database.connection.closed
    return own


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
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


# --- order ---------------------------------------------------------------------------------------


def test_the_most_urgent_comes_first(store: Store) -> None:
    for priority in (1000, 0, 500):
        store.admit([drop(f"p{priority}", priority=priority)])
    claims = store.claim(worker(store), limit=3)
    assert [claim.job.drop_name for claim in claims] == [b"p0", b"p500", b"p1000"]


def test_equal_priorities_keep_the_order_of_arrival(store: Store) -> None:
    names = [f"n{number}" for number in range(50)]
    store.admit([drop(name) for name in names])
    me = worker(store)
    claimed = [
        claim.job.drop_name.decode() for _ in range(5) for claim in store.claim(me, limit=10)
    ]
    assert claimed == names


def test_waiting_overtakes_priority_after_its_aging(store: Store, shared_conninfo: str) -> None:
    """With 60 s of aging, priority 10 is overtaken by priority 0 until it has waited 600 s more."""
    aged = Store(Database(shared_conninfo, "tests"), store.spool, aging_seconds=60)
    for name, priority, ago in (("old", 10, 601), ("young", 10, 599), ("urgent", 0, 0)):
        aged.admit([drop(name, priority=priority)])
        _sql(
            store,
            "update spoold.job set due_at = due_at - make_interval(secs => %s),"
            " rank = rank - make_interval(secs => %s) where spool = %s and drop_name = %s",
            *(ago, ago, store.spool, name.encode()),
        )
    claims = aged.claim(worker(aged), limit=3)
    assert [claim.job.drop_name for claim in claims] == [b"old", b"urgent", b"young"]
    aged.database.close()


def test_the_least_urgent_overtakes_the_most_urgent_after_a_thousand_agings(
    store: Store, shared_conninfo: str
) -> None:
    aging = 7.5
    aged = Store(Database(shared_conninfo, "tests"), store.spool, aging_seconds=aging)
    for name, priority, ago in (
        ("overtakes", 1000, 1000 * aging + 1),
        ("does not yet", 1000, 1000 * aging - 1),
        ("urgent", 0, 0.0),
    ):
        aged.admit([drop(name, priority=priority)])
        _sql(
            store,
            "update spoold.job set due_at = due_at - make_interval(secs => %s),"
            " rank = rank - make_interval(secs => %s) where spool = %s and drop_name = %s",
            *(ago, ago, store.spool, name.encode()),
        )
    claims = aged.claim(worker(aged), limit=3)
    assert [claim.job.drop_name for claim in claims] == [b"overtakes", b"urgent", b"does not yet"]
    aged.database.close()


def test_claims_follow_priority_and_waiting_exactly(store: Store, shared_conninfo: str) -> None:
    """However many are claimed at once, and by however many workers."""
    insert_rows(store, 500, "queued", "now() - random() * interval '10 h'")
    rows = store.database.connection.execute(
        "select id from spoold.job where spool = %s"
        " order by due_at + priority * interval '60 s', id",
        (store.spool,),
    ).fetchall()
    mine, theirs = worker(store), worker(store)
    other = _open(store, shared_conninfo)
    claimed: list[uuid.UUID] = []
    for limit in (1, 3, 50, 7) * 9:
        claimed += [claim.id for claim in store.claim(mine, limit)]
        claimed += [claim.id for claim in other.claim(theirs, limit)]
    assert claimed == [row[0] for row in rows]
    other.database.close()


def test_a_retry_moves_the_rank_with_the_due_time(store: Store) -> None:
    store.admit([drop(priority=5)])
    (claim,) = store.claim(worker(store))
    assert store.retry(claim, {"code": "x"}, 100)
    job = _get(store, claim.id)
    assert job.rank - job.due_at == timedelta(seconds=5 * 60)
    assert timedelta(seconds=90) < job.due_at - datetime.now(UTC) < timedelta(seconds=110)


def test_a_job_that_lost_an_attempt_is_claimed_alone(store: Store) -> None:
    store.admit([drop("poison")])
    me = worker(store)
    (claim,) = store.claim(me)
    assert store.retry(claim, {"code": "worker-lost"}, 0)
    store.promote()
    store.admit([drop(f"n{number}") for number in range(5)])
    assert [one.job.drop_name for one in store.claim(me, limit=10)] == [b"poison"]
    assert len(store.claim(me, limit=10)) == 5


def test_a_batch_ends_before_a_job_that_lost_an_attempt(store: Store) -> None:
    store.admit([drop(f"a{number}", priority=number) for number in range(5)])
    _sql(
        store,
        "update spoold.job set attempt = 1 where spool = %s and drop_name = 'a2'",
        store.spool,
    )
    me = worker(store)
    batches = [[one.job.drop_name for one in store.claim(me, limit=10)] for _ in range(4)]
    assert batches == [[b"a0", b"a1"], [b"a2"], [b"a3", b"a4"], []]


def test_an_unknown_worker_claims_nothing(store: Store) -> None:
    store.admit([drop()])
    assert store.claim(uuid.uuid4()) == []


# --- concurrency ---------------------------------------------------------------------------------


def test_claims_of_many_threads_are_disjoint(store: Store, shared_conninfo: str) -> None:
    for _ in range(4):
        store.admit([drop() for _ in range(100)])
    claimed: list[uuid.UUID] = []

    def work(number: int) -> None:
        own = _open(store, shared_conninfo)
        me = worker(own)
        while claims := own.claim(me, limit=1 + number):
            claimed.extend(claim.id for claim in claims)
        own.database.close()

    _in_threads(6, work)
    assert len(claimed) == 400
    assert len(set(claimed)) == 400


def test_e29_no_stale_report_is_accepted_under_stress(store: Store, shared_conninfo: str) -> None:
    """150 jobs, leases of 15 ms that workers overrun at random: each job gets one result.

    A worker that is slow reports all the same, with its old claim, after others took the job.
    """
    jobs, lease = 150, 0.015
    for _ in range(jobs // 50):
        store.admit([drop(max_attempts=30_000) for _ in range(50)])
    accepted: Counter[uuid.UUID] = Counter()
    stale = [0]
    ended = threading.Event()
    lock = threading.Lock()

    def work(number: int) -> None:
        own = _open(store, shared_conninfo)
        dice = random.Random(number)
        me = worker(own)
        while not ended.is_set():
            if own.beat(me) is None:
                own.register_worker(me, "place", number, "1.0")
            for claim in own.claim(me, limit=2):
                ended.wait(dice.random() * 3 * lease)  # the work; often longer than the lease
                if begin_publishing(own, claim, publication(claim)) is Begun.BEGUN:
                    with lock:
                        accepted[claim.id] += 1
                    ended.wait(dice.random() * lease)
                    finish(own, claim)
                else:
                    with lock:
                        stale[0] += 1
            for claim in own.claim_publishing(me, limit=2):
                finish(own, claim)
        own.database.close()

    def rescuer() -> None:
        own = _open(store, shared_conninfo)
        while not ended.is_set():
            own.rescue(lease, POLICY)
            own.promote()
            if own.unfinished() == 0:
                ended.set()
            ended.wait(0.002)
        own.database.close()

    guard = threading.Timer(60, ended.set)
    guard.start()
    helper = threading.Thread(target=rescuer)
    helper.start()
    _in_threads(4, work)
    helper.join()
    guard.cancel()
    assert store.unfinished() == 0
    assert len(accepted) == jobs
    assert set(accepted.values()) == {1}
    assert stale[0] > 0, "nothing was stale: the stress did not stress"


# --- liveness ------------------------------------------------------------------------------------


def test_a_beat_tells_what_is_still_held(store: Store) -> None:
    store.admit([drop(), drop()])
    me = worker(store)
    first, second = store.claim(me, limit=2)
    assert store.beat(me) == {(first.id, 1), (second.id, 1)}
    store.cancel(first.id)
    assert store.beat(me) == {(second.id, 1)}
    end(store, second)
    assert store.beat(me) == frozenset()
    store.leave(me)
    assert store.beat(me) is None


def test_claims_whose_answer_was_lost_are_given_back(store: Store) -> None:
    store.admit([drop(), drop(), drop()])
    me = worker(store)
    first, second, third = store.claim(me, limit=3)
    assert begin_publishing(store, third, publication(third)) is Begun.BEGUN
    assert store.disown(me, keep=[first.id]) == 2
    assert store.beat(me) == {(first.id, 1)}
    job = _get(store, second.id)
    assert (job.state, job.attempt, job.epoch) == (State.QUEUED, 0, 1)
    assert _get(store, third.id).state is State.PUBLISHING


def test_workers_are_listed_with_their_age(store: Store) -> None:
    me = uuid.uuid4()
    store.register_worker(me, "host-a 1", 42, "1.0")
    (row,) = store.workers()
    assert row == WorkerRow(me, "host-a 1", 42, "1.0", row.seen_seconds)
    assert 0 <= row.seen_seconds < 60


def test_a_worker_unseen_for_a_lease_is_lost(store: Store) -> None:
    store.admit([drop()])
    me = worker(store)
    (claim,) = store.claim(me)
    assert store.rescue(0.5, POLICY) == []
    wait_until(lambda: bool(store.rescue(0.5, POLICY)))
    job = _get(store, claim.id)
    assert (job.state, job.attempt) == (State.SCHEDULED, 1)
    assert job.error is not None
    assert job.error["code"] == "worker-lost"
    assert not store.progress(claim, {})


def test_a_beating_worker_keeps_its_job(store: Store) -> None:
    store.admit([drop()])
    me = worker(store)
    (claim,) = store.claim(me)
    end_at = time.monotonic() + 1.0
    while time.monotonic() < end_at:
        assert store.beat(me) == {(claim.id, 1)}
        assert store.rescue(0.6, POLICY) == []


def test_nobody_is_lost_before_the_connection_has_been_up_for_a_lease(
    store: Store, shared_conninfo: str
) -> None:
    store.admit([drop()])
    me = worker(store)
    store.claim(me)
    _sql(store, "update spoold.worker set seen_at = now() - interval '1 day' where id = %s", me)
    fresh = _open(store, shared_conninfo)
    assert fresh.rescue(2.0, POLICY) == []
    fresh.database.connection.execute("select pg_sleep(2)")
    assert fresh.rescue(2.0, POLICY, watched_seconds=1.9) == []
    wait_until(lambda: bool(fresh.rescue(2.0, POLICY)))
    fresh.database.close()


def test_an_attempt_past_its_deadline_times_out_though_its_worker_beats(
    store: Store, shared_conninfo: str
) -> None:
    store.admit([drop(timeout_seconds=1)])
    me = worker(store)
    (claim,) = store.claim(me)
    listener = Listener(shared_conninfo, Channel.GONE, me)
    assert not listener.wait(0)
    _sql(
        store, "update spoold.job set deadline_at = now() - interval '1 s' where id = %s", claim.id
    )
    wait_until(lambda: store.beat(me) == frozenset() or bool(store.rescue(0.3, POLICY)))
    job = _get(store, claim.id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (State.SCHEDULED, "timeout")
    assert listener.wait(10)
    listener.close()


def test_e32_a_job_that_kills_every_worker_fails_in_the_end(store: Store) -> None:
    store.admit([drop(max_attempts=3, dedup_key=digest("poison"))])
    for attempt in (1, 2, 3):
        me = worker(store)
        if attempt > 1:
            wait_until(lambda: store.promote() == 1)
        (claim,) = store.claim(me)
        assert claim.job.attempt == attempt
        store.leave(me)
        (rescued,) = store.rescue(3600, POLICY)
    assert rescued.state is State.PUBLISHING
    job = _get(store, claim.id)
    assert (job.worker, job.final_document, job.dedup_key) == (None, None, None)
    assert job.outcome is not None
    assert job.outcome["state"] == "failed"
    assert isinstance(job.outcome["error"], dict)
    assert job.outcome["error"]["code"] == "worker-lost"
    me = worker(store)
    (taken,) = store.claim_publishing(me)
    assert amend_publishing(store, taken, publication(taken, "failed")) is Begun.BEGUN
    assert finish(store, taken)


def test_rescue_asks_again_whether_the_job_is_lost(store: Store, shared_conninfo: str) -> None:
    """Two rescuers find the same job; while the slower one waits, it is claimed by another."""
    store.admit([drop(max_attempts=1)])
    old = worker(store)
    store.claim(old)
    store.leave(old)
    results: list[int] = []

    def work(_: int) -> None:
        own = _open(store, shared_conninfo)
        results.append(len(own.rescue(3600, POLICY)))
        own.database.close()

    _in_threads(4, work)
    assert sorted(results) == [0, 0, 0, 1]


def test_rows_of_long_dead_workers_are_removed(store: Store) -> None:
    me, other = worker(store), worker(store)
    _sql(store, "update spoold.worker set seen_at = now() - interval '1 day' where id = %s", me)
    store.rescue(30, POLICY)
    assert [row.id for row in store.workers()] == [other]


def test_a_cancelled_job_wakes_its_worker(store: Store, shared_conninfo: str) -> None:
    store.admit([drop()])
    me = worker(store)
    (claim,) = store.claim(me)
    listener = Listener(shared_conninfo, Channel.GONE, me)
    assert not listener.wait(0)
    store.cancel(claim.id)
    assert listener.wait(10)
    assert not finish(store, claim)
    listener.close()


def test_an_admission_wakes_those_who_listen_to_its_spool(
    store: Store, shared_conninfo: str
) -> None:
    listener = Listener(shared_conninfo, Channel.JOBS, store.spool)
    assert not listener.wait(0)
    other = Store(store.database, uuid.uuid4())
    other.admit([drop()])
    assert not listener.wait(0.2)
    store.admit([drop()])
    assert listener.wait(10)
    listener.close()


# --- lost connections ----------------------------------------------------------------------------


def _terminate(store: Store, conninfo: str) -> None:
    victim = store.database.connection.info.backend_pid
    own = Database(conninfo, "tests")
    own.connection.execute("select pg_terminate_backend(%s, 5000)", (victim,))
    own.close()


def test_e28_a_lost_connection_is_an_error_once_and_opened_again(
    store: Store, shared_conninfo: str
) -> None:
    store.admit([drop()])
    _terminate(store, shared_conninfo)
    with pytest.raises(SpooldError, match="database-away"):
        store.backlog()
    assert store.unfinished() == 1


def test_e28_nothing_of_a_cut_transaction_is_committed(store: Store, shared_conninfo: str) -> None:
    def cut() -> None:
        with store.transaction():
            store.admit([drop()])
            _terminate(store, shared_conninfo)
            with pytest.raises(SpooldError, match="database-away"):
                store.admit([drop()])
            # A new connection here would commit the rest without the beginning.
            with pytest.raises(SpooldError, match="database-away"):
                store.admit([drop()])

    with pytest.raises(SpooldError, match="database-away"):
        cut()
    assert store.unfinished() == 0


def test_a_server_that_is_not_there_is_away(tmp_path: object) -> None:
    store = Store(Database(f"host={tmp_path} dbname=x", "tests"), uuid.uuid4())
    with pytest.raises(SpooldError, match="database-away"):
        store.backlog()


def test_steps_repeated_after_a_lost_answer_say_what_is(store: Store) -> None:
    store.admit([drop()])
    (claim,) = store.claim(worker(store))
    plan = publication(claim)
    assert [begin_publishing(store, claim, plan) for _ in range(2)] == [Begun.BEGUN, Begun.BEGUN]
    assert [finish(store, claim) for _ in range(2)] == [True, True]
    stranger = Claim(claim.job, claim.epoch + 1, claim.worker)
    assert not finish(store, stranger)


# --- reading -------------------------------------------------------------------------------------


def test_jobs_are_found_by_id_name_and_short_id(store: Store) -> None:
    admissions = [drop("one"), drop("two")]
    store.admit(admissions)
    (claim,) = store.claim(worker(store))
    one = _get(store, claim.id)
    assert store.find_name(b"one") == one
    assert store.find_name(b"none") is None
    assert store.find_short(one.short_id) == [one]
    assert store.find_short(one.short_id[-6:]) == [one]
    assert [job.id for job in store.jobs()] == [admissions[1].id, admissions[0].id]
    assert [job.id for job in store.jobs([State.RUNNING])] == [one.id]
    assert len(store.jobs(limit=1)) == 1
    assert set(store.existing([one.id, uuid.uuid4()])) == {one.id}
    assert store.existing([one.id])[one.id].epoch == 1


def test_the_backlog_counts_what_is_unfinished(store: Store) -> None:
    store.admit([drop(), drop(), drop(action="rehydrate")])
    (claim,) = store.claim(worker(store))
    end(store, claim)
    counted = {(entry.state, entry.action): entry.jobs for entry in store.backlog()}
    assert counted == {(State.QUEUED, "bundle"): 1, (State.QUEUED, "rehydrate"): 1}
    assert all(entry.oldest_seconds >= 0 for entry in store.backlog())


def test_a_job_for_later_has_not_waited_yet(store: Store) -> None:
    store.admit([drop(not_before=datetime(2100, 1, 1, tzinfo=UTC))])
    assert [entry.oldest_seconds for entry in store.backlog()] == [0.0]


def test_a_queue_is_busy_while_a_job_can_go_on(store: Store) -> None:
    assert not store.busy()
    store.admit([drop(not_before=datetime.now(UTC) + timedelta(hours=1))])
    assert not store.busy()
    store.admit([drop()])
    assert store.busy()
    (claim,) = store.claim(worker(store))
    assert store.busy()
    assert begin_publishing(store, claim, publication(claim)) is Begun.BEGUN
    assert store.busy()
    assert store.defer_publishing(claim, 60)
    assert store.busy()
    (again,) = _due(store, claim)
    assert finish(store, again)
    assert not store.busy()


def _due(store: Store, claim: Claim) -> list[Claim]:
    _sql(store, "update spoold.job set due_at = now() where id = %s", claim.id)
    return store.claim_publishing(worker(store))


def test_what_running_attempts_have_done_is_summed_by_action(store: Store) -> None:
    progress = Progress("build", 1000, None, 3, 40, "postgres:alerts", 500).document()
    store.admit([drop(), drop(), drop()])
    claims = store.claim(worker(store), limit=3)
    assert store.running() == []
    for claim in claims[:2]:
        assert store.progress(claim, progress)
    assert store.running() == [Running("bundle", 2000, 80, 6, 1000)]
    # An attempt of an older version says less.
    assert store.progress(claims[2], {"phase": "build", "bytes_done": 7})
    assert store.running() == [Running("bundle", 2007, 80, 6, 1000)]
