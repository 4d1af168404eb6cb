"""The keys that a command believes: the spool's trust store and its own, or those named."""

from pathlib import Path

from spoold import errors, trust
from spoold.cli import options
from spoold.errors import SpooldError
from spoold.spool import Spool


def trust_of(spool: Spool, *, own_site: str | None = None) -> trust.Trust:
    """The spool's trust store and its own public key; no private key is read.

    `own_site` is the site's name where the configuration may not be read by this user.
    """
    try:
        keys = list(trust.load_trust(spool))
    except PermissionError:  # a dropper: the site's own key is for everybody
        keys = []
    if spool.public_key.exists():
        pem = spool.public_key.read_bytes()
        keys.append(trust.trusted_key(pem, _own_site(spool, own_site), str(spool.public_key)))
    return trust.Trust(keys)


def trust_in(files: tuple[Path, ...], site: str) -> trust.Trust:
    """Keys named on the command line, all of one site."""
    keys = []
    for file in files:
        try:
            keys.append(trust.trusted_key(file.read_bytes(), site, str(file)))
        except OSError as error:
            raise SpooldError(
                errors.KEY_UNUSABLE, f"{file}: {error.strerror}", hint="name a readable PEM file"
            ) from error
    return trust.Trust(keys)


def _own_site(spool: Spool, fallback: str | None) -> str:
    try:
        return options.load_config(spool).site
    except SpooldError:
        if fallback is None:
            raise
        return fallback
