"""Reads manifest.json, strictly: what comes out would be written as these very bytes. Pure.

What is read here has been verified, or is shown as a claim only: see `head`.
"""

import base64
import binascii
import enum
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from spoold import canonical, errors
from spoold.bundle.entry import Skipped
from spoold.bundle.frame_table import Frame, frame_fault
from spoold.bundle.frames import Codec
from spoold.bundle.manifest import (
    MAX_CHUNK_SIZE,
    MAX_SKIPPED,
    MAX_SKIPPED_BYTES,
    MIN_CHUNK_SIZE,
    TYPE,
    Compression,
    IndexFile,
    Manifest,
    Totals,
    parse_time,
    skipped_document,
)
from spoold.bundle.members import MAX_MEMBER_BYTES
from spoold.bundle.paths import valid_bundle_id
from spoold.canonical import MAX_INTEGER, Json
from spoold.errors import SpooldError
from spoold.trust import SITE_NAME, Algorithm

_Choice = TypeVar("_Choice", bound=enum.StrEnum)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REQUIRED = frozenset(
    {
        "type",
        "bundle_id",
        "name",
        "created_at",
        "producer",
        "from",
        "to",
        "key_id",
        "algorithm",
        "compression",
        "chunk_size",
        "entries",
        "frames",
        "index",
        "totals",
        "content_sha256",
    }
)
_OPTIONAL = frozenset(
    ("not_after", "request_sha256", "correlation_id", "labels", "skipped", "skipped_count")
)


def parse(data: bytes) -> Manifest:
    """Read the bytes of a manifest, strictly.

    Raises not-canonical, document-type, field-unknown or manifest-invalid. The caller has verified
    the signature over these very bytes, or treats the result as a claim.
    """
    try:
        document = canonical.decode(data)
    except canonical.NotCanonicalError as error:
        raise SpooldError(errors.NOT_CANONICAL, f"manifest.json: {error}") from error
    if not isinstance(document, dict) or document.get("type") != TYPE:
        found = document.get("type") if isinstance(document, dict) else None
        raise SpooldError(errors.DOCUMENT_TYPE, f"it is {str(found)[:200]!r}, not {TYPE!r}")
    try:
        return _parse(document)
    except _FaultError as error:
        raise SpooldError(errors.MANIFEST_INVALID, str(error), at=error.at) from error


class _FaultError(Exception):
    def __init__(self, at: str, what: str) -> None:
        super().__init__(f"{at}: {what}")
        self.at = at


def _parse(document: Mapping[str, Json]) -> Manifest:
    _check_fields(document, _REQUIRED, _OPTIONAL, "")
    skipped, skipped_count = _parse_skipped(document)
    codec_document = _object(document["compression"], "compression", ("codec", "level"))
    codec = _choice(codec_document, "codec", Codec, "compression.")
    level = _integer(codec_document, "level", "compression.")
    if level not in codec.levels:
        raise _FaultError("compression.level", f"{codec} has no level {level} in this format")
    totals = _object(document["totals"], "totals", ("bytes", "files", "raw"))
    bundle_id = _string(document, "bundle_id")
    if not valid_bundle_id(bundle_id):
        raise _FaultError("bundle_id", "it is no bundle id")
    chunk_size = _integer(document, "chunk_size")
    if not MIN_CHUNK_SIZE <= chunk_size <= MAX_CHUNK_SIZE:
        raise _FaultError("chunk_size", "it is outside 1 MiB to 4 GiB")
    return Manifest(
        bundle_id=bundle_id,
        name=_string(document, "name"),
        created_at=_time(document, "created_at"),
        producer=_string(document, "producer"),
        site=_string(document, "from"),
        to=_sites(document["to"]),
        key_id=_sha256(document, "key_id"),
        algorithm=_choice(document, "algorithm", Algorithm),
        compression=Compression(codec, level),
        chunk_size=chunk_size,
        entries=_index_file(document, "entries"),
        frames=_index_file(document, "frames"),
        index=_frames(document["index"]),
        totals=Totals(
            _integer(totals, "files", "totals."),
            _integer(totals, "bytes", "totals."),
            _integer(totals, "raw", "totals."),
        ),
        content_sha256=_sha256(document, "content_sha256"),
        not_after=_time(document, "not_after") if "not_after" in document else None,
        request_sha256=_sha256(document, "request_sha256")
        if "request_sha256" in document
        else None,
        correlation_id=_string(document, "correlation_id")
        if "correlation_id" in document
        else None,
        labels=_labels(document.get("labels", {})),
        skipped=skipped,
        skipped_count=skipped_count,
    )


def _check_fields(
    document: Mapping[str, Json], required: frozenset[str], optional: frozenset[str], at: str
) -> None:
    if unknown := sorted(set(document) - required - optional):
        name = at + unknown[0]
        raise SpooldError(errors.FIELD_UNKNOWN, f"manifest.json: {name}", at=name)
    if missing := sorted(required - set(document)):
        raise _FaultError(at + missing[0], "it is missing")


def _object(value: Json, at: str, fields: Sequence[str]) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise _FaultError(at, "it is no object")
    _check_fields(value, frozenset(fields), frozenset(), f"{at}.")
    return value


def _string(document: Mapping[str, Json], name: str, at: str = "") -> str:
    value = document[name]
    if not isinstance(value, str):
        raise _FaultError(at + name, "it is no string")
    return value


def _integer(document: Mapping[str, Json], name: str, at: str = "") -> int:
    value = document[name]
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise _FaultError(at + name, "it is no integer from 0 to 2^53 - 1")
    return value


def _sha256(document: Mapping[str, Json], name: str, at: str = "") -> str:
    value = _string(document, name, at)
    if not _SHA256.fullmatch(value):
        raise _FaultError(at + name, "it is no SHA-256 in lowercase hex")
    return value


def _choice(
    document: Mapping[str, Json], name: str, choices: type[_Choice], at: str = ""
) -> _Choice:
    value = _string(document, name, at)
    try:
        return choices(value)
    except ValueError as error:
        raise _FaultError(at + name, f"it is none of {', '.join(choices)}") from error


def _time(document: Mapping[str, Json], name: str) -> str:
    value = _string(document, name)
    try:
        parse_time(value)
    except ValueError as error:
        raise _FaultError(name, "it is no RFC 3339 time in UTC with Z") from error
    return value


def _sites(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _FaultError("to", "it is no list")
    for site in value:
        if not isinstance(site, str) or not SITE_NAME.fullmatch(site):
            raise _FaultError("to", "it holds something that is no site name")
    return tuple(value)


def _labels(value: Json) -> dict[str, str]:
    labels = {}
    for name, label in value.items() if isinstance(value, Mapping) else ():
        if not isinstance(label, str):
            raise _FaultError(f"labels.{name}", "it is no string")
        labels[name] = label
    if labels != value:
        raise _FaultError("labels", "it is no map of strings")
    return labels


def _index_file(document: Mapping[str, Json], name: str) -> IndexFile:
    value = _object(document[name], name, ("bytes", "count", "sha256"))
    at = f"{name}."
    size = _integer(value, "bytes", at)
    if size > MAX_MEMBER_BYTES:
        raise _FaultError(f"{at}bytes", "no member can be so large")
    return IndexFile(size, _integer(value, "count", at), _sha256(value, "sha256", at))


def _frames(value: Json) -> tuple[Frame, ...]:
    if not isinstance(value, list) or not value:
        raise _FaultError("index", "it is no list of frames")
    frames = []
    for number, item in enumerate(value):
        at = f"index[{number}]"
        fields = _object(item, at, ("raw", "sha256", "size"))
        frame = Frame(
            _integer(fields, "raw", f"{at}."),
            _sha256(fields, "sha256", f"{at}."),
            _integer(fields, "size", f"{at}."),
        )
        if fault := frame_fault(frame):
            raise _FaultError(at, fault)
        frames.append(frame)
    return tuple(frames)


def _parse_skipped(document: Mapping[str, Json]) -> tuple[tuple[Skipped, ...], int]:
    if ("skipped" in document) != ("skipped_count" in document):
        raise _FaultError("skipped", "it stands with skipped_count, or neither does")
    if "skipped" not in document:
        return (), 0
    value, count = document["skipped"], _integer(document, "skipped_count")
    if not isinstance(value, list) or not value or len(value) > min(MAX_SKIPPED, count):
        raise _FaultError("skipped", f"it is no list of 1 to {MAX_SKIPPED} paths")
    if len(canonical.encode_unterminated(value)) > MAX_SKIPPED_BYTES:
        raise _FaultError("skipped", "it is above 1 MiB")
    skipped = []
    for number, item in enumerate(value):
        at = f"skipped[{number}]."
        name = "path_b64" if isinstance(item, Mapping) and "path_b64" in item else "path"
        fields = _object(item, f"skipped[{number}]", (name, "reason"))
        text = _string(fields, name, at)
        try:
            path = base64.b64decode(text, validate=True) if name == "path_b64" else text.encode()
        except (binascii.Error, ValueError) as error:
            raise _FaultError(at + name, "it is no base64") from error
        entry = Skipped(path, _string(fields, "reason", at))
        if skipped_document(entry) != fields:
            raise _FaultError(at + name, "it is not the canonical form of the path")
        skipped.append(entry)
    return tuple(skipped), count
