"""What every request has: the envelope of `spoold.request/1`, and its sizes and durations.

Each action adds its own fields in a model of its own; `intake.request` turns bytes into one of
them, the worker reads it back from the job's row.
"""

import re
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

TYPE: Final = "spoold.request/1"
DEFAULT_PRIORITY: Final = 500

_SIZE_UNITS: Final = {
    "B": 1,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_DURATION_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(value: object) -> object:
    """`"256MiB"` to bytes; a number is bytes already. ValueError for other texts."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]{1,3})?", value)
    unit = _SIZE_UNITS.get((match[2] or "B").upper()) if match else None
    if match is None or unit is None:
        raise ValueError('a size is a number of bytes or a text like "256MiB"')
    return int(match[1]) * unit


def parse_duration(value: object) -> object:
    """`"30m"` to seconds; a number is seconds already. ValueError for other texts."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,9}) ?([smhd])?", value)
    if match is None:
        raise ValueError('a duration is a number of seconds or a text like "30m", "6h", "7d"')
    return int(match[1]) * _DURATION_UNITS[match[2] or "s"]


Size = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[int, BeforeValidator(parse_duration)]
# Text that may appear in a signed document: printable, so neither control characters nor surrogates.
Text = Annotated[str, StringConstraints(pattern="^[^\x00-\x1f\x7f-\x9f]*$")]
Label = Annotated[Text, StringConstraints(max_length=1024)]
LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Part(BaseModel):
    """A piece of a request: unknown fields are refused, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Envelope(Part):
    """The fields that every request may carry, whatever its action."""

    type: Literal["spoold.request/1"]
    action: str
    name: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    priority: Annotated[int, Field(ge=0, le=1000)] = DEFAULT_PRIORITY
    idempotency_key: Annotated[Text, StringConstraints(min_length=1, max_length=512)] | None = None
    correlation_id: Annotated[Text, StringConstraints(min_length=1, max_length=512)] | None = None
    # From JSON a time is text, which strict mode would refuse.
    not_before: Annotated[AwareDatetime, Field(strict=False)] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout: Annotated[Seconds, Field(ge=1, le=366 * 86400)] | None = None
    labels: Annotated[dict[LabelName, Label], Field(max_length=100)] = Field(default_factory=dict)

    def due(self) -> datetime | None:
        """When the job may start at the earliest."""
        return self.not_before
