"""Keys, signing and verifying: the only door from bytes to a verified document.

The algorithm of a check is that of the trusted key, never one that the checked file names.

Sources: RFC 8017 (RSASSA-PSS, salt as long as the digest), RFC 8032 (Ed25519), RFC 5280
(SubjectPublicKeyInfo, whose SHA-256 is the key id).
"""

import base64
import enum
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, assert_never

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from spoold import canonical, errors
from spoold.canonical import Document, Json
from spoold.errors import SpooldError

SITE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MIN_RSA_BITS = 3072
_RSA_EXPONENT = 65537
MAX_KEY_FILE_BYTES: Final = 64 * 1024
SHOWN_DIGITS: Final = 16  # of a key id


class Algorithm(enum.StrEnum):
    """Signature algorithms of version 1."""

    RSA = "rsa-pss-sha256"
    ED25519 = "ed25519"


class Role(enum.StrEnum):
    """What a key may sign."""

    BUNDLE = "bundle"
    REQUEST = "request"
    STATUS = "status"


ALL_ROLES: Final = frozenset(Role)

PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey
PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, whose it is, and what it may sign."""

    key_id: str  # 64 lowercase hex digits
    site: str
    algorithm: Algorithm
    roles: frozenset[Role]
    revoked: bool
    public: PublicKey

    def fits(self, signature: bytes, content: bytes) -> bool:
        """Whether this key made the signature over the content."""
        try:
            match self.public:
                case rsa.RSAPublicKey():
                    self.public.verify(signature, content, _pss(), hashes.SHA256())
                case ed25519.Ed25519PublicKey():
                    self.public.verify(signature, content)
                case _:
                    assert_never(self.public)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """This site's private key."""

    key_id: str
    site: str
    algorithm: Algorithm
    private: PrivateKey

    def sign(self, content: bytes) -> bytes:
        """The raw signature over the content."""
        match self.private:
            case rsa.RSAPrivateKey():
                return self.private.sign(content, _pss(), hashes.SHA256())
            case ed25519.Ed25519PrivateKey():
                return self.private.sign(content)
            case _:
                assert_never(self.private)

    def trusted(self) -> TrustedKey:
        """The public half, as a key of this very site, allowed every role."""
        public = self.private.public_key()
        return TrustedKey(self.key_id, self.site, self.algorithm, ALL_ROLES, False, public)


@dataclass(frozen=True, slots=True)
class VerifiedDocument:
    """A document whose signature fits a trusted key of the right role. Made only by this module."""

    document: Document
    signed_by: TrustedKey


class Trust:
    """The keys that a site trusts, by key id."""

    def __init__(self, keys: Sequence[TrustedKey]) -> None:
        self._keys = {key.key_id: key for key in keys}

    def __iter__(self) -> Iterator[TrustedKey]:
        return iter(self._keys.values())

    def get(self, key_id: str) -> TrustedKey | None:
        """The key of that id, revoked or not."""
        return self._keys.get(key_id)

    def verify(self, content: bytes, signature: bytes, role: Role) -> TrustedKey:
        """Return the trusted key that made a detached signature.

        Raises signature-missing, signature-untrusted, key-role or key-revoked.
        """
        if not signature:
            raise SpooldError(errors.SIGNATURE_MISSING)
        for key in self._keys.values():
            if key.fits(signature, content):
                return self._require(key, role)
        raise SpooldError(errors.SIGNATURE_UNTRUSTED)

    def verify_document(self, data: bytes, type_: str, role: Role) -> VerifiedDocument:
        """Turn the bytes of a document that is signed inside into a verified one.

        Raises document-invalid, document-type, signature-missing, signature-untrusted,
        signature-invalid (a known key, but it does not fit), key-role or key-revoked.
        """
        parsed = _decode(data)
        if parsed.get("type") != type_:
            raise SpooldError(errors.DOCUMENT_TYPE, f"it is {parsed.get('type')!r}, not {type_!r}")
        return self.verify_parsed(parsed, role)

    def verify_parsed(self, parsed: Document, role: Role) -> VerifiedDocument:
        """The same for a document that has been parsed, and its type checked, by the caller.

        How its bytes were laid out does not matter: it is the canonical ones that are signed.
        """
        document, signatures = _split(parsed)
        if not signatures:
            raise SpooldError(errors.SIGNATURE_MISSING)
        try:
            content = canonical.encode_unterminated(document)
        except canonical.NotCanonicalError as error:
            raise SpooldError(errors.DOCUMENT_INVALID, f"{error}") from error
        verdict: TrustedKey | None = None
        for key_id, signature in signatures:
            key = self._keys.get(key_id)
            if key is None:
                continue  # a key nobody here knows counts neither for nor against
            if not key.fits(signature, content):
                raise SpooldError(
                    errors.SIGNATURE_INVALID,
                    f"the signature of {key.site} ({short_key_id(key_id)})",
                )
            verdict = verdict or self._require(key, role)
        if verdict is None:
            raise SpooldError(
                errors.SIGNATURE_UNTRUSTED,
                f"signed by {', '.join(short_key_id(key_id) for key_id, _ in signatures)}, "
                "which is not trusted here",
            )
        return VerifiedDocument(document, verdict)

    @staticmethod
    def _require(key: TrustedKey, role: Role) -> TrustedKey:
        if key.revoked:
            raise SpooldError(
                errors.KEY_REVOKED, f"{short_key_id(key.key_id)} of {key.site} is revoked"
            )
        if role not in key.roles:
            raise SpooldError(
                errors.KEY_ROLE,
                f"{short_key_id(key.key_id)} of {key.site} may sign "
                f"{', '.join(sorted(key.roles)) or 'nothing'}, not {role}",
            )
        return key


def nobody() -> Trust:
    """Trust in no key at all."""
    return Trust(())


def sign_document(document: Document, signer: Signer, others: Sequence[Json] = ()) -> bytes:
    """Return the canonical bytes of a document with this key's signature inside, after `others`."""
    signature = signer.sign(canonical.encode_unterminated(document))
    entry = {
        "key_id": signer.key_id,
        "algorithm": signer.algorithm.value,
        "signature": base64.b64encode(signature).decode(),
    }
    return canonical.encode({**document, "signatures": [*others, entry]})


def generate(algorithm: Algorithm) -> PrivateKey:
    """A new private key."""
    match algorithm:
        case Algorithm.RSA:
            return rsa.generate_private_key(_RSA_EXPONENT, _MIN_RSA_BITS)
        case Algorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            assert_never(algorithm)


def private_pem(key: PrivateKey) -> bytes:
    """A private key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(key: PublicKey) -> bytes:
    """A public key as SubjectPublicKeyInfo PEM."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def load_signer(path: Path, site: str) -> Signer:
    """Read a private key; raise key-unusable for a weak one or one that others may read."""
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise SpooldError(
            errors.KEY_UNUSABLE,
            f"{path}: {error.strerror}",
            hint="`spoold init` makes the key; signing_key in spoold.toml says where it is",
        ) from error
    if mode & 0o077:
        raise SpooldError(
            errors.KEY_UNUSABLE,
            f"{path} has mode {mode:04o}: others can read it",
            hint=f"chmod 600 {path}, and make a new key if it may have been read",
        )
    try:
        private = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SpooldError(
            errors.KEY_UNUSABLE, f"{path} is no unencrypted PEM private key"
        ) from error
    if not isinstance(private, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise SpooldError(errors.KEY_UNUSABLE, f"{path} is neither RSA nor Ed25519")
    public = private.public_key()
    return Signer(key_id(public), site, _algorithm(public, str(path)), private)


def load_public(content: bytes, where: str) -> tuple[PublicKey, Algorithm]:
    """Read a PEM public key; raise key-unusable for anything this format does not allow."""
    if content.count(b"-----BEGIN ") > 1:  # the library would read the first, and not say so
        raise SpooldError(
            errors.KEY_UNUSABLE,
            f"{where} holds more than one key",
            hint="give each key a file of its own",
        )
    try:
        public = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpooldError(
            errors.KEY_UNUSABLE,
            f"{where} is no PEM public key",
            hint="give the file that `spoold keys show` prints at the other site (its site.pub)",
        ) from error
    if not isinstance(public, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise SpooldError(errors.KEY_UNUSABLE, f"{where} is neither RSA nor Ed25519")
    return public, _algorithm(public, where)


def key_id(public: PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo DER, lowercase hex."""
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def short_key_id(key_id: str) -> str:
    """A key id as people are shown it."""
    return key_id[:SHOWN_DIGITS]


def trusted_key(
    content: bytes, site: str, where: str, roles: frozenset[Role] = ALL_ROLES
) -> TrustedKey:
    """A key from the PEM that another site handed over."""
    public, algorithm = load_public(content, where)
    return TrustedKey(key_id(public), site, algorithm, roles, False, public)


def with_own(keys: Sequence[TrustedKey], own: TrustedKey | None) -> Trust:
    """These keys and this site's own, which is believed unless it stands among them as revoked."""
    if own is None or any(key.revoked and key.key_id == own.key_id for key in keys):
        return Trust(keys)
    return Trust([*keys, own])


def _decode(data: bytes) -> Document:
    try:
        parsed = canonical.decode(data)
        if not isinstance(parsed, dict):
            raise TypeError("it is no object")
    except (ValueError, TypeError) as error:
        raise SpooldError(errors.DOCUMENT_INVALID, f"{error}") from error
    return parsed


def _split(parsed: Document) -> tuple[Document, list[tuple[str, bytes]]]:
    try:
        document: dict[str, Any] = dict(parsed)
        signatures = []
        for entry in document.pop("signatures"):
            if set(entry) != {"key_id", "algorithm", "signature"}:
                raise ValueError("a signature has key_id, algorithm and signature")
            raw = base64.b64decode(entry["signature"], validate=True)
            signatures.append((str(entry["key_id"]), raw))
        if len({key for key, _ in signatures}) != len(signatures):
            raise ValueError("one key signed twice")
    except (ValueError, KeyError, TypeError) as error:
        raise SpooldError(errors.DOCUMENT_INVALID, f"{error}") from error
    return document, signatures


def _pss() -> padding.PSS:
    # A fixed salt length on both sides: MAX_LENGTH and AUTO accept any salt when verifying.
    return padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


def _algorithm(public: PublicKey, where: str) -> Algorithm:
    if isinstance(public, ed25519.Ed25519PublicKey):
        return Algorithm.ED25519
    if public.key_size < _MIN_RSA_BITS:
        raise SpooldError(
            errors.KEY_UNUSABLE, f"{where}: RSA of {public.key_size} bits, below {_MIN_RSA_BITS}"
        )
    if public.public_numbers().e != _RSA_EXPONENT:
        raise SpooldError(errors.KEY_UNUSABLE, f"{where}: RSA exponent is not {_RSA_EXPONENT}")
    return Algorithm.RSA
