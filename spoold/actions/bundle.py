"""Action `bundle`: gather what a request names into one signed bundle.

Crash: everything is made in scratch; an attempt that does not finish leaves nothing else.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import (
    AwareDatetime,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from spoold import canonical, errors
from spoold.actions.context import Action, ActionSettings, Context, Outcome
from spoold.actions.progress import Meter
from spoold.actions.request import Envelope, Part, SiteName, Size, Text
from spoold.bundle.frames import Codec
from spoold.bundle.manifest import (
    DEFAULT_CHUNK_SIZE,
    MAX_CHUNK_SIZE,
    MIN_CHUNK_SIZE,
    Compression,
    format_time,
)
from spoold.bundle.writer import BuiltBundle, BundleWriter, ManifestFields
from spoold.canonical import Document
from spoold.connections import Connections
from spoold.connections.parameters import Given, bind
from spoold.connections.recipes import filled_in
from spoold.connections.stores import named
from spoold.errors import SpooldError
from spoold.publish import Made
from spoold.section import Name, one_of
from spoold.sources.source import (
    Gathering,
    Source,
    SourceSpec,
    kinds,
    labels,
    open_source,
    raise_it,
)
from spoold.spool import Folder

_MAX_SLUG = 80
# Of a source in a request: where an error names one, the request says which source it is.
_FIELDS: Final = frozenset(name for kind in kinds().values() for name in kind.Spec.model_fields)
_STORED_BEFORE: Final = "an earlier attempt had stored this bundle: it was fetched, not made again"

if TYPE_CHECKING:
    AnySpec: TypeAlias = SourceSpec
else:
    AnySpec = one_of(kind.Spec for kind in kinds().values())
_SPEC: Final[TypeAdapter[SourceSpec]] = TypeAdapter(AnySpec)


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
    sources: Annotated[list[AnySpec], Field(min_length=1, max_length=100)] | None = None
    recipe: Annotated[Text, StringConstraints(min_length=1, max_length=64)] | None = None
    parameters: Given = Field(default_factory=dict)
    on_error: Literal["fail", "skip"] = "fail"
    chunk_size: Annotated[Size, Field(ge=MIN_CHUNK_SIZE, le=MAX_CHUNK_SIZE)] = DEFAULT_CHUNK_SIZE
    compression: CompressionSpec = Field(default_factory=CompressionSpec)
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    to: Annotated[list[SiteName], Field(max_length=100)] = Field(default_factory=list)
    store: Name | None = None
    # From JSON a time is text, which strict mode would refuse.
    not_after: Annotated[AwareDatetime, Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _sources_or_recipe(self) -> "BundleRequest":
        if (self.sources is None) == (self.recipe is None):
            raise ValueError("write sources or recipe, one of them")
        if self.parameters and self.recipe is None:
            raise ValueError("parameters are those of a recipe")
        return self

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
    stored: Document = {}
    if request.store is None:
        built, warnings = build(request, context)
    else:
        built, warnings, place = _build_stored(request, context, request.store)
        stored = {"store": place}
    name = f"{built.manifest.bundle_id}{built.suffix}".encode()
    return Outcome(
        result={
            "bundle": name.decode(),
            "bytes": built.bytes,
            "manifest_sha256": built.manifest_sha256,
            "entries": built.manifest.entries.count,
            **stored,
        },
        made=[Made("bundle", built.path.name, Folder.PROCESSED, name)],
        warnings=warnings,
    )


def _build_stored(
    request: BundleRequest, context: Context, store: str
) -> tuple[BuiltBundle, list[str], Document]:
    """The bundle, its warnings, and where in the store it stands too."""
    from spoold.actions.storing import Target  # noqa: PLC0415  # TLS and XML, only where needed

    bundle_id = _bundle_id(request, context)
    with Target(context, store, bundle_id, request.compression.codec) as target:
        found = target.find()
        if found is not None:
            built = target.fetch(found)
            return built, [_STORED_BEFORE], target.result(built)
        built, warnings = build(request, context)
        built = target.put(built)
        return built, warnings, target.result(built)


def build(request: BundleRequest, context: Context) -> tuple[BuiltBundle, list[str]]:
    """Stream every source of the request into a bundle in `context.scratch`.

    Returns the bundle and the warnings. Raises root-unknown, path-outside-root, source-missing,
    source-unreadable, source-changed, path-unsupported, sources-collide, nothing-to-bundle, or
    request-invalid where `not_after` has passed.
    """
    if request.not_after is not None and request.not_after <= datetime.now(UTC):
        raise SpooldError(
            errors.REQUEST_INVALID,
            f"not_after is {format_time(request.not_after)}: nobody would take the bundle",
            hint="name a time to come, or none",
            at="not_after",
        )
    specs = _specs(request, context.settings.connections)
    titles = labels(specs)
    meter = Meter(context.report)
    with Gathering(
        context.settings.connections, context.check, meter.count, context.scratch
    ) as gathering:
        sources: list[Source] = []
        for number, label in enumerate(titles):
            with located(_place(request, number)):
                sources.append(open_source(specs[number], gathering, label))
        built = _gather(request, context, dict(zip(titles, sources, strict=True)), meter)
    warnings = [warning for source in sources for warning in source.warnings]
    if built.manifest.skipped_count:
        warnings.append(
            f"{built.manifest.skipped_count} entries were left out; the manifest's `skipped` "
            "names them"
        )
    if request.compression.codec is Codec.GZIP:
        warnings.append("compressed with gzip, for receivers without zstd: larger and slower")
    return built, warnings


def check(request: BundleRequest, connections: Connections) -> None:
    """Whether all that a request names is configured; nothing is connected to.

    Raises what `build` would, for all of it at once.
    """
    specs = _specs(request, connections)
    if request.store is not None:
        named(request.store, connections.stores)
    mistakes: list[SpooldError] = []
    with Gathering(connections) as gathering:
        for number, label in enumerate(labels(specs)):
            try:
                with located(_place(request, number)):
                    open_source(specs[number], gathering, label)
            except SpooldError as error:
                mistakes.append(error)
    if len(mistakes) > 1:
        told = "; ".join(f"{error.at or ''}: {error}".removeprefix(": ") for error in mistakes)
        raise SpooldError(mistakes[0].code, told, at=mistakes[0].at)
    if mistakes:
        raise mistakes[0]


def _specs(request: BundleRequest, connections: Connections) -> Sequence[SourceSpec]:
    """The sources that a request names itself or by a recipe."""
    if request.sources is not None:
        return request.sources
    assert request.recipe is not None
    shown = canonical.text(request.recipe)
    recipe = connections.recipes.get(request.recipe)
    if recipe is None:
        known = ", ".join(sorted(connections.recipes)) or "none is configured"
        raise SpooldError(errors.RECIPE_UNKNOWN, f"{shown}; there are: {known}", at="recipe")
    values = bind(recipe.parameters, request.parameters, at="parameters")
    try:
        return [_SPEC.validate_python(filled_in(source, values)) for source in recipe.sources]
    except ValidationError as error:
        # With samples the recipe was good: it is one of the values.
        [first, *_] = error.errors(include_url=False, include_input=False)
        field, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise SpooldError(
            errors.PARAMETERS_INVALID,
            canonical.text(f"with these, [recipes.{shown}] has a wrong {field}: {what}"),
            at="parameters",
        ) from error


def _place(request: BundleRequest, number: int) -> str:
    """Where a source is written: in the request, or in the recipe that it names."""
    above = "" if request.recipe is None else f"recipes.{request.recipe}."
    return canonical.text(f"{above}sources[{number}]")


def _gather(
    request: BundleRequest, context: Context, sources: Mapping[str, Source], meter: Meter
) -> BuiltBundle:
    """Read the sources, each once, into a bundle."""
    with BundleWriter(
        context.scratch,
        bundle_id=_bundle_id(request, context),
        compression=request.compression.compression(),
        chunk_size=request.chunk_size,
        threads=threads(context.settings, request.threads),
        report=meter.engine,
        bytes_total=_measured(request, sources.values()),
    ) as writer:
        for number, (title, source) in enumerate(sources.items()):
            meter.source = title
            with located(_place(request, number)):
                _add(source, writer, skipping=request.on_error == "skip")
        return writer.finish(
            ManifestFields(
                name=request.name or _name_of(request),
                created_at=_created_at(),
                to=tuple(request.to),
                not_after=request.not_after,
                request_sha256=context.request_sha256.hex() if context.request_sha256 else None,
                correlation_id=request.correlation_id,
                labels=request.labels,
            ),
            context.signer,
        )


def _measured(request: BundleRequest, sources: Iterable[Source]) -> int | None:
    """How many bytes there are to come; None where one of the sources does not know."""
    total = 0
    for number, source in enumerate(sources):
        with located(_place(request, number)):
            size = source.measure()
        if size is None:
            return None
        total += size
    return total


def _add(source: Source, writer: BundleWriter, *, skipping: bool) -> None:
    for entry in source.entries(writer.skip if skipping else raise_it):
        try:
            writer.add(entry)
        except SpooldError as error:
            if not skipping:
                raise
            writer.skip(entry.path, error)


@contextmanager
def located(place: str) -> Iterator[None]:
    """Say where in the request the field stands that an error speaks of."""
    try:
        yield
    except SpooldError as error:
        if error.at in _FIELDS:
            error.at = f"{place}.{error.at}"
        raise


def slug(name: str) -> str:
    """A name as the first part of a bundle id: `[a-z0-9-]`, 1 to 80 characters."""
    ascii_ = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    # bagit.py takes any file whose name begins like a tag manifest for one.
    plain = re.sub(r"[^a-z0-9]+", "-", ascii_).strip("-").replace("tagmanifest", "tag-manifest")
    return plain[:_MAX_SLUG].strip("-") or "bundle"


def threads(settings: ActionSettings, wanted: int | None = None) -> int:
    """How many threads compress or check frames: what is wanted, but no more than configured."""
    most = settings.threads or len(os.sched_getaffinity(0))
    return min(wanted or most, most)


def _bundle_id(request: BundleRequest, context: Context) -> str:
    """The same for each attempt of a job."""
    return f"{slug(request.name or _name_of(request))}-{context.digits}"


def _name_of(request: BundleRequest) -> str:
    """Without a name: what the recipe or the first source is called."""
    if request.sources is None:
        return str(request.recipe)
    return request.sources[0].name()


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


ACTION = Action(BundleRequest, run, check=check)
