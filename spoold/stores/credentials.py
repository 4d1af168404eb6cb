"""Who asks a store: keys in files, or the role of the container or instance that this runs in.

Sources: the credential endpoints of Amazon ECS and EKS ("Container credential provider") and the
instance metadata service, version 2.
"""

import http.client
import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from spoold import errors
from spoold.connections.secrets import read_secret, unusable
from spoold.connections.stores import StoreSettings
from spoold.errors import SpooldError
from spoold.stores.signing import Credentials

_TIMEOUT_SECONDS: Final = 2.0
_MAX_BYTES: Final = 64 * 1024
_EARLY: Final = timedelta(minutes=2)
_INSTANCE: Final = "http://169.254.169.254"
_CONTAINER: Final = "http://169.254.170.2"
_ROLES: Final = "/latest/meta-data/iam/security-credentials/"


class Keys:
    """The credentials of one store, asked for when they are needed."""

    def __init__(self, name: str, settings: StoreSettings) -> None:
        self._name, self._settings = name, settings
        self._known: Credentials | None = None

    def get(self, now: datetime) -> Credentials:
        """Credentials that are good for now. Raises config-invalid, store-refused, store-away."""
        known = self._known
        if known is None or (known.expires_at is not None and known.expires_at - _EARLY <= now):
            self._known = known = self._find()
        return known

    def forget(self) -> bool:
        """They have expired: whether asking again gives others."""
        self._known = None
        return self._settings.allow_ambient

    def _find(self) -> Credentials:
        settings = self._settings
        if settings.allow_ambient:
            return _ambient(self._name, os.environ)
        assert settings.access_key_id_file is not None
        assert settings.secret_access_key_file is not None
        place = f"stores.{self._name}"
        return Credentials(
            _first_line(settings.access_key_id_file, f"{place}.access_key_id_file", secret=False),
            _first_line(
                settings.secret_access_key_file, f"{place}.secret_access_key_file", secret=True
            ),
        )


def _first_line(path: str, key: str, *, secret: bool) -> str:
    data = read_secret(path, at=key, is_secret=lambda _: secret)
    text = data.decode("ascii", "replace").strip()
    if not _is_word(text):
        raise unusable(path, "it does not hold one word", at=key)
    return text


def _ambient(name: str, environment: Mapping[str, str]) -> Credentials:
    try:
        return _of_container(environment) or _of_instance(environment)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SpooldError(
            errors.STORE_AWAY,
            f"[stores.{name}] allow_ambient: this container or instance gives no credentials: "
            f"{error}",
            hint="give it a role, or write access_key_id_file and secret_access_key_file",
        ) from error


def _of_container(environment: Mapping[str, str]) -> Credentials | None:
    url = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
    if relative:
        url = _CONTAINER + relative
    if not url:
        return None
    token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    if file := environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""):
        token = Path(file).read_text(encoding="ascii").strip()
    return _credentials(_ask("GET", url, {"Authorization": token} if token else {}))


def _of_instance(environment: Mapping[str, str]) -> Credentials:
    base = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").rstrip("/") or _INSTANCE
    seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    token = _ask("PUT", f"{base}/latest/api/token", seconds).decode("ascii")
    headers = {"X-aws-ec2-metadata-token": token}
    roles = _ask("GET", base + _ROLES, headers).decode("ascii").split()
    if not roles:
        raise ValueError("the instance has no role")
    return _credentials(_ask("GET", base + _ROLES + roles[0], headers))


def _ask(method: str, url: str, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    if parts.hostname is None or parts.scheme not in {"http", "https"}:
        raise ValueError("its address is no URL")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_TIMEOUT_SECONDS)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        _request(connection, method, target, headers)
        response = connection.getresponse()
        data = response.read(_MAX_BYTES)
        if response.status != http.client.OK:
            raise ValueError(f"it answered {response.status}")
        return data
    finally:
        connection.close()


def _request(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str]
) -> None:
    try:
        connection.request(method, target, headers=dict(headers))
    except (ValueError, http.client.InvalidURL):  # whose text would show the token
        raise ValueError("its address or token holds what HTTP cannot send") from None


def _credentials(data: bytes) -> Credentials:
    found = json.loads(data)
    words: list[str] = []
    try:
        expires_at = datetime.fromisoformat(found["Expiration"])
        words = [found[name] for name in ("AccessKeyId", "SecretAccessKey", "Token")]
    except (KeyError, TypeError, ValueError):
        expires_at = datetime.min  # noqa: DTZ901  # without a zone: refused below
    if expires_at.tzinfo is None or not all(map(_is_word, words)):
        raise ValueError("its answer holds no credentials")
    return Credentials(words[0], words[1], words[2], expires_at)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[!-~]+", value) is not None
