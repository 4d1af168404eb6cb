"""Keys, roles, revocation and the trust store: who may sign what, and which files decide it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from spoold import canonical, errors, trust, trust_store
from spoold.errors import SpooldError
from spoold.spool import Folder, Spool
from spoold.trust import ALL_ROLES, Algorithm, Role, Trust, TrustedKey
from tests.bundles import signer

DOCUMENT = {"type": "spoold.status/1", "state": "succeeded"}


def refusal(action: Any, *arguments: Any) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        action(*arguments)
    return caught.value


def roles(*wanted: Role, site: str = "site-a", **changes: Any) -> TrustedKey:
    return dataclasses.replace(signer(site).trusted(), roles=frozenset(wanted), **changes)


@pytest.fixture
def weak_keys() -> dict[str, rsa.RSAPrivateKey]:
    return {
        "RSA of 2048 bits": rsa.generate_private_key(65537, 2048),
        "RSA exponent": rsa.generate_private_key(3, 3072),
    }


@pytest.fixture
def store(spool: Spool) -> Spool:
    """A spool that trusts site-a."""
    trust_store.store_trusted(spool, signer("site-a").trusted())
    return spool


def store_file(spool: Spool) -> Path:
    [path] = spool.folder(Folder.TRUST).glob("*.json")
    return path


@pytest.mark.parametrize("role", Role)
def test_h04_a_key_signs_what_its_roles_say_and_nothing_else(role: Role) -> None:
    signed = trust.sign_document(DOCUMENT, signer("site-a"))
    for granted in Role:
        keys = Trust([roles(granted)])
        raw = signer("site-a").sign(b"content")
        if granted is role:
            assert keys.verify(b"content", raw, role).site == "site-a"
            assert keys.verify_document(signed, "spoold.status/1", role).document == DOCUMENT
        else:
            assert refusal(keys.verify, b"content", raw, role).code is errors.KEY_ROLE
            error = refusal(keys.verify_document, signed, "spoold.status/1", role)
            assert error.code is errors.KEY_ROLE
            assert granted.value in error.message


def test_h05_a_revoked_key_signs_nothing() -> None:
    keys = Trust([roles(*ALL_ROLES, revoked=True)])
    signed = trust.sign_document(DOCUMENT, signer("site-a"))
    raw = signer("site-a").sign(b"content")
    assert refusal(keys.verify, b"content", raw, Role.BUNDLE).code is errors.KEY_REVOKED
    error = refusal(keys.verify_document, signed, "spoold.status/1", Role.STATUS)
    assert error.code is errors.KEY_REVOKED


@pytest.mark.parametrize(
    "how",
    [
        padding.PSS(padding.MGF1(hashes.SHA256()), 0),
        padding.PSS(padding.MGF1(hashes.SHA256()), 20),
        padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH),
        padding.PSS(padding.MGF1(hashes.SHA1()), 32),
        padding.PKCS1v15(),
    ],
    ids=["H06 salt 0", "H06 salt 20", "H06 salt maximum", "H08 MGF1-SHA1", "H07 PKCS#1 v1.5"],
)
def test_h06_h07_h08_one_padding_is_a_signature(how: Any) -> None:
    by = signer("site-r", Algorithm.RSA)
    assert isinstance(by.private, rsa.RSAPrivateKey)
    keys = Trust([by.trusted()])
    assert keys.verify(b"content", by.sign(b"content"), Role.BUNDLE).site == "site-r"
    raw = by.private.sign(b"content", how, hashes.SHA256())
    assert refusal(keys.verify, b"content", raw, Role.BUNDLE).code is errors.SIGNATURE_UNTRUSTED


def test_h09_weak_keys_are_refused_wherever_they_are_loaded(
    weak_keys: dict[str, rsa.RSAPrivateKey], tmp_path: Path, store: Spool
) -> None:
    for said, private in weak_keys.items():
        public = trust.public_pem(private.public_key())
        assert said in refusal(trust.load_public, public, "a.pub").message
        assert said in refusal(trust.trusted_key, public, "site-a", "a.pub").message
        path = tmp_path / "signing.pem"
        path.write_bytes(trust.private_pem(private))
        path.chmod(0o600)
        error = refusal(trust.load_signer, path, "site-a")
        assert error.code is errors.KEY_UNUSABLE
        assert said in error.message
        # written into the store by hand, past `keys trust`
        document = json.loads(store_file(store).read_bytes())
        document["key_id"] = trust.key_id(private.public_key())
        document["algorithm"] = "rsa-pss-sha256"
        document["public_key"] = public.decode().splitlines()
        there = store.folder(Folder.TRUST) / f"{document['key_id']}.json"
        there.write_bytes(canonical.encode(document))
        there.chmod(0o600)
        assert said in refusal(trust_store.load_trust, store).message
        there.unlink()


def test_h11_a_signed_document_of_another_type_is_refused() -> None:
    keys = Trust([roles(*ALL_ROLES)])
    signed = trust.sign_document(DOCUMENT, signer("site-a"))
    error = refusal(keys.verify_document, signed, "spoold.request/1", Role.REQUEST)
    assert error.code is errors.DOCUMENT_TYPE


def test_h03_a_document_of_an_unknown_key_and_one_that_was_changed_are_told_apart() -> None:
    signed = trust.sign_document(DOCUMENT, signer("site-a"))
    stranger = Trust([roles(*ALL_ROLES, site="site-b")])
    error = refusal(stranger.verify_document, signed, "spoold.status/1", Role.STATUS)
    assert error.code is errors.SIGNATURE_UNTRUSTED
    changed = signed.replace(b"succeeded", b"failed")
    error = refusal(
        Trust([roles(*ALL_ROLES)]).verify_document, changed, "spoold.status/1", Role.STATUS
    )
    assert error.code is errors.SIGNATURE_INVALID


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o777])
def test_a_signing_key_that_others_may_touch_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "signing.pem"
    path.write_bytes(trust.private_pem(signer().private))
    path.chmod(0o600)
    assert trust.load_signer(path, "site-a").key_id == signer().key_id
    path.chmod(mode)
    error = refusal(trust.load_signer, path, "site-a")
    assert error.code is errors.KEY_UNUSABLE
    assert f"{mode:04o}" in error.message


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_trusted_key_that_others_may_write_is_refused(mode: int, store: Spool) -> None:
    assert [key.site for key in trust_store.load_trust(store)] == ["site-a"]
    path = store_file(store)
    path.chmod(mode)
    error = refusal(trust_store.load_trust, store)
    assert error.code is errors.KEY_UNUSABLE
    assert f"{mode:04o}" in error.message
    assert f"chmod go-w {path}" in error.hint


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_trust_store_that_others_may_write_is_refused(mode: int, store: Spool) -> None:
    store.folder(Folder.TRUST).chmod(mode)
    assert refusal(trust_store.load_trust, store).code is errors.KEY_UNUSABLE


def test_a_store_that_all_may_read_is_fine(store: Spool) -> None:
    store_file(store).chmod(0o644)
    store.folder(Folder.TRUST).chmod(0o755)
    assert len(list(trust_store.load_trust(store))) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("another site", {"site": "../x"}),
        ("another type", {"type": "spoold.status/1"}),
        ("an unknown role", {"roles": ["bundle", "root"]}),
        ("an unknown field", {"note": "x"}),
        ("another algorithm", {"algorithm": "rsa-pss-sha256"}),
        ("another key", {"key_id": "0" * 64}),
    ],
)
def test_a_damaged_entry_is_refused(name: str, change: dict[str, Any], store: Spool) -> None:
    path = store_file(store)
    path.write_bytes(canonical.encode({**json.loads(path.read_bytes()), **change}))
    assert refusal(trust_store.load_trust, store).code is errors.KEY_UNUSABLE, name


def test_an_entry_under_another_name_cannot_undo_a_revocation(store: Spool) -> None:
    path = store_file(store)
    copy = path.with_name("zzz.json")
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o600)
    trust_store.store_trusted(store, dataclasses.replace(signer("site-a").trusted(), revoked=True))
    assert refusal(trust_store.load_trust, store).code is errors.KEY_UNUSABLE
    copy.unlink()
    assert [key.revoked for key in trust_store.load_trust(store)] == [True]


def test_the_sites_own_key_is_believed_unless_it_is_revoked(store: Spool) -> None:
    own = signer("site-x")
    assert {key.site for key in trust_store.load_trust(store, own)} == {"site-a", "site-x"}
    trust_store.store_trusted(store, dataclasses.replace(own.trusted(), revoked=True))
    found = trust_store.load_trust(store, own).get(own.key_id)
    assert found is not None
    assert found.revoked


def test_revoked_is_what_is_not_plainly_false(store: Spool) -> None:
    path = store_file(store)
    path.write_bytes(canonical.encode({**json.loads(path.read_bytes()), "revoked": 0}))
    assert [key.revoked for key in trust_store.load_trust(store)] == [True]


def test_a_store_that_is_gone_trusts_nobody_but_the_site_itself(store: Spool) -> None:
    store_file(store).unlink()
    os.rmdir(store.folder(Folder.TRUST))
    assert list(trust_store.load_trust(store)) == []
    assert [key.site for key in trust_store.load_trust(store, signer("site-x"))] == ["site-x"]
