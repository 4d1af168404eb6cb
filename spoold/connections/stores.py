"""`[stores]`: object stores that content is read from and bundles are kept in."""

from typing import Literal

from pydantic import Field

from spoold.section import Section


class StoreSettings(Section):
    """A bucket of an S3-compatible object store."""

    kind: Literal["s3"] = Field(description='"s3"')
    bucket: str = Field(description="the bucket's name")
