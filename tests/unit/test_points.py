"""Every point stands in the table, and the table has none that the code does not reach."""

import re
from pathlib import Path

import spoold
from spoold import points

SOURCES = sorted(Path(spoold.__file__).parent.rglob("*.py"))


def test_the_table_has_exactly_the_points_that_the_code_reaches() -> None:
    text = "\n".join(path.read_text() for path in SOURCES if path.name != "points.py")
    found = set(re.findall(r'points\.reached\("([^"]+)"\)', text))
    # Publishing names the points of its steps to one function; maintenance names two in a table.
    found |= set(re.findall(r'"(publish\.[3-6]|rescue(?:\.publishing)?)"', text))
    found |= {f"publish.{step}.synced" for step in (4, 5, 6)}
    assert found == set(points.POINTS)
