"""JSON that a drop must be: read with bounds, and held against a JSON Schema.

Nothing is ever fetched: a reference in a schema must stay within it. Importing `jsonschema` takes
its time, so that is done where there is a schema.
"""

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from spoold import canonical, errors, json_bounds
from spoold.errors import SpooldError

_MAX_STRUCTURE: Final = 1_000_000  # of `,`, `[` and `{`: parsed, each may take a hundred bytes
_MAX_DEPTH: Final = 64
_MAX_TOLD: Final = 10
_MAX_SECONDS: Final = 5.0  # of processor time, in which nothing else of the process may run
_MAX_SHOWN: Final = 200
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


def read(content: bytes) -> object:
    """The JSON of a drop. Raises drop-not-json."""
    if json_bounds.structure(content) > _MAX_STRUCTURE:
        raise SpooldError(errors.DROP_NOT_JSON, f"it has more than {_MAX_STRUCTURE:,} values")
    try:
        document = json.loads(
            content.decode(),
            object_pairs_hook=json_bounds.unique_keys,
            parse_constant=_no_number,
        )
    except RecursionError as error:
        raise SpooldError(errors.DROP_NOT_JSON, "it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise SpooldError(errors.DROP_NOT_JSON, f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise SpooldError(errors.DROP_NOT_JSON, f"{place}: {error.msg}", at=place) from error
    except ValueError as error:
        raise SpooldError(errors.DROP_NOT_JSON, canonical.text(str(error))) from error
    if json_bounds.depth(document) > _MAX_DEPTH:
        raise SpooldError(errors.DROP_NOT_JSON, f"it is nested deeper than {_MAX_DEPTH}")
    return document


class Schema:
    """A JSON Schema, of 2020-12 unless it says otherwise."""

    def __init__(self, document: object) -> None:
        """Raises ValueError with what is wrong with it."""
        import jsonschema  # type: ignore[import-untyped]  # noqa: PLC0415  # it ships no types
        from referencing import Registry  # noqa: PLC0415

        if not isinstance(document, dict | bool):
            raise ValueError("a schema is an object")  # noqa: TRY004  # pydantic's kind of error
        for reference in _references(document):
            if not reference.startswith("#"):
                raise ValueError(
                    f"it refers to {reference}: only references within it are followed"
                )
        default = jsonschema.Draft202012Validator
        kind = jsonschema.validators.validator_for(document, default=default)
        try:
            kind.check_schema(document)
        except jsonschema.SchemaError as error:
            raise ValueError(f"{error.json_path}: {_short(error.message)}") from error
        # An empty registry: what is not in the schema itself cannot be found anywhere.
        self._validator = kind(document, registry=Registry())
        self._document, self._dialect = document, str(kind.ID_OF(kind.META_SCHEMA))

    def dangling(self) -> str | None:
        """A reference in it that leads nowhere: no drop could be held against that."""
        from referencing import Registry, Specification  # noqa: PLC0415
        from referencing.exceptions import Unresolvable  # noqa: PLC0415
        from referencing.jsonschema import specification_with  # noqa: PLC0415

        kind = specification_with(self._dialect, default=Specification.OPAQUE)
        root = kind.create_resource(self._document)
        todo = [(root, Registry[Any]().resolver_with_root(root))]
        while todo:
            resource, resolver = todo.pop()
            contents = resource.contents
            for key in _REFERENCES.intersection(contents if isinstance(contents, dict) else ()):
                reference = contents[key]
                try:
                    resolver.lookup(reference)
                except (Unresolvable, LookupError, TypeError, ValueError):
                    return str(reference)
            todo += [(each, resolver.in_subresource(each)) for each in resource.subresources()]
        return None

    def check(self, document: object, most_seconds: float = _MAX_SECONDS) -> None:
        """Raises drop-schema, with the first places that are wrong. In the main thread only."""
        from referencing.exceptions import Unresolvable  # noqa: PLC0415

        try:
            found = []
            with _bounded(most_seconds):
                for fault in self._validator.iter_errors(document):
                    at = fault.json_path.removeprefix("$").removeprefix(".")
                    found.append((at, fault.message))
                    if len(found) == _MAX_TOLD:
                        break
        except _TooLongError as error:
            taken = f"more than {most_seconds:g} s of processor time"
            message = f"holding it against the schema takes {taken}"
            raise SpooldError(errors.DROP_SCHEMA, message) from error
        except Unresolvable as error:
            raise SpooldError(
                errors.HANDLER_UNKNOWN, f"its schema refers to nothing: {_short(str(error))}"
            ) from error
        if found:
            found.sort()
            told = "; ".join(f"{at or 'the drop'}: {_short(message)}" for at, message in found)
            raise SpooldError(errors.DROP_SCHEMA, told, at=found[0][0] or None)


class _TooLongError(BaseException):
    """No library on the way may take it for a fault of its own."""


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """End what takes too long: a `pattern` that goes back and forth does so for years.

    It never lets go of the interpreter, so that no other thread could end it, nor renew a lease;
    but it does look for signals.
    """

    def give_up(number: int, frame: object) -> NoReturn:
        raise _TooLongError

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in _REFERENCES and isinstance(item, str):
                yield item
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _short(message: str) -> str:
    shown = canonical.text(message)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
