"""The pure part of the queue: states, the table of transitions, back-off and ids."""

import re
import uuid

import pytest

from spoold.queue.database import QUERIES
from spoold.queue.job import (
    FINAL,
    TRANSITIONS,
    UNFINISHED,
    RetryPolicy,
    State,
    Verb,
    new_job_id,
    retry_delay,
    short_id,
    uuid7,
)


def test_every_verb_has_its_row_and_its_statement() -> None:
    assert set(TRANSITIONS) == set(Verb)
    assert {verb.value for verb in Verb} <= set(QUERIES)


def test_nothing_leaves_a_final_state() -> None:
    assert set(State) == UNFINISHED | FINAL
    for transition in TRANSITIONS.values():
        assert not transition.source & FINAL


def test_only_finish_leads_to_a_final_state() -> None:
    assert [verb for verb, row in TRANSITIONS.items() if row.target & FINAL] == [Verb.FINISH]


@pytest.mark.parametrize("verb", [verb for verb, row in TRANSITIONS.items() if row.fenced])
def test_fenced_statements_ask_for_id_epoch_and_worker(verb: Verb) -> None:
    statement = QUERIES[verb].decode()
    if verb in {Verb.BEGIN_PUBLISHING, Verb.AMEND_PUBLISHING, Verb.FINISH}:  # they take batches
        assert "job.epoch = given.epoch" in statement
        assert "job.worker = given.worker" in statement
    else:
        assert re.search(
            r"id = %\(job\)s and epoch = %\(epoch\)s and worker = %\(worker\)s", statement
        )


def test_back_off_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(base_seconds=2, cap_seconds=30)
    assert [retry_delay(attempt, policy, 0.0) for attempt in range(1, 7)] == [1, 2, 4, 8, 15, 15]
    assert retry_delay(10_000, policy, 0.0) == 15


def test_jitter_spreads_the_upper_half_only() -> None:
    policy = RetryPolicy(base_seconds=8, cap_seconds=600)
    assert retry_delay(1, policy, 0.0) == 4
    assert retry_delay(1, policy, 0.5) == 6
    assert retry_delay(1, policy, 0.999) < 8


def test_ids_are_uuids_of_version_7() -> None:
    identity = uuid7(1_700_000_000_123_456_789, 2**64 - 1)
    assert identity.version == 7
    assert identity.variant == uuid.RFC_4122
    assert identity.int >> 80 == 1_700_000_000_123


def test_ids_made_one_after_the_other_sort_so() -> None:
    earlier, later = uuid7(1_000_000_000, 2**62 - 1), uuid7(1_000_001_000, 0)
    assert earlier < later
    ids = [new_job_id() for _ in range(1000)]
    assert len(set(ids)) == 1000


def test_short_ids_of_one_moment_differ() -> None:
    ids = {short_id(uuid7(1_000_000_000, number)) for number in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{12}", digits) for digits in ids)
