"""Options that several commands share, and what becomes of them."""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spoold import units
from spoold.errors import SpooldError
from spoold.spool import Spool

if TYPE_CHECKING:
    from spoold.config import Config
    from spoold.handlers import Handlers

    _ParamType = click.ParamType[object]
else:
    _ParamType = click.ParamType  # at run time click 8.2 knows no parameters of it

Command = Callable[..., int]

_DEFAULT_SPOOL = "spool"


class NamedPath(click.Path):
    """A path that is not empty, as a shell variable that was never set is: not the folder here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is empty."""
        if value in ("", b""):
            self.fail("a path is not empty", param, ctx)
        return super().convert(value, param, ctx)


class _Seconds(click.FloatRange):
    """A duration in seconds. "nan" is a number to Python, and never over."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class _Parsed(_ParamType):
    """What a function makes of the text; its ValueError says what is wrong with that."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _site_name(text: str) -> str:
    from spoold.trust import SITE_NAME

    if not SITE_NAME.fullmatch(text):
        raise ValueError(f"{text!r}: up to 63 of a-z, 0-9 and -, not beginning with -")
    return text


PATH = NamedPath(path_type=Path)
SECONDS = _Seconds(min=0)
AGE = _Parsed("age", units.parse_duration)  # "30m": seconds
SIZE = _Parsed("size", units.parse_size)  # "100GiB": bytes
SITE = _Parsed("site", _site_name)
EXISTING = click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=False)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


@dataclass(frozen=True, slots=True)
class Place:
    """The spool that a command is about, and what its options say of the configuration."""

    named: Path | None  # by the argument or --spool
    config_path: Path | None = None
    settings: tuple[str, ...] = ()

    @property
    def spool(self) -> Spool:
        """The spool: the one named, else SPOOLD_SPOOL, else ./spool; whether it exists or not."""
        return Spool.at(self.named or os.environ.get("SPOOLD_SPOOL") or _DEFAULT_SPOOL)

    def config(self, flags: dict[str, str] | None = None) -> "Config":
        """The configuration in force, `--set` and other flags included."""
        from spoold import config

        merged: dict[str, str] = {}
        for setting in self.settings:
            key, equals, value = setting.partition("=")
            if not equals or not key.strip():
                raise click.BadParameter(f"{setting!r} is not KEY=VALUE", param_hint="--set")
            merged[key.strip()] = value
        return config.load(self.spool, self.config_path, {**merged, **(flags or {})})

    def require_config(self, flags: dict[str, str] | None = None) -> "Config":
        """The configuration of a spool that `init` has made and this user may look into."""
        self.spool.require()
        return self.config(flags)


def spool_option(command: Command) -> Command:
    """`--spool`; the command is given a Place, which takes in what `config_options` add."""

    @functools.wraps(command)
    def placed(
        *,
        spool_path: Path | None,
        spool: Path | None = None,
        config_path: Path | None = None,
        settings: tuple[str, ...] = (),
        **given: object,
    ) -> int:
        if spool is not None and spool_path is not None and spool != spool_path:
            raise click.UsageError(f"two spools are named: {spool} and --spool {spool_path}")
        return command(place=Place(spool or spool_path, config_path, settings), **given)

    return click.option(
        "--spool",
        "spool_path",
        type=PATH,
        metavar="SPOOL",
        help="The spool; else SPOOLD_SPOOL, else ./spool.",
    )(placed)


def spool_argument(command: Command) -> Command:
    """SPOOL as an argument that may be left out, or as an option."""
    return click.argument("spool", required=False, type=PATH)(spool_option(command))


def config_options(command: Command) -> Command:
    """`--config FILE` and `--set KEY=VALUE`."""
    file = click.option(
        "--config",
        "config_path",
        type=PATH,
        metavar="FILE",
        help="The configuration; else SPOOLD_CONFIG, SPOOL/spoold.toml, /etc/spoold/spoold.toml.",
    )
    flag = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="One key of the configuration, say workers.count=4; may be repeated.",
    )
    return file(flag(command))


def handlers_for(place: Place, name: bytes) -> "Handlers":
    """The spool's handlers, if they may matter for a name; none where nothing can be read."""
    from spoold.handlers import NO_HANDLERS
    from spoold.intake.names import NameKind, classify

    if classify(name) is not NameKind.FOREIGN:
        return NO_HANDLERS
    try:
        return place.config().handlers
    except (SpooldError, OSError):  # a dropper may not be let in; the daemon knows better
        return NO_HANDLERS
