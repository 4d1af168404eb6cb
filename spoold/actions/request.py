"""What every request has: the envelope of `spoold.request/1`, and its sizes and durations.

Each action adds its own fields in a model of its own; `intake.request` turns bytes into one of
them, the worker reads it back from the job's row.
"""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from spoold.trust import SITE_NAME
from spoold.units import parse_duration, parse_size

TYPE: Final = "spoold.request/1"
DEFAULT_PRIORITY: Final = 500
# Dates end with 9999, and a job's rank lies after its time.
_END_OF_TIME: Final = datetime(9000, 1, 1, tzinfo=UTC)


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _text(value: object) -> object:
    if not isinstance(value, str | datetime):
        raise ValueError('it is no time: write "2026-11-20T10:00:00Z"')  # noqa: TRY004  # pydantic's
    return value


def _utc(value: datetime) -> datetime:
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        utc = None
    if utc is None or utc >= _END_OF_TIME:
        raise ValueError("it is no time between the years 1 and 9000")
    return utc


def _base64(value: str) -> str:
    base64.b64decode(value, validate=True)  # its error is a ValueError
    return value


def _one_a_key(value: "Sequence[Signature]") -> "Sequence[Signature]":
    if len({signature.key_id for signature in value}) != len(value):
        raise ValueError("one key has signed twice")
    return value


# From JSON a time is text, which strict mode would refuse.
Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_text), AfterValidator(_utc)]
# A number is bytes, or seconds.
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]
Seconds = Annotated[int, BeforeValidator(_seconds, json_schema_input_type=int | str)]
# Text that may appear in a signed document.
Text = Annotated[str, StringConstraints(pattern="^[^\x00-\x1f\x7f-\x9f]*$")]
Label = Annotated[Text, StringConstraints(max_length=1024)]
SiteName = Annotated[str, StringConstraints(pattern=f"^{SITE_NAME.pattern}$")]
LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Part(BaseModel):
    """A piece of a request: unknown fields are refused, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Signature(Part):
    """One signature inside a request, over its canonical form without `signatures`."""

    key_id: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    algorithm: Literal["rsa-pss-sha256", "ed25519"]
    signature: Annotated[str, StringConstraints(max_length=2048), AfterValidator(_base64)]


class Envelope(Part):
    """The fields that every request may carry, whatever its action."""

    type: Literal["spoold.request/1"]
    action: str
    name: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    priority: Annotated[int, Field(ge=0, le=1000)] = DEFAULT_PRIORITY
    idempotency_key: Annotated[Text, StringConstraints(min_length=1, max_length=512)] | None = None
    correlation_id: Annotated[Text, StringConstraints(min_length=1, max_length=512)] | None = None
    not_before: Moment | None = None
    expires_at: Moment | None = None
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout: Annotated[Seconds, Field(ge=1, le=366 * 86400)] | None = None
    labels: Annotated[dict[LabelName, Label], Field(max_length=100)] = Field(default_factory=dict)
    signatures: Annotated[list[Signature], Field(max_length=16), AfterValidator(_one_a_key)] = (
        Field(default_factory=list)
    )
