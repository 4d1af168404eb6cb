"""The configuration in force: every value, where it came from, and how it may be shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spoold.config import connecting
from spoold.config.handlers import HandlerSection
from spoold.config.sections import (
    SECTIONS,
    Http,
    Intake,
    Log,
    Restore,
    Retention,
    Retry,
    Trust,
    Workers,
)
from spoold.connections import Connections
from spoold.connections.secrets import scrubbed
from spoold.handlers import Handlers
from spoold.section import Section
from spoold.sinks.sink import SinkSettings
from spoold.spool import Spool

PREFIX: Final = "SPOOLD_"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: "default", "spoold.toml:12", an environment variable, a flag."""

    kind: str  # default, file, environment, credential, flag
    where: str

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True, slots=True)
class Config:
    """What is in force. Paths are absolute; `database_url` may hold a password: never print it."""

    spool: Spool
    path: Path | None
    site: str
    database_url: str = field(repr=False)
    signing_key: Path
    connections: Connections
    sinks: tuple[SinkSettings, ...]
    handlers: Handlers
    handler_sections: Mapping[str, HandlerSection]  # as they are written, by name
    intake: Intake
    workers: Workers
    retry: Retry
    trust: Trust
    restore: Restore
    http: Http
    log: Log
    retention: Retention
    origins: Mapping[str, Origin]  # by dotted key, of every key
    warnings: tuple[str, ...]
    flags: Mapping[str, str] = field(repr=False)

    @property
    def roots(self) -> Mapping[str, Path]:
        """The folders that requests may name."""
        return self.connections.roots

    def child_environment(self) -> dict[str, str]:
        """What to add to a child's environment so that it sees this very configuration."""
        variables = {variable_of(key): value for key, value in self.flags.items()}
        if self.path is not None:
            variables["SPOOLD_CONFIG"] = str(self.path)
        return variables


def values(config: Config) -> dict[str, object]:
    """Every dotted key with its value, as `spoold config` shows it: without passwords."""
    shown: dict[str, object] = {
        "site": config.site,
        "database_url": scrubbed(config.database_url),
        "signing_key": str(config.signing_key),
        **{f"roots.{name}": str(path) for name, path in config.connections.roots.items()},
        **connecting.values(config.connections, config.sinks),
    }
    for name in SECTIONS:
        section: Section = getattr(config, name)
        shown.update((f"{name}.{key}", value) for key, value in section.model_dump().items())
    for name, handler in config.handler_sections.items():
        shown.update((f"handlers.{name}.{key}", value) for key, value in handler.given().items())
    return shown


def variable_of(key: str) -> str:
    """The environment variable of a dotted key."""
    return PREFIX + key.replace(".", "_").replace("-", "_").upper()
