"""Secrets of an API: header values and keys, read from files at each attempt.

Nothing of a file's content ever stands in an error.
"""

import os
import re
import ssl
from collections.abc import Iterable

from spoold.connections.apis import ApiSettings
from spoold.connections.secrets import read_secret, require_private, require_regular, unusable


def read_headers(api: ApiSettings) -> dict[str, str]:
    """The configured headers, with the values of secret ones. Raises secret-unusable."""
    secret = {name: _header_value(path) for name, path in api.secret_headers.items()}
    return {**api.headers, **secret}


def _header_value(path: str) -> str:
    """The value in a file of secrets; its last line feed is not part."""
    value = read_secret(path).rstrip(b"\r\n")
    if not re.fullmatch(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", value):
        raise unusable(path, "it holds no single line of plain ASCII, which a header needs")
    return value.decode("ascii")


def tls_context(api: ApiSettings) -> ssl.SSLContext:
    """Verifies the server's certificate and name; shows ours. Raises secret-unusable."""
    try:
        context = ssl.create_default_context(cafile=api.ca)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise unusable(str(api.ca), f"it holds no certificates: {_reason(error)}") from error
    if api.client_certificate is not None:
        assert api.client_key is not None
        try:
            status = os.stat(api.client_key)
            require_regular(api.client_key, status)
            require_private(api.client_key, status)
            # An encrypted key would ask for its password on the terminal.
            context.load_cert_chain(api.client_certificate, api.client_key, password="")
        except (OSError, ValueError) as error:
            where = f"{api.client_certificate}, {api.client_key}"
            raise unusable(where, _reason(error)) from error
    return context


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """A text of the API's without our secrets, should it have repeated one."""
    for secret in secrets:
        for part in (secret, *secret.split()):
            if len(part) >= 6:
                text = text.replace(part, "***")
    return text


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)  # OpenSSL's own word, "KEY_VALUES_MISMATCH"
    return str(reason or getattr(error, "strerror", None) or "it cannot be read")
