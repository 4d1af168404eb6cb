"""From named sections and sinks of `spoold.toml` to what jobs may use. Pure, but for `astray`.

What names another section must name one that is there; values are shown without passwords.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from spoold.config.handlers import HandlerSection
from spoold.config.sections import File
from spoold.connections import Connections
from spoold.connections.apis import ApiSettings, EndpointSettings
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.connections.recipes import RecipeSettings
from spoold.connections.secrets import scrubbed
from spoold.connections.stores import StoreSettings
from spoold.section import Section
from spoold.sinks.artifacts import ArtifactSettings
from spoold.sinks.sink import SinkSettings, kinds
from spoold.sources import globs
from spoold.spool import Spool

_MODELS: Final[Mapping[str, type[Section]]] = {
    "databases": DatabaseSettings,
    "queries": QuerySettings,
    "apis": ApiSettings,
    "endpoints": EndpointSettings,
    "stores": StoreSettings,
    "recipes": RecipeSettings,
    "handlers": HandlerSection,
}
# In which table the value of a key is a name.
_NAMES: Final = {"database": "databases", "api": "apis", "store": "stores"}


def models(table: str) -> Iterator[type[BaseModel]]:
    """The models of the sections in a table."""
    if table == "sinks":
        yield from (kind.Settings for kind in kinds().values())
    elif table in _MODELS:
        yield _MODELS[table]


def kinds_in(table: str) -> list[str]:
    """What `kind` may be in the sections of a table."""
    return sorted(kinds()) if table == "sinks" else ["s3"]


def untagged(key: tuple[str, ...]) -> tuple[str, ...]:
    """The place of a mistake, without the kind by which its section's model was picked."""
    if key[0] == "sinks" and len(key) > 2 and key[2] in kinds():
        return (*key[:2], *key[3:])
    return key


def connections(file: File, roots: Mapping[str, Path]) -> Connections:
    """What jobs may use."""
    return Connections(
        roots=roots,
        databases=file.databases,
        queries=file.queries,
        apis=file.apis,
        endpoints=file.endpoints,
        stores=file.stores,
        recipes=file.recipes,
        plugins=file.plugins,
    )


def dangling(file: File) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys that name a section which is not there, and what is wrong with each."""
    for place, section in _sections(file):
        for key, table in _NAMES.items():
            name = getattr(section, key, None)
            # A sink's `store` may be a folder: its path is absolute by now, as no name is.
            if isinstance(name, str) and "/" not in name and name not in getattr(file, table):
                yield (*place, key), f"there is no [{table}.{name}]"
    names = [sink.name for sink in file.sinks]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield ("sinks", str(number), "name"), f"another sink is called {name} already"
    for number, sink in enumerate(file.sinks):
        for pattern in sink.entries:
            if what := globs.fault(pattern):
                yield ("sinks", str(number), "entries"), f"{pattern!r} {what}"


def astray(file: File, spool: Spool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Stores of artifacts that reach into the spool, where a bundle could then write."""
    root = os.path.realpath(spool.root)
    for number, sink in enumerate(file.sinks):
        if isinstance(sink, ArtifactSettings):
            real = os.path.realpath(sink.store)
            if os.path.commonpath([real, root]) in (real, root):
                what = f"{sink.store} reaches the spool: name a folder beside {spool.root}"
                yield ("sinks", str(number), "store"), what


def values(found: Connections, sinks: Sequence[SinkSettings]) -> dict[str, object]:
    """Every dotted key that the file has, with its value, without passwords."""
    shown: dict[str, object] = {}
    for table in _MODELS:
        for name, section in getattr(found, table, {}).items():
            given = section.model_dump(mode="json", exclude_unset=True)
            shown.update((f"{table}.{name}.{key}", _shown(value)) for key, value in given.items())
    for name, settings in found.plugins.items():
        shown.update((f"plugins.{name}.{key}", "***") for key in settings)
    for sink in sinks:
        given = sink.model_dump(mode="json", exclude_unset=True)
        shown.update((f"sinks.{sink.name}.{key}", _shown(value)) for key, value in given.items())
    return shown


def _shown(value: object) -> object:
    return scrubbed(value) if isinstance(value, str) else value


def _sections(file: File) -> Iterator[tuple[tuple[str, ...], Section]]:
    for table in _MODELS:
        found = getattr(file, table)
        if isinstance(found, dict):
            yield from (((table, name), section) for name, section in found.items())
    yield from ((("sinks", str(number)), sink) for number, sink in enumerate(file.sinks))
