"""The pages against the code. Run as a script, this renews the tables that it holds equal."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from spoold import errors, schemas
from spoold.canonical import Document
from spoold.cli import COMMANDS, cli
from spoold.config import connecting, toml_value
from spoold.config.handlers import HandlerSection
from spoold.config.sections import NAMED
from spoold.connections.apis import DownloadSettings
from spoold.intake.settings import Reason
from spoold.queue.job import FINAL, State
from spoold.sinks.sink import kinds as sinks
from spoold.sources.source import kinds as sources
from spoold.status import WAITING

TOP = Path(__file__).parents[2]
README = TOP / "README.md"
SOURCES = TOP / "spool-layout" / "SOURCES.md"
PAGES = [README, *sorted((TOP / "spool-layout").glob("*.md")), TOP / "CHANGELOG.md"]

_SECTION = r"(<!-- generated: {} -->\n).*?(<!-- end -->\n)"


def exits() -> str:
    """The exit statuses, as every command's help lists them."""
    assert cli.epilog is not None
    found = re.findall(r"(\d+) ([^·\n]+?)\s*(?:·|\n)", cli.epilog)
    assert {int(number) for number, _ in found} >= set(errors.Exit)
    rows = [f"| {number} | {meaning} |" for number, meaning in found]
    return "\n".join(["| status | meaning |", "|---:|---|", *rows]) + "\n"


def codes() -> str:
    """The table of errors.py."""
    rows = [
        f"| `{code.name}`{' ↻' if code.transient else ''} | {code.sentence} | {code.hint} "
        f"| {code.exit_status} |"
        for code in errors.CODES.values()
    ]
    return "\n".join(["| code | meaning | what to do | exit |", "|---|---|---|---:|", *rows]) + "\n"


def keys(model: type[BaseModel]) -> Callable[[], str]:
    """Gives the table of the keys of a section, or of the fields of a source."""

    def table() -> str:
        rows = []
        for name, field in model.model_fields.items():
            key = f"section.{field.alias or name}"
            value = None if field.default_factory is not None else field.default
            if name == "kind":
                default = f'`"{get_args(field.annotation)[0]}"`'
            elif field.is_required():
                default = "required"
            elif value is None or isinstance(value, BaseModel):
                default = ""
            else:
                default = f"`{toml_value(key, value)}`"
            described = (field.description or "its kind").replace("|", "\\|")
            if get_origin(field.annotation) is Literal and name != "kind":
                choices = ", ".join(f'`"{each}"`' for each in get_args(field.annotation))
                described = f"{choices}: {described}"
            rows.append(f"| `{field.alias or name}` | {default} | {described} |")
        return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"

    return table


def models() -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections of sources and sinks, by the names of their tables in the page."""
    for table in NAMED:
        yield from ((table, model) for model in connecting.models(table))
    yield "download", DownloadSettings
    yield from ((f"source {name}", kind.Spec) for name, kind in sources().items())
    yield from ((f"sink {name}", kind.Settings) for name, kind in sinks().items())


# For each page, its generated tables.
PAGES_OF = {
    README: {"handlers": keys(HandlerSection), "exits": exits, "errors": codes},
    SOURCES: {name: keys(model) for name, model in models()},
}
TABLES = [(page, name) for page, tables in PAGES_OF.items() for name in tables]


def replaced(page: str, name: str, content: str) -> str:
    """The page with a generated section made anew."""
    changed, count = re.subn(
        _SECTION.format(name),
        lambda match: f"{match[1]}{content}{match[2]}",
        page,
        flags=re.DOTALL,
    )
    assert count == 1, name
    return changed


@pytest.mark.parametrize(("page", "name"), TABLES, ids=[name for _, name in TABLES])
def test_a_page_says_what_the_code_says(page: Path, name: str) -> None:
    text = page.read_text()
    made = replaced(text, name, PAGES_OF[page][name]())
    assert text == made, "run python tests/unit/test_docs.py"


def test_no_cell_of_a_generated_table_breaks_it() -> None:
    assert not [code.name for code in errors.CODES.values() if "|" in code.sentence + code.hint]


def test_the_readme_stays_readable() -> None:
    assert len(README.read_text().splitlines()) < 900


def test_every_state_and_every_reason_to_wait_is_explained() -> None:
    page = README.read_text()
    for state in (WAITING, *State):
        row = re.search(rf"^\| `{state}` \| .+? \| (.*?)\s*\|$", page, re.MULTILINE)
        assert row is not None, state
        assert bool(row[1]) is (state in FINAL), state
    line = next(line for line in page.splitlines() if line.startswith("| `reason` |"))
    assert set(re.findall("`([a-z-]+)`", line)) == {"reason", *(reason.value for reason in Reason)}


def test_every_field_of_a_status_is_explained() -> None:
    section = README.read_text().partition("## Status files")[2].partition("\n## ")[0]
    explained = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall("`([a-z0-9_]+)`", cell)
    }
    properties = schemas.status()["properties"]
    assert isinstance(properties, dict)
    assert set(properties) == explained - {WAITING, *State}


def test_every_field_of_a_request_is_explained() -> None:
    section = README.read_text().partition("## Requests")[2].partition("\n## ")[0]
    explained = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall("`([a-z0-9_]+)`", cell)
    }
    definitions = schemas.request()["$defs"]
    assert isinstance(definitions, dict)
    known = set()
    for name in ("BundleRequest", "RehydrateRequest"):
        model: Document = definitions[name]
        properties = model["properties"]
        assert isinstance(properties, dict)
        known |= set(properties)
    assert explained == known


def test_every_field_of_the_daemons_status_is_explained() -> None:
    section = README.read_text().partition("## Whether the daemon lives")[2].partition("\n## ")[0]
    explained = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        for name in re.findall("`([a-z_]+)`", cell)
    }
    properties = schemas.daemon()["properties"]
    assert isinstance(properties, dict)
    assert explained | {"type", "signatures"} == set(properties)


def test_commands_that_pages_name_exist() -> None:
    known = {entry.name for entries in COMMANDS.values() for entry in entries}
    for page in PAGES:
        text = page.read_text()
        named = set(re.findall(r"`spoold ([a-z]+)", text))
        for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            named |= set(re.findall(r"(?:^|/)spoold ([a-z]+)", block, re.MULTILINE))
        assert named <= known, page


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def _renew() -> None:
    for page, tables in PAGES_OF.items():
        text = page.read_text()
        for name, make in tables.items():
            text = replaced(text, name, make())
        page.write_text(text)


if __name__ == "__main__":
    _renew()
