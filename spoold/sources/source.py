"""The seam for sources: what a request writes of one, what it is given, and what it yields.

A kind of source is a class under an entry point of the group `spoold.sources`, named after the
kind; spoold's own kinds are found in the same way.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from spoold import canonical, plugins
from spoold.bundle.entry import ByteStream, Kind, SourceEntry
from spoold.connections import Connections
from spoold.errors import SpooldError

GROUP: Final = "spoold.sources"
_MADE_UP_MODE: Final = 0o644
T = TypeVar("T")

Problem = Callable[[bytes, SpooldError], None]
"""Takes an entry's path and what is wrong with it; where it returns, the entry is left out."""


class SourceSpec(BaseModel):
    """One of a request's `sources`: a model with `kind: Literal["<the kind>"]` and its own fields.

    A spec names what the operator has configured; it never carries a path outside of a root, an
    address or a statement.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    kind: str

    def title(self) -> str:
        """What the entries' `source` says: kind and name, never a secret."""
        return self.kind

    def name(self) -> str:
        """What a bundle is called that has no other name: a word from this spec."""
        return self.kind


@dataclass(frozen=True, slots=True)
class Gathering:
    """What the sources of one attempt are given."""

    connections: Connections
    check: Callable[[], None] = lambda: None
    """To be called now and then while waiting for others; raises where the attempt must end."""
    count: Callable[[int, int], None] = lambda _bytes, _rows: None
    """To be called now and then with the bytes and rows read since the last call: for progress."""
    scratch: Path | None = None
    """The attempt's folder for what is too much to hold; None: the system's for temporary files."""
    _kept: dict[object, object] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Gathering":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def shared(self, key: object, open_: Callable[[], AbstractContextManager[T]]) -> T:
        """What `open_` opens, once for all sources of the attempt; closed at its end."""
        if key not in self._kept:
            self._kept[key] = self._stack.enter_context(open_())
        return cast(T, self._kept[key])


class Source(Protocol):
    """Where entries come from: read once, in one pass, in bounded memory."""

    @property
    def warnings(self) -> Sequence[str]:
        """After the last entry: what the reader of the status should know."""

    def measure(self) -> int | None:
        """How many bytes there are to come, about; None where nobody knows."""

    def entries(self, on_problem: Problem) -> Iterator[SourceEntry]:
        """Yield the entries, their paths in bundle order; whoever takes one closes its content.

        An entry is read before the next one is asked for. Raises SpooldError for the source as a
        whole; what concerns one entry goes to `on_problem`.
        """


class SourceKind(Protocol):
    """A class of sources, as the entry point names it."""

    Spec: ClassVar[type[Any]]
    """The model of what a request writes: a SourceSpec."""

    def open(self, spec: Any, gathering: Gathering, label: str) -> Source:
        """A source. `label` is what its entries' `source` says. Raises what a wrong name deserves.

        Cheap: nothing is connected to before `measure` or `entries`.
        """


@functools.cache
def kinds() -> dict[str, SourceKind]:
    """Every installed kind by its name. Raises config-invalid."""
    return plugins.load(GROUP, "Spec")


def open_source(spec: SourceSpec, gathering: Gathering, label: str) -> Source:
    """The source that a spec names."""
    return kinds()[spec.kind].open(spec, gathering, label)


def labels(specs: Iterable[SourceSpec]) -> list[str]:
    """A name for each source of one request, different from the others: its entries' `source`."""
    found: dict[str, int] = {}
    names = []
    for spec in specs:
        name = canonical.text(spec.title())
        found[name] = number = found.get(name, 0) + 1
        names.append(name if number == 1 else f"{name} ({number})")
    return names


def made_up(
    path: bytes,
    label: str,
    content: ByteStream,
    *,
    mtime_ns: int,
    size: int | None = None,
    media_type: str | None = None,
) -> SourceEntry:
    """The entry of a file that was no file where it comes from: it has neither mode nor owner."""
    return SourceEntry(
        path, Kind.FILE, _MADE_UP_MODE, mtime_ns, 0, 0, label, size, None, media_type, content
    )


def raise_it(_path: bytes, error: SpooldError) -> None:
    """What to do with a problem of one entry where nothing may be left out."""
    raise error
