"""Token buckets: how many drops a minute, in all and of each owner."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoold.intake.rate import Rate


def taken(rate: Rate, owner: int, now: float, tries: int) -> int:
    return sum(rate.take(owner, now) == 0 for _ in range(tries))


def test_without_limits_everything_is_taken() -> None:
    assert taken(Rate(0, 0, 0.0), 1, 0.0, 10_000) == 10_000


def test_a_minutes_worth_at_once_and_then_at_an_even_pace() -> None:
    rate = Rate(60, 0, 100.0)
    assert taken(rate, 1, 100.0, 100) == 60
    assert rate.take(1, 100.0) == pytest.approx(1.0)
    assert taken(rate, 1, 100.9, 100) == 0
    assert taken(rate, 1, 101.0, 100) == 1
    assert taken(rate, 1, 111.0, 100) == 10
    assert taken(rate, 1, 1e6, 100) == 60  # never more than a minute's worth


def test_one_owner_does_not_use_up_anothers_share() -> None:
    rate = Rate(0, 3, 0.0)
    assert taken(rate, 1, 0.0, 10) == 3
    assert taken(rate, 2, 0.0, 10) == 3


def test_both_limits_hold_and_what_one_refuses_costs_the_other_nothing() -> None:
    rate = Rate(5, 3, 0.0)
    assert taken(rate, 1, 0.0, 10) == 3
    assert taken(rate, 2, 0.0, 10) == 2
    assert taken(rate, 3, 0.0, 10) == 0


def test_asking_takes_nothing() -> None:
    rate = Rate(1, 1, 0.0)
    assert rate.lacks(1, 0.0) == 0
    assert rate.take(1, 0.0) == 0
    assert rate.lacks(1, 30.0) == pytest.approx(30.0)
    assert rate.lacks(1, 60.0) == 0


def test_owners_without_number_are_forgotten_when_they_have_been_quiet() -> None:
    rate = Rate(0, 1, 0.0)
    for owner in range(5000):
        rate.take(owner, owner * 1.0)
    assert len(rate._owners) <= 1001
    assert rate.take(4999, 4999.0) > 0  # not the one that was not


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 30)), max_size=300),
)
def test_no_minute_holds_more_than_two_minutes_worth(
    limit: int, drops: list[tuple[int, float]]
) -> None:
    # The burst that a full bucket allows, and what flows in meanwhile.
    rate, now, times = Rate(0, limit, 0.0), 0.0, {}
    for owner, pause in drops:
        now += pause
        if rate.take(owner, now) == 0:
            times.setdefault(owner, []).append(now)
    for moments in times.values():
        for start in moments:
            assert sum(start <= moment < start + 60 for moment in moments) <= 2 * limit


@given(st.integers(1, 1000), st.floats(0, 1e9))
def test_after_the_seconds_that_it_says_there_is_one(limit: int, now: float) -> None:
    rate = Rate(limit, 0, now)
    taken(rate, 1, now, limit)
    seconds = rate.take(1, now)
    assert rate.take(1, now + seconds + 1e-3) == 0
