"""How many jobs a worker claims at once."""

from spoold.worker.pace import Pace


def test_the_first_job_is_claimed_alone() -> None:
    assert Pace().claim_at_once() == 1


def test_jobs_of_milliseconds_are_soon_claimed_many_at_once() -> None:
    pace = Pace()
    for _ in range(30):
        pace.took(0.003)
    assert pace.claim_at_once() == 50


def test_one_long_job_makes_claims_careful_again() -> None:
    pace = Pace()
    for _ in range(30):
        pace.took(0.003)
    pace.took(60.0)
    assert pace.claim_at_once() == 1
