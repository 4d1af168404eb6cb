"""What the keys of `spoold.toml` are made of: names, sizes, durations, files of secrets, sections.

A relative path begins at the folder of the file that it stands in, which validation is told as its
context, `{"folder": Path}`.
"""

from collections.abc import Iterable
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    ValidationInfo,
)

from spoold import units

NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"


def _size(value: object) -> object:
    return units.parse_size(value) if isinstance(value, str) else value


def _duration(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'write it with its unit: "{value}d", "12h" or "30m"')  # noqa: TRY004  # pydantic collects ValueErrors
    return units.parse_duration(value) if isinstance(value, str) else value


def _path(value: str, info: ValidationInfo) -> str:
    if not value or "\0" in value:
        raise ValueError("it is no path")
    if value.startswith("~"):
        raise ValueError("~ is not expanded: write the whole path")
    folder: Path = (info.context or {}).get("folder", Path.cwd())
    return str(folder / value)


Size = Annotated[int, BeforeValidator(_size), Field(ge=0, le=units.MAX_SIZE)]
Duration = Annotated[int, BeforeValidator(_duration), Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=31_622_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=units.MAX_SIZE)]
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
FilePath = Annotated[str, AfterValidator(_path)]


def one_of(models: Iterable[type[BaseModel]]) -> Any:  # a type made while running
    """The type of a value that one of the models reads: its `kind` says which."""
    found = list(models)
    union = reduce(or_, found)
    return Annotated[union, Discriminator("kind")] if len(found) > 1 else union


class Section(BaseModel):
    """Frozen; an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
