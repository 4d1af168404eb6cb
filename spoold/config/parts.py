"""What the keys of `spoold.toml` are made of: sizes, durations, and a section that is frozen."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from spoold import units


def _size(value: object) -> object:
    return units.parse_size(value) if isinstance(value, str) else value


def _duration(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'write it with its unit: "{value}d", "12h" or "30m"')  # noqa: TRY004  # pydantic collects ValueErrors
    return units.parse_duration(value) if isinstance(value, str) else value


Size = Annotated[int, BeforeValidator(_size), Field(ge=0, le=units.MAX_SIZE)]
Duration = Annotated[int, BeforeValidator(_duration), Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=31_622_400, allow_inf_nan=False)]


class Section(BaseModel):
    """Frozen; an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
