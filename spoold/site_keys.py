"""This site's own key: made, published, replaced; and what another key is beside it.

Guarantees: a private key is written whole and durably, under a name that was free, for its owner
alone. A key that is replaced is trusted before it is put aside.
Crash: a key without its public half, which `init` writes; or, after the old key was put aside, no
key, and the public half of the old one: `generate` makes the new one then.
"""

import os
from pathlib import Path

from spoold import errors, trust
from spoold.disk import rename_new, sync_folder, write_durable, write_new
from spoold.errors import SpooldError
from spoold.ownership import hand_over
from spoold.spool import Spool
from spoold.trust import Algorithm, Signer, TrustedKey, short_key_id
from spoold.trust_store import load_trust, store_trusted


def make(path: Path, site: str, algorithm: Algorithm) -> Signer:
    """A new private key in a file that is not there yet. Raises FileExistsError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_new(path, trust.private_pem(trust.generate(algorithm)), mode=0o600)
    hand_over(path)
    return trust.load_signer(path, site)


def publish(signer: Signer, path: Path) -> bool:
    """Write the public half of a key unless it stands there; whether it was written."""
    pem = trust.public_pem(signer.trusted().public)
    if path.exists() and path.read_bytes() == pem:
        return False
    write_durable(path, pem, mode=0o644)
    hand_over(path)
    return True


def generate(
    spool: Spool, path: Path, site: str, algorithm: Algorithm, *, rotate: bool = False
) -> Signer:
    """Make the key of a spool. Raises key-exists where there is one that may not be replaced."""
    if os.path.lexists(path):
        if not rotate:
            raise SpooldError(
                errors.KEY_EXISTS, f"{path} is there already", hint="--rotate replaces it"
            )
        _set_aside(spool, trust.load_signer(path, site), path)
    signer = make(path, site, algorithm)
    publish(signer, spool.public_key)
    return signer


def generate_apart(path: Path, public: Path, algorithm: Algorithm) -> Signer:
    """Make a key that is no spool's, in two new files. Raises key-exists."""
    for taken in (path, public):
        if os.path.lexists(taken):
            raise SpooldError(
                errors.KEY_EXISTS, f"{taken} is there already", hint="name another file"
            )
    signer = make(path, "", algorithm)
    publish(signer, public)
    return signer


def read_public(spool: Spool) -> bytes:
    """The PEM of the site's public key. Raises key-unusable."""
    try:
        return spool.public_key.read_bytes()
    except OSError as error:
        raise SpooldError(
            errors.KEY_UNUSABLE,
            f"{spool.public_key}: {error.strerror}",
            hint=f"spoold init {spool.root} writes it",
        ) from error


def own(spool: Spool, site: str) -> TrustedKey | None:
    """The site's public key as a trusted one, None where there is none; no private key is read."""
    if not spool.public_key.exists():
        return None
    return trust.trusted_key(read_public(spool), site, str(spool.public_key))


def remarks(spool: Spool, ours: TrustedKey | None, key: TrustedKey) -> list[str]:
    """What an operator should know of a key before believing that all is as meant.

    Raises key-unusable for this site's own key under the name of another site.
    """
    said = []
    if ours is not None and ours.key_id == key.key_id:
        if ours.site != key.site:
            raise SpooldError(
                errors.KEY_UNUSABLE,
                f"this is the key of this very site, {ours.site}: it cannot be {key.site}'s",
                hint="give the public key that the other site's `spoold keys show` prints",
            )
        said.append("this is this site's own key: it is trusted without being listed")
    elif ours is not None and ours.site == key.site:
        said.append(
            f"{key.site} is this site's own name: right for a key it used before, wrong for "
            "another site"
        )
    for other in load_trust(spool):
        if other.key_id == key.key_id:
            if other.site != key.site:
                said.append(f"it was trusted as {other.site} before: now as {key.site}")
            if other.revoked:
                said.append("it was revoked before: now it is trusted again")
        elif other.site == key.site and not other.revoked:
            said.append(f"{key.site} has another trusted key too: {short_key_id(other.key_id)}")
    return said


def _set_aside(spool: Spool, old: Signer, path: Path) -> None:
    # Trusted first: a crash between the two leaves the key where it is, and trusted twice.
    store_trusted(spool, old.trusted())
    rename_new(path, path.with_name(f"{path.stem}.{short_key_id(old.key_id)}{path.suffix}"))
    sync_folder(path.parent)
