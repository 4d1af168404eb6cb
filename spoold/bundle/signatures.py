"""Who has signed a head, one by one, and what each of them is here: for showing. Pure."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from spoold.bundle.head import Head
from spoold.bundle.manifest import Manifest
from spoold.trust import Role, Trust


class Standing(enum.StrEnum):
    """What a signature is worth here."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"  # nobody here knows the key: it may be anybody's
    REVOKED = "revoked"
    OTHER_ROLE = "not for bundles"
    DOES_NOT_FIT = "does not fit"  # a known key, but it did not sign this


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: the key that it claims, and whose that is where the key is known."""

    key_id: str
    first: bool  # the sender's own
    standing: Standing
    site: str | None = None


def signatures(head: Head, claims: Manifest, trust: Trust) -> Iterator[Signature]:
    """The sender's signature, then the further ones by key id."""
    yield _signature(head, trust, claims.key_id, head.signature, first=True)
    for key_id, raw in head.further_signatures.items():
        yield _signature(head, trust, key_id, raw, first=False)


def _signature(head: Head, trust: Trust, key_id: str, raw: bytes, *, first: bool) -> Signature:
    key = trust.get(key_id)
    if key is None:
        return Signature(key_id, first, Standing.UNKNOWN)
    if not key.fits(raw, head.manifest_bytes):
        standing = Standing.DOES_NOT_FIT
    elif key.revoked:
        standing = Standing.REVOKED
    elif Role.BUNDLE not in key.roles:
        standing = Standing.OTHER_ROLE
    else:
        standing = Standing.TRUSTED
    return Signature(key_id, first, standing, key.site)
