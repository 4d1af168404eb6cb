"""Each case that intake must survive has a number, E01 to E39, and a test that names it.

Run as a script, this prints which tests they are.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TESTS = Path(__file__).parents[1]
CASES: Final = range(1, 40)

_TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)
_NUMBER = re.compile(r"(?<![A-Za-z0-9])[eE](\d\d)(?![A-Za-z0-9])")


def named() -> Mapping[int, list[str]]:
    """The tests whose names bear each number, as `file::test`."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in _TEST.findall(path.read_text()):
            for number in _NUMBER.findall(name.replace("_", " ")):
                found[int(number)].append(f"{path.relative_to(TESTS)}::{name}")
    return found


def test_every_edge_case_has_a_test_that_names_it() -> None:
    found = named()
    assert [f"E{number:02}" for number in CASES if not found.get(number)] == []


if __name__ == "__main__":
    for case, tests in sorted(named().items()):
        print(f"E{case:02}", *tests, sep="\n    ")
