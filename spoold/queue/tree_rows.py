"""Rows that tell of files in the tree: names that jobs have put there, and bundles. Pure.

They outlive the rows of their jobs.
"""

import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final

from spoold.queue.rows import from_bigint


class Area(enum.StrEnum):
    """What a name in the tree is kept as; each has a duration of its own."""

    PROCESSED = "processed"
    FAILED = "failed"
    BUNDLES = "bundles"  # in processed/ too: made here, or dropped and restored
    RESTORED = "restored"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Placed:
    """One name, and what proves that the file which has it is the one that was published.

    `inode` is None where nothing was there when the name was reserved, and of answers, which are
    known by what they say.
    """

    folder: str
    name: bytes
    job: uuid.UUID
    role: str
    area: Area
    inode: int | None
    size: int | None
    mtime_ns: int | None
    at: datetime

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Placed":
        """From a row of PLACED_COLUMNS."""
        values = dict(zip(PLACED_COLUMNS, row, strict=True))
        values["area"] = Area(values["area"])
        values["at"] = values["at"].astimezone(UTC)
        if values["inode"] is not None:
            values["inode"] = from_bigint(values["inode"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle. `job` made or restored it; `bytes` is the size of its file."""

    job: uuid.UUID
    bundle_id: str
    manifest_sha256: bytes
    from_site: str
    received: bool
    folder: str
    name: bytes
    bytes: int
    entries: int
    created_at: datetime
    pinned: bool
    removed_at: datetime | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Bundle":
        """From a row of BUNDLE_COLUMNS."""
        values = dict(zip(BUNDLE_COLUMNS, row, strict=True))
        for column in ("created_at", "removed_at"):
            if values[column] is not None:
                values[column] = values[column].astimezone(UTC)
        return cls(**values)


PLACED_COLUMNS: Final = tuple(field.name for field in fields(Placed))
BUNDLE_COLUMNS: Final = tuple(field.name for field in fields(Bundle))
