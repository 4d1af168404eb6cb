"""manifest.json: the small signed document that everything else in a bundle hangs on. Pure.

The format page, section 3, has the table of its fields; `manifest_parser` reads one.
"""

import base64
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from spoold import canonical
from spoold.bundle.entry import Skipped
from spoold.bundle.frame_table import Frame
from spoold.bundle.frames import Codec
from spoold.bundle.lines import as_text
from spoold.canonical import Json
from spoold.trust import Algorithm

TYPE: Final = "spoold.manifest/1"
MIN_CHUNK_SIZE: Final = 1024 * 1024
MAX_CHUNK_SIZE: Final = 4 * 1024 * 1024 * 1024
DEFAULT_CHUNK_SIZE: Final = 256 * 1024 * 1024
MAX_CHUNKS: Final = 1_000_000
MAX_SKIPPED: Final = 1000
MAX_SKIPPED_BYTES: Final = 1024 * 1024

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z"
)


@dataclass(frozen=True, slots=True)
class Compression:
    """How frames are compressed; the level is one that the codec has."""

    codec: Codec
    level: int

    @classmethod
    def default(cls, codec: Codec = Codec.ZSTD) -> "Compression":
        """The codec at the level used where nobody asks for another."""
        return cls(codec, codec.default_level)


@dataclass(frozen=True, slots=True)
class IndexFile:
    """What the manifest says of entries.jsonl or frames.jsonl."""

    bytes: int
    count: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Entries of kind file, their content bytes, tar bytes of PAYLOAD."""

    files: int
    bytes: int
    raw: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The signed facts of a bundle. `site` is the field `from`; optional ones are None or empty."""

    bundle_id: str
    name: str
    created_at: str  # RFC 3339, Z
    producer: str
    site: str
    to: tuple[str, ...]
    key_id: str
    algorithm: Algorithm
    compression: Compression
    chunk_size: int
    entries: IndexFile
    frames: IndexFile
    index: tuple[Frame, ...]
    totals: Totals
    content_sha256: str
    not_after: str | None = None
    request_sha256: str | None = None
    correlation_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    skipped_count: int = 0

    @property
    def expires_at(self) -> datetime.datetime | None:
        """`not_after` as a time."""
        return None if self.not_after is None else parse_time(self.not_after)

    def document(self) -> dict[str, Json]:
        """The manifest as JSON values."""
        document: dict[str, Json] = {
            "type": TYPE,
            "bundle_id": self.bundle_id,
            "name": self.name,
            "created_at": self.created_at,
            "producer": self.producer,
            "from": self.site,
            "to": list(self.to),
            "key_id": self.key_id,
            "algorithm": self.algorithm.value,
            "compression": {
                "codec": self.compression.codec.value,
                "level": self.compression.level,
            },
            "chunk_size": self.chunk_size,
            "entries": _index_document(self.entries),
            "frames": _index_document(self.frames),
            "index": [
                {"raw": frame.raw, "sha256": frame.sha256, "size": frame.size}
                for frame in self.index
            ],
            "totals": {
                "files": self.totals.files,
                "bytes": self.totals.bytes,
                "raw": self.totals.raw,
            },
            "content_sha256": self.content_sha256,
        }
        for name, value in (
            ("not_after", self.not_after),
            ("request_sha256", self.request_sha256),
            ("correlation_id", self.correlation_id),
        ):
            if value is not None:
                document[name] = value
        if self.labels:
            document["labels"] = dict(self.labels)
        if self.skipped_count:
            document["skipped"] = [skipped_document(skipped) for skipped in self.skipped]
            document["skipped_count"] = self.skipped_count
        return document

    def encode(self) -> bytes:
        """The bytes that are signed: canonical JSON and a line feed."""
        return canonical.encode(self.document())


def skipped_document(skipped: Skipped) -> dict[str, Json]:
    """A skipped path as JSON values."""
    text = as_text(skipped.path)
    if text is not None:
        return {"path": text, "reason": skipped.reason}
    return {"path_b64": base64.b64encode(skipped.path).decode(), "reason": skipped.reason}


def format_time(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC with `Z`; a fraction only where there is one."""
    assert moment.tzinfo is not None
    utc = moment.astimezone(datetime.UTC)
    shown = utc.replace(tzinfo=None).isoformat(
        timespec="microseconds" if utc.microsecond else "seconds"
    )
    return f"{shown}Z"


def parse_time(text: str) -> datetime.datetime:
    """Read RFC 3339 in UTC with `Z`; what is below microseconds is cut. Raises ValueError."""
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.datetime.fromisoformat(text)


def _index_document(file: IndexFile) -> dict[str, Json]:
    return {"bytes": file.bytes, "count": file.count, "sha256": file.sha256}
