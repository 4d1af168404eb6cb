"""The bytes of a dropped request, checked: strict JSON, then the model of its action.

Pure. All mistakes against the model are told at once, each with its JSON path and, for an unknown
field, the nearest known name.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel, ValidationError

from spoold import canonical, errors
from spoold.actions.request import TYPE, Envelope
from spoold.errors import SpooldError
from spoold.intake import strict_json
from spoold.intake.settings import Idempotency
from spoold.intake.strict_json import Plain

Models = Mapping[str, type[Envelope]]

_MAX_MISTAKES = 50
_PATH = re.compile(r"\$\.?(?P<path>[^:]*): (?P<what>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A valid request: as it was dropped, and as its action's model reads it."""

    document: dict[str, Plain]
    sha256: bytes  # of the canonical form without `signatures`
    envelope: Envelope

    def dedup_key(self, idempotency: Idempotency) -> bytes | None:
        """What the queue does once only; None where the request may run any number of times."""
        if self.envelope.idempotency_key is not None:
            key = self.envelope.idempotency_key.encode()
            return hashlib.sha256(b"request-key\0" + key).digest()
        if idempotency is Idempotency.CONTENT:
            return hashlib.sha256(b"request-content\0" + self.sha256).digest()
        return None


@dataclass(frozen=True, slots=True)
class _Mistake:
    at: str
    what: str


def parse(content: bytes, models: Models) -> ParsedRequest:
    """Parse and check a request; `models` are the known actions.

    Raises request-truncated, request-not-json or request-invalid; `at` is a line and a column, or
    the JSON path of the first mistake. An empty file is drop-empty.
    """
    if not content:
        raise SpooldError(errors.DROP_EMPTY)
    document = strict_json.parse(content)
    if not isinstance(document, dict):
        raise SpooldError(errors.REQUEST_INVALID, f"it is {_kind(document)}, not an object")
    envelope, mistakes = _validate(document, models)
    canonical_form = b""
    # Who has signed it makes it no other request.
    unsigned = {key: value for key, value in document.items() if key != "signatures"}
    try:
        canonical_form = canonical.encode(unsigned)
    except canonical.NotCanonicalError as error:
        found = _PATH.fullmatch(str(error))
        path, what = (found["path"], found["what"]) if found else ("", str(error))
        if all(mistake.at != path for mistake in mistakes):
            mistakes.append(_Mistake(path, what))
    if mistakes or envelope is None:
        _refuse(mistakes)
    return ParsedRequest(document, hashlib.sha256(canonical_form).digest(), envelope)


def _validate(document: dict[str, Plain], models: Models) -> tuple[Envelope | None, list[_Mistake]]:
    mistakes = []
    action = document.get("action")
    model = models.get(action) if isinstance(action, str) else None
    if document.get("type") != TYPE:
        what = "is missing" if "type" not in document else f"is {_show(document['type'])}"
        mistakes.append(_Mistake("type", f'{what}: it must be "{TYPE}"'))
    if model is None:
        what = "is missing" if "action" not in document else f"is {_show(action)}"
        near = _nearest(action, models) if isinstance(action, str) else ""
        known = ", ".join(sorted(models))
        mistakes.append(_Mistake("action", f"{what}: {near or f'the actions are {known}'}"))
    try:
        return (model or Envelope).model_validate(document), mistakes
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            location, kind = fault["loc"], fault["type"]
            if location in {("type",), ("action",)} and mistakes:
                continue  # said above, better
            if kind == "extra_forbidden":
                if model is None:
                    continue  # without an action nobody knows its fields
                what = _unknown(model, location)
            elif kind == "missing":
                what = "is missing"
            else:
                what = fault["msg"].removeprefix("Value error, ")
                what = what[:1].lower() + what[1:]
            mistakes.append(_Mistake(_path(document, location), what))
    return None, mistakes


def _refuse(mistakes: Sequence[_Mistake]) -> NoReturn:
    shown = [f"{mistake.at or 'the request'}: {mistake.what}" for mistake in mistakes]
    if len(shown) > _MAX_MISTAKES:
        shown[_MAX_MISTAKES:] = [f"and {len(shown) - _MAX_MISTAKES} more"]
    raise SpooldError(
        errors.REQUEST_INVALID,
        canonical.text("; ".join(shown)),
        at=canonical.text(mistakes[0].at) or None,
    )


def _path(document: Plain, location: Iterable[str | int]) -> str:
    """`("sources", 0, "files", "path")` as `sources[0].path`: a union's tag is no field."""
    path = ""
    parts = list(location)
    value: Plain = document
    for index, part in enumerate(parts):
        if isinstance(part, int):
            path += f"[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else None
        elif isinstance(value, dict) and part in value:
            path += f".{_show_key(part)}"
            value = value[part]
        elif index == len(parts) - 1 and isinstance(value, dict):
            path += f".{_show_key(part)}"
    return path.removeprefix(".")


def _unknown(model: type[BaseModel], location: Sequence[str | int]) -> str:
    fields = {name for owner in _owners(model, location[:-1]) for name in owner.model_fields}
    near = _nearest(str(location[-1]), fields)
    return f"is not a known field: {near or 'remove it'}"


def _owners(model: type[BaseModel], location: Iterable[str | int]) -> list[type[BaseModel]]:
    """The models that may stand at a location; a union's tag picks one of its members."""
    owners = [model]
    for part in location:
        if isinstance(part, int):
            continue
        inner = [owner.model_fields[part] for owner in owners if part in owner.model_fields]
        if inner:
            owners = [found for field in inner for found in _models(field.annotation)]
        else:
            owners = [owner for owner in owners if part in _literals(owner)] or owners
    return owners


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _literals(model: type[BaseModel]) -> set[object]:
    return {
        value
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
        for value in get_args(field.annotation)
    }


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:80], sorted(known), n=1)
    return f'did you mean "{near[0]}"?' if near else ""


_KINDS: Final = {str: "text", bool: "a truth value", int: "a number", list: "a list"}


def _kind(value: Plain) -> str:
    return _KINDS.get(type(value), "null")


def _show(value: Plain) -> str:
    return f'"{canonical.text(value[:80])}"' if isinstance(value, str) else _kind(value)


def _show_key(key: str) -> str:
    return canonical.text(key[:80])
