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


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ('kind = "postgress"', "4: sinks.0.kind: no such kind is installed; there are files, p"),
        ("", "2: sinks.0.kind: field required"),
    ],
)
def test_the_kind_of_a_sink_is_one_that_is_there(tmp_path: Path, kind: str, expected: str) -> None:
    [mistake] = mistakes(tmp_path, SINK.replace('kind = "files"', kind) + 'store = "../artifacts"')
    assert mistake.startswith(expected), mistake


RECIPE = """\
[roots]
evidence = "../evidence"
[databases.soc]
url = "postgresql:///soc"
[queries.alerts]
database = "soc"
sql = "select 1 where %(incident_id)s is not null"
parameters = { incident_id = "text" }
[recipes.incident]
parameters = { incident_id = "text" }
[[recipes.incident.sources]]
kind = "files"
root = "evidence"
path = "{incident_id}"
into = "files"
"""


def test_a_recipe_that_is_right(tmp_path: Path) -> None:
    loaded = load(tmp_path, RECIPE)
    assert len(loaded.connections.recipes["incident"].sources) == 1
    shown = config.values(loaded)["recipes.incident.parameters"]
    assert shown == {"incident_id": "text"}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            'kind = "files"',
            'kind = "file"',
            "13: recipes.incident.sources.0.kind: no such kind is installed; there are files",
        ),
        (
            '"evidence"\npath',
            '"evidense"\npath',
            "14: recipes.incident.sources.0.root: there is no evidense in [roots]",
        ),
        (
            "{incident_id}",
            "x/{incident}",
            "15: recipes.incident.sources.0.path: {incident} is not one of the recipe's parameters",
        ),
        (
            'into = "files"',
            'into = "/files"',
            "16: recipes.incident.sources.0.into: it is the path of a folder in the bundle, but",
        ),
        (
            'into = "files"',
            'inside = "files"',
            "16: recipes.incident.sources.0.inside: no such key",
        ),
        (
            'root = "evidence"',
            'root = "evidence"\n[[recipes.incident.sources]]\nkind = "files"\nroot = "other"',
            "17: recipes.incident.sources.1.root: there is no other in [roots]",
        ),
        (
            '{ incident_id = "text" }\n[[',
            '{ incident_id = "string" }\n[[',
            "11: recipes.incident.parameters.incident_id: this is not 'text', 'integer'",
        ),
    ],
)
def test_mistakes_in_recipes_have_their_lines(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    assert before in RECIPE
    [mistake] = mistakes(tmp_path, RECIPE.replace(before, after))
    assert mistake.startswith(expected), mistake


def test_a_table_within_an_array_of_tables_has_its_line(tmp_path: Path) -> None:
    text = (
        RECIPE + '[[recipes.incident.sources]]\nkind = "files"\n[recipes.incident.sources.more]\n'
    )
    [missing, more] = mistakes(tmp_path, text)
    assert missing.startswith("17: recipes.incident.sources.1.root: field required")
    assert more.startswith("19: recipes.incident.sources.1.more: no such key")


def test_a_parameter_may_pick_a_name(tmp_path: Path) -> None:
    load(tmp_path, RECIPE.replace('root = "evidence"', 'root = "{incident_id}"'))
