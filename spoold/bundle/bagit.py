"""The BagIt 1.0 tag files that make a bundle a bag for everyone else. Pure.

All are functions of the manifest and the index: a reader makes them again and compares. Source:
RFC 8493.
"""

import hashlib
from typing import Final

from spoold.bundle.manifest import Manifest

BAGIT: Final = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


def bag_info(manifest: Manifest, members: int) -> bytes:
    """bag-info.txt; `members` is the number of lines of manifest-sha256.txt."""
    return (
        f"Bagging-Date: {manifest.created_at[:10]}\n"
        f"External-Identifier: {manifest.bundle_id}\n"
        f"Payload-Oxum: {manifest.totals.bytes}.{members}\n"
        f"Source-Organization: {manifest.site}\n"
    ).encode()


def tag_manifest(manifest: Manifest, manifest_bytes: bytes, info: bytes, payload: str) -> bytes:
    """tagmanifest-sha256.txt; `payload` is the SHA-256 of manifest-sha256.txt."""
    digests = {
        "bag-info.txt": hashlib.sha256(info).hexdigest(),
        "bagit.txt": hashlib.sha256(BAGIT).hexdigest(),
        "entries.jsonl": manifest.entries.sha256,
        "frames.jsonl": manifest.frames.sha256,
        "manifest-sha256.txt": payload,
        "manifest.json": hashlib.sha256(manifest_bytes).hexdigest(),
    }
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return "".join(lines).encode()
