"""The JSON Schemas (2020-12) of what spoold reads and writes.

A schema says less than the code: it knows neither the order of entries nor signatures. What it
refuses the code refuses, and what the code writes it accepts; tests hold both.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, Final

from pydantic import Discriminator, TypeAdapter

from spoold.actions import MODELS
from spoold.canonical import MAX_INTEGER, Document, Json
from spoold.daemon_status import TYPE as DAEMON_TYPE
from spoold.daemon_status import DaemonState
from spoold.queue.job import State
from spoold.status import TYPE as STATUS_TYPE
from spoold.status import WAITING
from spoold.trust import SITE_NAME, Algorithm

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def request() -> Document:
    """`spoold.request/1`: one alternative an action."""
    models: Any = reduce(or_, MODELS.values())
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[models, Discriminator("action")])
    return {
        "$schema": DIALECT,
        "title": "spoold request, version 1",
        **adapter.json_schema(mode="validation"),
    }


def status() -> Document:
    """`spoold.status/1`, a status file."""
    properties: dict[str, Json] = {
        "type": {"const": STATUS_TYPE},
        "drop": _TEXT,
        "drop_b64": _TEXT,
        "drop_sha256": _or_null(_SHA256),
        "job_id": _or_null({"type": "string", "format": "uuid"}),
        "correlation_id": _or_null(_TEXT),
        "action": _or_null(_TEXT),
        "state": {"enum": [WAITING, *(state.value for state in State)]},
        "final": _BOOLEAN,
        "reason": _or_null(_TEXT),
        "attempt": _NATURAL,
        "max_attempts": _or_null(_NATURAL),
        "next_attempt_at": _or_null(_TIME),
        "admitted_at": _or_null(_TIME),
        "started_at": _or_null(_TIME),
        "finished_at": _or_null(_TIME),
        "intake": _or_null(_object({"found_by": _TEXT, "method": _TEXT}, {"signed_by": _KEY})),
        "progress": _or_null(_PROGRESS),
        "result": {"type": ["object", "null"]},
        "error": _or_null(_ERROR),
        "files": {"type": "object", "additionalProperties": _TEXT},
        "warnings": {"type": "array", "items": _TEXT},
        "site": _TEXT,
        "host": _TEXT,
        "spoold": _TEXT,
        "signatures": _SIGNATURES,
    }
    return {
        "$schema": DIALECT,
        "title": "spoold status, version 1",
        **_object(properties),
        "required": [name for name in properties if name != "drop_b64"],
    }


def manifest() -> Document:
    """`spoold.manifest/1`, a bundle's manifest.json."""
    properties: dict[str, Json] = {
        "type": {"const": "spoold.manifest/1"},
        "bundle_id": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,99}$"},
        "name": {"type": "string"},
        "created_at": _TIME_IN_UTC,
        "producer": {"type": "string"},
        "from": _SITE,
        "to": {"type": "array", "items": _SITE},
        "key_id": _SHA256,
        "algorithm": {"enum": [algorithm.value for algorithm in Algorithm]},
        "compression": _object(
            {"codec": {"enum": ["zstd", "gzip"]}, "level": {**_COUNT, "minimum": 1, "maximum": 19}}
        ),
        "chunk_size": {**_COUNT, "minimum": 1024**2, "maximum": 4 * 1024**3},
        "entries": _FILE,
        "frames": _FILE,
        "index": {
            "type": "array",
            "minItems": 1,
            "items": _object({"raw": _COUNT, "sha256": _SHA256, "size": _COUNT}),
        },
        "totals": _object({"files": _COUNT, "bytes": _COUNT, "raw": _COUNT}),
        "content_sha256": _SHA256,
    }
    path: Json = {"type": "string", "minLength": 1}
    optional: dict[str, Json] = {
        "not_after": _TIME_IN_UTC,
        "request_sha256": _SHA256,
        "correlation_id": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "skipped": {
            "type": "array",
            "maxItems": 1000,
            "items": {
                "oneOf": [
                    _object({name: path, "reason": {"type": "string"}})
                    for name in ("path", "path_b64")
                ]
            },
        },
        "skipped_count": {**_COUNT, "minimum": 1},
    }
    return {
        "$schema": DIALECT,
        "title": "spoold manifest, version 1",
        **_object(properties, optional),
        "dependentRequired": {"skipped": ["skipped_count"], "skipped_count": ["skipped"]},
    }


def daemon() -> Document:
    """`spoold.daemon/1`, what the daemon says of itself in `status/.spoold.json`."""
    counts: Document = {"type": "object", "additionalProperties": _NATURAL}
    return {
        "$schema": DIALECT,
        "title": "spoold daemon status, version 1",
        **_object(
            {
                "type": {"const": DAEMON_TYPE},
                "state": {"enum": [state.value for state in DaemonState]},
                "site": _TEXT,
                "host": _TEXT,
                "spool": {"type": "string", "format": "uuid"},
                "pid": _NATURAL,
                "spoold": _TEXT,
                "started_at": _TIME,
                "renewed_at": _TIME,
                "expires_at": _TIME,
                "mode": _or_null(_TEXT),
                "inbox": _object(
                    {
                        "missing": _BOOLEAN,
                        "waiting": counts,
                        "strays": _NATURAL,
                        "unfinished": _NATURAL,
                        "last_scan_at": _or_null(_TIME),
                    }
                ),
                "backlog": _or_null(counts),
                "oldest_wait_seconds": _or_null(_NATURAL),
                "workers": _object({"alive": _NATURAL, "configured": _NATURAL}),
                "database": _object({"state": {"enum": ["up", "away"]}, "since": _or_null(_TIME)}),
                "last_error": _or_null(_object({"code": _TEXT, "sentence": _TEXT, "at": _TIME})),
                "free_bytes": _COUNT,
                "signatures": _SIGNATURES,
            }
        ),
    }


SCHEMAS: Final[Mapping[str, Callable[[], Document]]] = {
    "request": request,
    "status": status,
    "manifest": manifest,
    "daemon": daemon,
}

_TEXT: Final[Document] = {"type": "string"}
_BOOLEAN: Final[Document] = {"type": "boolean"}
_NATURAL: Final[Document] = {"type": "integer", "minimum": 0}
_COUNT: Final[Document] = {**_NATURAL, "maximum": MAX_INTEGER}
_SHA256: Final[Document] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TIME: Final[Document] = {"type": "string", "format": "date-time"}
_TIME_IN_UTC: Final[Document] = {**_TIME, "pattern": "Z$"}
_SITE: Final[Document] = {"type": "string", "pattern": f"^{SITE_NAME.pattern}$"}


def _object(properties: Document, optional: Document | None = None) -> Document:
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: Document) -> Document:
    return {"anyOf": [schema, {"type": "null"}]}


_PROGRESS: Final[Document] = _object(
    {
        "phase": _TEXT,
        "bytes_done": _NATURAL,
        "bytes_total": _or_null(_NATURAL),
        "entries_done": _NATURAL,
        "rows_done": _NATURAL,
        "source": _or_null(_TEXT),
        "bytes_per_second": _NATURAL,
    }
)
_KEY: Final[Document] = _object({"site": _TEXT, "key_id": _SHA256})
_ERROR: Final[Document] = _object(
    {"code": _TEXT, "message": _TEXT, "hint": _TEXT, "retryable": _BOOLEAN, "at": _or_null(_TEXT)}
)
_SIGNATURES: Final[Document] = {
    "type": "array",
    "items": _object({"key_id": _SHA256, "algorithm": _TEXT, "signature": _TEXT}),
}
_FILE: Final[Document] = _object({"bytes": _COUNT, "count": _COUNT, "sha256": _SHA256})
