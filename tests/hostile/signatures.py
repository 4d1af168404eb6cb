"""H01 to H12, H29, H30, H89, H100: who signed, for whom, until when, how much."""

import datetime
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from spoold import canonical
from spoold.bundle.frames import Codec
from spoold.bundle.reader import Policy
from spoold.trust import Algorithm, Role, Signer, Trust
from tests.bundles import Document, Forge, frame_edges, signer, trusted
from tests.hostile.case import Case, damaged, edited, forged, swapped

_STORE = "it is given one key: it knows no roles, revocations or thresholds"
_ASKER = "it does not know which site asks"
_LIMITS = "it has no limits but the format's"
_NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
_PSS = padding.PSS
_SHA256 = hashes.SHA256()


def _rsa() -> Signer:
    return signer("site-r", Algorithm.RSA)


def _padded(row: str, what: str, how: padding.AsymmetricPadding) -> Case:
    def make(codec: Codec) -> bytes:
        private = _rsa().private
        assert isinstance(private, rsa.RSAPrivateKey)
        return Forge.good(
            codec, by=_rsa(), sign=lambda data: private.sign(data, how, hashes.SHA256())
        ).build()

    return Case(row, what, "signature-untrusted", make, keys=trusted(_rsa()))


def _key(**changes: Any) -> Trust:
    return Trust([replace(signer().trusted(), **changes)])


def _further(*others: Signer, damage: bytes = b"") -> Callable[[Any], Any]:
    """A head with these further signatures."""

    def add(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        content = members[0][1] + damage
        extra = ((f"signatures/{one.key_id}.sig", one.sign(content)) for one in others)
        return [*members[:2], *sorted(extra), *members[2:]]

    return add


def _status_signature(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """A status document in the manifest's place, with the signature from inside it."""
    status: Document = {"type": "spoold.status/1", "state": "succeeded"}
    content = canonical.encode_unterminated(status)
    return [("manifest.json", content), ("manifest.sig", signer().sign(content)), *members[2:]]


def _payload_first(data: bytes, codec: Codec) -> bytes:
    edges = [*frame_edges(data, codec), len(data)]
    frames = [data[a:b] for a, b in itertools.pairwise(edges)]
    return b"".join([frames[-2], *frames[:-2], frames[-1]])


CASES = [
    damaged("H01", "payload before the head", "not-a-bundle", _payload_first),
    forged("H01", "no manifest", "not-a-bundle", edit_head=lambda m: m[1:]),
    forged("H01", "another member first", "not-a-bundle", edit_head=lambda m: [m[2], *m]),
    forged("H02", "an empty signature", "signature-missing", sign=lambda _: b""),
    forged("H02", "no signature", "signature-missing", edit_head=lambda m: [m[0], *m[2:]]),
    forged("H03", "an unknown key", "signature-untrusted", keys=trusted(signer("site-b"))),
    forged("H03", "nobody trusted", "signature-untrusted", keys=Trust([]), unseen=_STORE),
    forged("H03", "zeros for a signature", "signature-untrusted", sign=lambda _: bytes(64)),
    forged("H03", "another key named", "manifest-key", edit_manifest=edited(key_id="0" * 64)),
    forged(
        "H03",
        "another algorithm named",
        "manifest-key",
        edit_manifest=edited(algorithm="rsa-pss-sha256"),
    ),
    forged(
        "H03",
        "a further signature that does not fit",
        "signature-invalid",
        edit_head=_further(signer("site-b"), damage=b"x"),
        keys=trusted(signer(), signer("site-b")),
        unseen=_STORE,
    ),
    forged(
        "H03",
        "a further signature of the same key that does not fit",
        "signature-invalid",
        edit_head=_further(signer(), damage=b"x"),
    ),
    forged(
        "H04",
        "a key for statuses only",
        "key-role",
        keys=_key(roles=frozenset({Role.STATUS, Role.REQUEST})),
        unseen=_STORE,
    ),
    forged("H05", "a revoked key", "key-revoked", keys=_key(revoked=True), unseen=_STORE),
    _padded("H06", "salt 0", _PSS(padding.MGF1(_SHA256), 0)),
    _padded("H06", "salt 20", _PSS(padding.MGF1(_SHA256), 20)),
    _padded("H06", "salt maximum", _PSS(padding.MGF1(_SHA256), _PSS.MAX_LENGTH)),
    _padded("H07", "PKCS#1 v1.5", padding.PKCS1v15()),
    _padded("H08", "MGF1-SHA1", _PSS(padding.MGF1(hashes.SHA1()), 32)),
    forged(
        "H10",
        "edited after signing",
        "signature-untrusted",
        edit_head=lambda m: [(m[0][0], swapped(b'"demo"', b'"Demo"')(m[0][1])), *m[1:]],
    ),
    forged(
        "H10",
        "another signed manifest's signature",
        "signature-untrusted",
        sign=lambda data: signer().sign(data[:-1]),
    ),
    forged("H11", "a status", "document-type", edit_manifest=edited(type="spoold.status/1")),
    forged("H11", "a request", "document-type", edit_manifest=edited(type="spoold.request/1")),
    forged("H11", "a status's own signature", "not-canonical", edit_head=_status_signature),
    forged(
        "H12",
        "one key twice",
        "threshold-not-met",
        edit_head=_further(signer()),
        policy=Policy(threshold=2),
        unseen=_STORE,
    ),
    forged("H12", "one key only", "threshold-not-met", policy=Policy(threshold=2), unseen=_STORE),
    forged(
        "H12",
        "a stranger for the second",
        "threshold-not-met",
        edit_head=_further(signer("site-x")),
        policy=Policy(threshold=2),
        unseen=_STORE,
    ),
    forged(
        "H12",
        "a revoked key for the second",
        "threshold-not-met",
        edit_head=_further(signer("site-b")),
        policy=Policy(threshold=2),
        unseen=_STORE,
        keys=Trust([signer().trusted(), replace(signer("site-b").trusted(), revoked=True)]),
    ),
    forged(
        "H12",
        "a key without the role for the second",
        "threshold-not-met",
        edit_head=_further(signer("site-b")),
        policy=Policy(threshold=2),
        unseen=_STORE,
        keys=Trust([signer().trusted(), replace(signer("site-b").trusted(), roles=frozenset())]),
    ),
    forged(
        "H29",
        "for another site",
        "not-addressed-here",
        edit_manifest=edited(to=["site-b"]),
        policy=Policy(site="site-c"),
        unseen=_ASKER,
    ),
    forged(
        "H30",
        "expired",
        "expired",
        edit_manifest=edited(not_after="2020-11-20T12:00:00Z"),
        policy=Policy(now=_NOW),
    ),
    forged(
        "H30",
        "expires now",
        "expired",
        edit_manifest=edited(not_after="2020-11-21T00:00:00.0Z"),
        policy=Policy(now=datetime.datetime(2020, 11, 21, tzinfo=datetime.UTC)),
    ),
    forged("H89", "bytes", "quota-exceeded", policy=Policy(max_bytes=100), unseen=_LIMITS),
    forged("H89", "entries", "quota-exceeded", policy=Policy(max_entries=4), unseen=_LIMITS),
    forged("H89", "depth", "quota-exceeded", policy=Policy(max_depth=1), unseen=_LIMITS),
    forged("H89", "expansion", "quota-exceeded", policy=Policy(max_expansion=1), unseen=_LIMITS),
    forged("H89", "free space", "no-space", policy=Policy(free_bytes=100), unseen=_LIMITS),
    forged(
        "H89",
        "a petabyte signed",
        "quota-exceeded",
        totals={"bytes": 10**15},
        policy=Policy(max_bytes=10**12),
    ),
    forged(
        "H100", "from another site", "site-mismatch", edit_manifest=edited(**{"from": "site-b"})
    ),
    forged("H100", "from no site", "site-mismatch", edit_manifest=edited(**{"from": "../../etc"})),
]
