"""The head of a bundle: sliced out, verified, and held against what this site allows. Pure.

Nothing in a Head may be believed; `verify_head` is the only way to a VerifiedHead.
"""

import datetime
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from spoold import canonical, errors
from spoold.bundle import bagit
from spoold.bundle.frames import MAX_HEAD_BYTES, Codec, read_stored, stored
from spoold.bundle.manifest import Manifest
from spoold.bundle.manifest_parser import parse
from spoold.bundle.members import member, split_members
from spoold.bundle.paths import valid_bundle_id
from spoold.errors import SpooldError
from spoold.trust import SITE_NAME, Role, Trust, TrustedKey, short_key_id

MAX_FURTHER_SIGNATURES: Final = 16
_MAX_SIGNATURE_BYTES: Final = 8192  # of an RSA key of 65,536 bits
_SIGNATURE_NAME = re.compile(r"signatures/([0-9a-f]{64})\.sig")


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in front of a bundle, as found: nothing of it is authenticated."""

    codec: Codec
    frame_bytes: int
    bundle_id: str  # the folder's name inside; the manifest must agree
    manifest_bytes: bytes
    signature: bytes
    further_signatures: Mapping[str, bytes]  # by key id
    bag_info: bytes
    tag_manifest: bytes

    @property
    def manifest_sha256(self) -> str:
        """The bundle's identity, lowercase hex."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    def claims(self) -> Manifest:
        """What the manifest says, whoever wrote it: for showing, never for acting."""
        return parse(self.manifest_bytes)


@dataclass(frozen=True, slots=True)
class Policy:
    """What this site takes. None: no limit, not asked."""

    site: str | None = None
    now: datetime.datetime | None = None
    threshold: int = 1  # how many trusted keys must have signed
    max_bytes: int | None = None  # content and index
    max_entries: int | None = None
    max_depth: int | None = None  # segments of a path
    max_expansion: int | None = None  # tar bytes a compressed byte
    free_bytes: int | None = None  # what the disk has for the content
    codec: Codec | None = None  # what the file's name says


@dataclass(frozen=True, slots=True)
class VerifiedHead:
    """A head whose manifest a trusted key has signed and the policy allows.

    Made by `verify_head` only.
    """

    head: Head
    manifest: Manifest
    manifest_sha256: str
    signed_by: TrustedKey
    also_signed_by: tuple[TrustedKey, ...]


def slice_head(read: Callable[[int], bytes]) -> Head:
    """Take the head from the begin of a bundle; `read(n)` gives exactly n bytes or raises.

    Raises not-a-bundle, head-malformed, member-unexpected, bundle-id-invalid, signature-missing or
    tag-file-mismatch.
    """
    codec, raw, length = read_stored(read)
    if b"manifest.json\x00" not in raw[:100] + b"\x00":
        raise SpooldError(errors.NOT_A_BUNDLE, "its first member is no manifest.json")
    members = split_members(raw)
    folder = members[0][0].rpartition(b"/")[0]
    bundle_id = folder.decode("ascii", "replace")
    if not valid_bundle_id(bundle_id):
        raise SpooldError(
            errors.BUNDLE_ID_INVALID, f"{canonical.text(folder)} is no bundle id", at="bundle_id"
        )
    names = [_name_within(name, folder) for name, _ in members]
    contents = dict(zip(names, (content for _, content in members), strict=True))
    further = _expect_names(names)
    if contents["bagit.txt"] != bagit.BAGIT:
        raise SpooldError(errors.TAG_FILE, "bagit.txt is not that of BagIt 1.0", at="bagit.txt")
    signature = contents["manifest.sig"]
    signatures = {key_id: contents[f"signatures/{key_id}.sig"] for key_id in further}
    if max(map(len, (signature, *signatures.values()))) > _MAX_SIGNATURE_BYTES:
        raise SpooldError(errors.HEAD_MALFORMED, f"a signature is above {_MAX_SIGNATURE_BYTES}")
    return Head(
        codec,
        length,
        bundle_id,
        contents["manifest.json"],
        signature,
        signatures,
        contents["bag-info.txt"],
        contents["tagmanifest-sha256.txt"],
    )


def verify_head(head: Head, trust: Trust, policy: Policy) -> VerifiedHead:
    """Verify the signatures over the raw manifest, then parse it, then apply the policy.

    Raises signature-missing, signature-untrusted, key-role, key-revoked, signature-invalid,
    threshold-not-met; not-canonical, document-type, field-unknown, manifest-invalid; manifest-key,
    site-mismatch, bundle-id-invalid, codec-mismatch; not-addressed-here, expired, quota-exceeded
    or no-space.
    """
    key = trust.verify(head.manifest_bytes, head.signature, Role.BUNDLE)
    others, idle = _further_keys(head, trust, key)
    if 1 + len(others) < policy.threshold:
        raise _too_few(policy.threshold, [key, *others], idle)
    manifest = parse(head.manifest_bytes)
    _check_identity(head, manifest, key)
    _apply(policy, head, manifest)
    return VerifiedHead(head, manifest, head.manifest_sha256, key, tuple(others))


def _further_keys(
    head: Head, trust: Trust, first: TrustedKey
) -> tuple[list[TrustedKey], list[str]]:
    """The further keys that count, each once, and what is to be said of those that do not."""
    counted: list[TrustedKey] = []
    idle: list[str] = []
    for key_id, signature in head.further_signatures.items():
        key = trust.get(key_id)
        if key is None:
            idle.append(f"{short_key_id(key_id)} is not trusted here")
        elif not key.fits(signature, head.manifest_bytes):
            raise SpooldError(
                errors.SIGNATURE_INVALID, f"the signature of {key.site} ({short_key_id(key_id)})"
            )
        elif key_id == first.key_id:
            idle.append(f"{short_key_id(key_id)} counts once")
        elif key.revoked:
            idle.append(f"{short_key_id(key_id)} of {key.site} is revoked")
        elif Role.BUNDLE not in key.roles:
            idle.append(f"{short_key_id(key_id)} of {key.site} may not sign bundles")
        else:
            counted.append(key)
    return counted, idle


def _too_few(threshold: int, counted: list[TrustedKey], idle: list[str]) -> SpooldError:
    names = ", ".join(f"{key.site} ({short_key_id(key.key_id)})" for key in counted)
    missing = threshold - len(counted)
    return SpooldError(
        errors.THRESHOLD_NOT_MET,
        f"signed by {names}: {missing} more trusted {'key' if missing == 1 else 'keys'} must sign"
        + "".join(f"; {why}" for why in idle),
    )


def _name_within(name: bytes, folder: bytes) -> str:
    if not name.startswith(folder + b"/"):
        raise SpooldError(
            errors.BUNDLE_ID_INVALID, f"{canonical.text(name)} is not in {canonical.text(folder)}/"
        )
    return name[len(folder) + 1 :].decode("ascii", "replace")


def make_head(
    codec: Codec,
    bundle_id: str,
    *,
    manifest: bytes,
    signature: bytes,
    further_signatures: Mapping[str, bytes],
    bag_info: bytes,
    tag_manifest: bytes,
) -> bytes:
    """The stored frame of a head, from the contents of its members; signatures go by key id.

    Raises manifest-too-large.
    """
    contents = (
        ("manifest.json", manifest),
        ("manifest.sig", signature),
        *((f"signatures/{key_id}.sig", raw) for key_id, raw in sorted(further_signatures.items())),
        ("bagit.txt", bagit.BAGIT),
        ("bag-info.txt", bag_info),
        ("tagmanifest-sha256.txt", tag_manifest),
    )
    raw = b"".join(member(f"{bundle_id}/{name}".encode(), content) for name, content in contents)
    if len(raw) > MAX_HEAD_BYTES:
        raise SpooldError(errors.MANIFEST_TOO_LARGE, f"the head would have {len(raw)} bytes")
    return stored(codec, raw)


def check_claims(head: Head) -> Manifest:
    """The manifest, if it is one and is that of this very head, whoever signed it.

    Raises not-canonical, document-type, field-unknown, manifest-invalid, bundle-id-invalid or
    codec-mismatch.
    """
    manifest = head.claims()
    _check_place(head, manifest)
    return manifest


def _expect_names(names: list[str]) -> list[str]:
    """Return the key ids of the further signatures; raise unless the members are the format's."""
    if "manifest.sig" not in names:
        raise SpooldError(errors.SIGNATURE_MISSING, "the head has no manifest.sig")
    further = [match[1] for name in names if (match := _SIGNATURE_NAME.fullmatch(name))]
    expected = [
        "manifest.json",
        "manifest.sig",
        *(f"signatures/{key_id}.sig" for key_id in sorted(set(further))),
        "bagit.txt",
        "bag-info.txt",
        "tagmanifest-sha256.txt",
    ]
    for position, name in enumerate(expected):
        if position >= len(names):
            raise SpooldError(errors.HEAD_MALFORMED, f"the head has no {name}", at=name)
        if names[position] != name:
            shown = canonical.text(names[position])
            raise SpooldError(
                errors.MEMBER_UNEXPECTED, f"{shown} stands where {name} must", at=shown
            )
    if len(names) > len(expected):
        shown = canonical.text(names[len(expected)])
        raise SpooldError(errors.MEMBER_UNEXPECTED, f"{shown} stands in the head", at=shown)
    if len(further) > MAX_FURTHER_SIGNATURES:
        raise SpooldError(
            errors.HEAD_MALFORMED, f"it has more than {MAX_FURTHER_SIGNATURES} further signatures"
        )
    return further


def _check_identity(head: Head, manifest: Manifest, key: TrustedKey) -> None:
    if manifest.key_id != key.key_id or manifest.algorithm is not key.algorithm:
        raise SpooldError(
            errors.MANIFEST_KEY,
            f"it names {short_key_id(manifest.key_id)} ({manifest.algorithm}), "
            f"{short_key_id(key.key_id)} ({key.algorithm}) signed it",
            at="key_id",
        )
    if manifest.site != key.site or not SITE_NAME.fullmatch(manifest.site):
        raise SpooldError(
            errors.SITE_MISMATCH,
            f"it says {canonical.text(manifest.site[:200])}, its key is that of {key.site}",
            at="from",
        )
    _check_place(head, manifest)


def _check_place(head: Head, manifest: Manifest) -> None:
    if manifest.bundle_id != head.bundle_id:
        raise SpooldError(
            errors.BUNDLE_ID_INVALID,
            f"the folder is {head.bundle_id}, the manifest says {manifest.bundle_id}",
            at="bundle_id",
        )
    if manifest.compression.codec is not head.codec:
        raise SpooldError(
            errors.CODEC_MISMATCH,
            f"the file is {head.codec}, the manifest says {manifest.compression.codec}",
            at="compression.codec",
        )


def _apply(policy: Policy, head: Head, manifest: Manifest) -> None:
    if policy.codec is not None and policy.codec is not head.codec:
        raise SpooldError(
            errors.CODEC_MISMATCH, f"the file is {head.codec}, its name says {policy.codec}"
        )
    if policy.site is not None and manifest.to and policy.site not in manifest.to:
        raise SpooldError(
            errors.NOT_ADDRESSED,
            f"it is for {', '.join(manifest.to)[:1000]}; this is {policy.site}",
        )
    expires_at = manifest.expires_at
    if expires_at is not None and policy.now is not None and policy.now >= expires_at:
        raise SpooldError(errors.EXPIRED, f"it was good until {manifest.not_after}")
    index_bytes = manifest.entries.bytes + manifest.frames.bytes
    for name, limit, found in (
        ("max_bytes", policy.max_bytes, manifest.totals.bytes + index_bytes),
        ("max_entries", policy.max_entries, manifest.entries.count),
    ):
        if limit is not None and found > limit:
            raise SpooldError(
                errors.QUOTA_EXCEEDED, f"{name} is {limit}, the bundle has {found}", at=name
            )
    if policy.free_bytes is not None and manifest.totals.bytes + index_bytes > policy.free_bytes:
        raise SpooldError(
            errors.NO_SPACE,
            f"the bundle holds {manifest.totals.bytes} bytes, {policy.free_bytes} are free for it",
        )
