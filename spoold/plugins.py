"""Loads the kinds of sources and sinks, spoold's own and those of other packages."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from spoold import errors
from spoold.errors import SpooldError


def load(group: str, model: str) -> dict[str, Any]:
    """Every installed class of an entry-point group by its name; `model` is what each has.

    Raises config-invalid for a package that cannot be loaded, or that takes another one's name.
    """
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if (other := points.setdefault(point.name, point)) is not point:
            raise _unfit(point, f"{_package(other)} has a kind of that name, too")
    return {name: _loaded(point, model) for name, point in points.items()}


def _loaded(point: EntryPoint, model: str) -> Any:
    try:
        kind = point.load()
    except Exception as error:
        raise _unfit(point, f"{type(error).__name__}: {error}") from error
    if not isinstance(getattr(kind, model, None), type):
        raise _unfit(point, f"{point.value} is no class with a model `{model}`")
    return kind


def _unfit(point: EntryPoint, what: str) -> SpooldError:
    return SpooldError(
        errors.CONFIG_INVALID,
        f"{point.group}: the kind {point.name} of the package {_package(point)}: {what}",
        hint="mend that package, or remove it from the Python that spoold is installed in",
    )


def _package(point: EntryPoint) -> str:
    return "unknown" if point.dist is None else point.dist.name
