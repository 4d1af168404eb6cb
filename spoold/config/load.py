"""Find, read, merge and check the configuration, once a process.

Order: default < file < environment < flag. Every value keeps its origin, every mistake its place,
and all mistakes are told at once.
"""

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spoold import errors
from spoold.config import connecting, recipes
from spoold.config.effective import PREFIX, Config, Origin, variable_of
from spoold.config.handlers import Defaults, HandlerSection, made
from spoold.config.lines import Key, key_lines, line_of
from spoold.config.sections import LISTED, NAMED, SECTIONS, File
from spoold.errors import SpooldError
from spoold.handlers import Handler, Handlers
from spoold.section import Section
from spoold.spool import Folder, Spool

SYSTEM_FILE: Final = Path("/etc/spoold/spoold.toml")
_MAX_FILE_BYTES = 1024 * 1024
_TABLES: Final = (*SECTIONS, "roots", *NAMED, *LISTED)
_TOP_LEVEL: Final = tuple(name for name in File.model_fields if name not in _TABLES)
# Read elsewhere: by the command line and by `_secrets`.
_OTHER_VARIABLES: Final = frozenset({"SPOOLD_SPOOL", "SPOOLD_CONFIG", "SPOOLD_DATABASE_URL_FILE"})

Tree = dict[str, object]


_DEFAULT = Origin("default", "default")


@dataclass(slots=True)
class _Gathered:
    """Values merged so far, where each came from, and what is wrong."""

    tree: Tree = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    lines: Mapping[Key, int] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def put(self, key: Key, value: object, origin: Origin) -> None:
        table: MutableMapping[str, object] = self.tree
        for part in key[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                return  # the file has a value where a table belongs: the check will say so
            table = inner
        table[key[-1]] = value
        self.origins[".".join(key)] = origin

    def origin_of(self, dotted: str) -> Origin | None:
        """Where a key came from; for a table, where the first key in it did."""
        if dotted in self.origins:
            return self.origins[dotted]
        below = (key for key in self.origins if key.startswith(f"{dotted}."))
        return self.origins.get(next(below, ""))


def load(
    spool: Spool,
    path: Path | None = None,
    flags: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The configuration of a spool.

    `path` is that of `--config`; `flags` holds dotted keys with their values as text, as `--set`
    and the other options give them. Raises config-invalid with all mistakes in its message.
    """
    environment = os.environ if environment is None else environment
    flags = flags or {}
    gathered = _Gathered()
    found = find(spool, path, environment)
    if found is not None:
        _from_file(gathered, found)
    _from_environment(gathered, environment)
    _secrets(gathered, environment)
    _from_flags(gathered, flags)
    file = _check(gathered, found, found.parent if found else spool.root)
    roots = _roots(gathered, found, spool)
    handlers = _handlers(gathered, found, spool, file, environment) if file else []
    if file:
        gathered.mistakes += (
            f"{_place(gathered, found, key)}: {'.'.join(key)}: {what}"
            for key, what in (
                *connecting.dangling(file),
                *connecting.astray(file, spool),
                *recipes.mistakes(file),
            )
        )
    if gathered.mistakes or file is None:
        raise _invalid(gathered.mistakes)
    site = file.site
    if not site:
        site = host_site()
        gathered.origins["site"] = Origin("default", "default, from the host's name")
        gathered.warnings.append(
            f"no site is set, so the host's name stands for it: write site = {site!r} into "
            f"{found or spool.root / 'spoold.toml'}"
        )
    if file.intake.require_signed and file.handlers:
        gathered.warnings.append(
            "[intake] require_signed is for requests: drops of handlers carry no signature"
        )
    return Config(
        spool=spool,
        path=found,
        site=site,
        database_url=file.database_url,
        signing_key=spool.root / file.signing_key,
        connections=connecting.connections(file, roots),
        sinks=tuple(file.sinks),
        handlers=Handlers(*handlers),
        handler_sections=dict(zip((each.name for each in handlers), file.handlers, strict=True)),
        intake=file.intake,
        workers=file.workers,
        retry=file.retry,
        trust=file.trust,
        restore=file.restore,
        http=file.http,
        log=file.log,
        retention=file.retention,
        origins={
            **{key: gathered.origins.get(key, _DEFAULT) for key in _all_keys(roots)},
            **dict(_connection_origins(gathered, found, file)),
            **dict(_handler_origins(gathered, found, handlers, file.handlers)),
        },
        warnings=tuple(gathered.warnings),
        flags=dict(flags),
    )


def find(spool: Spool, path: Path | None, environment: Mapping[str, str]) -> Path | None:
    """The configuration file in force, absolute; None where there is none."""
    if path is None and (named := environment.get("SPOOLD_CONFIG")):
        path = Path(named)
    if path is not None:
        return Path(os.path.abspath(path))
    for candidate in (spool.root / "spoold.toml", SYSTEM_FILE):
        if os.path.lexists(candidate):
            return candidate
    return None


def host_site() -> str:
    """A site name made of the host's name."""
    slug = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
    return slug[:63] or "site"


def _all_keys(roots: Mapping[str, Path]) -> Iterator[str]:
    yield from _TOP_LEVEL
    yield from (f"roots.{name}" for name in roots)
    for name in SECTIONS:
        yield from (f"{name}.{key}" for key in _model(name).model_fields)


def _model(section: str) -> type[Section]:
    model = File.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return model


def _from_file(gathered: _Gathered, path: Path) -> None:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise SpooldError(
            errors.CONFIG_INVALID,
            f"{path}: {error.strerror}",
            hint="name another file with --config or SPOOLD_CONFIG, or make this one readable",
        ) from error
    try:
        if len(content) > _MAX_FILE_BYTES:
            raise ValueError("larger than 1 MiB")
        text = content.decode("utf-8-sig")  # editors on Windows put a byte order mark there
        gathered.tree = tomllib.loads(text)
    except RecursionError as error:
        raise _invalid([f"{path}: nested too deeply"]) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are such
        raise _invalid([f"{path}: {error}"]) from error
    gathered.lines = key_lines(text)
    for key in _leaves(gathered.tree):
        line = line_of(gathered.lines, key)
        gathered.origins[".".join(key)] = Origin("file", f"{path}:{line}" if line else str(path))
    url = gathered.tree.get("database_url")
    if isinstance(url, str) and connecting.scrubbed(url) != url and mode & 0o004:
        gathered.warnings.append(
            f"{path} holds the database's password and everybody may read it: chmod o-r {path}"
        )


def _leaves(tree: Mapping[str, object], above: Key = ()) -> Iterator[Key]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)


def _from_environment(gathered: _Gathered, environment: Mapping[str, str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in _OTHER_VARIABLES:
            continue
        key = _key_of_variable(variable)
        if key is not None:
            value = _typed(key, environment[variable])
            gathered.put(key, value, Origin("environment", variable))
        elif variable.removeprefix(PREFIX).lower().startswith(tuple(f"{s}_" for s in SECTIONS)):
            known = [variable_of(key) for key in _all_keys({})]
            gathered.mistakes.append(f"{variable}: no such key{_nearest(variable, known)}")
        else:
            # It may be somebody else's: an orchestrator sets SPOOLD_PORT for a service of that
            # name, and a refusal would stop the daemon for it.
            known = [variable_of(key) for key in _all_keys({})]
            if near := difflib.get_close_matches(variable, known, 1, 0.9):
                gathered.warnings.append(f"{variable} is not read; did you mean {near[0]}?")


def _key_of_variable(variable: str) -> Key | None:
    rest = variable.removeprefix(PREFIX).lower()
    if rest in _TOP_LEVEL:
        return (rest,)
    section, _, name = rest.partition("_")
    if section == "roots" and name:
        return (section, name)
    if section in SECTIONS and name in _model(section).model_fields:
        return (section, name)
    return None


def _secrets(gathered: _Gathered, environment: Mapping[str, str]) -> None:
    # Before the variable: an environment is readable in /proc and inherited by every child.
    if named := environment.get("SPOOLD_DATABASE_URL_FILE"):
        path, origin = Path(named), Origin("credential", f"SPOOLD_DATABASE_URL_FILE={named}")
    elif folder := environment.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / "database_url"
        origin = Origin("credential", str(path))
        if not path.exists():
            return
    else:
        return
    try:
        gathered.put(("database_url",), path.read_text().strip(), origin)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        gathered.mistakes.append(f"{origin}: {reason}")


def _from_flags(gathered: _Gathered, flags: Mapping[str, str]) -> None:
    for dotted, text in flags.items():
        key = tuple(dotted.split("."))
        gathered.put(key, _typed(key, text), Origin("flag", f"--set {dotted}"))


def _typed(key: Key, text: str) -> object:
    """Text as the number or truth value that its key wants; as it is where that fails."""
    model: type[BaseModel] | None = File
    if len(key) == 2:
        model = _model(key[0]) if key[0] in SECTIONS else None
    wanted = model.model_fields.get(key[-1]) if model is not None else None
    if wanted is None:
        return text
    stripped = text.strip()
    try:
        # The annotation of sizes and durations is `int` too: they keep their text and are parsed.
        if wanted.annotation is float:
            return float(stripped)
        if wanted.annotation is int and re.fullmatch(r"[+-]?[0-9]{1,18}", stripped):
            return int(stripped)
    except ValueError:
        pass
    if wanted.annotation is bool and stripped.lower() in {"true", "false"}:
        return stripped.lower() == "true"
    return text


def _check(gathered: _Gathered, path: Path | None, folder: Path) -> File | None:
    try:
        return File.model_validate(gathered.tree, context={"folder": folder})
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            gathered.mistakes.append(_mistake(gathered, path, detail))
        return None


def _mistake(gathered: _Gathered, path: Path | None, detail: ErrorDetails) -> str:
    key = connecting.untagged(tuple(str(part) for part in detail["loc"] if part != "[key]"))
    dotted = ".".join(key)
    origin = gathered.origin_of(dotted)
    if origin is None or origin.kind == "file":
        line = line_of(gathered.lines, key)
        origin = Origin("file", f"{path}:{line}" if line else f"{path}")
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "this is not")
    if detail["type"] == "extra_forbidden":
        message = f"no such key{_nearest(dotted, list(_known(key)))}"
    elif detail["type"] == "list_type" and key in {(name,) for name in LISTED}:
        message = f"there may be several: write [[{key[0]}]]"
    elif detail["type"] in {"union_tag_invalid", "literal_error"} and dotted.endswith("kind"):
        message = f"no such kind is installed; there are {', '.join(connecting.kinds_in(key[0]))}"
    elif detail["type"] == "model_type":
        message = f"this is a table: write [{dotted}]"
    else:
        message = message[0].lower() + message[1:]
    return f"{origin}: {dotted}: {message}"


def _known(key: Key) -> Iterator[str]:
    """What could stand in the place of an unknown key, dotted: its neighbours first."""
    if key[0] in (*NAMED, *LISTED) and len(key) > 1:
        for model in connecting.models(key[0]):
            for name, wanted in model.model_fields.items():
                yield f"{key[0]}.{key[1]}.{wanted.alias or name}"
        return
    if key[0] in SECTIONS:
        yield from (f"{key[0]}.{name}" for name in _model(key[0]).model_fields)
    else:
        yield from File.model_fields
    yield from _all_keys({})


def _nearest(name: str, known: Sequence[str]) -> str:
    leaf = name.rpartition(".")[2]
    for key in known:
        table, _, key_leaf = key.rpartition(".")
        if key_leaf == leaf:  # a good key under the wrong table, or above all tables
            return f"; it belongs under [{table}]" if table else "; it belongs above all tables"
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _roots(gathered: _Gathered, path: Path | None, spool: Spool) -> dict[str, Path]:
    """Absolute roots; one through which a request could reach the spool's keys is a mistake."""
    roots: dict[str, Path] = {}
    private = os.path.realpath(spool.folder(Folder.PRIVATE))
    named = gathered.tree.get("roots")
    for name, value in (named if isinstance(named, dict) else {}).items():
        if not isinstance(value, str) or not value or value.startswith("~") or "\0" in value:
            continue  # `_check` has said so
        origin = gathered.origins.get(f"roots.{name}", _DEFAULT)
        if origin.kind != "file" and not value.startswith("/"):
            gathered.mistakes.append(f"{origin}: roots.{name}: {value!r} is not absolute")
            continue
        root = (path.parent if path else spool.root) / value
        real = os.path.realpath(root)
        if os.path.commonpath([real, private]) in (real, private):
            gathered.mistakes.append(
                f"{origin}: roots.{name}: {value} reaches {private}: a request could read the "
                "site's keys through it; name a folder beside the spool"
            )
        roots[name] = root
    return roots


def _handlers(
    gathered: _Gathered,
    path: Path | None,
    spool: Spool,
    file: File,
    environment: Mapping[str, str],
) -> list[Handler]:
    folder = path.parent if path else spool.root
    defaults = Defaults(file.workers.timeout_seconds, file.retry.max_attempts)
    handlers, troubles = made(file.handlers, folder, defaults, environment)
    for trouble in troubles:
        key = ("handlers", str(trouble.number), trouble.key)
        told = f"{_place(gathered, path, key)}: {'.'.join(key)}: {trouble.what}"
        (gathered.mistakes if trouble.fatal else gathered.warnings).append(told)
    return handlers


def _handler_origins(
    gathered: _Gathered,
    path: Path | None,
    handlers: Sequence[Handler],
    sections: Sequence[HandlerSection],
) -> Iterator[tuple[str, Origin]]:
    for number, (handler, section) in enumerate(zip(handlers, sections, strict=True)):
        for key in section.given():
            place = _place(gathered, path, ("handlers", str(number), key))
            yield f"handlers.{handler.name}.{key}", Origin("file", place)


def _connection_origins(
    gathered: _Gathered, path: Path | None, file: File
) -> Iterator[tuple[str, Origin]]:
    numbers = {sink.name: str(number) for number, sink in enumerate(file.sinks)}
    for dotted in connecting.values(connecting.connections(file, {}), file.sinks):
        table, name, key = dotted.split(".", 2)
        place = (table, numbers[name] if table == "sinks" else name, key)
        yield dotted, Origin("file", _place(gathered, path, place))


def _place(gathered: _Gathered, path: Path | None, key: Key) -> str:
    line = line_of(gathered.lines, key)
    return f"{path}:{line}" if line else str(path)


def _invalid(mistakes: Sequence[str]) -> SpooldError:
    if len(mistakes) == 1:
        return SpooldError(errors.CONFIG_INVALID, mistakes[0])
    listed = "".join(f"\n  {mistake}" for mistake in mistakes)
    return SpooldError(errors.CONFIG_INVALID, f"{len(mistakes)} mistakes:{listed}")
