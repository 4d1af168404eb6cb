"""One `[[handlers]]` section, checked: for which drops, which command, within which limits."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from spoold.handlers.arguments import Argument
from spoold.handlers.patterns import Pattern
from spoold.handlers.schema import Schema


class Mode(enum.StrEnum):
    """Whether a command knows only the drop's file, or values of its JSON as well."""

    DIRECT = "direct"
    STRUCTURED = "structured"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of a tool may use; bytes, seconds and counts, 0: no limit.

    `memory`, `cpu_seconds` and `open_files` are each process's, the others the run's.
    """

    memory: int = 0
    cpu_seconds: int = 0
    open_files: int = 1024
    processes: int = 256
    output_bytes: int = 1024**2
    result_bytes: int = 1024**3


@dataclass(frozen=True, slots=True)
class Handler:
    """A tool and the drops that it is for."""

    name: str
    pattern: Pattern
    command: tuple[Argument, ...]
    mode: Mode = Mode.DIRECT
    schema: Schema | None = None
    timeout_seconds: int = 21600
    environment: tuple[str, ...] = ()
    """Variables of the daemon that are passed on."""
    variables: Mapping[str, str] = field(default_factory=dict)
    success_codes: frozenset[int] = frozenset({0})
    retry_codes: frozenset[int] = frozenset({75})
    limits: Limits = Limits()
    working_directory: str | None = None
    """None: the scratch folder."""
    user: str | None = None
    max_bytes: int = 16 * 1024**2
    max_attempts: int = 5

    @property
    def reads_json(self) -> bool:
        """Whether a drop must be JSON."""
        return self.mode is Mode.STRUCTURED or self.schema is not None


class Handlers:
    """All handlers of a site. Their patterns do not overlap."""

    __slots__ = ("_by_name",)

    def __init__(self, *handlers: Handler) -> None:
        self._by_name = {handler.name: handler for handler in handlers}

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_name.values())

    def of_drop(self, name: bytes) -> Handler | None:
        """Whose pattern a drop's name matches."""
        for handler in self._by_name.values():
            if handler.pattern.matches(name):
                return handler
        return None

    def named(self, name: str) -> Handler | None:
        """The handler of that name."""
        return self._by_name.get(name)


NO_HANDLERS = Handlers()
