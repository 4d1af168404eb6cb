"""Action `rehydrate`: verify a bundle, fail closed, and restore it.

The bundle is the drop itself, or, so that a large one need not be copied first, a file beneath a
configured root or an object of a configured store that a request names. Of such a one a part can be
asked for: then only the frames that hold it are read, and nothing is said of the others.

Crash: everything is restored in scratch; one rename by the publisher makes it visible.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, BinaryIO, Literal, cast

from pydantic import Field, model_validator

from spoold import canonical, errors
from spoold.actions import own
from spoold.actions.bundle import located, threads
from spoold.actions.context import Action, Context, Outcome
from spoold.actions.delivering import deliver, rows
from spoold.actions.part import Part
from spoold.actions.progress import Meter
from spoold.actions.request import Envelope, Text
from spoold.actions.request import Part as RequestPart
from spoold.bundle.frames import Codec
from spoold.bundle.paths import path_fault
from spoold.bundle.reader import (
    BundleReader,
    Index,
    Policy,
    inspect,
    named_codec,
    open_bundle,
    verify_head,
)
from spoold.canonical import Document, Json
from spoold.connections import Connections
from spoold.connections.stores import named
from spoold.errors import SpooldError
from spoold.publish import Made
from spoold.section import Name
from spoold.sinks.tree import restore_payload
from spoold.sources.fields import Include
from spoold.sources.roots import RootedPath
from spoold.spool import Folder


class BundlePlace(RequestPart):
    """Where a bundle lies: a path beneath a configured root, or in a configured store."""

    root: Text | None = None
    store: Name | None = None
    path: Text

    @model_validator(mode="after")
    def _one_of_them(self) -> "BundlePlace":
        if (self.root is None) == (self.store is None):
            raise ValueError("write root or store, one of them")
        return self


class RehydrateRequest(Envelope):
    """A request to restore a bundle that is not dropped itself."""

    action: Literal["rehydrate"]
    bundle: BundlePlace
    dry_run: bool = False
    only: Annotated[Include, Field(max_length=100)] | None = None


def run(context: Context) -> Outcome:
    """Verify the bundle and restore it for `restored/<from site>/<bundle id>/`."""
    settings, meter = context.settings, Meter(context.report)
    request = _request(context)
    if request is None:
        _make_own(context)
    only = None if request is None else request.only
    restored = context.scratch / "restored"
    with (
        _open(context, request) as file,
        BundleReader(
            file,
            scratch=context.scratch,
            threads=threads(settings),
            report=meter.engine,
        ) as reader,
    ):
        policy = _policy(context, request)
        head = verify_head(reader.read_head(), context.trust, policy)
        manifest = head.manifest
        folder = f"{Folder.RESTORED}/{manifest.site}"
        # No bundle id holds a full stop: a part stands in no whole one's place.
        name = manifest.bundle_id if only is None else f"{manifest.bundle_id}.part-{context.digits}"
        dry_run = request is not None and request.dry_run
        manifest_sha256 = bytes.fromhex(head.manifest_sha256)
        own_key = key(manifest_sha256)
        wanted = own_key, (folder, name.encode()), manifest_sha256
        if only is None:
            if not dry_run:
                # From here on the bundle is known: only one job restores all of it, and only once.
                context.take_key(own_key, manifest_sha256)
            context.require_place(*wanted)
        index = reader.read_index(head, policy)
        part = None if only is None else _part(context, index, only)
        done = restore_payload(
            reader,
            index,
            restored,
            links=settings.links,
            scratch=context.scratch,
            wanted=None if part is None else part.takes,
        )
        if only is None:
            # Publishing asks too, but by then the sinks have it; another bundle of this id may have
            # been published since the head was read.
            context.require_place(*wanted)
        sinks = deliver(context, index, restored, meter, dry_run=dry_run, part=part)
    result: dict[str, Json] = {
        "bundle_id": manifest.bundle_id,
        "from": manifest.site,
        "manifest_sha256": head.manifest_sha256,
        "entries": manifest.entries.count,
        "bytes": manifest.totals.bytes,
        "rows": rows(sinks),
    }
    warnings = list(done.warnings)
    if part is not None:
        result |= {"entries": part.entries, "bytes": part.bytes, "partial": True, "only": only}
        warnings.append(
            f"{part.entries} of {manifest.entries.count} entries were asked for: of the others "
            "nothing was read"
        )
    if sinks:
        result["sinks"] = list(sinks)
    if dry_run:
        return Outcome({**result, "dry_run": True}, warnings=warnings)
    return Outcome(
        {**result, "restored": f"{folder}/{name}"},
        made=[Made("restored", restored.name, folder, name.encode())],
        warnings=warnings,
    )


def key(manifest_sha256: bytes) -> bytes:
    """The deduplication key of restoring a whole bundle into the files sink."""
    return hashlib.sha256(b"rehydrate\0restored\0" + manifest_sha256).digest()


def _request(context: Context) -> RehydrateRequest | None:
    """None where the drop is the bundle."""
    return None if context.request is None else RehydrateRequest.model_validate(context.request)


def _make_own(context: Context) -> None:
    with open_bundle(context.drop) as file:
        if own.has_other_names(file):
            # Before a copy is made: what is no bundle, or none for this site, is not worth one.
            verify_head(inspect(file), context.trust, _policy(context, None))
            own.replace(context.drop, file, context.scratch, context.settings.min_free_bytes)


@contextmanager
def _open(context: Context, request: RehydrateRequest | None) -> Iterator[BinaryIO]:
    if request is None:
        with open_bundle(context.drop) as file:
            yield file
    elif request.bundle.store is not None:
        check(request, context.settings.connections)
        with _open_stored(context, request.bundle.store, request.bundle.path) as file:
            yield file
    else:
        assert request.bundle.root is not None
        roots = context.settings.connections.roots
        with located("bundle"):
            opened = RootedPath(request.bundle.root, request.bundle.path, roots).open_file()
        with opened as file:
            yield file


def check(request: RehydrateRequest, connections: Connections) -> None:
    """Whether what it names is configured.

    Raises root-unknown, path-outside-root, store-unknown, or source-missing for a path that no
    object can have.
    """
    bundle = request.bundle
    with located("bundle"):
        if bundle.root is not None:
            RootedPath(bundle.root, bundle.path, connections.roots)
        elif bundle.store is not None:
            named(bundle.store, connections.stores)
            if what := path_fault(bundle.path.encode()):
                shown = canonical.text(bundle.path)
                raise SpooldError(errors.SOURCE_MISSING, f"{shown}: {what}", at="path")


@contextmanager
def _open_stored(context: Context, name: str, path: str) -> Iterator[BinaryIO]:
    from spoold.stores import StoredObject, open_store  # noqa: PLC0415  # TLS and XML

    with open_store(name, context.settings.connections, context.check) as store:
        found = store.look(store.key(path))
        if found is None:
            shown = store.shown(store.key(path))
            raise SpooldError(
                errors.SOURCE_MISSING,
                f"{shown}: there is no such object",
                hint="check store and path",
                at="bundle.path",
            )
        with StoredObject(
            store,
            store.key(path),
            found.size,
            found.etag,
            told=lambda _bytes: context.check(),
        ) as stored:
            yield cast(BinaryIO, stored)


def _part(context: Context, index: Index, only: Sequence[str]) -> Part:
    part = Part(index, only)
    free = _free_bytes(context)
    if part.bytes > free:
        raise SpooldError(
            errors.NO_SPACE, f"{part.bytes} bytes are wanted, {free} are free for them"
        )
    return part


def _named_codec(context: Context, request: RehydrateRequest | None) -> Codec | None:
    """What the bundle's file name promises of its content."""
    return named_codec(context.drop if request is None else request.bundle.path)


def _policy(context: Context, request: RehydrateRequest | None) -> Policy:
    quotas = context.settings.quotas
    whole = request is None or request.only is None
    return Policy(
        site=context.signer.site,
        now=datetime.now(UTC),
        threshold=context.settings.threshold,
        codec=_named_codec(context, request),
        max_bytes=quotas.max_bytes,
        max_entries=quotas.max_entries,
        max_depth=quotas.max_depth,
        max_expansion=quotas.max_expansion,
        free_bytes=_free_bytes(context) if whole else None,
    )


def _free_bytes(context: Context) -> int:
    """What a bundle may fill of the spool's file system."""
    disk = os.statvfs(context.scratch)
    return max(0, disk.f_bavail * disk.f_frsize - context.settings.min_free_bytes)


def _key_of(result: Document) -> tuple[bytes, bytes] | None:
    if result.get("dry_run") or result.get("partial"):
        return None
    manifest_sha256 = bytes.fromhex(str(result["manifest_sha256"]))
    return key(manifest_sha256), manifest_sha256


ACTION = Action(RehydrateRequest, run, _key_of, check)
