"""Sink `files`: a bundle's files into a store of artifacts, by path or by content.

Guarantees: what stands in the store under a name is whole, has the hash that was signed, and is
never replaced; links that stand in the store are not followed.
Crash: names that were made stay; the next attempt finds them there.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from spoold.canonical import Document
from spoold.connections import Connections
from spoold.section import FilePath
from spoold.sinks.sink import Delivery, SinkSettings


class ArtifactSettings(SinkSettings):
    """A folder that keeps artifacts."""

    kind: Literal["files"]
    store: FilePath = Field(description="the folder of the store")


class ArtifactSink:
    """Files into a store."""

    Settings = ArtifactSettings

    def __init__(self, settings: ArtifactSettings) -> None:
        self._store = Path(settings.store)

    @classmethod
    def open(cls, settings: ArtifactSettings, _connections: Connections) -> "ArtifactSink":
        """The sink that a section describes."""
        return cls(settings)

    def plan(self, delivery: Delivery) -> "ArtifactPlan":
        """What is new to the store, and what stands there already."""
        return ArtifactPlan(self._store, delivery)


class ArtifactPlan:
    """What one delivery brings to the store."""

    def __init__(self, store: Path, delivery: Delivery) -> None:
        self._store = store
        self._delivery = delivery

    @property
    def report(self) -> Document:
        """Counts of files."""
        return {"files": {"stored": 0, "present": 0}}

    def apply(self) -> None:
        """Put the new ones there."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is kept open."""
