"""Signature Version 4 of one request. Pure.

Source: Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header".
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is good for, besides its request."""

    region: str
    now: datetime
    """In UTC."""


def encoded_path(path: bytes) -> str:
    """The path of a URL: every byte but the unreserved and `/` as %XX."""
    return quote(path, safe="/-_.~")


def encoded_query(query: Mapping[str, str]) -> str:
    """The query of a URL, in the order in which it is signed."""
    pairs = ((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def sign(
    credentials: Credentials,
    scope: Scope,
    *,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload_sha256: str,
) -> dict[str, str]:
    """The headers to send: those given, `Host` among them, and what authenticates all of it.

    `path` and `query` are encoded as above, `payload_sha256` is lowercase hex.
    """
    moment = scope.now.strftime("%Y%m%dT%H%M%SZ")
    sent = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    sent["x-amz-date"] = moment
    sent["x-amz-content-sha256"] = payload_sha256
    if credentials.session_token is not None:
        sent["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(sent))
    canonical = "\n".join(
        (
            method,
            path,
            query,
            *(f"{name}:{sent[name]}" for name in sorted(sent)),
            "",
            names,
            payload_sha256,
        )
    )
    place = f"{moment[:8]}/{scope.region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"{_ALGORITHM}\n{moment}\n{place}\n{digest}"
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in (moment[:8], scope.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{place}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return sent
