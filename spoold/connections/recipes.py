"""`[recipes]`: parameters to a set of sources, so that a request is three lines. Pure.

What is filled into a path, a name or a pattern is one plain segment of it: a value cannot widen
what the recipe names. In `parameters` of a source values stay what they are, of their own types.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pydantic import Field

from spoold import errors
from spoold.connections.parameters import (
    Declaration,
    Declared,
    ParameterType,
    Value,
    as_json,
    as_text,
    fill_in,
    names_in,
)
from spoold.errors import SpooldError
from spoold.section import Section

# Of globs, and what would lead to another folder or cannot stand in a name.
_NOT_PLAIN: Final = re.compile(r"[/\\*?\[\]{}\x00-\x1f\x7f-\x9f]|\A\.{0,2}\Z")
_WHOLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")
_PARAMETERS: Final = "parameters"

_SAMPLES: Final[Mapping[ParameterType, str | int | bool]] = {
    ParameterType.TEXT: "x",
    ParameterType.INTEGER: 1,
    ParameterType.NUMERIC: 1,
    ParameterType.BOOLEAN: True,
    ParameterType.DATE: "2026-11-20",
    ParameterType.TIMESTAMP: "2026-11-20T10:00:00Z",
    ParameterType.UUID: "00000000-0000-0000-0000-000000000000",
}


class RecipeSettings(Section):
    """Sources that belong together, with `{parameter}` in their values."""

    parameters: Declaration = Field(
        default_factory=dict, description='name = "text", integer, numeric, boolean, …'
    )
    sources: list[dict[str, object]] = Field(
        min_length=1, max_length=100, description="as a request writes them; `{name}` is filled in"
    )


def filled_in(source: Mapping[str, object], values: Mapping[str, Value]) -> dict[str, object]:
    """One of a recipe's sources with its parameters' values in every text.

    Raises parameters-invalid where a value is no plain segment and stands for one.
    """
    return {
        key: _typed(value, values) if key == _PARAMETERS else _filled_in(value, values)
        for key, value in source.items()
    }


def samples(declared: Declared) -> dict[str, str | int | bool]:
    """What a request could give: a recipe is tried with it when the configuration is read."""
    return {name: _SAMPLES[wanted] for name, wanted in declared.items()}


def placeholders(source: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every `{name}` in a source, with the place of the value that it stands in."""
    for key, value in source.items():
        for place, name in _placeholders(value):
            yield (key, *place), name


def _placeholders(value: object) -> Iterator[tuple[tuple[str, ...], str]]:
    match value:
        case str():
            yield from (((), name) for name in names_in(value))
        case list():
            for number, each in enumerate(value):
                yield from (((str(number), *place), name) for place, name in _placeholders(each))
        case dict():
            yield from placeholders(value)
        case _:
            pass


def _filled_in(value: object, values: Mapping[str, Value]) -> object:
    if isinstance(value, str):
        for name in names_in(value):
            if name in values and _NOT_PLAIN.search(as_text(values[name])):
                raise SpooldError(
                    errors.PARAMETERS_INVALID,
                    f"{name}: it becomes part of a path or a name here: it may not be empty, . or "
                    ".., nor hold any of / \\ * ? [ ] { }",
                    at=f"{_PARAMETERS}.{name}",
                )
        return fill_in(value, values)
    return _inside(value, lambda each: _filled_in(each, values))


def _typed(value: object, values: Mapping[str, Value]) -> object:
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value)
        if whole is not None and whole[1] in values:
            return as_json(values[whole[1]])
        return fill_in(value, values)
    return _inside(value, lambda each: _typed(each, values))


def _inside(value: object, change: Callable[[object], object]) -> object:
    match value:
        case list():
            return [change(each) for each in value]
        case dict():
            return {key: change(each) for key, each in value.items()}
        case _:
            return value
