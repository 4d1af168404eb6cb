"""`[[handlers]]`: the keys of one, and from all of them to the handlers that the stages are given.

What can only be known on this machine is looked up here too: the schema file, the program, the
user. A program that is not there yet is a warning, anything else a mistake.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from spoold import units
from spoold.handlers import Handler, Limits, Mode, arguments, process
from spoold.handlers.code import run_as_code
from spoold.handlers.patterns import Pattern, overlapping, problem
from spoold.handlers.schema import Schema
from spoold.section import Section, Size
from spoold.units import show_size

_MAX_SCHEMA_BYTES = 1024**2
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


def _pattern(value: str) -> str:
    if (what := problem(Pattern.parse(value))) is not None:
        raise ValueError(what)
    return value


def _variable(value: str) -> str:
    if value.startswith("SPOOLD_"):
        raise ValueError("spoold's own variables are not passed on")
    return value


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("it holds a NUL")
    return value


def _folder(value: str) -> str:
    if value != "scratch" and not value.startswith("/"):
        raise ValueError('write "scratch", or the whole path of a folder')
    return _text(value)


def _seconds(value: object) -> object:
    return units.parse_duration(value) if isinstance(value, str) else value


ExitStatus = Annotated[int, Field(ge=0, le=255)]
Variable = Annotated[str, StringConstraints(pattern=_VARIABLE), AfterValidator(_variable)]
Count = Annotated[int, Field(ge=0, le=units.MAX_SIZE)]
Text = Annotated[str, AfterValidator(_text)]


class HandlerSection(Section):
    """A program that is run for each drop of a name."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = Field(
        default=None, description="in statuses and in the queue; else the pattern's first word"
    )
    pattern: Annotated[str, AfterValidator(_pattern)] = Field(
        description="which drops: a name with `*`, `?`, `[a-z]`, its end written out"
    )
    command: Annotated[list[Text], Field(min_length=1)] = Field(
        description="program and arguments, a list; `{file}` `{out}` `{job}` `{name}` are filled in"
    )
    mode: Literal["direct", "structured"] = Field(
        default="direct",
        description='"structured": the drop is a JSON object, `{json.FIELD}` is filled in too',
    )
    schema_: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None,
        alias="schema",
        description="a JSON Schema that drops must fulfil; relative to the configuration's folder",
    )
    timeout: Annotated[int, BeforeValidator(_seconds), Field(ge=1)] | None = Field(
        default=None, description='"30s" or "10m"; else, and at most, `[workers] timeout_seconds`'
    )
    environment: list[Variable] = Field(
        default_factory=list, description="variables of the daemon that are passed on"
    )
    set: dict[Variable, Text] = Field(
        default_factory=dict, description="variables with fixed values"
    )
    success_codes: Annotated[list[ExitStatus], Field(min_length=1)] = Field(
        default=[0], description="exit statuses that mean success"
    )
    retry_codes: list[ExitStatus] = Field(
        default=[75], description="exit statuses after which it is tried again"
    )
    memory: Size = Field(
        default=0, description="heap, stacks and the like of each process; 0: no limit"
    )
    cpu_seconds: Count = Field(default=0, description="CPU time of each process; 0: no limit")
    open_files: Count = Field(default=1024, description="descriptors of each process; 0: no limit")
    processes: Count = Field(default=256, description="all that it starts, at once; 0: no limit")
    output_bytes: Annotated[Size, Field(le=1024**3)] = Field(
        default=1024**2, description="what the log keeps of its output; the rest is counted"
    )
    result_bytes: Annotated[Size, Field(ge=1)] = Field(
        default=1024**3, description="what `{out}` may hold, and any one file that it writes"
    )
    working_directory: Annotated[str, AfterValidator(_folder)] = Field(
        default="scratch", description="or the path of a folder"
    )
    user: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        default=None, description="whom it runs as, where the daemon is root's"
    )
    max_bytes: Annotated[Size, Field(ge=1)] = Field(
        default=16 * 1024**2, description="larger drops are rejected"
    )
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="else `[retry] max_attempts`"
    )

    def given(self) -> dict[str, object]:
        """The keys that the file has, with their values."""
        return self.model_dump(by_alias=True, exclude_unset=True)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the rest of the configuration says of all jobs."""

    timeout_seconds: int
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something wrong with a handler, by its number and key; `fatal`: a mistake, not a warning."""

    number: int
    key: str
    what: str
    fatal: bool = True


def made(
    sections: Sequence[HandlerSection],
    folder: Path,
    defaults: Defaults,
    environment: Mapping[str, str],
) -> tuple[list[Handler], list[Trouble]]:
    """The handlers, and what is wrong with them; `folder` is the configuration file's."""
    handlers: list[Handler] = []
    troubles: list[Trouble] = []
    for number, section in enumerate(sections):
        maker = _Maker(section, number, folder, defaults)
        handlers.append(maker.handler())
        troubles += maker.troubles
        if not any(trouble.fatal for trouble in maker.troubles):
            troubles += _missing(handlers[-1], number, environment)
    troubles += _conflicts(handlers)
    return handlers, troubles


class _Maker:
    """One section becoming a handler."""

    def __init__(
        self, section: HandlerSection, number: int, folder: Path, defaults: Defaults
    ) -> None:
        self._section = section
        self._number = number
        self._folder = folder
        self._defaults = defaults
        self.troubles: list[Trouble] = []

    def handler(self) -> Handler:
        """The handler, of use only where there are no fatal troubles."""
        section, defaults = self._section, self._defaults
        pattern = Pattern.parse(section.pattern)
        name = section.name or pattern.stem()
        if not name:
            self._wrong("name", "the pattern holds no word to name it by: give it a name")
        timeout = section.timeout or defaults.timeout_seconds
        if timeout > defaults.timeout_seconds:
            self._wrong(
                "timeout",
                f"{timeout} s is more than [workers] timeout_seconds, {defaults.timeout_seconds}",
            )
        both = set(section.success_codes) & set(section.retry_codes)
        if both:
            self._wrong("retry_codes", f"{min(both)} means success already")
        return Handler(
            name=name,
            pattern=pattern,
            command=self._command(),
            mode=Mode(section.mode),
            schema=self._schema(),
            timeout_seconds=timeout,
            environment=tuple(section.environment),
            variables=dict(section.set),
            success_codes=frozenset(section.success_codes),
            retry_codes=frozenset(section.retry_codes),
            limits=Limits(
                memory=section.memory,
                cpu_seconds=section.cpu_seconds,
                open_files=section.open_files,
                processes=section.processes,
                output_bytes=section.output_bytes,
                result_bytes=section.result_bytes,
            ),
            working_directory=(
                None if section.working_directory == "scratch" else section.working_directory
            ),
            user=self._user(),
            max_bytes=section.max_bytes,
            max_attempts=section.max_attempts or defaults.max_attempts,
        )

    def _command(self) -> tuple[arguments.Argument, ...]:
        parsed: list[arguments.Argument] = []
        for text in self._section.command:
            try:
                parsed.append(arguments.parse(text, structured=self._section.mode == "structured"))
            except ValueError as error:
                self._wrong("command", str(error))
        program = arguments.plain(parsed[0]) if parsed else ""
        if program is None:
            self._wrong("command", "the program itself is not filled in: write its name or path")
        elif "/" in program and not program.startswith("/"):
            self._wrong("command", f"{program}: write the whole path, or a name to look for")
        elif not program:
            self._wrong("command", "the program has no name")
        if (chosen := run_as_code(parsed)) is not None:
            name = f"{{{chosen.placeholder.name}}}"
            self._wrong(
                "command",
                f"whoever drops chooses what {name} stands for, and {chosen.program} could run it: "
                "let it come behind the whole path of a script, which no option precedes, or use "
                f'["sh", "-c", \'… "$1"\', "-", "{name}"]',
            )
        return tuple(parsed)

    def _schema(self) -> Schema | None:
        named = self._section.schema_
        if named is None:
            return None
        path = self._folder / named
        try:
            with open(path, "rb") as file:
                content = file.read(_MAX_SCHEMA_BYTES + 1)
            if len(content) > _MAX_SCHEMA_BYTES:
                raise ValueError(f"larger than {show_size(_MAX_SCHEMA_BYTES)}")
            schema = Schema(json.loads(content))
            if reference := schema.dangling():
                raise ValueError(f"it refers to {reference}, which leads nowhere")
            return schema
        except OSError as error:
            self._wrong("schema", f"{path}: {error.strerror}")
        except (ValueError, RecursionError) as error:
            self._wrong("schema", f"{path}: {error}")
        return None

    def _user(self) -> str | None:
        named = self._section.user
        if named is not None:
            try:
                process.User.named(named)
            except LookupError:
                self._wrong("user", f"there is no user {named}")
        return named

    def _wrong(self, key: str, what: str) -> None:
        self.troubles.append(Trouble(self._number, key, what))


def _missing(handler: Handler, number: int, environment: Mapping[str, str]) -> Iterator[Trouble]:
    program = arguments.plain(handler.command[0])
    assert program is not None
    path = process.environment(handler, Path("/"), environment)
    if process.find_program(program, path) is None:
        where = "" if os.path.isabs(program) else f" on its PATH, {path['PATH']}"
        what = f"{program} is no program that can be run{where}: its drops will fail"
        yield Trouble(number, "command", what, fatal=False)


def _conflicts(handlers: Sequence[Handler]) -> Iterator[Trouble]:
    names: dict[str, int] = {}
    for number, handler in enumerate(handlers):
        if handler.name in names:
            what = f"another handler is called {handler.name} already: give each a name"
            yield Trouble(number, "name", what)
        names.setdefault(handler.name, number)
    for first, second in overlapping(handler.pattern for handler in handlers):
        one, other = handlers[first].pattern.text, handlers[second].pattern.text
        what = f"a name could match both {one} and {other}: make one of them narrower"
        yield Trouble(second, "pattern", what)
