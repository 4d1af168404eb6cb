"""Action `bundle`: gather what a request names into one signed bundle.

Crash: everything is made in scratch; an attempt that does not finish leaves nothing else.
"""

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator

from spoold import errors
from spoold.actions.context import Action, ActionSettings, Context, Outcome
from spoold.actions.request import Envelope, Part, SiteName, Size
from spoold.bundle.entry import Report
from spoold.bundle.frames import Codec
from spoold.bundle.manifest import (
    DEFAULT_CHUNK_SIZE,
    MAX_CHUNK_SIZE,
    MIN_CHUNK_SIZE,
    Compression,
    format_time,
)
from spoold.bundle.writer import BuiltBundle, BundleWriter, ManifestFields
from spoold.errors import SpooldError
from spoold.publish import Made
from spoold.sources.files import FilesSource, FilesSpec, labels
from spoold.spool import Folder
from spoold.status import Progress

_MAX_SLUG = 80


class CompressionSpec(Part):
    """`compression` of a request; without a level, the codec's own default."""

    codec: Annotated[Codec, Field(strict=False)] = Codec.ZSTD
    level: Annotated[int, Field(ge=1, le=19)] | None = None

    @model_validator(mode="after")
    def _has_level(self) -> "CompressionSpec":
        if self.level is not None and self.level not in self.codec.levels:
            raise ValueError(
                f"{self.codec} has levels {self.codec.levels[0]} to {self.codec.levels[-1]}"
            )
        return self

    def compression(self) -> Compression:
        """The codec and level that the writer uses."""
        default = Compression.default(self.codec)
        return default if self.level is None else Compression(self.codec, self.level)


class BundleRequest(Envelope):
    """A request for a bundle."""

    action: Literal["bundle"]
    sources: Annotated[list[FilesSpec], Field(min_length=1, max_length=100)]
    on_error: Literal["fail", "skip"] = "fail"
    chunk_size: Annotated[Size, Field(ge=MIN_CHUNK_SIZE, le=MAX_CHUNK_SIZE)] = DEFAULT_CHUNK_SIZE
    compression: CompressionSpec = Field(default_factory=CompressionSpec)
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    to: Annotated[list[SiteName], Field(max_length=100)] = Field(default_factory=list)
    # From JSON a time is text, which strict mode would refuse.
    not_after: Annotated[AwareDatetime, Field(strict=False)] | None = None

    @field_validator("to")
    @classmethod
    def _each_once(cls, sites: list[str]) -> list[str]:
        if len(set(sites)) != len(sites):
            raise ValueError("a site stands there twice")
        return sites

    @field_validator("not_after")
    @classmethod
    def _in_utc(cls, moment: datetime | None) -> datetime | None:
        try:
            return None if moment is None else moment.astimezone(UTC)
        except OverflowError:
            raise ValueError("it is beyond the years that there are") from None


def run(context: Context) -> Outcome:
    """Build the bundle that the request asks for, ready to be published in `processed/`."""
    request = BundleRequest.model_validate(context.request)
    built, warnings = build(request, context)
    name = f"{built.manifest.bundle_id}{built.suffix}".encode()
    return Outcome(
        result={
            "bundle": name.decode(),
            "bytes": built.bytes,
            "manifest_sha256": built.manifest_sha256,
            "entries": built.manifest.entries.count,
        },
        made=[Made("bundle", built.path.name, Folder.PROCESSED, name)],
        warnings=warnings,
    )


def build(request: BundleRequest, context: Context) -> tuple[BuiltBundle, list[str]]:
    """Stream every source of the request into a bundle in `context.scratch`.

    Returns the bundle and the warnings. Raises root-unknown, path-outside-root, source-missing,
    source-unreadable, source-changed, path-unsupported, sources-collide, nothing-to-bundle, or
    request-invalid where `not_after` has passed.
    """
    sources = []
    for number, label in enumerate(labels(request.sources)):
        with _located(f"sources[{number}]"):
            spec = request.sources[number]
            sources.append(FilesSource(spec, context.settings.roots, label=label))
    if request.not_after is not None and request.not_after <= datetime.now(UTC):
        raise SpooldError(
            errors.REQUEST_INVALID,
            f"not_after is {format_time(request.not_after)}: nobody would take the bundle",
            hint="name a time to come, or none",
            at="not_after",
        )
    skipping = request.on_error == "skip"
    name = request.name or _name_of(request)
    total = 0
    for number, source in enumerate(sources):
        with _located(f"sources[{number}]"):
            total += source.measure()[1]
    with BundleWriter(
        context.scratch,
        bundle_id=f"{slug(name)}-{context.digits}",
        compression=request.compression.compression(),
        chunk_size=request.chunk_size,
        threads=threads(context.settings, request.threads),
        report=reporter(context),
        bytes_total=total,
    ) as writer:
        for number, source in enumerate(sources):
            with _located(f"sources[{number}]"):
                _add(source, writer, skipping=skipping)
        built = writer.finish(
            ManifestFields(
                name=name,
                created_at=_created_at(),
                to=tuple(request.to),
                not_after=request.not_after,
                request_sha256=context.request_sha256.hex() if context.request_sha256 else None,
                correlation_id=request.correlation_id,
                labels=request.labels,
            ),
            context.signer,
        )
    warnings = [warning for source in sources for warning in source.warnings]
    if built.manifest.skipped_count:
        warnings.append(
            f"{built.manifest.skipped_count} entries were left out; the manifest's `skipped` "
            "names them"
        )
    if request.compression.codec is Codec.GZIP:
        warnings.append("compressed with gzip, for receivers without zstd: larger and slower")
    return built, warnings


def _add(source: FilesSource, writer: BundleWriter, *, skipping: bool) -> None:
    for entry in source.entries(writer.skip) if skipping else source.entries():
        try:
            writer.add(entry)
        except SpooldError as error:
            if not skipping:
                raise
            writer.skip(entry.path, error)


@contextmanager
def _located(place: str) -> Iterator[None]:
    """Say where in the request the field stands that an error speaks of."""
    try:
        yield
    except SpooldError as error:
        if error.at in {"root", "path"}:
            error.at = f"{place}.{error.at}"
        raise


def slug(name: str) -> str:
    """A name as the first part of a bundle id: `[a-z0-9-]`, 1 to 80 characters."""
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    # bagit.py takes any file whose name begins like a tag manifest for one.
    plain = re.sub(r"[^a-z0-9]+", "-", ascii_).strip("-").replace("tagmanifest", "tag-manifest")
    return plain[:_MAX_SLUG].strip("-") or "bundle"


def reporter(context: Context) -> Report:
    """The engine's progress callback, as the attempt shows it."""

    def report(phase: str, bytes_done: int, bytes_total: int | None, entries_done: int) -> None:
        context.report(Progress(phase, bytes_done, bytes_total, entries_done))

    return report


def threads(settings: ActionSettings, wanted: int | None = None) -> int:
    """How many threads compress or check frames: what is wanted, but no more than configured."""
    most = settings.threads or len(os.sched_getaffinity(0))
    return min(wanted or most, most)


def _name_of(request: BundleRequest) -> str:
    """Without a name: the last part of the first source's path, or its root."""
    first = request.sources[0]
    return Path(first.path).name or first.root


def _created_at() -> datetime:
    # https://reproducible-builds.org/specs/source-date-epoch/
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise SpooldError(
            errors.CONFIG_INVALID, f"SOURCE_DATE_EPOCH={epoch} is no Unix time"
        ) from error


ACTION = Action(BundleRequest, run)
