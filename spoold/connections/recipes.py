"""`[recipes]`: parameters to a set of sources, so that a request is three lines."""

from collections.abc import Mapping

from pydantic import Field

from spoold.connections.parameters import Declaration, Value, fill_in
from spoold.section import Section


class RecipeSettings(Section):
    """Sources that belong together, with `{parameter}` in their values."""

    parameters: Declaration = Field(
        default_factory=dict, description='name = "text", integer, numeric, boolean, …'
    )
    sources: list[dict[str, object]] = Field(
        min_length=1, description="as a request writes them; `{name}` is filled in"
    )


def filled_in(source: Mapping[str, object], values: Mapping[str, Value]) -> dict[str, object]:
    """One of a recipe's sources with its parameters' values in every text."""
    return {key: _filled_in(value, values) for key, value in source.items()}


def _filled_in(value: object, values: Mapping[str, Value]) -> object:
    match value:
        case str():
            return fill_in(value, values)
        case list():
            return [_filled_in(each, values) for each in value]
        case dict():
            return filled_in(value, values)
        case _:
            return value
