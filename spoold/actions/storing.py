"""A finished bundle is put into an object store too, before it is published here.

Guarantees: nothing in the store is replaced; a job stores one bundle, however often it is
attempted. Where an earlier attempt has stored one already, that one is fetched, verified and
published: what stands in the store and what stands in `processed/` are the same.
Crash: before the upload is complete nothing is visible in the store; after it the next attempt
finds the bundle there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from spoold import canonical, errors
from spoold.actions.context import Context
from spoold.actions.progress import Meter
from spoold.bundle.copying import write_all
from spoold.bundle.frames import Codec
from spoold.bundle.head import VerifiedHead
from spoold.bundle.reader import BundleReader, Policy, open_bundle, verify, verify_head
from spoold.bundle.scratch import disk_errors
from spoold.bundle.writer import BuiltBundle
from spoold.canonical import Document
from spoold.errors import Ending, SpooldError
from spoold.stores import ObjectInfo, StoredObject, open_store, put_new

_COPY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A bundle of this very job that stands in the store already."""

    info: ObjectInfo
    head: VerifiedHead


class Target:
    """The place of one job's bundle in a store."""

    def __init__(self, context: Context, store: str, bundle_id: str, codec: Codec) -> None:
        self._context, self._bundle_id, self._codec = context, bundle_id, codec
        self._store = open_store(store, context.settings.connections, context.check)
        self._key = self._store.key(f"{bundle_id}{codec.suffix}")
        self._shown = self._store.shown(self._key)
        self._policy = Policy(codec=codec)

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.__exit__()

    def result(self, built: BuiltBundle) -> Document:
        """The status's `result.store`."""
        return {"name": self._store.name, "key": self._key.decode(), "bytes": built.bytes}

    def find(self) -> Found | None:
        """What an earlier attempt has stored. Raises store-key-taken for anything else."""
        info = self._store.look(self._key)
        if info is None:
            return None
        with self._taken(), self._open(info) as file, BundleReader(file, threads=1) as reader:
            head = verify_head(reader.read_head(), self._context.trust, self._policy)
        if (head.manifest.site, head.manifest.bundle_id) != (
            self._context.signer.site,
            self._bundle_id,
        ):
            raise SpooldError(
                errors.STORE_KEY_TAKEN, f"{self._shown} is {head.manifest.bundle_id}", at="store"
            )
        return Found(info, head)

    def fetch(self, found: Found) -> BuiltBundle:
        """Bring it into scratch and verify it to its last byte."""
        path = self._context.scratch / f"{self._bundle_id}.stored"
        with disk_errors(), self._open(found.info) as file, open(path, "xb", buffering=0) as copy:
            while data := file.read(_COPY_BYTES):
                write_all(copy.fileno(), data)
        with self._taken(), open_bundle(path) as file:
            head = verify(
                file,
                self._context.trust,
                self._policy,
                scratch=self._context.scratch,
                threads=self._context.settings.threads or None,
            )
        return BuiltBundle(
            path, self._codec.suffix, head.manifest, head.manifest_sha256, found.info.size
        )

    def put(self, built: BuiltBundle) -> BuiltBundle:
        """Store it, or find that it is stored: what is to be published.

        Raises store-key-taken, store-away, store-refused, store-answer.
        """
        meter = Meter(self._context.report)
        meter.begin("store", f"s3:{self._store.name}")

        def told(more_bytes: int) -> None:
            self._context.check()
            meter.count(more_bytes, 0)

        with disk_errors(), open(built.path, "rb", buffering=0) as file:
            put_new(self._store, self._key, file.fileno(), told)
        found = self.find()
        if found is None:
            raise self._store.client.away(f"{self._shown} is not there, though it was stored")
        if found.head.manifest_sha256 != built.manifest_sha256:
            # An attempt that was thought dead had come through meanwhile.
            with disk_errors():
                os.unlink(built.path)
            return self.fetch(found)
        if found.info.size != built.bytes:
            raise SpooldError(
                errors.STORE_KEY_TAKEN,
                f"{self._shown} has {found.info.size} bytes, not {built.bytes}",
                at="store",
            )
        return built

    def _open(self, info: ObjectInfo) -> BinaryIO:
        told = lambda _bytes: self._context.check()  # noqa: E731  # it says less with a name
        stored = StoredObject(self._store, self._key, info.size, info.etag, told=told)
        return cast(BinaryIO, stored)

    @contextmanager
    def _taken(self) -> Iterator[None]:
        """What is wrong with what stands there makes it none of ours."""
        try:
            yield
        except SpooldError as error:
            if error.code.state is not Ending.REJECTED:
                raise
            raise SpooldError(
                errors.STORE_KEY_TAKEN, f"{self._shown}: {canonical.text(str(error))}", at="store"
            ) from error
