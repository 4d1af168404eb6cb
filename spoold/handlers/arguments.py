"""A command as configured: a list of arguments with placeholders, never a shell. Pure.

Guarantees: a placeholder fills a part of one argument, whatever it stands for; an argument that
begins with one never begins with `-`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from spoold import errors
from spoold.errors import SpooldError

_PIECE: Final = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|(?P<text>[^{}]+)|(?P<brace>[{}])")
_FIELD_PREFIX: Final = "json."

FILE: Final = "file"
OUT: Final = "out"
JOB: Final = "job"
NAME: Final = "name"
PLACEHOLDERS: Final = (FILE, OUT, JOB, NAME)

# MAX_ARG_STRLEN, execve(2): 32 pages, with the closing NUL.
_MAX_BYTES: Final = 32 * 4096 - 1


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One of PLACEHOLDERS, or `json.FIELD`."""

    name: str

    @property
    def field(self) -> str | None:
        """The field of the drop's JSON that it stands for."""
        known = self.name.startswith(_FIELD_PREFIX)
        return self.name.removeprefix(_FIELD_PREFIX) if known else None


Argument = tuple[str | Placeholder, ...]
"""Text and placeholders, in order."""


def parse(text: str, *, structured: bool) -> Argument:
    """Read one argument. Raises ValueError with what is wrong."""
    if "\0" in text:
        raise ValueError("no argument can hold a NUL")
    parts: list[str | Placeholder] = []
    for piece in _PIECE.finditer(text):
        if piece["brace"]:
            raise ValueError(f"a {piece[0]} alone: write {piece[0] * 2} for the character itself")
        if piece["name"] is None:
            parts.append(piece["text"] or piece[0][0])
            continue
        placeholder = Placeholder(piece["name"])
        if placeholder.field:
            if not structured:
                raise ValueError(f'{piece[0]} needs mode = "structured"')
        elif placeholder.name not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in (*PLACEHOLDERS, "json.FIELD"))
            raise ValueError(f"there is no placeholder {piece[0]}: {known}")
        parts.append(placeholder)
    return tuple(parts)


def plain(argument: Argument) -> str | None:
    """The text of an argument that has no placeholder."""
    if any(isinstance(part, Placeholder) for part in argument):
        return None
    return "".join(map(str, argument))


def fill(
    command: tuple[Argument, ...], values: Mapping[str, bytes], document: object = None
) -> list[bytes]:
    """The argument list; `values` are those of PLACEHOLDERS, `document` the drop's JSON.

    Raises handler-argument where a field is missing, is no text, number or truth value, or would
    make what begins with `-` of an argument.
    """
    filled: list[bytes] = []
    for argument in command:
        content = b"".join(
            _value(part, values, document) if isinstance(part, Placeholder) else os.fsencode(part)
            for part in argument
        )
        first = argument[0] if argument else ""
        if isinstance(first, Placeholder) and content.startswith(b"-"):
            raise _refused(first, "begins with -, so that the command could take it for an option")
        if len(content) > _MAX_BYTES:
            raise SpooldError(
                errors.HANDLER_ARGUMENT, f"an argument of {len(content):,} bytes is too long"
            )
        filled.append(content)
    return filled


def _value(part: Placeholder, values: Mapping[str, bytes], document: object) -> bytes:
    if part.field is None:
        return values[part.name]
    if not isinstance(document, dict):
        raise _refused(part, "cannot be looked up: the drop is no JSON object")
    if part.field not in document:
        raise _refused(part, "is missing")
    value = document[part.field]
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int | float):
        return repr(value).encode()
    if not isinstance(value, str):
        raise _refused(part, "is no text, number or truth value")
    if "\0" in value:
        raise _refused(part, "holds a NUL")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise _refused(part, "holds a lone surrogate") from error


def _refused(part: Placeholder, what: str) -> SpooldError:
    shown = part.field or f"the drop's {part.name}"
    return SpooldError(errors.HANDLER_ARGUMENT, f"{shown} {what}", at=part.field)
