"""Until when a worker may act outside of its scratch."""

from spoold.worker.lease import Lease


def test_a_lease_is_safe_for_two_thirds_of_it() -> None:
    lease = Lease(30.0, renewed_at=100.0)
    assert lease.safe(100.0)
    assert lease.safe(120.0)
    assert not lease.safe(120.1)


def test_a_renewal_counts_from_before_it_was_asked_for() -> None:
    lease = Lease(30.0, renewed_at=100.0)
    lease.renewed(110.0)  # the answer may have come at 125
    assert lease.safe(130.0)
    assert not lease.safe(130.1)


def test_a_late_answer_takes_nothing_back() -> None:
    lease = Lease(30.0, renewed_at=100.0)
    lease.renewed(90.0)
    assert lease.safe(120.0)
