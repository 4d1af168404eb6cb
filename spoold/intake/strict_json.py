"""Strict JSON (RFC 8259) for hostile text: every fault has a line and a column.

Stricter than the RFC where parsers differ or a database balks: no byte order mark, no duplicate
keys, no NaN, no fractions, no integer beyond 2**53 - 1, no lone surrogate, no NUL, bounded depth,
and a bounded number of values, counted before parsing: 10 MiB of `[{},...]` costs 300-900 MB.

The standard library parses; a second, slower reader looks for the place only where it refused.
"""

import json
import re
from typing import Final, NoReturn, TypeAlias

from spoold import canonical, errors, json_bounds
from spoold.canonical import MAX_DEPTH, MAX_INTEGER
from spoold.errors import Code, SpooldError

Plain: TypeAlias = str | int | list["Plain"] | dict[str, "Plain"] | None  # bool is an int

_COMMA: Final = "`,` or the end of the list or object"
MAX_STRUCTURE: Final = 100_000  # of `,`, `[` and `{`

_BOM = b"\xef\xbb\xbf"
_MAX_DIGITS = len(str(MAX_INTEGER)) + 1  # and a sign

_SPACE = re.compile(r"[ \t\n\r]*")
# No possessive groups: before Python 3.11.5 they lose their place (gh-106052).
_TOKEN = re.compile(
    r"(?P<punctuation>[{}\[\]:,])"
    r'|(?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?P<fraction>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?))(?![0-9.eE])"
    r"|(?P<literal>true|false|null)(?![0-9A-Za-z_])"
)
_STRING_START = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_HALF_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.|(?:\.[0-9]+)?[eE][+-]?)?)?\Z")
_NOT_A_NUMBER = re.compile(r"-?(?:NaN|Infinity)")
_SURROGATE_OR_NUL = re.compile("[\x00\ud800-\udfff]")
# An escape that may make a lone surrogate or a NUL: only then are the strings looked at again.
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89abAB])|\\u[dD][c-fC-F]")


def parse(content: bytes) -> Plain:
    """Parse JSON text.

    Raises request-truncated where it only ends too early, request-not-json where it is no JSON,
    request-invalid where it is JSON that we do not take; `at` is the line and the column.
    """
    held = json_bounds.structure(content)
    if held > MAX_STRUCTURE:
        raise SpooldError(
            errors.REQUEST_INVALID,
            f"it holds {held:,} of `,`, `[` and `{{`, more than {MAX_STRUCTURE:,}",
        )
    if content.startswith(_BOM):
        _refuse(errors.REQUEST_INVALID, "", 0, "a byte order mark stands before the JSON")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        if error.end == len(content) and error.reason == "unexpected end of data":
            _refuse(errors.REQUEST_TRUNCATED, before, len(before), "it ends within a character")
        _refuse(errors.REQUEST_NOT_JSON, before, len(before), "not UTF-8")
    try:
        document: Plain = json.loads(
            text,
            object_pairs_hook=json_bounds.unique_keys,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        deep = json_bounds.depth(document) > MAX_DEPTH
    except (ValueError, RecursionError) as error:
        _examine(text)
        raise SpooldError(errors.REQUEST_NOT_JSON, str(error)) from error
    if deep or _SUSPECT_ESCAPE.search(content):
        _examine(text)
    return document


def _integer(digits: str) -> int:
    # Before int(), which is quadratic in the digits.
    if len(digits) > _MAX_DIGITS or abs(value := int(digits)) > MAX_INTEGER:
        raise ValueError("integer beyond 2^53 - 1")
    return value


def _no_number(number: str) -> NoReturn:
    raise ValueError(f"{number[:20]} is not an integer")


def _refuse(code: Code, text: str, position: int, what: str) -> NoReturn:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    # What stood there is shown, and may be anything.
    shown = canonical.text(what)
    raise SpooldError(
        code, f"line {line}, column {column}: {shown}", at=f"line {line}, column {column}"
    )


class _Frame:
    """An open container: its closing bracket, and the keys of an object."""

    __slots__ = ("close", "keys")

    def __init__(self, opening: str) -> None:
        self.close = "}" if opening == "{" else "]"
        self.keys: set[str] = set()


def _examine(text: str) -> None:  # noqa: PLR0912  # one branch a kind of token
    """Walk the tokens and refuse the first fault with its place; return where there is none."""
    stack: list[_Frame] = []
    # What may come: a value, a key, the `:` after it, or the `,` after a value.
    expected, may_close = "a value", False
    position = 0
    while True:
        space = _SPACE.match(text, position)
        position = space.end() if space else position
        if expected == _COMMA and not stack:
            if position < len(text):
                _refuse(errors.REQUEST_NOT_JSON, text, position, "more text after the JSON")
            return
        token = _TOKEN.match(text, position)
        if token is None:
            _refuse_token(text, position, expected)
        kind, value = token.lastgroup, token[0]
        if stack and value == stack[-1].close and (may_close or expected == _COMMA):
            stack.pop()
            expected, may_close = _COMMA, False
        elif expected == _COMMA and value == ",":
            expected, may_close = ("a key" if stack[-1].close == "}" else "a value"), False
        elif expected == "`:`" and value == ":":
            expected = "a value"
        elif expected == "a key" and kind == "string":
            key = _string(text, position, value)
            if key in stack[-1].keys:
                _refuse(errors.REQUEST_INVALID, text, position, f"duplicate key {value[:80]}")
            stack[-1].keys.add(key)
            expected, may_close = "`:`", False
        elif expected == "a value" and kind == "punctuation" and value in "{[":
            if len(stack) == MAX_DEPTH:
                _refuse(errors.REQUEST_INVALID, text, position, f"nested deeper than {MAX_DEPTH}")
            stack.append(_Frame(value))
            expected, may_close = ("a key" if value == "{" else "a value"), True
        elif expected == "a value" and kind != "punctuation":
            if kind == "string":
                _string(text, position, value)
            elif kind == "number":
                _number(text, position, value, token["fraction"])
            expected, may_close = _COMMA, False
        else:
            _refuse(
                errors.REQUEST_NOT_JSON, text, position, f"{value[:20]} where {expected} should be"
            )
        position = token.end()


def _string(text: str, position: int, token: str) -> str:
    value = json.loads(token)
    assert isinstance(value, str)
    if bad := _SURROGATE_OR_NUL.search(value):
        what = "NUL" if bad[0] == "\x00" else "a lone surrogate"
        _refuse(errors.REQUEST_INVALID, text, position, f"{what} in a string")
    return value


def _number(text: str, position: int, token: str, fraction: str) -> None:
    if fraction:
        _refuse(errors.REQUEST_INVALID, text, position, f"{token[:20]} is not a plain integer")
    if len(token) > _MAX_DIGITS or abs(int(token)) > MAX_INTEGER:
        _refuse(errors.REQUEST_INVALID, text, position, "an integer beyond 2^53 - 1")


def _refuse_token(text: str, position: int, expected: str) -> NoReturn:
    """Refuse what is no token: the end came too early, or something is wrong at a place."""
    rest = text[position : position + 20]
    if not rest:
        _refuse(errors.REQUEST_TRUNCATED, text, position, "the text ends here")
    if start := _STRING_START.match(text, position):
        end = start.end()
        if end == len(text) or _HALF_ESCAPE.match(text, end):
            _refuse(errors.REQUEST_TRUNCATED, text, len(text), "the text ends within a string")
        what = "an unknown escape" if text[end] == "\\" else "a control character"
        _refuse(errors.REQUEST_NOT_JSON, text, end, f"{what} in a string")
    if found := _NOT_A_NUMBER.match(text, position):
        _refuse(errors.REQUEST_INVALID, text, position, f"{found[0]} is no JSON number")
    if any(word.startswith(text[position:]) for word in ("true", "false", "null")) or (
        _HALF_NUMBER.match(text, position)
    ):
        _refuse(errors.REQUEST_TRUNCATED, text, len(text), "the text ends here")
    _refuse(errors.REQUEST_NOT_JSON, text, position, f"{rest[:1]!r} where {expected} should be")
