"""The XML that an object store answers with, and the little that is sent. Pure.

What is not as the S3 API reference has it raises ValueError.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_SIZE: Final = re.compile("[0-9]{1,18}")


class Listed(NamedTuple):
    """One object of a listing."""

    key: bytes
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a listing; `next_token` leads to the next one."""

    objects: list[Listed]
    next_token: str | None


class Part(NamedTuple):
    """A part that has been put: its number, its ETag, and its SHA-256 where checksums are used."""

    number: int
    etag: str
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request was not granted: the store's own code and sentence."""

    code: str
    message: str


def page(data: bytes) -> Page:
    """The answer of ListObjectsV2."""
    root = _parse(data, "ListBucketResult")
    encoded = _text(root, "EncodingType") == "url"
    objects = []
    for item in _children(root, "Contents"):
        key = _required(item, "Key")
        objects.append(
            Listed(
                # Some write a space as +, as forms do; a + itself is always written as %2B.
                unquote_to_bytes(key.replace("+", " ")) if encoded else key.encode(),
                size(_required(item, "Size")),
                _text(item, "ETag") or "",
                _moment(_required(item, "LastModified")),
            )
        )
    more = _text(root, "IsTruncated") == "true"
    token = _text(root, "NextContinuationToken") if more else None
    if more and not token:
        raise ValueError("the listing is cut short and does not say how it goes on")
    return Page(objects, token)


def size(text: str) -> int:
    """The bytes that an object is said to have."""
    if _SIZE.fullmatch(text) is None:
        raise ValueError(f"it gives the size {text[:40]!r}")
    return int(text)


def upload_id(data: bytes) -> str:
    """The answer of CreateMultipartUpload."""
    return _required(_parse(data, "InitiateMultipartUploadResult"), "UploadId")


def uploads(data: bytes) -> Iterator[tuple[bytes, str]]:
    """The answer of ListMultipartUploads: keys and ids of what is unfinished."""
    root = _parse(data, "ListMultipartUploadsResult")
    encoded = _text(root, "EncodingType") == "url"
    for item in _children(root, "Upload"):
        key = _required(item, "Key")
        raw = unquote_to_bytes(key.replace("+", " ")) if encoded else key.encode()
        yield raw, _required(item, "UploadId")


def refusal(data: bytes) -> Refusal:
    """What an answer that is an error says; empty where it says nothing that can be read."""
    try:
        root = _parse(data, "Error")
    except ValueError:
        return Refusal("", "")
    return Refusal(_text(root, "Code") or "", _text(root, "Message") or "")


def completion(parts: Iterable[Part]) -> bytes:
    """What CompleteMultipartUpload is sent."""
    pieces = []
    for part in parts:
        checksum = ""
        if part.sha256 is not None:
            encoded = base64.b64encode(part.sha256).decode()
            checksum = f"<ChecksumSHA256>{encoded}</ChecksumSHA256>"
        pieces.append(
            f"<Part><PartNumber>{part.number}</PartNumber>"
            f"<ETag>{escape(part.etag)}</ETag>{checksum}</Part>"
        )
    return (
        '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{''.join(pieces)}</CompleteMultipartUpload>"
    ).encode()


def _parse(data: bytes, name: str) -> ElementTree.Element:
    # In another encoding nothing would be found below; the parser knows UTF-16 by its NULs, too.
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    if "\0" in text:
        raise ValueError("it is not UTF-8")
    if "<!DOCTYPE" in text:  # which is all that entities could come from
        raise ValueError("it declares a document type")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # see above
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if _local(root.tag) != name:
        raise ValueError(f"it is {_local(root.tag)[:80]}, not {name}")
    return root


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _local(child.tag) == name)


def _text(element: ElementTree.Element, name: str) -> str | None:
    found = next(_children(element, name), None)
    return None if found is None else found.text or ""


def _required(element: ElementTree.Element, name: str) -> str:
    text = _text(element, name)
    if not text:
        raise ValueError(f"{_local(element.tag)} has no {name}")
    return text


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
