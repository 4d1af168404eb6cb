"""The compact set of hashes is a set."""

import random

from spoold.bundle.hashes import Hashes


def test_it_holds_what_was_added_and_nothing_else() -> None:
    random_ = random.Random(1)
    hashes, expected = Hashes(), set[int]()
    for _ in range(20_000):
        key = hash(str(random_.randrange(15_000)))
        assert (key in hashes) == (key in expected)
        hashes.add(key)
        expected.add(key)
        assert len(hashes) == len(expected)
    assert all(key in hashes for key in expected)
    assert not any(hash(str(number)) in hashes for number in range(15_000, 20_000))


def test_extreme_values_and_those_that_meet_in_one_slot_are_kept_apart() -> None:
    keys = [0, -1, -(2**63), 2**63 - 1, *(number << 20 for number in range(2, 2000))]
    hashes = Hashes()
    for number, key in enumerate(keys):
        assert key not in hashes
        hashes.add(key)
        hashes.add(key)
        assert len(hashes) == number + 1
    assert all(key in hashes for key in keys)
