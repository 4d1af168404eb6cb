"""`[apis]` and `[endpoints]`: HTTP servers that answers and files are fetched from."""

import ipaddress
import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from spoold.connections.parameters import Declaration, names_in
from spoold.section import Count, FilePath, Name, Section, Size

ITEM_FIELD: Final = re.compile(r"\{item\.([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\}")
_PLACEHOLDER: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]{0,62}\}")
_OWN_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "if-range",
        "keep-alive",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
_HEADER_NAME: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"
_FIELDS: Final = r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)?$"


def _base(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise ValueError('write it as "https://host/path"')
    if "@" in parts.netloc:
        raise ValueError("a user or password does not belong here: see secret_headers")
    if parts.query or parts.fragment or value.endswith(("?", "#")):
        raise ValueError("a query belongs to the endpoint")
    if not value.isascii() or re.search(r"[\x00-\x20\x7f\\{}]", value):
        raise ValueError("it holds a character that an address cannot have")
    if parts.port == 0:
        raise ValueError("there is no port 0")
    return value.rstrip("/")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Base = Annotated[str, AfterValidator(_base)]
HeaderName = Annotated[str, StringConstraints(pattern=_HEADER_NAME)]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,4096}$")]
Fields = Annotated[str, StringConstraints(pattern=_FIELDS)]
Timeout = Annotated[float, Field(gt=0, le=31_622_400, allow_inf_nan=False)]


class ApiSettings(Section):
    """An HTTP API. Nothing but its own host is ever spoken to."""

    base: Base = Field(description='"https://host/path": endpoints lie beneath it')
    insecure: bool = Field(
        default=False, description="allows http:// to another machine, where anybody may listen"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="sent with every request; nothing secret"
    )
    secret_headers: dict[HeaderName, FilePath] = Field(
        default_factory=dict, description="the same, each value read from a file"
    )
    ca: FilePath | None = Field(
        default=None, description="PEM file of the CAs to trust; none: those of the system"
    )
    client_certificate: FilePath | None = Field(default=None, description="PEM file")
    client_key: FilePath | None = Field(default=None, description="PEM file, not encrypted")
    connect_timeout_seconds: Timeout = Field(default=10, description="for a connection")
    read_timeout_seconds: Timeout = Field(
        default=30, description="for the next byte of an answer: longer is a stall"
    )
    time_limit_seconds: Timeout = Field(default=3600, description="for all of one source")
    requests_per_second: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] = Field(
        default=0, description="no more than so many in an attempt; 0: no limit"
    )
    max_bytes: Size = Field(
        default=10 * 1024**3, description="of all answers of one source; 0: no limit"
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5, description="how often one request is made before the job's attempt ends"
    )
    pause_seconds: Timeout = Field(default=0.5, description="before the second; then doubled")
    max_pause_seconds: Timeout = Field(
        default=60, description="the longest pause, also where the API asks for a longer one"
    )

    @model_validator(mode="after")
    def _is_safe(self) -> "ApiSettings":
        parts = urlsplit(self.base)
        if parts.scheme == "http" and not self.insecure and not _is_here(parts.hostname or ""):
            raise ValueError(
                "base is http:// to another machine: write https://, or insecure = true"
            )
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key belong together")
        if parts.scheme == "http" and (self.ca or self.client_certificate):
            raise ValueError("ca and client_certificate are for https://")
        names = [name.lower() for name in (*self.headers, *self.secret_headers)]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"the header {name} stands there twice")
            if name in _OWN_HEADERS:
                raise ValueError(f"the header {name} is not to be chosen")
        for name in self.headers:
            if name.lower() in _SECRET_HEADERS:
                raise ValueError(f"{name} belongs into secret_headers: its value into a file")
        return self


class DownloadSettings(Section):
    """A file for each item of an endpoint's answer: `{item.field}` is the item's own."""

    path: str = Field(description='beneath the base: "/artifacts/{item.id}/content"')
    name: str = Field(description='the file\'s name: "{item.name}"')
    size: str = Field(default="", description='"{item.size}", checked where an item has it')
    sha256: str = Field(default="", description='"{item.sha256}", checked where an item has it')


class EndpointSettings(Section):
    """What a request may fetch of an API: it names this and gives values, never an address."""

    api: Name = Field(description="a key of [apis]")
    path: str = Field(description='beneath the base: "/incidents/{incident_id}/events"')
    parameters: Declaration = Field(
        default_factory=dict, description='name = "text", integer, numeric, boolean, …'
    )
    query: dict[str, str] = Field(
        default_factory=dict, description='key = "value" or "{parameter}"'
    )
    file: str = Field(
        default="", description="the answer is a file of this name: its bytes, whatever they are"
    )
    items: Fields = Field(
        default="", description='where the array is in the answer: "data.events"; empty: all of it'
    )
    pages: Literal["none", "link", "cursor", "offset", "page"] = Field(
        default="none", description="how the next page is asked for"
    )
    cursor: Fields = Field(
        default="", description='where the answer has the next cursor: "meta.next"'
    )
    cursor_parameter: str = Field(default="cursor", description="the query's key for it")
    offset_parameter: str = Field(default="offset", description="counts items from 0")
    page_parameter: str = Field(default="page", description="counts pages from 1")
    limit_parameter: str = Field(default="limit", description="the query's key for limit")
    limit: Count = Field(default=0, description="how many items to ask for at once; 0: not said")
    max_page_bytes: Annotated[Size, Field(ge=1024, le=1024**3)] = Field(
        default=4 * 1024**2, description="a page is held in memory: larger ones are refused"
    )
    download: DownloadSettings | None = Field(
        default=None, description="a file for each item, besides the items themselves"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "EndpointSettings":
        self._check_kind()
        self._check_templates()
        return self

    def _check_kind(self) -> None:
        if self.file and (self.download or self.items or self.pages != "none"):
            raise ValueError("file is for an answer that is a file: it has no items and no pages")
        if (self.pages == "cursor") != bool(self.cursor):
            raise ValueError('pages = "cursor" and cursor = "field" belong together')
        if self.pages == "cursor" and self.cursor == self.items:
            raise ValueError("cursor and items are the same field")
        for key in self.paging_parameters():
            if key in self.query:
                raise ValueError(f"query has {key}, which the pages need")

    def paging_parameters(self) -> Iterable[str]:
        """The keys of the query that say which page is wanted."""
        match self.pages:
            case "cursor":
                yield self.cursor_parameter
            case "offset":
                yield self.offset_parameter
            case "page":
                yield self.page_parameter
            case "none" | "link":
                pass
        if self.limit:
            yield self.limit_parameter

    def _check_templates(self) -> None:
        check_path(self.path)
        self._check_names("path", self.path)
        self._check_names("file", self.file)
        for key, value in self.query.items():
            self._check_names(f"query.{key}", value)
        if self.download is not None:
            check_path(self.download.path)
            for key, template in self.download.model_dump().items():
                self._check_names(f"download.{key}", ITEM_FIELD.sub("", template))
            if not ITEM_FIELD.search(self.download.name):
                raise ValueError("download.name: without {item.…} all files have one name")

    def _check_names(self, key: str, template: str) -> None:
        for name in names_in(template):
            if name not in self.parameters:
                raise ValueError(f"{key}: {{{name}}} is not declared in parameters")
        if re.search(r"[{}]", _PLACEHOLDER.sub("", template)):
            raise ValueError(f"{key}: braces are for names: {{incident_id}}")


def check_path(template: str) -> None:
    """Raise ValueError where a path's own text is no plain path."""
    if not template.startswith("/"):
        raise ValueError("a path begins with /")
    if re.search(r"[?#\\\x00-\x20\x7f]", template) or not template.isascii():
        raise ValueError("a path has no ?, #, backslash, space or other than ASCII: see query")
    segments = template[1:].split("/")
    if any(part in {".", ".."} or (part == "" and at > 0) for at, part in _inner(segments)):
        raise ValueError("a path has no empty segment, no . and no ..")


def _inner(segments: list[str]) -> Iterable[tuple[int, str]]:
    # A path may be "/" alone and may end in "/".
    whole = segments[:-1] if segments[-1] == "" else segments
    return ((number + 1, part) for number, part in enumerate(whole))
