"""What checking a bundle came to: one of four verdicts, and a signed report of it.

Not guaranteed: a verdict where the checking itself failed (a disk, a missing file): that is raised.
"""

import enum
from dataclasses import dataclass
from typing import BinaryIO, Final

from spoold import __version__, errors
from spoold.bundle.entry import Report
from spoold.bundle.head import Head, Policy, VerifiedHead, verify_head
from spoold.bundle.reader import BundleReader, Discard
from spoold.canonical import Document, Json
from spoold.errors import Exit, SpooldError
from spoold.trust import Trust

TYPE: Final = "spoold.verification/1"


class Verdict(enum.StrEnum):
    """What a bundle is."""

    GOOD = "good"
    NOT_TRUSTED = "not trusted"
    NOT_A_BUNDLE = "not a bundle"
    BROKEN = "broken"

    @property
    def exit_status(self) -> Exit:
        """What a command returns that came to it."""
        return _STATUS[self]


_STATUS: Final = {
    Verdict.GOOD: Exit.DONE,
    Verdict.NOT_TRUSTED: Exit.NOT_TRUSTED,
    Verdict.NOT_A_BUNDLE: Exit.REJECTED,
    Verdict.BROKEN: Exit.BROKEN,
}


@dataclass(frozen=True, slots=True)
class Verification:
    """A verdict, and as much of the bundle as was seen and as was believed."""

    verdict: Verdict
    seen: Head | None
    head: VerifiedHead | None
    error: SpooldError | None

    def document(
        self, *, file: str, site: str, checked_at: str, error: Document | None
    ) -> dict[str, Json]:
        """The report, to be signed. What no trusted key vouches for is null."""
        head = self.head
        keys = [] if head is None else [head.signed_by, *head.also_signed_by]
        return {
            "type": TYPE,
            "verdict": self.verdict.value,
            "file": file,
            "manifest_sha256": None if self.seen is None else self.seen.manifest_sha256,
            "bundle_id": None if head is None else head.manifest.bundle_id,
            "from": None if head is None else head.manifest.site,
            "signed_by": [{"site": key.site, "key_id": key.key_id} for key in keys],
            "checked_at": checked_at,
            "error": error,
            "site": site,
            "spoold": __version__,
        }


def check(
    file: BinaryIO,
    trust: Trust,
    policy: Policy,
    *,
    threads: int | None = None,
    report: Report | None = None,
) -> Verification:
    """Check all of a bundle. Raises what is no verdict: disk-error, no-space."""
    seen: Head | None = None
    head: VerifiedHead | None = None
    try:
        with BundleReader(file, threads=threads, report=report) as reader:
            seen = reader.read_head()
            head = verify_head(seen, trust, policy)
            reader.read_payload(reader.read_index(head, policy), Discard())
    except SpooldError as error:
        verdict = verdict_of(error)
        if verdict is None:
            raise
        return Verification(verdict, seen, head, error)
    return Verification(Verdict.GOOD, seen, head, None)


def verdict_of(error: SpooldError) -> Verdict | None:
    """The verdict that a refusal is; None where it says nothing about the bundle."""
    if error.code is errors.NOT_A_BUNDLE:
        return Verdict.NOT_A_BUNDLE
    if error.code.exit_status is Exit.NOT_TRUSTED:
        return Verdict.NOT_TRUSTED
    return Verdict.BROKEN if error.code.exit_status is Exit.BROKEN else None
