"""Bounds of JSON that comes from elsewhere: how much it holds, how deep, each key once. Pure.

Whoever reads it has limits and errors of its own.
"""

from collections.abc import Sequence
from typing import TypeVar

_Value = TypeVar("_Value")


def structure(content: bytes) -> int:
    """How many of `,`, `[` and `{` a text has: a bound of its values before they are parsed."""
    return content.count(b",") + content.count(b"[") + content.count(b"{")


def unique_keys(pairs: Sequence[tuple[str, _Value]]) -> dict[str, _Value]:
    """An object of its keys and values; an `object_pairs_hook`. Raises ValueError."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("duplicate key")
    return document


def depth(value: object) -> int:
    """How many lists and objects stand one in another; without recursion, since it may be deep."""
    deep, level = 0, [value]
    while containers := [each for each in level if isinstance(each, dict | list)]:
        deep += 1
        level = []
        for each in containers:
            level += each.values() if isinstance(each, dict) else each
    return deep
