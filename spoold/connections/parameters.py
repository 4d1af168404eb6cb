"""Parameters: what a configured query, endpoint or recipe takes, and what a request gives it.

Pure. A request never carries SQL, an address or a path of its own, only values of declared types.
"""

import enum
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

from pydantic import Field

from spoold import canonical, errors
from spoold.canonical import Json
from spoold.errors import SpooldError

_MAX_TEXT: Final = 4096
_MAX_INTEGER: Final = 2**63 - 1
_FILLED_IN: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")


class ParameterType(enum.StrEnum):
    """What a value must be; in a request a number with a fraction is written as text."""

    TEXT = "text"
    INTEGER = "integer"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    UUID = "uuid"


Value = str | int | bool | Decimal | date | datetime | uuid.UUID
Declared = Mapping[str, ParameterType]
ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Declaration = dict[ParameterName, Annotated[ParameterType, Field(strict=False)]]
"""`parameters = { incident_id = "text" }` in the configuration."""
# What a request may give; each is checked against its declared type when the job runs.
Given = dict[ParameterName, str | int | bool]


def bind(declared: Declared, given: Mapping[str, Json], *, at: str) -> dict[str, Value]:
    """The values that a request gives, each of its declared type; all that are declared.

    Raises parameters-invalid with all mistakes in its message.
    """
    mistakes = [f"{canonical.text(name)} is missing" for name in declared if name not in given]
    mistakes += [
        f"{canonical.text(name)} is not declared: {', '.join(declared) or 'there are none'}"
        for name in given
        if name not in declared
    ]
    values: dict[str, Value] = {}
    for name in declared:
        if name in given:
            try:
                values[name] = parse(declared[name], given[name])
            except ValueError as error:
                mistakes.append(f"{name}: {error}")
    if mistakes:
        raise SpooldError(errors.PARAMETERS_INVALID, "; ".join(mistakes), at=at)
    return values


def as_text(value: Value) -> str:
    """A value as it stands in a path or an address: `true`, `2026-11-20T10:00:00+00:00`."""
    match value:
        case bool():
            return str(value).lower()
        case date():  # a datetime is one
            return value.isoformat()
        case _:
            return str(value)


def as_json(value: Value) -> str | int | bool:
    """A value as a request gives it."""
    return value if isinstance(value, int) else as_text(value)  # a truth value is an int


def parse(wanted: ParameterType, value: Json) -> Value:
    """A value of a request as its type; ValueError says what it is not."""
    return _PARSERS[wanted](value)


def fill_in(template: str, values: Mapping[str, Value]) -> str:
    """The template with each `{name}` replaced by its value's text; others stay as they are."""
    return _FILLED_IN.sub(
        lambda match: as_text(values[match[1]]) if match[1] in values else match[0], template
    )


def names_in(template: str) -> list[str]:
    """The names that `fill_in` would look for."""
    return _FILLED_IN.findall(template)


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise ValueError("it is no text")  # noqa: TRY004  # all mistakes are of one kind
    if len(value) > _MAX_TEXT:
        raise ValueError(f"it is longer than {_MAX_TEXT} characters")
    if "\0" in value:
        raise ValueError("it holds a NUL")
    return value


def _integer(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_INTEGER:
        raise ValueError("it is no whole number")
    return value


def _boolean(value: Json) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is neither true nor false")  # noqa: TRY004  # all are of one kind
    return value


def _numeric(value: Json) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("it is no number")  # noqa: TRY004  # all mistakes are of one kind
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError("it is no number")
    return number


def _timestamp(value: Json) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError('it names no time zone: write "2026-11-20T10:00:00Z"')
    return moment


_PARSERS: Final[Mapping[ParameterType, Callable[[Json], Value]]] = {
    ParameterType.TEXT: _text,
    ParameterType.INTEGER: _integer,
    ParameterType.NUMERIC: _numeric,
    ParameterType.BOOLEAN: _boolean,
    ParameterType.DATE: lambda value: date.fromisoformat(_text(value)),
    ParameterType.TIMESTAMP: _timestamp,
    ParameterType.UUID: lambda value: uuid.UUID(_text(value)),
}
