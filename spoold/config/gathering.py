"""Gather what the configuration says: default < file < environment < flag.

Every value keeps its origin. Nothing is checked but that the file is TOML, and that a variable of a
section has a key there.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from spoold import errors
from spoold.config.effective import PREFIX, Origin, variable_of
from spoold.config.lines import Key, key_lines, line_of
from spoold.config.sections import LISTED, NAMED, SECTIONS, File
from spoold.connections.secrets import scrubbed
from spoold.errors import SpooldError
from spoold.section import Section

_MAX_FILE_BYTES = 1024 * 1024
_TABLES: Final = (*SECTIONS, "roots", *NAMED, *LISTED)
_TOP_LEVEL: Final = tuple(name for name in File.model_fields if name not in _TABLES)
# Read elsewhere: by the command line and by `_secrets`.
_OTHER_VARIABLES: Final = frozenset({"SPOOLD_SPOOL", "SPOOLD_CONFIG", "SPOOLD_DATABASE_URL_FILE"})


@dataclass(slots=True)
class Gathered:
    """Values merged so far, where each came from, and what is wrong; `path` is the file's."""

    path: Path | None
    tree: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    lines: Mapping[Key, int] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def put(self, key: Key, value: object, origin: Origin) -> None:
        """Take a value that goes before what there was."""
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

    def place(self, key: Key) -> str:
        """Where in the file a key stands."""
        line = line_of(self.lines, key)
        return f"{self.path}:{line}" if line else str(self.path)


def gather(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, str]) -> Gathered:
    """Everything that is said, unchecked. Raises config-invalid for a file that cannot be read."""
    gathered = Gathered(path)
    if path is not None:
        _from_file(gathered, path)
    _from_environment(gathered, environment)
    _secrets(gathered, environment)
    _from_flags(gathered, flags)
    return gathered


def all_keys(roots: Mapping[str, Path]) -> Iterator[str]:
    """Every dotted key that there always is, and those of the roots."""
    yield from _TOP_LEVEL
    yield from (f"roots.{name}" for name in roots)
    for name in SECTIONS:
        yield from (f"{name}.{key}" for key in model_of(name).model_fields)


def model_of(section: str) -> type[Section]:
    """The model of a section."""
    model = File.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return model


def _from_file(gathered: Gathered, path: Path) -> None:
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
        raise invalid([f"{path}: nested too deeply"]) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are such
        raise invalid([f"{path}: {error}"]) from error
    gathered.lines = key_lines(text)
    for key in _leaves(gathered.tree):
        gathered.origins[".".join(key)] = Origin("file", gathered.place(key))
    url = gathered.tree.get("database_url")
    if isinstance(url, str) and scrubbed(url) != url and mode & 0o004:
        gathered.warnings.append(
            f"{path} holds the database's password and everybody may read it: chmod o-r {path}"
        )


def _leaves(tree: Mapping[str, object], above: Key = ()) -> Iterator[Key]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)


def _from_environment(gathered: Gathered, environment: Mapping[str, str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or variable in _OTHER_VARIABLES:
            continue
        key = _key_of_variable(variable)
        if key is not None:
            value = _typed(key, environment[variable])
            gathered.put(key, value, Origin("environment", variable))
        elif variable.removeprefix(PREFIX).lower().startswith(tuple(f"{s}_" for s in SECTIONS)):
            known = [variable_of(key) for key in all_keys({})]
            gathered.mistakes.append(f"{variable}: no such key{nearest(variable, known)}")
        else:
            # It may be somebody else's: an orchestrator sets SPOOLD_PORT for a service of that
            # name, and a refusal would stop the daemon for it.
            known = [variable_of(key) for key in all_keys({})]
            if near := difflib.get_close_matches(variable, known, 1, 0.9):
                gathered.warnings.append(f"{variable} is not read; did you mean {near[0]}?")


def _key_of_variable(variable: str) -> Key | None:
    rest = variable.removeprefix(PREFIX).lower()
    if rest in _TOP_LEVEL:
        return (rest,)
    section, _, name = rest.partition("_")
    if section == "roots" and name:
        return (section, name)
    if section in SECTIONS and name in model_of(section).model_fields:
        return (section, name)
    return None


def _secrets(gathered: Gathered, environment: Mapping[str, str]) -> None:
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


def _from_flags(gathered: Gathered, flags: Mapping[str, str]) -> None:
    for dotted, text in flags.items():
        key = tuple(dotted.split("."))
        gathered.put(key, _typed(key, text), Origin("flag", f"--set {dotted}"))


def _typed(key: Key, text: str) -> object:
    """Text as the number or truth value that its key wants; as it is where that fails."""
    model: type[BaseModel] | None = File
    if len(key) == 2:
        model = model_of(key[0]) if key[0] in SECTIONS else None
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


def nearest(name: str, known: Sequence[str]) -> str:
    """What to add to the refusal of an unknown key: which known one may be meant."""
    leaf = name.rpartition(".")[2]
    for key in known:
        table, _, key_leaf = key.rpartition(".")
        if key_leaf == leaf:  # a good key under the wrong table, or above all tables
            return f"; it belongs under [{table}]" if table else "; it belongs above all tables"
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def invalid(mistakes: Sequence[str]) -> SpooldError:
    """The refusal that tells all mistakes."""
    if len(mistakes) == 1:
        return SpooldError(errors.CONFIG_INVALID, mistakes[0])
    listed = "".join(f"\n  {mistake}" for mistake in mistakes)
    return SpooldError(errors.CONFIG_INVALID, f"{len(mistakes)} mistakes:{listed}")
