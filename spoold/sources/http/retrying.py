"""Which failures are tried again, and after what pause. Pure: clock and chance are arguments."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Timeouts, too many requests, and the server's own trouble: RFC 9110 section 15, RFC 6585."""


class TryAgainError(Exception):
    """One exchange failed in a way that may pass.

    `what` is a sentence for the user; `wait_seconds` what the API asked for, if it did.
    """

    def __init__(self, what: str, wait_seconds: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how fast one request is made again."""

    attempts: int
    base_seconds: float
    cap_seconds: float

    def pause(self, failed: int, asked: float | None, chance: float) -> float | None:
        """Seconds to wait after so many failures in a row; None: no more attempts.

        What the API asks for (Retry-After) is kept, up to the cap; else the pause doubles, and
        `chance` (0 to 1) takes up to half of it away, so that those who failed together do not
        come back together.
        """
        if failed >= self.attempts:
            return None
        if asked is not None:
            return min(asked, self.cap_seconds)
        doubled = min(self.cap_seconds, self.base_seconds * 2.0 ** min(failed - 1, 60))
        return doubled * (1 - chance / 2)


def retry_after(value: str | None, now: datetime) -> float | None:
    """The seconds that a Retry-After header asks for (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    moment = http_date(value)
    return None if moment is None else max(0.0, math.ceil((moment - now).total_seconds()))


def http_date(value: str | None) -> datetime | None:
    """The time that an HTTP date names; None where it is none."""
    try:
        moment = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def validator(headers: dict[str, str]) -> str | None:
    """What an If-Range can name so that a rest fits what was read (RFC 9110, section 13.1.5).

    A strong entity tag; or a time of change so long before the answer's own time that another
    change would have been seen.
    """
    tag = headers.get("etag")
    if tag is not None and re.fullmatch(r'"[\x21\x23-\x7e]*"', tag):
        return tag
    changed = headers.get("last-modified")
    then, now = http_date(changed), http_date(headers.get("date"))
    if then is not None and now is not None and (now - then).total_seconds() >= 60:
        return changed
    return None


def content_range(value: str | None) -> tuple[int | None, int | None, int | None]:
    """The first and last byte and the whole length that a Content-Range names.

    None for what it does not, and for all of one that cannot be (RFC 9110, section 14.4).
    """
    match = re.fullmatch(
        r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/(?:([0-9]{1,18})|\*)", value or ""
    )
    if match is None:
        return None, None, None
    first, last, whole = (None if each is None else int(each) for each in match.groups())
    if first is None or last is None:
        return None, None, whole
    if last < first or (whole is not None and whole <= last):
        return None, None, None
    return first, last, whole
