"""`[stores]`: object stores that content is read from and bundles are kept in."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from spoold import canonical, errors
from spoold.bundle.paths import path_fault
from spoold.errors import SpooldError
from spoold.section import FilePath, Section, Size

MIN_PART_BYTES: Final = 5 * 1024**2
MAX_PART_BYTES: Final = 5 * 1024**3


def _endpoint(value: str) -> str:
    if not value:
        return value
    parts = urlsplit(value)
    try:
        plain = parts.port is None or parts.port > 0
    except ValueError:
        plain = False
    if (
        not plain
        or parts.scheme not in {"http", "https"}
        or not parts.hostname
        or "@" in parts.netloc
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
    ):
        raise ValueError('it is no endpoint: write "https://host" or "https://host:port"')
    return f"{parts.scheme}://{parts.netloc}"


def _prefix(value: str) -> str:
    if value and (what := path_fault(value.encode("utf-8", "surrogatepass"))):
        raise ValueError(f"it is what keys begin with, without / at either end, but {what}")
    return value


class StoreSettings(Section):
    """A bucket of an S3-compatible object store."""

    kind: Literal["s3"] = Field(description='"s3"')
    bucket: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$")] = (
        Field(description="the bucket's name")
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="", description="nothing outside of this folder of the bucket is read or written"
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] = Field(
        default="", description='"https://host:port"; empty: Amazon\'s, of the region'
    )
    region: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")] = Field(
        default="us-east-1", description="what requests are signed for"
    )
    path_style: bool = Field(
        default=True, description="the bucket in the path; false: in the host's name"
    )
    access_key_id_file: FilePath | None = Field(
        default=None, description="a file that holds the access key's id"
    )
    secret_access_key_file: FilePath | None = Field(
        default=None, description="a file that holds the secret key, not readable for everybody"
    )
    allow_ambient: bool = Field(
        default=False, description="instead of files: the role of this container or instance"
    )
    ca: FilePath | None = Field(
        default=None, description="certificates (PEM) to trust instead of the system's"
    )
    insecure: bool = Field(
        default=False, description="whether http:// may go to other hosts than this one"
    )
    connect_timeout_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        default=10.0, description="how long connecting may take"
    )
    read_timeout_seconds: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = Field(
        default=60.0, description="how long the store may stall"
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5, description="how often one request is made before the job's attempt ends"
    )
    part_bytes: Annotated[Size, Field(ge=MIN_PART_BYTES, le=MAX_PART_BYTES)] = Field(
        default=16 * 1024**2, description="larger bundles are stored in parts of this size"
    )
    checksums: bool = Field(
        default=True, description="send SHA-256 checksums that the store keeps; some refuse them"
    )

    @property
    def url(self) -> str:
        """Where the store is."""
        return self.endpoint or f"https://s3.{self.region}.amazonaws.com"

    @model_validator(mode="after")
    def _consistent(self) -> "StoreSettings":
        files = [self.access_key_id_file, self.secret_access_key_file]
        if files.count(None) == 1 or (files.count(None) == 2) is not self.allow_ambient:
            raise ValueError(
                "write access_key_id_file and secret_access_key_file, or allow_ambient = true"
            )
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not self.insecure and not _is_loopback(parts.hostname or ""):
            raise ValueError(
                "http:// shows everything to everybody on the way: write https://, or insecure = "
                "true"
            )
        return self


def named(name: str, stores: Mapping[str, StoreSettings]) -> StoreSettings:
    """The store of that name. Raises store-unknown."""
    settings = stores.get(name)
    if settings is None:
        shown = canonical.text(name)
        raise SpooldError(errors.STORE_UNKNOWN, f"there is no [stores.{shown}]", at="store")
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
