"""The trust store: one JSON file a key in `.spoold/trust/`, written durably, believed when sound.

A file says whose the key is, what it may sign and whether it has been revoked; its name is the key
id.

Guarantees: a key that was stored survives a power cut, whole, under its id.
Crash: what `write_durable` leaves; its name does not end in `.json`, so it is not read.
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from spoold import canonical, errors
from spoold.canonical import Json
from spoold.disk import write_durable
from spoold.errors import SpooldError
from spoold.ownership import hand_over
from spoold.spool import Folder, Spool
from spoold.trust import (
    MAX_KEY_FILE_BYTES,
    SITE_NAME,
    Role,
    Signer,
    Trust,
    TrustedKey,
    key_id,
    load_public,
    public_pem,
    with_own,
)

_TYPE: Final = "spoold.trust/1"
_FIELDS: Final = frozenset(
    ("type", "key_id", "site", "algorithm", "roles", "revoked", "public_key")
)


def load_trust(spool: Spool, signer: Signer | None = None) -> Trust:
    """All keys in the trust store, and this site's own, unless that is revoked there.

    Raises key-unusable for a damaged file, or one that others than its owner may write.
    """
    own = None if signer is None else signer.trusted()
    folder = spool.folder(Folder.TRUST)
    if not folder.is_dir():
        return with_own([], own)
    _check_private(folder, folder.stat().st_mode)
    keys = [_read_trusted(path) for path in sorted(folder.glob("*.json"))]
    return with_own(keys, own)


class FreshTrust:
    """The trust store as it stands whenever it is asked for; read again only where it has changed.

    Belongs to one thread. `own` reads this site's key, once.
    """

    def __init__(self, spool: Spool, own: Callable[[], Signer]) -> None:
        self._spool = spool
        self._read_own = own
        self._own: Signer | None = None
        self._stamp: object = None
        self._trust: Trust | None = None

    def __call__(self) -> Trust:
        """Trust in the keys of now. Raises key-unusable."""
        try:
            stamp = _stamp(self._spool.folder(Folder.TRUST))
            if self._trust is None or stamp != self._stamp:
                self._own = self._own or self._read_own()
                self._trust = load_trust(self._spool, self._own)
                self._stamp = stamp  # from before the reading: a change meanwhile is read next time
        except OSError as error:
            raise SpooldError(
                errors.KEY_UNUSABLE,
                f"the trust store cannot be read: {error.strerror}",
                hint="spoold doctor tells what is wrong with the tree",
            ) from error
        return self._trust


def _stamp(folder: Path) -> object:
    """What changes with any change of the trust store. Raises OSError.

    Keys are written beside and renamed; inode and change time tell even of one edited in place.
    """
    try:
        with os.scandir(folder) as entries:
            files = sorted((entry.name, entry.stat()) for entry in entries)
        mode = folder.stat().st_mode
    except FileNotFoundError:
        return None
    return mode, [(name, status.st_ino, status.st_ctime_ns) for name, status in files]


def store_trusted(spool: Spool, key: TrustedKey) -> None:
    """Write one key into the trust store, durably; the same key again replaces its entry."""
    path = spool.folder(Folder.TRUST) / f"{key.key_id}.json"
    document: dict[str, Json] = {
        "type": _TYPE,
        "key_id": key.key_id,
        "site": key.site,
        "algorithm": key.algorithm.value,
        "roles": sorted(role.value for role in key.roles),
        "revoked": key.revoked,
        "public_key": public_pem(key.public).decode().splitlines(),
    }
    write_durable(path, canonical.encode(document), mode=0o600)
    hand_over(path)


def _check_private(path: Path, mode: int) -> None:
    # Who may write here decides whom this site believes.
    if mode & 0o022:
        raise SpooldError(
            errors.KEY_UNUSABLE,
            f"{path} has mode {stat.S_IMODE(mode):04o}: others can write it",
            hint=f"chmod go-w {path}, and look at what `spoold keys list` shows: somebody may have "
            "added a key",
        )


def _read_trusted(path: Path) -> TrustedKey:
    try:
        with open(path, "rb") as file:
            _check_private(path, os.fstat(file.fileno()).st_mode)
            document = canonical.decode(file.read(MAX_KEY_FILE_BYTES))
        if not isinstance(document, Mapping) or set(document) != _FIELDS:
            raise TypeError("it is no trusted key")
        if document["type"] != _TYPE or document["key_id"] != path.stem:
            raise ValueError("it is of another type, or of another key than its name says")
        lines, roles = document["public_key"], document["roles"]
        if not isinstance(lines, list) or not isinstance(roles, list):
            raise TypeError("public_key and roles are lists")
        public, algorithm = load_public("\n".join([*lines, ""]).encode(), str(path))
        site = str(document["site"])
        if key_id(public) != document["key_id"] or not SITE_NAME.fullmatch(site):
            raise ValueError("key id or site do not fit")
        if algorithm.value != document["algorithm"]:
            raise ValueError("the algorithm is not that of the key")
        return TrustedKey(
            key_id(public),
            site,
            algorithm,
            frozenset(Role(role) for role in roles),
            document["revoked"] is not False,
            public,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpooldError(
            errors.KEY_UNUSABLE,
            f"{path} is damaged: {error}",
            hint="remove it, then `spoold keys trust FILE --site NAME` again",
        ) from error
