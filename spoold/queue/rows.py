"""Between rows and dataclasses: the columns of a job in order, and what JSON holds of it. Pure."""

import base64
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final

from spoold.canonical import Document, Json
from spoold.queue.job import Job, Move, State

# The dataclass is the list: a column that it lacks cannot be read, one too many cannot be selected.
JOB_COLUMNS: Final = tuple(field.name for field in fields(Job))
_TIMES: Final = frozenset(JOB_COLUMNS.index(name) for name in JOB_COLUMNS if name.endswith("_at"))
_RANK: Final = JOB_COLUMNS.index("rank")
_STATE: Final = JOB_COLUMNS.index("state")
_SOURCES: Final = JOB_COLUMNS.index("sources")


def job_from(row: Sequence[Any]) -> Job:
    """A job from a row of JOB_COLUMNS."""
    values = list(row)
    for index in (*_TIMES, _RANK):
        moment = values[index]
        if isinstance(moment, datetime):
            values[index] = moment.astimezone(UTC)
    values[_STATE] = State(values[_STATE])
    values[_SOURCES] = tuple(_move(document) for document in values[_SOURCES])
    return Job(*values)


def dump(document: Document | None) -> str | None:
    """JSON for a jsonb column."""
    return None if document is None else json.dumps(document)


def dump_moves(moves: Sequence[Move]) -> str:
    """JSON of planned renames; names are bytes, so they are base64."""
    return json.dumps(
        [
            {
                "role": move.role,
                "source": _b64(os.fsencode(move.source)),
                "folder": move.folder,
                "name": _b64(move.name),
                "device": move.device,
                "inode": move.inode,
                "size": move.size,
                "mtime_ns": move.mtime_ns,
            }
            for move in moves
        ]
    )


def to_bigint(number: int) -> int:
    """64 bits without a sign, as the database's signed ones."""
    return number - (1 << 64) if number >= 1 << 63 else number


def from_bigint(number: int) -> int:
    """The same the other way round."""
    return number + (1 << 64) if number < 0 else number


def outcome(
    state: State,
    *,
    result: Mapping[str, Json] | None = None,
    error: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """The outcome document of a job that ends in `state`."""
    return {"state": state.value, "result": result, "error": error, "warnings": []}


def duplicate_outcome(of: uuid.UUID) -> dict[str, Json]:
    """The outcome of a job that a succeeded one stands for."""
    return outcome(State.DUPLICATE, result={"duplicate_of": str(of)})


def _move(document: Mapping[str, str | int]) -> Move:
    return Move(
        role=str(document["role"]),
        source=os.fsdecode(base64.b64decode(str(document["source"]))),
        folder=str(document["folder"]),
        name=base64.b64decode(str(document["name"])),
        device=int(document["device"]),
        inode=int(document["inode"]),
        size=int(document["size"]),
        mtime_ns=int(document.get("mtime_ns", 0)),
    )


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
