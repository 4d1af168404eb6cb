"""An incident from live systems, and back into them: the example of the README, as it stands."""

import re
from pathlib import Path

from tests.incident import story
from tests.incident.story import HERE

TOP = Path(__file__).parents[2]


def test_the_incident_is_gathered_carried_and_merged_once(tmp_path: Path) -> None:
    said: list[str] = []
    story.tell(tmp_path, said.append)
    assert said[-1] == "all of it held"


def test_pages_quote_the_files_that_are_used() -> None:
    files = [path.read_text() for path in (*HERE.glob("*.toml"), story.REQUEST)]
    readme = blocks(TOP / "README.md", "Sources and sinks")
    page = blocks(TOP / "spool-layout" / "SOURCES.md", "An incident, whole")
    assert sorted(page) == sorted(files)
    assert len(readme) >= 3
    for block in readme:
        assert any(block in file for file in files), block


def blocks(page: Path, section: str) -> list[str]:
    """The configuration and requests that a section of a page shows."""
    text = page.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```(?:toml|json)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
