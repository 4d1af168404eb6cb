"""Canonical JSON: the one byte form of every document that spoold signs or hashes.

The profile is a subset of RFC 8785 (JSON Canonicalization Scheme) in which ordinary encoders
agree byte for byte: UTF-8, sorted keys, no spaces, no floats, integers within 2**53 - 1, keys of
`[A-Za-z0-9_.-]`, no control characters, nesting of at most 8. A document ends in one line feed.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias, Union

from spoold.errors import SpooldError
from spoold.json_bounds import unique_keys

# `|` cannot name a type inside its own definition.
Json: TypeAlias = Union[str, int, Sequence["Json"], Mapping[str, "Json"], None]  # noqa: UP007
Document: TypeAlias = Mapping[str, Json]

MAX_DEPTH = 8
MAX_INTEGER = 2**53 - 1

_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# C0, DEL, C1 and lone surrogates: what must not stand in a canonical string.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_DIGITS = len(str(MAX_INTEGER)) + 1  # and a sign


class NotCanonicalError(ValueError):
    """The value or the bytes are outside the canonical profile; the text says where and why."""


def encode(document: Json) -> bytes:
    """Return the canonical bytes of a document, with the final line feed.

    Raises NotCanonicalError for a value outside the profile.
    """
    return encode_unterminated(document) + b"\n"


def encode_unterminated(document: Json) -> bytes:
    """Return the canonical bytes without the line feed: what signatures inside a document cover."""
    _check(document, 1, "$")
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Json:
    """Parse canonical bytes, the final line feed included.

    Raises NotCanonicalError unless encoding the result again gives the same bytes.
    """
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=unique_keys,
            parse_int=_integer,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except RecursionError:
        raise NotCanonicalError(f"nested deeper than {MAX_DEPTH}") from None
    except UnicodeDecodeError as error:
        raise NotCanonicalError(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise NotCanonicalError(
            f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except ValueError as error:
        raise NotCanonicalError(str(error)) from error
    if encode(document) != data:
        raise NotCanonicalError("valid JSON, but not in canonical form")
    return document  # type: ignore[no-any-return]  # json.loads is untyped; _check has walked it


def text(value: str | bytes) -> str:
    """Show any text or bytes within the profile; what it forbids appears as `\\xNN`, by byte."""
    raw = value if isinstance(value, bytes) else _encoded(value)
    shown = raw.decode("utf-8", "backslashreplace")
    return _FORBIDDEN.sub(
        lambda match: "".join(
            f"\\x{byte:02x}" for byte in match[0].encode("utf-8", "surrogatepass")
        ),
        shown,
    )


def error_document(error: SpooldError) -> dict[str, Json]:
    """The `error` object of rows, of status documents and of what commands print."""
    return {
        "code": error.code.name,
        "message": text(error.message),
        "hint": text(error.hint),
        "retryable": error.transient,
        "at": text(error.at) if error.at is not None else None,
    }


def _encoded(value: str) -> bytes:
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, of JSON: it stands for no byte
        return value.encode("utf-8", "surrogatepass")


def _check(value: Json, depth: int, path: str) -> None:
    if isinstance(value, str):
        if bad := _FORBIDDEN.search(value):
            raise NotCanonicalError(f"{path}: forbidden character U+{ord(bad[0]):04X}")
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise NotCanonicalError(f"{path}: integer beyond 2^53 - 1")
    elif isinstance(value, Mapping):
        _check_depth(depth, path)
        for key, item in value.items():
            if not _KEY.fullmatch(key):
                raise NotCanonicalError(f"{path}: key {text(str(key))!r} is not of the profile")
            _check(item, depth + 1, f"{path}.{key}")
    elif isinstance(value, Sequence):
        _check_depth(depth, path)
        for index, item in enumerate(value):
            _check(item, depth + 1, f"{path}[{index}]")
    else:
        raise NotCanonicalError(f"{path}: {type(value).__name__} has no canonical form")


def _check_depth(depth: int, path: str) -> None:
    if depth > MAX_DEPTH:
        raise NotCanonicalError(f"{path}: nested deeper than {MAX_DEPTH}")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:  # before int(), which is quadratic and bounded at 4300 digits
        raise ValueError("integer beyond 2^53 - 1")
    return int(digits)


def _no_float(number: str) -> NoReturn:
    raise ValueError(f"number {number[:20]} is not an integer")
