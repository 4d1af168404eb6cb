"""Who may drop what: signed requests, requests that are too late, and what the trust store says."""

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from spoold import trust_store
from spoold.queue.job import State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.trust import Role, Signer, sign_document
from spoold.trust_store import FreshTrust
from tests.bundles import signer
from tests.conftest import wait_until
from tests.integration.inboxes import SETTINGS, Inbox, opened, request

PARTNER = signer("partner")
STRANGER = signer("site-b")


def signed(by: Signer = PARTNER, **changes: object) -> bytes:
    """A request as `spoold sign` makes it."""
    return sign_document(json.loads(request(**changes)), by)


def believe(spool: Spool, *roles: Role, **changes: bool) -> None:
    """Trust the partner's key for these roles."""
    key = dataclasses.replace(PARTNER.trusted(), roles=frozenset(roles), **changes)
    trust_store.store_trusted(spool, key)


@pytest.fixture
def inbox(spool: Spool, store: Store) -> Iterator[Inbox]:
    """The inbox of a site that takes only signed requests, and trusts the partner for them."""
    believe(spool, Role.REQUEST)
    settings = replace(
        SETTINGS, require_signed=True, trust=FreshTrust(spool, lambda: signer("site-a"))
    )
    with opened(spool, store, settings) as inbox:
        inbox.scan()
        yield inbox


def test_a_signed_request_is_a_job_that_says_by_whom(inbox: Inbox) -> None:
    inbox.move("request-a.json", signed())
    inbox.admitted()
    job = inbox.job("request-a.json")
    assert job.state is State.QUEUED
    assert job.intake["signed_by"] == {"site": "partner", "key_id": PARTNER.key_id}


def test_how_the_bytes_are_laid_out_does_not_matter(inbox: Inbox) -> None:
    document = json.loads(signed(name="größe"))
    turned = dict(reversed(document.items()))
    inbox.move("request-a.json", json.dumps(turned, indent=3, ensure_ascii=True).encode())
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (request(), "request-unsigned"),
        (request(signatures=[]), "request-unsigned"),
        (signed(STRANGER), "signature-untrusted"),
        (signed().replace(b"evidence", b"evidencf"), "signature-invalid"),
        (signed()[:-2] + b',"priority":1}\n', "signature-invalid"),
        (
            signed().replace(PARTNER.key_id.encode(), STRANGER.key_id.encode()),
            "signature-untrusted",
        ),
        (signed().replace(b'"ed25519"', b'"none"'), "request-invalid"),
        (request(signatures=[{"key_id": "x"}]), "request-invalid"),
        (request(signatures="none"), "request-invalid"),
        (
            request(signatures=2 * json.loads(signed())["signatures"]),
            "request-invalid",
        ),
        (
            request(
                signatures=[
                    {"key_id": PARTNER.key_id, "algorithm": "ed25519", "signature": "no base64!"}
                ]
            ),
            "request-invalid",
        ),
    ],
)
def test_what_is_not_signed_by_who_may_is_refused(inbox: Inbox, content: bytes, code: str) -> None:
    inbox.move("request-a.json", content)
    inbox.admitted()
    assert inbox.refusal("request-a.json") == code
    assert inbox.job("request-a.json").drop_sha256 is not None


def test_a_second_signature_by_a_stranger_neither_helps_nor_harms(inbox: Inbox) -> None:
    document = json.loads(request())
    others = json.loads(signed(STRANGER))["signatures"]
    inbox.move("request-a.json", sign_document(document, PARTNER, others))
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED


def test_roles_and_revocations_count_from_the_next_drop_on(inbox: Inbox, spool: Spool) -> None:
    for number, (roles, revoked, code) in enumerate(
        [
            ([Role.BUNDLE, Role.STATUS], False, "key-role"),
            ([Role.REQUEST], True, "key-revoked"),
            ([Role.REQUEST], False, None),
        ]
    ):
        believe(spool, *roles, revoked=revoked)
        name = f"request-{number}.json"
        inbox.move(name, signed())
        inbox.admitted()
        if code is None:
            assert inbox.job(name).state is State.QUEUED
        else:
            assert inbox.refusal(name) == code


def test_a_trust_store_that_cannot_be_believed_holds_drops_back(inbox: Inbox, spool: Spool) -> None:
    folder = spool.folder(Folder.TRUST)
    folder.chmod(0o777)
    inbox.move("request-a.json", signed())
    inbox.scan_until(lambda report: report.waiting == 1)
    status = inbox.status("request-a.json")
    assert status is not None
    assert (status["state"], status["reason"]) == ("waiting", "trust-store")
    assert status["error"]["code"] == "key-unusable"
    folder.chmod(0o700)
    inbox.admitted()
    assert inbox.job("request-a.json").state is State.QUEUED


def test_a_claimed_drop_says_what_it_waits_for_now(inbox: Inbox, spool: Spool) -> None:
    folder = spool.folder(Folder.TRUST)
    inbox.move("request-a.json", signed())
    for spoil, message in (
        (lambda: folder.chmod(0o777), "others can write it"),
        (lambda: (folder / "odd.json").write_text("no key"), "odd.json is damaged"),
    ):
        spoil()
        inbox.scan_until(lambda report: report.waiting == 1)
        status = inbox.status("request-a.json")
        assert status is not None
        assert message in status["error"]["message"]
        folder.chmod(0o700)
    (folder / "odd.json").unlink()
    inbox.admitted()


def test_without_the_setting_only_signatures_that_are_there_are_checked(
    spool: Spool, store: Store
) -> None:
    with opened(spool, store) as inbox:  # it trusts nobody
        inbox.move("request-plain.json", request())
        inbox.move("request-signed.json", signed())
        inbox.admitted(2)
        assert inbox.job("request-plain.json").state is State.QUEUED
        assert "signed_by" not in inbox.job("request-plain.json").intake
        assert inbox.refusal("request-signed.json") == "signature-untrusted"


def test_a_signature_makes_it_no_other_request(inbox: Inbox, spool: Spool) -> None:
    trust_store.store_trusted(spool, STRANGER.trusted())
    for name, by in (("a", PARTNER), ("b", STRANGER)):
        inbox.move(f"request-{name}.json", signed(by, idempotency_key="k"))
        inbox.admitted()
    first, second = inbox.job("request-a.json"), inbox.job("request-b.json")
    assert first.request_sha256 == second.request_sha256
    assert second.waits_for == first.id


def test_a_signed_request_dropped_again_is_a_new_job_unless_it_has_a_key(inbox: Inbox) -> None:
    content = signed()
    for name in ("request-a.json", "request-replayed.json"):
        inbox.move(name, content)
        inbox.admitted()
    assert inbox.job("request-replayed.json").waits_for is None
    content = signed(idempotency_key="once")
    for name in ("request-b.json", "request-again.json"):
        inbox.move(name, content)
        inbox.admitted()
    assert inbox.job("request-again.json").waits_for == inbox.job("request-b.json").id


def test_a_request_is_refused_after_its_time(inbox: Inbox) -> None:
    inbox.move("request-late.json", signed(expires_at="2001-01-01T00:00:00Z"))
    inbox.admitted()
    assert inbox.refusal("request-late.json") == "request-expired"
    inbox.move("request-early.json", signed(expires_at="2999-01-01T00:00:00Z"))
    inbox.admitted()
    assert inbox.job("request-early.json").state is State.QUEUED


def test_the_trust_store_is_read_again_only_when_it_has_changed(spool: Spool) -> None:
    reads = 0

    def own() -> Signer:
        nonlocal reads
        reads += 1
        return signer("site-a")

    current = FreshTrust(spool, own)
    first = current()
    assert first.get(PARTNER.key_id) is None
    assert current() is first
    believe(spool, Role.REQUEST)
    second = current()
    assert second.get(PARTNER.key_id) is not None
    assert current() is second
    [path] = spool.folder(Folder.TRUST).glob("*.json")
    revoked = path.read_bytes().replace(b'"revoked":false', b'"revoked":true')

    def noticed() -> bool:
        path.write_bytes(revoked)  # in place; the file system's clock ticks slowly
        return current() is not second

    wait_until(noticed)
    key = current().get(PARTNER.key_id)
    assert key is not None
    assert key.revoked
    assert reads == 1


def test_a_drop_over_the_limit_waits_says_so_and_is_taken_when_its_turn_comes(
    spool: Spool, store: Store
) -> None:
    # 1,200 a minute: one in 50 ms
    settings = replace(SETTINGS, max_drops_per_minute=1200)
    with opened(spool, store, settings) as inbox:
        for number in range(1210):
            inbox.copy(f"request-{number}.json")
        inbox.scan_until(lambda report: report.claimed == 0)
        assert inbox.intake.metrics.admitted >= 1200
        [*late] = inbox.path.iterdir()
        for path in late:
            status = inbox.status(path.name)
            assert status is not None
            assert (status["state"], status["reason"]) == ("waiting", "rate")
            assert status["error"]["code"] == "too-many-drops"
        inbox.scan_until(lambda _: inbox.intake.metrics.admitted == 1210)
    assert not list(inbox.path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of several owners")
def test_each_owner_has_a_limit_of_its_own(spool: Spool, store: Store) -> None:
    settings = replace(SETTINGS, max_drops_per_minute_per_owner=2)
    with opened(spool, store, settings) as inbox:
        for number in range(4):
            for owner in (1001, 1002):
                os.chown(inbox.copy(f"request-{owner}-{number}.json"), owner, -1)
        (inbox.path / "request-link.json").symlink_to("/nowhere")
        inbox.scan_until(lambda report: report.claimed == 0)
        assert inbox.intake.metrics.admitted == 5
        assert inbox.intake.report.waiting == 4
        assert inbox.intake.report.dry  # `run --once` leaves them for later
        owners = [path.stat().st_uid for path in inbox.path.iterdir()]
        assert sorted(owners) == [1001, 1001, 1002, 1002]


def test_what_waits_for_its_turn_may_be_withdrawn_or_replaced(spool: Spool, store: Store) -> None:
    with opened(spool, store, replace(SETTINGS, max_drops_per_minute=1)) as inbox:
        inbox.copy("request-first.json")
        inbox.scan()
        second = inbox.copy("request-second.json")
        assert inbox.scan().waiting == 1
        second.unlink()
        inbox.scan()
        assert inbox.status("request-second.json") is None
        assert inbox.intake.report.waiting == 0
