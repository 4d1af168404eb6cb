"""Recipes, tried when the configuration is read: what is wrong with their sources, and where. Pure.

Each source is filled in with sample values and read by the model of its kind; what it names must be
configured, unless a parameter picks it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import ValidationError

from spoold.config.sections import File
from spoold.connections.parameters import names_in
from spoold.connections.recipes import RecipeSettings, filled_in, placeholders, samples
from spoold.sources.source import kinds

Mistake = tuple[tuple[str, ...], str]

# In which table the value of a source's field is a name.
_NAMES: Final = {"root": "roots", "query": "queries", "endpoint": "endpoints", "store": "stores"}


def mistakes(file: File) -> Iterator[Mistake]:
    """Keys of recipes, and what is wrong with each."""
    for name, recipe in file.recipes.items():
        for number, source in enumerate(recipe.sources):
            place = ("recipes", name, "sources", str(number))
            for key, what in _in_source(file, recipe, source):
                yield (*place, *key), what


def _in_source(
    file: File, recipe: RecipeSettings, source: Mapping[str, object]
) -> Iterator[Mistake]:
    kind = kinds().get(str(source.get("kind")))
    if kind is None:
        yield ("kind",), f"no such kind is installed; there are {', '.join(sorted(kinds()))}"
        return
    undeclared = [
        (place, f"{{{name}}} is not one of the recipe's parameters")
        for place, name in placeholders(source)
        if name not in recipe.parameters
    ]
    yield from undeclared
    if undeclared:
        return
    try:
        kind.Spec.model_validate(filled_in(source, samples(recipe.parameters)))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            extra = detail["type"] == "extra_forbidden"
            what = "no such key" if extra else detail["msg"].removeprefix("Value error, ")
            yield tuple(map(str, detail["loc"])), what[0].lower() + what[1:]
        return
    yield from _names(file, source)


def _names(file: File, source: Mapping[str, object]) -> Iterator[Mistake]:
    for key, table in _NAMES.items():
        name = source.get(key)
        if not isinstance(name, str) or names_in(name):
            continue
        found = getattr(file, table)
        if name not in found:
            yield (
                (key,),
                f"there is no [{table}.{name}]"
                if table != "roots"
                else (f"there is no {name} in [roots]"),
            )
            continue
        declared = getattr(found[name], "parameters", None)
        given = source.get("parameters", {})
        if declared is not None and isinstance(given, Mapping) and set(given) != set(declared):
            wanted = ", ".join(declared) or "none"
            yield ("parameters",), f"[{table}.{name}] has other parameters: {wanted}"
