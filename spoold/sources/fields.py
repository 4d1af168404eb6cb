"""Fields that several kinds of sources have: what of it, and where in the bundle. Pure."""

from typing import Annotated

from pydantic import AfterValidator, Field

from spoold import canonical
from spoold.bundle.paths import path_fault
from spoold.sources import globs


def _text(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("it holds half a character (a lone surrogate)")
    return text


def _patterns(patterns: list[str]) -> list[str]:
    for pattern in patterns:
        if what := globs.fault(pattern):
            raise ValueError(f"the pattern {canonical.text(pattern)!r} {what}")
    return patterns


def _into(into: str) -> str:
    if what := path_fault(into.encode()):
        raise ValueError(f"it is the path of a folder in the bundle, but {what}")
    return into


def _beneath(path: str) -> str:
    if path and (what := path_fault(path.encode())):
        raise ValueError(f"it is a path without / at either end, but {what}")
    return path


Text = Annotated[str, AfterValidator(_text)]
Patterns = Annotated[list[str], AfterValidator(_patterns)]
Include = Annotated[Patterns, Field(min_length=1)]
Into = Annotated[Text, AfterValidator(_into)]
Beneath = Annotated[Text, AfterValidator(_beneath)]
"""A plain relative path, or nothing."""
