"""Every key of `spoold.toml`: its type, its default, its limits, and a word on it.

This is the one table: validation, the commented file that `init` writes and `spoold config` all
read it. A section is a frozen model; units stand in the names, sizes are bytes, retention seconds.
"""

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from spoold import units
from spoold.config.handlers import HandlerSection
from spoold.connections.apis import ApiSettings, EndpointSettings
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.connections.recipes import RecipeSettings
from spoold.connections.stores import StoreSettings
from spoold.section import Count, Duration, Name, Seconds, Section, Size, one_of
from spoold.sinks.sink import SinkSettings, kinds
from spoold.trust import SITE_NAME

if TYPE_CHECKING:
    AnySink: TypeAlias = SinkSettings
else:
    AnySink = one_of(kind.Settings for kind in kinds().values())
ROOT_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LEAST_MEMORY_BYTES: Final = 256 * 1024**2
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s]+):([0-9]{1,5})")


def _enough_memory(value: int) -> int:
    if 0 < value < _LEAST_MEMORY_BYTES:
        raise ValueError('no worker can work with less than "256MiB"; 0 is no limit')
    return value


def _address(value: str) -> str:
    if value:
        match = _ADDRESS.fullmatch(value)
        if match is None or int(match[2]) > 65535:
            raise ValueError(f'{value!r} is no address: write "127.0.0.1:9094", or "" for none')
    return value


def _site(value: str) -> str:
    if value and not SITE_NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is no site name: up to 63 of a-z, 0-9 and -, not beginning with -"
        )
    return value


def _root(value: str) -> str:
    if value.startswith("~"):
        raise ValueError("~ is not expanded: write the whole path")
    if not value or "\0" in value:
        raise ValueError("a root is the path of a folder")
    return str(PurePosixPath(value))


Address = Annotated[str, AfterValidator(_address)]
SiteName = Annotated[str, AfterValidator(_site)]
RootPath = Annotated[str, AfterValidator(_root)]
RootName = Annotated[str, StringConstraints(pattern=f"^{ROOT_NAME.pattern}$")]


class Intake(Section):
    """How drops are seen and admitted."""

    settle_seconds: Seconds = Field(
        default=2.0, description="a drop that cannot prove itself complete rests this long"
    )
    rescan_seconds: Annotated[float, Field(ge=0.05, le=3600, allow_inf_nan=False)] = Field(
        default=5.0, description="a full look at the inbox, whatever events said"
    )
    incomplete_seconds: Seconds = Field(
        default=3600,
        description="after this long without a change, a drop with a writer is rejected",
    )
    watch: Literal["auto", "polling"] = Field(
        default="auto", description='"polling" where events are lost; auto finds most of these out'
    )
    writer_check: Literal["auto", "settle"] = Field(
        default="auto", description='"settle" for an inbox that is exported over the network'
    )
    idempotency: Literal["key", "content"] = Field(
        default="key", description='"content": an equal drop is a duplicate even without a key'
    )
    max_request_bytes: Annotated[Size, Field(ge=1024, le=64 * 1024**2)] = Field(
        default=1024**2, description="larger requests are rejected unread"
    )
    max_bundle_bytes: Size = Field(
        default=1024**4, description="larger bundles are rejected unread"
    )
    min_free_bytes: Size = Field(
        default=1024**3, description="with less free space nothing is admitted: drops wait"
    )
    max_drops_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="beyond it drops wait in the inbox; 0: no limit"
    )
    max_drops_per_minute_per_owner: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="the same, of each user who owns the dropped files"
    )
    renew_seconds: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = Field(
        default=5.0,
        description="how often status/.spoold.json is renewed; it counts three times that",
    )
    require_signed: bool = Field(
        default=False, description="whether every request must be signed: `spoold sign`"
    )


class Workers(Section):
    """The processes that do the jobs."""

    count: Annotated[int, Field(ge=0, le=1024)] = Field(default=0, description="0: one a core")
    drain_seconds: Seconds = Field(
        default=60, description="how long a stop waits for running attempts"
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=31_622_400)] = Field(
        default=21600, description="the longest an attempt may take"
    )
    aging_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=60, description="priority 1000 is overtaken after 1000 x this"
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="the most that one attempt may use; 0: one a core"
    )
    memory_bytes: Annotated[Size, AfterValidator(_enough_memory)] = Field(
        default=0, description="what a worker may use, beyond which its attempt fails; 0: no limit"
    )
    cpu_seconds: Annotated[int, Field(ge=0, le=31_622_400)] = Field(
        default=0, description="the processor time that one attempt may use; 0: no limit"
    )


class Retry(Section):
    """When a failed attempt is tried again: base x 2^n, at most cap, with jitter."""

    max_attempts: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="unless the request says otherwise"
    )
    base_seconds: Seconds = Field(
        default=2, description="the first pause; each next one is twice as long"
    )
    cap_seconds: Seconds = Field(default=600, description="the longest pause")

    @model_validator(mode="after")
    def _ordered(self) -> "Retry":
        if self.cap_seconds < self.base_seconds:
            raise ValueError("cap_seconds is less than base_seconds")
        return self


class Trust(Section):
    """Whom to believe, beyond the keys themselves: `spoold keys`."""

    bundle_threshold: Annotated[int, Field(ge=1, le=17)] = Field(
        default=1, description="how many different trusted keys must have signed a bundle"
    )


class Restore(Section):
    """How dropped bundles are restored, and how large each may be; 0: no limit."""

    links: Literal["inside", "skip", "any"] = Field(
        default="inside",
        description="symbolic links that may lead out of the tree: refuse the bundle, skip, any",
    )
    max_bytes: Size = Field(default=1024**4, description="its content and index")
    max_entries: Annotated[int, Field(ge=0, le=units.MAX_SIZE)] = Field(
        default=10_000_000, description="its files, folders and links"
    )
    max_depth: Annotated[int, Field(ge=0, le=128)] = Field(
        default=0, description="segments of a path; the format itself has 128 at most"
    )
    max_expansion: Annotated[int, Field(ge=0, le=units.MAX_SIZE)] = Field(
        default=0, description="what one compressed byte may become; in a file of zeros: 20,000"
    )


class Http(Section):
    """Metrics and health, read only."""

    listen: Address = Field(
        default="127.0.0.1:9094", description='/metrics, /livez, /readyz, /healthz; "" turns it off'
    )

    def address(self) -> tuple[str, int] | None:
        """Host and port to listen on, None for none. An IPv6 host comes without brackets."""
        match = _ADDRESS.fullmatch(self.listen)
        return (match[1].strip("[]"), int(match[2])) if match else None


class Log(Section):
    """What is logged, to the standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error"
    )
    format: Literal["auto", "text", "journal", "json"] = Field(
        default="auto", description="auto: text on a terminal, else journal or json"
    )


class Retention(Section):
    """How long finished things are kept; "0d" keeps them for ever."""

    processed: Duration = Field(default=0, description="what stands in processed/, job by job")
    failed: Duration = Field(default=0, description="what stands in failed/, job by job")
    status: Duration = Field(default=0, description="final status files in status/")
    restored: Duration = Field(default=0, description="restored bundles, whole")
    jobs: Duration = Field(default=0, description="rows of finished jobs; keys stay done")
    bundles: Duration = Field(
        default=0, description="bundles in processed/, with this or the next two by these alone"
    )
    bundles_keep: Count = Field(
        default=0, description="so many bundles at most, without pinned ones; 0: any number"
    )
    bundles_bytes: Size = Field(
        default=0, description="so large together at most, without pinned ones; 0: any size"
    )


class File(Section):
    """The whole of `spoold.toml`."""

    site: SiteName = Field(
        default="",
        description="this site's name, its signatures carry it; no two sites may share one",
    )
    database_url: str = Field(
        default="",
        description="empty: the embedded server; else any libpq URL (PostgreSQL 15 or newer)",
    )
    signing_key: Annotated[str, StringConstraints(min_length=1)] = Field(
        default=".spoold/keys/signing.pem", description="relative to the spool"
    )
    roots: dict[RootName, RootPath] = Field(
        default_factory=dict, description="folders that requests may name, and nothing else"
    )
    databases: dict[Name, DatabaseSettings] = Field(
        default_factory=dict, description="databases that queries read and sinks write"
    )
    queries: dict[Name, QuerySettings] = Field(
        default_factory=dict, description="what requests may ask of databases"
    )
    apis: dict[Name, ApiSettings] = Field(
        default_factory=dict, description="HTTP servers that endpoints belong to"
    )
    endpoints: dict[Name, EndpointSettings] = Field(
        default_factory=dict, description="what requests may fetch of APIs"
    )
    stores: dict[Name, StoreSettings] = Field(
        default_factory=dict, description="object stores for content and bundles"
    )
    recipes: dict[Name, RecipeSettings] = Field(
        default_factory=dict, description="parameters to a set of sources"
    )
    plugins: dict[Name, dict[str, object]] = Field(
        default_factory=dict, description="settings of sources that others have written"
    )
    sinks: Annotated[list[AnySink], Field(max_length=100)] = Field(
        default_factory=list, description="where restored content goes besides restored/"
    )
    handlers: Annotated[list[HandlerSection], Field(max_length=100)] = Field(
        default_factory=list, description="programs that are run for drops of other names"
    )
    intake: Intake = Intake()
    workers: Workers = Workers()
    retry: Retry = Retry()
    trust: Trust = Trust()
    restore: Restore = Restore()
    http: Http = Http()
    log: Log = Log()
    retention: Retention = Retention()


NAMED: Final = ("databases", "queries", "apis", "endpoints", "stores", "recipes", "plugins")
"""Tables of sections that are called by their names."""
LISTED: Final = ("sinks", "handlers")
"""Lists of sections."""
SECTIONS: Final = tuple(
    name
    for name, field in File.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
)
