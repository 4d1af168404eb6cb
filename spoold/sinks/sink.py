"""The seam for sinks: what `[[sinks]]` says of one, what it is given, what it plans and does.

When a bundle has been verified to its last byte and stands restored in scratch, each sink whose
`entries` match plans what it will do; when all have, each applies its plan. What is applied is
applied once however often the attempt is made again.

A kind of sink is a class under an entry point of the group `spoold.sinks`, named after the kind.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Protocol

from pydantic import Field

from spoold import plugins
from spoold.bundle.entry import Entry
from spoold.canonical import Document
from spoold.connections import Connections
from spoold.section import Name, Section

GROUP: Final = "spoold.sinks"


class SinkSettings(Section):
    """What every `[[sinks]]` section has: which entries of whose bundles it takes."""

    name: Name = Field(description="in statuses")
    kind: str = Field(description="files, postgres, or another that is installed")
    entries: Annotated[list[str], Field(min_length=1)] = Field(
        description='globs over paths in the bundle: ["alerts/*.jsonl"]'
    )
    sites: list[str] = Field(
        default_factory=list, description="only bundles from these; empty: from everybody trusted"
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """A bundle that was verified to its end, as a sink gets it."""

    bundle_id: str
    site: str
    """Whose bundle it is."""
    manifest_sha256: str
    job_id: str
    """What is applied under one job id is applied once."""
    tree: Path
    """Where the bundle's entries stand restored, beneath their paths; not to be changed."""
    scratch: Path
    """A folder for what a sink needs meanwhile."""
    entries: Callable[[], Iterator[Entry]]
    """The entries that match, in bundle order; read anew by each call."""
    connections: Connections
    check: Callable[[], None] = lambda: None
    """To be called now and then; raises where the attempt has lost its job and must stop."""
    count: Callable[[int, int], None] = lambda _bytes, _rows: None
    """To be called now and then with the bytes and rows done since the last call: for progress."""


class Plan(Protocol):
    """What a sink will do with one delivery."""

    @property
    def report(self) -> Document:
        """Counts, for the status: as if it were applied."""

    def apply(self) -> None:
        """Do it, durably, once."""

    def close(self) -> None:
        """Give everything back; a plan that was not applied changes nothing."""


class Sink(Protocol):
    """Where a bundle's content goes besides `restored/`."""

    def plan(self, delivery: Delivery) -> Plan:
        """Find out what `apply` would do; refuse as a whole what cannot be done. Changes nothing.

        Raises SpooldError with the entry, and the line or row, in its message.
        """


class SinkKind(Protocol):
    """A class of sinks, as the entry point names it."""

    Settings: ClassVar[type[Any]]
    """The model of its `[[sinks]]` section: a SinkSettings with a literal kind."""

    def open(self, settings: Any, connections: Connections) -> Sink:
        """A sink; names that are not configured are refused with config-invalid."""


@functools.cache
def kinds() -> dict[str, SinkKind]:
    """Every installed kind by its name. Raises config-invalid."""
    return plugins.load(GROUP, "Settings")


def open_sink(settings: SinkSettings, connections: Connections) -> Sink:
    """The sink that a section of the configuration describes."""
    return kinds()[settings.kind].open(settings, connections)
