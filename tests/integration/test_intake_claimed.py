"""One claimed drop, prepared for its row again and again while something keeps it from having one.

What stands between two calls, a failed sync say, leaves nothing but what the first has left.
"""

import fcntl
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from spoold import trust_store
from spoold.intake.claimed import Claimed, prepare
from spoold.intake.complete import Fingerprint, Wait, ignore_lease_signal
from spoold.intake.names import NameKind
from spoold.intake.settings import FoundBy, IntakeSettings, Method, Reason
from spoold.queue.job import Admission, new_job_id
from spoold.spool import Folder, Spool
from spoold.status import claimed_name
from spoold.trust import Role, sign_document
from spoold.trust_store import FreshTrust
from tests.bundles import signer
from tests.integration.file_systems import BOTH
from tests.integration.inboxes import MODELS, SETTINGS, powerless, request

pytestmark = BOTH

PARTNER = signer("partner")


@pytest.fixture(autouse=True)
def leases_end_nobody() -> None:
    """As in an intake: a lease that is asked back sends SIGIO, which would end the tests."""
    ignore_lease_signal()


def claim(spool: Spool, content: bytes) -> Claimed:
    """A request that was moved in, claimed; its dropper has another name of it, `kept`."""
    job_id, drop = new_job_id(), b"request-a.json"
    folder = os.fsencode(spool.folder(Folder.CLAIMED))
    path = os.path.join(folder, claimed_name(job_id, drop))
    kept(spool).write_bytes(content)
    os.link(kept(spool), path)
    fingerprint = Fingerprint.of(os.lstat(path))
    return Claimed(
        job_id,
        drop,
        NameKind.REQUEST,
        path,
        FoundBy.EVENT,
        Method.MOVED,
        time.monotonic(),
        fingerprint=fingerprint,
    )


def kept(spool: Spool) -> Path:
    return spool.root / "kept"


def prepared(
    claimed: Claimed, settings: IntakeSettings = SETTINGS, *, later: float = 0.0
) -> Admission | Wait:
    return prepare(claimed, time.monotonic() + later, settings, MODELS, leases=True)


def copies(spool: Spool) -> list[Path]:
    return list(spool.folder(Folder.CLAIMED).glob(".*"))


def test_e15_a_copy_that_is_not_needed_any_more_replaces_nothing(spool: Spool) -> None:
    claimed = claim(spool, request(name="first"))
    assert isinstance(prepared(claimed), Admission)
    assert copies(spool)
    kept(spool).write_bytes(request(name="second"))
    kept(spool).unlink()
    claimed.fingerprint = Fingerprint.of(os.lstat(claimed.path))
    admission = prepared(claimed)
    assert isinstance(admission, Admission)
    assert admission.request is not None
    assert admission.request["name"] == "second"
    assert (claimed.copy, copies(spool)) == (None, [])


def test_e15_a_copy_of_what_is_rejected_now_replaces_nothing(spool: Spool) -> None:
    claimed = claim(spool, request())
    assert isinstance(prepared(claimed), Admission)
    kept(spool).write_bytes(b" " * 2000 + request())
    admission = prepared(claimed, replace(SETTINGS, max_request_bytes=1000))
    assert isinstance(admission, Admission)
    assert admission.error is not None
    assert (claimed.copy, copies(spool)) == (None, [])


def test_no_copy_is_written_of_what_is_a_copy_of_ours(spool: Spool) -> None:
    claimed = claim(spool, request())
    claimed.ours = True
    assert isinstance(prepared(claimed), Admission)
    assert (claimed.copy, copies(spool)) == (None, [])


def test_no_copy_is_written_of_what_waits_for_the_trust_store(spool: Spool) -> None:
    key = replace(PARTNER.trusted(), roles=frozenset({Role.REQUEST}))
    trust_store.store_trusted(spool, key)
    settings = replace(SETTINGS, trust=FreshTrust(spool, lambda: signer("site-a")))
    claimed = claim(spool, sign_document(json.loads(request()), PARTNER))
    spool.folder(Folder.TRUST).chmod(0o777)
    waiting = prepared(claimed, settings)
    assert isinstance(waiting, Wait)
    assert waiting.reason is Reason.TRUST_STORE
    assert (claimed.copy, copies(spool)) == (None, [])
    spool.folder(Folder.TRUST).chmod(0o700)
    assert isinstance(prepared(claimed, settings), Admission)
    assert copies(spool)


@contextmanager
def nothing_can_be_opened() -> Iterator[None]:
    """This process has as many files open as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_e26_a_drop_that_we_cannot_open_for_want_of_descriptors_is_not_rejected(
    spool: Spool,
) -> None:
    claimed = claim(spool, request())
    with nothing_can_be_opened(), pytest.raises(OSError, match="Too many open files"):
        prepared(claimed)
    admission = prepared(claimed)
    assert isinstance(admission, Admission)
    assert admission.error is None


def test_e26_a_claimed_drop_that_its_dropper_keeps_from_us_is_rejected(spool: Spool) -> None:
    claimed = claim(spool, request())
    kept(spool).chmod(0)
    with powerless():
        admission = prepared(claimed)
    assert isinstance(admission, Admission)
    assert admission.error is not None
    assert admission.error["code"] == "drop-unreadable"


def test_e04_a_claimed_drop_that_a_file_server_never_gives_up_is_rejected(spool: Spool) -> None:
    claimed = claim(spool, request())
    server = os.open(kept(spool), os.O_RDONLY)
    fcntl.fcntl(server, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    assert prepared(claimed) == Wait(Reason.WRITER_OPEN)
    admission = prepared(claimed, later=SETTINGS.incomplete_seconds)
    os.close(server)
    assert isinstance(admission, Admission)
    assert admission.error is not None
    assert admission.error["code"] == "incomplete"
