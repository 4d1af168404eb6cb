"""Sink `files`: a bundle's files into a store of artifacts, by path or by content.

Guarantees: what stands in the store under a name that was given here is whole and has the hash that
was signed (see `store`); nothing that stands there is changed unless `conflict` says so, and then
one file replaces another at one instant. When `apply` returns, all of it is durable. A file that
is there already is not stored again.
Not guaranteed: that all of a bundle appears at one instant.
Crash: files that have their names stay, and count as present in the next attempt, which stores the
rest. By content, a bundle's list of names comes last: what it lists is there.
"""

import grp
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from spoold import canonical, errors
from spoold.bundle.copying import copy_range
from spoold.bundle.paths import path_fault
from spoold.bundle.scratch import LineFile, LineSorter
from spoold.canonical import Document
from spoold.connections import Connections
from spoold.connections.parameters import fill_in, names_in
from spoold.errors import SpooldError
from spoold.section import FilePath
from spoold.sinks import shelving
from spoold.sinks.names_list import NamesList
from spoold.sinks.places import LargeFile
from spoold.sinks.restored import open_restored
from spoold.sinks.shelving import Item
from spoold.sinks.sink import Delivery, SinkSettings
from spoold.sinks.store import Policy, Standing, Store, store_errors

_COPY_BYTES: Final = 16 * 1024 * 1024
# Files that are written, and then synced together; each has two descriptors until it has its name.
_BATCH_FILES: Final = 256
_BATCH_BYTES: Final = 64 * 1024 * 1024
_SHOWN_CONFLICTS: Final = 3

ModeText = Annotated[str, StringConstraints(pattern="^0?[0-7]{3}$")]


class ArtifactSettings(SinkSettings):
    """A folder that keeps artifacts."""

    kind: Literal["files"]
    store: FilePath = Field(description="the folder of the store; it must be there")
    layout: Literal["path", "content"] = Field(
        default="path",
        description="files by their paths, or each content once, as `sha256/ab/cdef…`",
    )
    into: str = Field(
        default="{site}/{bundle_id}", description='by path: the folder in the store; "": its top'
    )
    strip: Annotated[int, Field(ge=0, le=127)] = Field(
        default=0, description="by path: so many first folders of a path are left out"
    )
    conflict: Literal["refuse", "skip", "replace"] = Field(
        default="refuse", description="by path: what becomes of a file with another content"
    )
    file_mode: ModeText = Field(default="0640", description="of files in the store")
    folder_mode: ModeText = Field(default="0750", description="of folders that are made in it")
    owner: str | None = Field(default=None, description="whose they are, where the daemon is root")
    group: str | None = Field(default=None, description="and of which group")
    keep_times: bool = Field(default=True, description="files have the times of the bundle's")

    @field_validator("into")
    @classmethod
    def _check_into(cls, into: str) -> str:
        if unknown := [name for name in names_in(into) if name not in shelving.PLACEHOLDERS]:
            raise ValueError(
                f"{{{unknown[0]}}} is not filled in: there are {{site}}, {{bundle_id}}"
            )
        sample = fill_in(into, dict.fromkeys(shelving.PLACEHOLDERS, "x"))
        if into and (what := path_fault(sample.encode())):
            raise ValueError(f"it is the path of a folder in the store, but {what}")
        return into

    @model_validator(mode="after")
    def _check_together(self) -> "ArtifactSettings":
        if self.layout == "content" and (
            given := {"into", "strip", "conflict"} & self.model_fields_set
        ):
            raise ValueError(f'{min(given)} is for layout = "path"')
        if int(self.file_mode, 8) & 0o400 == 0 or int(self.folder_mode, 8) & 0o700 != 0o700:
            raise ValueError("file_mode and folder_mode leave the owner the right to read them")
        return self


class ArtifactSink:
    """Files into a store."""

    Settings = ArtifactSettings

    def __init__(self, settings: ArtifactSettings) -> None:
        """Raises config-invalid where owner or group cannot be given."""
        self._settings = settings
        self._policy = Policy(
            int(settings.file_mode, 8),
            int(settings.folder_mode, 8),
            None if settings.owner is None else _uid(settings),
            None if settings.group is None else _gid(settings),
        )

    @classmethod
    def open(cls, settings: ArtifactSettings, _connections: Connections) -> "ArtifactSink":
        """The sink that a section describes."""
        return cls(settings)

    def plan(self, delivery: Delivery) -> "ArtifactPlan":
        """What is new to the store, and what stands there already.

        Raises artifacts-away, artifact-conflict, path-unsupported, no-space, disk-error.
        """
        store = Store(Path(self._settings.store), self._policy, delivery.check)
        plan = ArtifactPlan(self._settings, store, delivery)
        try:
            plan.make()
        except BaseException:
            plan.close()
            raise
        return plan


@dataclass(slots=True)
class _Counts:
    stored: int = 0
    present: int = 0
    skipped: int = 0
    replaced: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Batch:
    """Files that are written and have no names yet."""

    files: list[tuple[LargeFile, Item, bool]] = field(default_factory=list)
    bytes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.files) >= _BATCH_FILES or self.bytes >= _BATCH_BYTES

    def close(self) -> None:
        """Those that have no names are gone."""
        for file, _, _ in self.files:
            file.close()
        self.files.clear()
        self.bytes = 0


class ArtifactPlan:
    """What one delivery brings to the store."""

    def __init__(self, settings: ArtifactSettings, store: Store, delivery: Delivery) -> None:
        self._settings, self._store, self._delivery = settings, store, delivery
        self._counts = _Counts()
        self._new, self._other = LineFile(delivery.scratch), LineFile(delivery.scratch)
        self._by_content = settings.layout == "content"
        self._names = NamesList(store, delivery, settings.name)

    @property
    def report(self) -> Document:
        """Counts of files, and the bytes of those that are stored or replace others."""
        counts = self._counts
        return {
            "files": {
                "stored": counts.stored,
                "present": counts.present,
                "skipped": counts.skipped,
                "replaced": counts.replaced,
            },
            "bytes": counts.bytes,
        }

    def make(self) -> None:
        """Look at every name in the store."""
        conflicts: list[bytes] = []
        before: Item | None = None
        counts = self._counts
        for item in self._items():
            self._delivery.check()
            if self._by_content and before is not None and item.target == before.target:
                counts.present += 1  # the same content twice
                continue
            shelving.require_apart(before, item)
            before = item
            match self._store.look(item.target, item.sha256, item.size):
                case Standing.SAME:
                    counts.present += 1
                case Standing.NOTHING:
                    self._new.append(shelving.line(item) + b"\n")
                    counts.stored += 1
                    counts.bytes += item.size
                case Standing.OTHER:
                    self._meet(item, conflicts)
        if conflicts:
            raise _conflict(conflicts)
        if self._by_content:
            self._names.check()
        self._store.require_room(counts.bytes, counts.stored + counts.replaced)

    def apply(self) -> None:
        """Put what is new there, durably."""
        counts = self._counts
        counts.stored = counts.replaced = counts.bytes = 0
        tree = os.open(self._delivery.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        batch = _Batch()
        try:
            for lines, replaces in ((self._new, False), (self._other, True)):
                for line in lines:
                    self._fill(batch, tree, shelving.parse(line[:-1]), replaces=replaces)
                    if batch.is_full:
                        self._name(batch)
            self._name(batch)
        finally:
            batch.close()
            os.close(tree)
        if self._by_content:
            self._store.sync()
            self._names.write()
        self._store.sync()

    def close(self) -> None:
        """Give handles and scratch back."""
        self._new.close()
        self._other.close()
        self._store.close()

    def _items(self) -> Iterator[Item]:
        """The files by their names in the store."""
        delivery, settings = self._delivery, self._settings
        values = {"site": delivery.site, "bundle_id": delivery.bundle_id}
        into = fill_in(settings.into, values).encode()
        sorter = LineSorter(delivery.scratch)
        try:
            for entry in delivery.entries():
                item = (
                    shelving.by_content(entry)
                    if self._by_content
                    else shelving.by_path(entry, into, settings.strip)
                )
                sorter.add(shelving.line(item))
            yield from map(shelving.parse, sorter)
        finally:
            sorter.close()

    def _meet(self, item: Item, conflicts: list[bytes]) -> None:
        """Another content stands under the name."""
        counts = self._counts
        if self._by_content or self._settings.conflict == "refuse":
            conflicts.append(item.target)
        elif self._settings.conflict == "skip":
            counts.skipped += 1
        else:
            self._other.append(shelving.line(item) + b"\n")
            counts.replaced += 1
            counts.bytes += item.size

    def _fill(self, batch: _Batch, tree: int, item: Item, *, replaces: bool) -> None:
        file = self._store.new_file(item.target)
        batch.files.append((file, item, replaces))
        batch.bytes += item.size
        with store_errors(item.target), open_restored(tree, item.path) as source:
            offset = 0
            while offset < item.size:
                self._delivery.check()
                count = copy_range(source, file.descriptor, offset, _COPY_BYTES)
                if not count:
                    break  # the hash will tell
                offset += count
                self._delivery.count(count, 0)
            self._store.dress(file, item.mtime_ns if self._settings.keep_times else None)

    def _name(self, batch: _Batch) -> None:
        """Sync and read again what was written; then the names."""
        self._store.sync_contents([file for file, _, _ in batch.files])
        for file, item, replaces in batch.files:
            self._delivery.check()
            self._store.read_again(file, item.target, item.sha256)
            with store_errors(item.target):
                if replaces:
                    file.take_name()
                    self._counts.replaced += 1
                    self._counts.bytes += item.size
                else:
                    self._name_new(file, item)
        batch.close()

    def _name_new(self, file: LargeFile, item: Item) -> None:
        counts = self._counts
        try:
            file.give_name()
        except FileExistsError:  # somebody was faster: another job with the same artifact, perhaps
            if self._store.look(item.target, item.sha256, item.size) is not Standing.SAME:
                raise _conflict([item.target]) from None
            counts.present += 1
            return
        counts.stored += 1
        counts.bytes += item.size


def _conflict(names: list[bytes]) -> SpooldError:
    shown = [canonical.text(name) for name in names[:_SHOWN_CONFLICTS]]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return SpooldError(
        errors.ARTIFACT_CONFLICT,
        f"{', '.join(shown)}{more}: the store has another content under that name",
        at=shown[0],
    )


def _uid(settings: ArtifactSettings) -> int:
    assert settings.owner is not None
    _require_root(settings, "owner")
    try:
        return pwd.getpwnam(settings.owner).pw_uid
    except KeyError:
        raise _wrong(settings, f"there is no user {settings.owner}") from None


def _gid(settings: ArtifactSettings) -> int:
    assert settings.group is not None
    _require_root(settings, "group")
    try:
        return grp.getgrnam(settings.group).gr_gid
    except KeyError:
        raise _wrong(settings, f"there is no group {settings.group}") from None


def _require_root(settings: ArtifactSettings, key: str) -> None:
    if os.geteuid() != 0:
        raise _wrong(settings, f"{key}: only root gives files to others")


def _wrong(settings: ArtifactSettings, what: str) -> SpooldError:
    return SpooldError(errors.CONFIG_INVALID, f"sink {settings.name}: {what}")
