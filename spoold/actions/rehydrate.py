"""Action `rehydrate`: verify a bundle, fail closed, and restore it.

The bundle is the drop itself, or, so that a large one need not be copied first, a file beneath a
configured root that a request names.

Crash: everything is restored in scratch; one rename by the publisher makes it visible.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import BinaryIO, Literal

from spoold.actions.bundle import threads
from spoold.actions.context import Action, Context, Outcome
from spoold.actions.delivering import deliver, rows
from spoold.actions.progress import Meter
from spoold.actions.request import Envelope, Part, Text
from spoold.bundle.frames import Codec
from spoold.bundle.reader import BundleReader, Policy, named_codec, open_bundle, verify_head
from spoold.canonical import Document, Json
from spoold.connections import Connections
from spoold.publish import Made
from spoold.sinks.files import restore_payload
from spoold.sources.roots import RootedPath
from spoold.spool import Folder


class BundleFile(Part):
    """Where a bundle lies: a path beneath a configured root."""

    root: Text
    path: Text


class RehydrateRequest(Envelope):
    """A request to restore a bundle that is not dropped itself."""

    action: Literal["rehydrate"]
    bundle: BundleFile
    dry_run: bool = False


def run(context: Context) -> Outcome:
    """Verify the bundle and restore it for `restored/<from site>/<bundle id>/`."""
    settings, meter = context.settings, Meter(context.report)
    dry_run = _is_dry_run(context)
    restored = context.scratch / "restored"
    with (
        _open(context) as file,
        BundleReader(
            file,
            scratch=context.scratch,
            threads=threads(settings),
            report=meter.engine,
        ) as reader,
    ):
        policy = _policy(context)
        head = verify_head(reader.read_head(), context.trust, policy)
        # From here on the bundle is known: only one job restores it, and only once.
        manifest_sha256 = bytes.fromhex(head.manifest_sha256)
        if not dry_run:
            context.take_key(key(manifest_sha256), manifest_sha256)
        index = reader.read_index(head, policy)
        done = restore_payload(
            reader, index, restored, links=settings.links, scratch=context.scratch
        )
        sinks = deliver(context, index, restored, meter, dry_run=dry_run)
    manifest = head.manifest
    folder = f"{Folder.RESTORED}/{manifest.site}"
    result: dict[str, Json] = {
        "bundle_id": manifest.bundle_id,
        "from": manifest.site,
        "manifest_sha256": head.manifest_sha256,
        "entries": manifest.entries.count,
        "bytes": manifest.totals.bytes,
        "rows": rows(sinks),
    }
    if sinks:
        result["sinks"] = list(sinks)
    if dry_run:
        return Outcome({**result, "dry_run": True}, warnings=done.warnings)
    return Outcome(
        {**result, "restored": f"{folder}/{manifest.bundle_id}"},
        made=[Made("restored", restored.name, folder, manifest.bundle_id.encode())],
        warnings=done.warnings,
    )


def key(manifest_sha256: bytes) -> bytes:
    """The deduplication key of restoring a bundle into the files sink."""
    return hashlib.sha256(b"rehydrate\0restored\0" + manifest_sha256).digest()


@contextmanager
def _open(context: Context) -> Iterator[BinaryIO]:
    if context.request is None:
        with open_bundle(context.drop) as file:
            yield file
        return
    bundle = RehydrateRequest.model_validate(context.request).bundle
    with RootedPath(
        bundle.root, bundle.path, context.settings.connections.roots
    ).open_file() as file:
        yield file


def check(request: RehydrateRequest, connections: Connections) -> None:
    """Whether the root is configured. Raises root-unknown or path-outside-root."""
    RootedPath(request.bundle.root, request.bundle.path, connections.roots)


def _is_dry_run(context: Context) -> bool:
    request = context.request
    return request is not None and RehydrateRequest.model_validate(request).dry_run


def _named_codec(context: Context) -> Codec | None:
    """What the bundle's file name promises of its content."""
    if context.request is None:
        return named_codec(context.drop)
    return named_codec(RehydrateRequest.model_validate(context.request).bundle.path)


def _policy(context: Context) -> Policy:
    quotas = context.settings.quotas
    return Policy(
        site=context.signer.site,
        now=datetime.now(UTC),
        threshold=context.settings.threshold,
        codec=_named_codec(context),
        max_bytes=quotas.max_bytes,
        max_entries=quotas.max_entries,
        max_depth=quotas.max_depth,
        max_expansion=quotas.max_expansion,
        free_bytes=_free_bytes(context),
    )


def _free_bytes(context: Context) -> int:
    """What a bundle may fill of the spool's file system."""
    disk = os.statvfs(context.scratch)
    return max(0, disk.f_bavail * disk.f_frsize - context.settings.min_free_bytes)


def _key_of(result: Document) -> tuple[bytes, bytes] | None:
    if result.get("dry_run"):
        return None
    manifest_sha256 = bytes.fromhex(str(result["manifest_sha256"]))
    return key(manifest_sha256), manifest_sha256


ACTION = Action(RehydrateRequest, run, _key_of, check)
