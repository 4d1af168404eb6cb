"""The s3 source: objects of a configured store, listed beneath a path and read one after the other.

A store lists keys in the order of their bytes, which is the order of a bundle's paths: only files
come out, and folders are what their paths say. A key that is no path (`a//b`, `../a`, one that goes
on where another ends) is a problem of that entry. An empty object whose key ends in `/` is how some
programs mark a folder: it is left out and counted.

Each object is read in the version that was listed; one that changes meanwhile is source-changed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Final, Literal, cast

from pydantic import Field

from spoold import errors
from spoold.bundle.entry import SourceEntry, clamp_mtime
from spoold.bundle.paths import path_fault
from spoold.errors import SpooldError
from spoold.section import Name
from spoold.sources import globs
from spoold.sources.fields import Beneath, Include, Into, Patterns
from spoold.sources.source import Gathering, Problem, SourceSpec, made_up

if TYPE_CHECKING:
    from spoold.stores import Store
    from spoold.stores.answers import Listed

_MEASURED_OBJECTS: Final = 10_000  # listing more, only to say how far one is, takes too long


class S3Spec(SourceSpec):
    """A request's source of kind `s3`."""

    kind: Literal["s3"]
    store: Name = Field(description="a key of [stores] in the configuration")
    path: Beneath = Field(default="", description="beneath the store's prefix; empty: all of it")
    include: Include = Field(default=["**"], description="globs over paths beneath it")
    exclude: Patterns = Field(default=[], description="globs: what they match is left out")
    into: Into | None = Field(default=None, description="the folder in the bundle")

    def title(self) -> str:
        """Kind, store and path."""
        return "/".join(filter(None, (f"s3:{self.store}", self.path)))

    def name(self) -> str:
        """The last part of the path, or the store."""
        return self.path.rpartition("/")[2] or self.store


class S3Source:
    """The objects that one spec names."""

    Spec: ClassVar[type[S3Spec]] = S3Spec

    def __init__(self, spec: S3Spec, store: "Store", gathering: Gathering, label: str) -> None:
        self._store, self._gathering, self._label = store, gathering, label
        self._path = spec.path
        self._into = b"" if spec.into is None else spec.into.encode()
        self._include, self._exclude = globs.Globs(spec.include), globs.Globs(spec.exclude)
        self._markers = 0

    @classmethod
    def open(cls, spec: S3Spec, gathering: Gathering, label: str) -> "S3Source":
        """The source that a spec names. Raises store-unknown or config-invalid."""
        from spoold.stores import open_store  # noqa: PLC0415  # TLS and XML, only where needed

        store = gathering.shared(
            ("s3", spec.store),
            lambda: open_store(spec.store, gathering.connections, gathering.check),
        )
        return cls(spec, store, gathering, label)

    @property
    def warnings(self) -> list[str]:
        """After the listing: what was met and is not carried."""
        if not self._markers:
            return []
        return [f"{self._markers} empty objects that only mark a folder were left out"]

    def measure(self) -> int | None:
        """The bytes that are listed now; None where there are too many objects to look."""
        total = 0
        try:
            for number, (_, item) in enumerate(self._taken()):
                if number == _MEASURED_OBJECTS:
                    return None
                total += item.size
        finally:
            self._store.client.close()  # other sources may take long before it is this one's turn
        return total

    def entries(self, on_problem: Problem) -> Iterator[SourceEntry]:
        """Yield the objects in bundle order; whoever takes one closes its content.

        Raises source-missing where nothing stands there, store-away, store-refused, store-answer.
        """
        self._markers = 0
        above: list[bytes] = []  # objects whose keys the next ones may go on behind
        for under, item in self._taken():
            if under.endswith(b"/") and not item.size:
                self._markers += 1
                continue
            path = b"/".join((self._into, under)) if self._into else under
            while above and not path.startswith(above[-1]):
                above.pop()
            fault = path_fault(path)
            if fault is None and any(path.startswith(b"/", len(one)) for one in above):
                fault = "another object stands where it needs a folder"
            if fault is None:
                above.append(path)
                yield self._entry(path, item)
            else:
                shown = self._store.shown(item.key[:200])
                problem = SpooldError(errors.PATH_UNSUPPORTED, f"{shown}: {fault}", at=shown)
                on_problem(path, problem)

    def _entry(self, path: bytes, item: "Listed") -> SourceEntry:
        from spoold.stores import StoredObject  # noqa: PLC0415  # as above

        content = StoredObject(
            self._store, item.key, item.size, item.etag, whole=True, told=self._count
        )
        return made_up(
            path,
            self._label,
            cast(BinaryIO, content),
            mtime_ns=clamp_mtime(round(item.modified.timestamp() * 1000) * 1_000_000),
            size=item.size,
        )

    def _count(self, more_bytes: int) -> None:
        self._gathering.check()
        self._gathering.count(more_bytes, 0)

    def _taken(self) -> Iterator[tuple[bytes, "Listed"]]:
        return (
            (under, item)
            for under, item in self._listed()
            if self._takes(under.decode("utf-8", "surrogateescape"))
        )

    def _listed(self) -> Iterator[tuple[bytes, "Listed"]]:
        """Each object with its path beneath the source: a single one's is its name."""
        from spoold.stores.answers import Listed  # noqa: PLC0415  # as above

        key = self._store.key(self._path)
        prefix = key + b"/" if key else b""
        empty = True
        for item in self._store.list(prefix):
            empty = False
            if item.key != prefix:
                yield item.key[len(prefix) :], item
        if empty and self._path:
            info = self._store.look(key)
            if info is None:
                raise SpooldError(
                    errors.SOURCE_MISSING,
                    f"{self._store.shown(key)}: there is no object, and none beneath it",
                    hint="check store and path",
                    at="path",
                )
            yield key.rpartition(b"/")[2], Listed(key, info.size, info.etag, info.modified)

    def _takes(self, under: str) -> bool:
        """Whether `include` matches it or a folder above, and `exclude` neither."""
        if self._exclude.cover(under, folder=False):
            return False
        return self._include.all or self._include.cover(under, folder=False)
