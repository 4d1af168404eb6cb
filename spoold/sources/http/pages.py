"""Reads a page of JSON: the text of each item as it was written, and the cursor. Pure.

Numbers are never made into floats and back: an item's line is its own text, without the line
breaks that stood between its parts. A page is decoded once, item by item, so that the memory is
that of its text and of its largest item.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import Final, NoReturn

_SPACE: Final = re.compile(r"[ \t\r\n]*")
# JSON has no line break inside a string, so this is always between two parts. A text of many spaces
# is tried at the first of them only, not at each.
_BREAKS: Final = re.compile(r"(?<![ \t])[ \t]*[\r\n][ \t\r\n]*")

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_MAX_CURSOR: Final = 2048  # each can be three as long in an address


class NoPageError(ValueError):
    """The answer is not the JSON that the endpoint describes; the text says why."""


@dataclass(slots=True)
class Page:
    """What one answer holds."""

    items: list[str] = field(default_factory=list)
    """The text of each."""
    cursor: str | None = None
    """None: there is no next page."""


def read_page(data: bytes, items: str, cursor: str) -> Page:
    """The page in an answer; `items` and `cursor` are dotted, "" is the answer itself.

    Raises NoPageError.
    """
    try:
        text = data.decode("utf-8-sig")
        walk = _Walk(text, _parts(items), _parts(cursor) or None)
        end = walk.value(walk.space(0), ())
        if walk.space(end) != len(text):
            raise NoPageError(f"something follows its JSON at character {end}")
    except UnicodeDecodeError as error:
        raise NoPageError(f"it is not UTF-8 at byte {error.start}") from error
    except JSONDecodeError as error:
        raise NoPageError(f"it is no JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise NoPageError("it is nested too deeply") from error
    if not walk.found:
        raise NoPageError(f"it has no {items}")
    return walk.page


def line_of(item: str) -> bytes:
    """An item's text as a line, with its line feed."""
    if "\n" in item or "\r" in item:
        item = _BREAKS.sub("", item)
    return item.encode() + b"\n"


def decoded(item: str) -> object:
    """An item's value, its numbers as text."""
    return _DECODER.decode(item)


def field_of(value: object, dotted: str) -> str | None:
    """The text or the number in a decoded item's field, as text; None where it has none or null."""
    for part in dotted.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    if value is None:
        return None
    if not isinstance(value, str):
        raise NoPageError(f"{dotted} of an item is neither text nor number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise NoPageError(f"{name} is no JSON")


# Numbers stay text: a float would lose digits, and int() refuses more than 4300 of them.
_DECODER: Final = JSONDecoder(parse_float=str, parse_int=str, parse_constant=_no_constant)


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(dotted.split(".")) if dotted else ()


class _Walk:
    """One pass over a page's text."""

    def __init__(self, text: str, items: tuple[str, ...], cursor: tuple[str, ...] | None) -> None:
        self._text = text
        self._items, self._cursor = items, cursor
        self.page = Page()
        self.found = False

    def space(self, at: int) -> int:
        """Where the white space ends that begins at a place."""
        match = _SPACE.match(self._text, at)
        assert match is not None
        return match.end()

    def value(self, at: int, path: tuple[str, ...]) -> int:
        """Walk the value that begins at a place; return where it ends."""
        if path == self._items:
            return self._array(at)
        if self._text.startswith("{", at) and self._leads_on(path):
            return self._object(at, path)
        value, end = _DECODER.raw_decode(self._text, at)
        if path == self._cursor:
            self.page.cursor = self._as_cursor(value)
        return end

    def _leads_on(self, path: tuple[str, ...]) -> bool:
        length = len(path)
        wanted = (self._items, self._cursor or ())
        return any(len(each) > length and each[:length] == path for each in wanted)

    def _as_cursor(self, value: object) -> str | None:
        if value is None or value == "" or value is False:
            return None
        if not isinstance(value, str):
            raise NoPageError("its cursor is neither text nor number")
        if len(value) > _MAX_CURSOR or _SURROGATE.search(value):
            raise NoPageError(
                f"its cursor holds half a character or more than {_MAX_CURSOR} of them"
            )
        return value

    def _array(self, at: int) -> int:
        if not self._text.startswith("[", at):
            where = ".".join(self._items) or "it"
            raise NoPageError(f"{where} is no JSON array")
        if self.found:
            raise NoPageError(f"it has {'.'.join(self._items)} twice")
        self.found = True
        at = self.space(at + 1)
        if self._text.startswith("]", at):
            return at + 1
        while True:
            _, end = _DECODER.raw_decode(self._text, at)
            self.page.items.append(self._text[at:end])
            at = self.space(end)
            if self._text.startswith("]", at):
                return at + 1
            at = self.space(self._past(",", at))

    def _object(self, at: int, path: tuple[str, ...]) -> int:
        at = self.space(at + 1)
        if self._text.startswith("}", at):
            return at + 1
        while True:
            if not self._text.startswith('"', at):
                raise JSONDecodeError("Expecting a name", self._text, at)
            key, end = _DECODER.raw_decode(self._text, at)
            at = self.space(self._past(":", self.space(end)))
            at = self.space(self.value(at, (*path, str(key))))
            if self._text.startswith("}", at):
                return at + 1
            at = self.space(self._past(",", at))

    def _past(self, wanted: str, at: int) -> int:
        if not self._text.startswith(wanted, at):
            raise JSONDecodeError(f"Expecting {wanted}", self._text, at)
        return at + 1
