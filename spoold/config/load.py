"""Find, gather and check the configuration, once a process.

Every mistake has its place, and all mistakes are told at once.
"""

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spoold.config import connecting, recipes
from spoold.config.effective import Config, Origin
from spoold.config.gathering import Gathered, all_keys, gather, invalid, model_of, nearest
from spoold.config.handlers import Defaults, HandlerSection, made
from spoold.config.lines import Key
from spoold.config.sections import LISTED, NAMED, SECTIONS, File
from spoold.handlers import Handler, Handlers
from spoold.spool import Folder, Spool

SYSTEM_FILE: Final = Path("/etc/spoold/spoold.toml")
_DEFAULT: Final = Origin("default", "default")


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
    found = find(spool, path, environment)
    folder = found.parent if found else spool.root
    gathered = gather(found, environment, flags)
    file = _check(gathered, folder)
    roots = _roots(gathered, folder, spool)
    handlers = _handlers(gathered, folder, file, environment) if file else []
    if file:
        gathered.mistakes += (
            f"{gathered.place(key)}: {'.'.join(key)}: {what}"
            for key, what in (
                *connecting.dangling(file),
                *connecting.astray(file, spool),
                *recipes.mistakes(file),
            )
        )
    if gathered.mistakes or file is None:
        raise invalid(gathered.mistakes)
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
            **{key: gathered.origins.get(key, _DEFAULT) for key in all_keys(roots)},
            **dict(_connection_origins(gathered, file)),
            **dict(_handler_origins(gathered, handlers, file.handlers)),
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


def _check(gathered: Gathered, folder: Path) -> File | None:
    try:
        return File.model_validate(gathered.tree, context={"folder": folder})
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            gathered.mistakes.append(_mistake(gathered, detail))
        return None


def _mistake(gathered: Gathered, detail: ErrorDetails) -> str:
    key = connecting.untagged(tuple(str(part) for part in detail["loc"] if part != "[key]"))
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        key = (*key, "kind")
    dotted = ".".join(key)
    origin = gathered.origin_of(dotted)
    if origin is None or origin.kind == "file":
        origin = Origin("file", gathered.place(key))
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "this is not")
    if detail["type"] == "extra_forbidden":
        message = f"no such key{nearest(dotted, list(_known(key)))}"
    elif detail["type"] == "list_type" and key in {(name,) for name in LISTED}:
        message = f"there may be several: write [[{key[0]}]]"
    elif detail["type"] in {"union_tag_invalid", "literal_error"} and dotted.endswith("kind"):
        message = f"no such kind is installed; there are {', '.join(connecting.kinds_in(key[0]))}"
    elif detail["type"] == "union_tag_not_found":
        message = "field required"
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
        yield from (f"{key[0]}.{name}" for name in model_of(key[0]).model_fields)
    else:
        yield from File.model_fields
    yield from all_keys({})


def _roots(gathered: Gathered, folder: Path, spool: Spool) -> dict[str, Path]:
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
        root = folder / value
        real = os.path.realpath(root)
        if os.path.commonpath([real, private]) in (real, private):
            gathered.mistakes.append(
                f"{origin}: roots.{name}: {value} reaches {private}: a request could read the "
                "site's keys through it; name a folder beside the spool"
            )
        roots[name] = root
    return roots


def _handlers(
    gathered: Gathered, folder: Path, file: File, environment: Mapping[str, str]
) -> list[Handler]:
    defaults = Defaults(file.workers.timeout_seconds, file.retry.max_attempts)
    handlers, troubles = made(file.handlers, folder, defaults, environment)
    for trouble in troubles:
        key = ("handlers", str(trouble.number), trouble.key)
        told = f"{gathered.place(key)}: {'.'.join(key)}: {trouble.what}"
        (gathered.mistakes if trouble.fatal else gathered.warnings).append(told)
    return handlers


def _handler_origins(
    gathered: Gathered,
    handlers: Sequence[Handler],
    sections: Sequence[HandlerSection],
) -> Iterator[tuple[str, Origin]]:
    for number, (handler, section) in enumerate(zip(handlers, sections, strict=True)):
        for key in section.given():
            place = gathered.place(("handlers", str(number), key))
            yield f"handlers.{handler.name}.{key}", Origin("file", place)


def _connection_origins(gathered: Gathered, file: File) -> Iterator[tuple[str, Origin]]:
    numbers = {sink.name: str(number) for number, sink in enumerate(file.sinks)}
    for dotted in connecting.values(connecting.connections(file, {}), file.sinks):
        table, name, key = dotted.split(".", 2)
        place = (table, numbers[name] if table == "sinks" else name, key)
        yield dotted, Origin("file", gathered.place(place))
