"""A further signature for a bundle: its head alone is made anew, all behind it is taken over.

The manifest, and with it the bundle's identity, stays byte for byte. INDEX and PAYLOAD are copied
by the kernel (copy_file_range(2)), or shared where the file system can; they are not read here, but
for the frame table, which says how long the file must be. Room is not made in place, as in front of
a new payload: FALLOC_FL_INSERT_RANGE shifts extents one after the other, and a crash between two of
them would leave neither bundle where the only copy stood.

Guarantees: the new file is whole and durable before it gets its name; the old one is only read.
Crash: `.<name>.<random>` may stay beside the bundle; nothing reads it.
"""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from spoold import canonical, errors
from spoold.bundle.copying import copy_range, write_all
from spoold.bundle.frames import END_FRAME, padding
from spoold.bundle.head import (
    MAX_FURTHER_SIGNATURES,
    Head,
    Policy,
    check_claims,
    make_head,
    verify_head,
)
from spoold.bundle.manifest import Manifest
from spoold.bundle.reader import BundleReader, open_bundle
from spoold.disk import rename_new, sync_folder
from spoold.errors import SpooldError
from spoold.trust import Signer, Trust, short_key_id


@dataclass(frozen=True, slots=True)
class Resigned:
    """A bundle that has one signature more."""

    path: Path
    manifest: Manifest
    manifest_sha256: str
    signatures: int  # the first one included


def resign(
    bundle: Path,
    signer: Signer,
    trust: Trust | None,
    policy: Policy,
    target: Path | None = None,
) -> Resigned:
    """Add the signer's signature; the result replaces the bundle, or is `target`, a new file.

    Without `trust` nobody's signature is asked for, only that the head holds a manifest which is
    its own. Raises already-signed, signatures-full, target-exists, bundle-truncated,
    trailing-data, and what `verify_head` and `BundleReader.read_index` do.
    """
    with open_bundle(bundle) as file:
        head, manifest = _checked(file, trust, policy)
        frame = _new_head(head, manifest, signer)
        index_bytes = sum(each.size for each in manifest.index)
        old = head.frame_bytes + index_bytes
        start = old + len(padding(head.codec, old))
        pieces: list[bytes | range] = [
            frame,
            range(head.frame_bytes, old),
            padding(head.codec, len(frame) + index_bytes),
            # It begins at a multiple of 4096 in both files: blocks can be shared.
            range(start, os.fstat(file.fileno()).st_size),
        ]
        path = Path(os.path.abspath(bundle if target is None else target))
        _write(file.fileno(), pieces, path, replacing=target is None)
    return Resigned(path, manifest, head.manifest_sha256, 2 + len(head.further_signatures))


def _checked(file: BinaryIO, trust: Trust | None, policy: Policy) -> tuple[Head, Manifest]:
    """The head and its manifest; the file is as long as they say and ends as a bundle does."""
    size = os.fstat(file.fileno()).st_size
    with BundleReader(file, threads=1) as reader:
        head = reader.read_head()
        end = END_FRAME[head.codec]
        if trust is None:
            manifest = check_claims(head)
        else:
            verified = verify_head(head, trust, policy)
            manifest = verified.manifest
            index = reader.read_index(verified, policy)
            front = head.frame_bytes + sum(frame.size for frame in manifest.index)
            front += len(padding(head.codec, front))
            expected = front + index.frames.compressed_bytes + len(end)
            if size != expected:
                code = errors.BUNDLE_TRUNCATED if size < expected else errors.TRAILING_DATA
                raise SpooldError(code, f"the file has {size} bytes, its frames make {expected}")
    if os.pread(file.fileno(), len(end), max(0, size - len(end))) != end:
        raise SpooldError(errors.END_INVALID)
    return head, manifest


def _new_head(head: Head, manifest: Manifest, signer: Signer) -> bytes:
    signatures = dict(head.further_signatures)
    if signer.key_id == manifest.key_id or signer.key_id in signatures:
        raise SpooldError(
            errors.ALREADY_SIGNED,
            f"{canonical.text(manifest.bundle_id)} has a signature of "
            f"{short_key_id(signer.key_id)}",
        )
    if len(signatures) >= MAX_FURTHER_SIGNATURES:
        raise SpooldError(errors.SIGNATURES_FULL)
    signatures[signer.key_id] = signer.sign(head.manifest_bytes)
    return make_head(
        head.codec,
        head.bundle_id,
        manifest=head.manifest_bytes,
        signature=head.signature,
        further_signatures=signatures,
        bag_info=head.bag_info,
        tag_manifest=head.tag_manifest,
    )


def _write(source: int, pieces: Sequence[bytes | range], path: Path, *, replacing: bool) -> None:
    """Make a file of bytes and of ranges of the source, and give it its name."""
    name = os.fsdecode(os.fsencode(path.name)[:200])
    temporary = path.with_name(f".{name}.{secrets.token_hex(6)}")
    status = os.fstat(source)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for piece in pieces:
                if isinstance(piece, bytes):
                    write_all(descriptor, piece)
                elif copy_range(source, descriptor, piece.start, len(piece)) < len(piece):
                    raise SpooldError(errors.BUNDLE_TRUNCATED, "it became shorter meanwhile")
            if os.geteuid() == 0:
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o777)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replacing:
            os.rename(temporary, path)
        else:
            rename_new(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise _failure(path, error) from error
        raise


def _failure(path: Path, error: OSError) -> SpooldError:
    shown = canonical.text(os.fsencode(path))
    if isinstance(error, FileExistsError):
        return SpooldError(errors.TARGET_EXISTS, f"{shown} exists")
    return SpooldError(errors.disk_code(error), f"{shown}: {error.strerror}", hint=errors.FIX_PATH)
