"""Secrets of an API: header values and keys, read from files at each attempt.

Nothing of a file's content ever stands in an error.
"""

import os
import re
import ssl
import stat
from collections.abc import Iterable
from typing import Final

from spoold import errors
from spoold.connections.apis import ApiSettings
from spoold.errors import SpooldError

_MAX_SECRET_BYTES: Final = 16 * 1024


def read_headers(api: ApiSettings) -> dict[str, str]:
    """The configured headers, with the values of secret ones. Raises secret-unusable."""
    secret = {name: read_secret(path) for name, path in api.secret_headers.items()}
    return {**api.headers, **secret}


def read_secret(path: str) -> str:
    """A header's value from a file that not everybody can read; its last line feed is not part.

    Raises secret-unusable.
    """
    try:
        # A FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _require_private(path, os.fstat(file.fileno()))
            data = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    value = data.rstrip(b"\r\n")
    if not re.fullmatch(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", value):
        raise _unusable(path, "it holds no single line of plain ASCII, which a header needs")
    if len(data) > _MAX_SECRET_BYTES:
        raise _unusable(path, f"it has more than {_MAX_SECRET_BYTES} bytes")
    return value.decode("ascii")


def tls_context(api: ApiSettings) -> ssl.SSLContext:
    """Verifies the server's certificate and name; shows ours. Raises secret-unusable."""
    try:
        context = ssl.create_default_context(cafile=api.ca)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise _unusable(str(api.ca), f"it holds no certificates: {_reason(error)}") from error
    if api.client_certificate is not None:
        assert api.client_key is not None
        try:
            _require_private(api.client_key, os.stat(api.client_key))
            # An encrypted key would ask for its password on the terminal.
            context.load_cert_chain(api.client_certificate, api.client_key, password="")
        except (OSError, ValueError) as error:
            where = f"{api.client_certificate}, {api.client_key}"
            raise _unusable(where, _reason(error)) from error
    return context


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """A text of the API's without our secrets, should it have repeated one."""
    for secret in secrets:
        for part in (secret, *secret.split()):
            if len(part) >= 6:
                text = text.replace(part, "***")
    return text


def _require_private(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _unusable(path, "it is no regular file")
    if status.st_mode & 0o007:
        raise _unusable(path, f"everybody may use it (mode {status.st_mode & 0o777:03o})")


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)  # OpenSSL's own word, "KEY_VALUES_MISMATCH"
    return str(reason or getattr(error, "strerror", None) or "it cannot be read")


def _unusable(path: str, what: str) -> SpooldError:
    return SpooldError(errors.SECRET_UNUSABLE, f"{path}: {what}")
