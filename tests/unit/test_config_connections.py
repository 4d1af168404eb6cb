"""Named sections and sinks in `spoold.toml`: what they name is there, mistakes have their lines."""

import re
from pathlib import Path

import pytest

from spoold import config
from spoold.config import Config
from spoold.errors import SpooldError
from spoold.spool import Spool


def load(folder: Path, text: str) -> Config:
    (folder / "spool").mkdir(exist_ok=True)
    (folder / "spool" / "spoold.toml").write_text('site = "site-a"\n' + text)
    return config.load(Spool.at(folder / "spool"), None, {}, {})


def mistakes(folder: Path, text: str) -> list[str]:
    """Each as `line: key: what`."""
    with pytest.raises(SpooldError) as caught:
        load(folder, text)
    lines = [line.strip() for line in caught.value.message.splitlines()]
    found = [line for line in lines if "spoold.toml" in line]
    return [re.sub(r"^.*/spoold\.toml:", "", line) for line in found]


SINK = '[[sinks]]\nname = "artifacts"\nkind = "files"\nentries = ["artifacts/**"]\n'


def test_a_store_is_a_folder_beside_the_spool(tmp_path: Path) -> None:
    loaded = load(tmp_path, SINK + 'store = "../artifacts"')
    assert loaded.sinks[0].model_dump()["store"] == str(tmp_path / "spool" / "../artifacts")
    for store in (".", "inbox", "..", ".spoold/keys", "/"):
        [mistake] = mistakes(tmp_path, SINK + f'store = "{store}"')
        assert mistake.startswith("6: sinks.0.store: ")
        assert "reaches the spool" in mistake


def test_entries_that_match_nothing_ever_are_a_mistake(tmp_path: Path) -> None:
    text = SINK.replace("artifacts/**", "/artifacts/**") + 'store = "../artifacts"'
    [mistake] = mistakes(tmp_path, text)
    assert mistake.startswith("5: sinks.0.entries: '/artifacts/**' ")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('layout = "content"\nstrip = 1', "2: sinks.0: strip is for"),
        ('layouts = "content"', "6: sinks.0.layouts: no such key; did you mean"),
    ],
)
def test_wrong_keys_of_a_sink_have_their_lines(tmp_path: Path, key: str, expected: str) -> None:
    [mistake] = mistakes(tmp_path, SINK + key + '\nstore = "../artifacts"')
    assert mistake.startswith(expected)
