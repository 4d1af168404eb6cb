"""Whether a request may be admitted: whose signature it bears, and whether it is too late.

Pure but for the trust store, which is only asked for a request that is signed.
"""

from collections.abc import Callable
from datetime import datetime

from spoold import errors
from spoold.errors import SpooldError
from spoold.intake.request import ParsedRequest
from spoold.trust import Role, Trust, TrustedKey


def require_access(
    parsed: ParsedRequest, trust: Callable[[], Trust], now: datetime, *, signed: bool
) -> TrustedKey | None:
    """The key that signed a request, None for one without a signature where none is required.

    Raises request-expired, request-unsigned, signature-untrusted, signature-invalid, key-role,
    key-revoked, and key-unusable where the trust store itself is at fault.
    """
    envelope = parsed.envelope
    if envelope.expires_at is not None and envelope.expires_at <= now:
        raise SpooldError(
            errors.REQUEST_EXPIRED,
            f"it was to be dropped before {envelope.expires_at.isoformat(timespec='seconds')}",
            at="expires_at",
        )
    if envelope.signatures:
        try:
            return trust().verify_parsed(parsed.document, Role.REQUEST).signed_by
        except SpooldError as error:
            error.at = error.at or "signatures"
            raise
    if signed:
        raise SpooldError(errors.REQUEST_UNSIGNED)
    return None
