"""The http source over TLS: whom it believes, whom it shows itself to, and what ends it."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spoold.errors import SpooldError
from tests.apis import Api, Exchange, gather, serving, settings

LIST = {"path": "/events"}
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A key and its certificate, and the PEM files that hold them."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    key_file: Path
    certificate_file: Path


Make = Callable[..., Identity]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make an identity, signed by another or by itself."""

    def make(
        name: str,
        issuer: Identity | None = None,
        *,
        address: str = "127.0.0.1",
        ends: datetime.datetime = NOW + DAY,
        password: bytes | None = None,
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternative = x509.IPAddress(ipaddress.ip_address(address))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 9 * DAY)
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
            .sign(issuer.key if issuer else key, hashes.SHA256())
        )
        key_file, certificate_file = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password)
                if password
                else serialization.NoEncryption(),
            )
        )
        key_file.chmod(0o600)
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return Identity(key, certificate, key_file, certificate_file)

    return make


def context(server: Identity, clients: Identity | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(server.certificate_file, server.key_file)
    if clients is not None:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(clients.certificate_file)
    return made


def base(api: Api) -> str:
    return f"https://127.0.0.1:{api.port}"


def refused(address: str, **keys: Any) -> SpooldError:
    with pytest.raises(SpooldError) as caught:
        gather(settings(address, **keys), LIST)
    return caught.value


def test_a_server_of_the_configured_ca_is_believed(make: Make) -> None:
    ca = make("ca")
    with serving(context(make("server", ca))) as api:
        api.answer = lambda exchange: exchange.send("[1]")
        got = gather(settings(base(api), ca=str(ca.certificate_file)), LIST)
        assert got.files == {"events.jsonl": b"1\n"}


def test_an_answer_that_takes_longer_than_a_step_is_waited_for(make: Make) -> None:
    ca = make("ca")

    def answer(exchange: Exchange) -> None:
        exchange.head(200, {"Content-Length": "3"})
        exchange.raw(b"[")
        api.ended.wait(0.7)
        exchange.raw(b"1]")

    with serving(context(make("server", ca))) as api:
        api.answer = answer
        got = gather(settings(base(api), ca=str(ca.certificate_file)), LIST)
        assert got.files == {"events.jsonl": b"1\n"}
        assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"address": "127.0.0.2"}, "IP address mismatch"),
        ({"ends": NOW - DAY}, "expired"),
        ({"by": "other"}, "certificate is not good"),
        ({"by": None}, "self-signed"),
    ],
)
def test_a_server_that_cannot_prove_who_it_is_ends_the_job(
    make: Make, server: dict[str, Any], said: str
) -> None:
    ca = make("ca")
    by = server.pop("by", "ca")
    issuer = {"ca": ca, "other": make("other"), None: None}[by]
    with serving(context(make("server", issuer, **server))) as api:
        error = refused(base(api), ca=str(ca.certificate_file))
        assert error.code.name == "api-untrusted"
        assert said.lower().replace("-", " ") in error.message.lower().replace("-", " ")
        assert not error.transient
        assert not api.asked


def test_without_a_ca_those_of_the_system_are_believed(make: Make) -> None:
    with serving(context(make("server", make("ca")))) as api:
        assert refused(base(api)).code.name == "api-untrusted"
        assert not api.asked


def test_a_server_that_speaks_no_tls(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        error = refused(
            f"https://127.0.0.1:{server.getsockname()[1]}", ca=str(make("ca").certificate_file)
        )
        thread.join()
    assert error.code.name == "api-untrusted"
    assert "wrong version number" in error.message


def test_a_server_that_never_finishes_the_handshake_is_a_stall(make: Make) -> None:
    ca = str(make("ca").certificate_file)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        error = refused(address, ca=ca, connect_timeout_seconds=0.1)
    assert error.code.name == "api-away"
    assert "no connection in time" in error.message


def test_a_client_certificate_is_shown(make: Make) -> None:
    ca, clients = make("ca"), make("clients")
    client, stranger = make("client", clients), make("stranger", ca)
    with serving(context(make("server", ca), clients)) as api:
        api.answer = lambda exchange: exchange.send("[1]")

        def keys(identity: Identity) -> dict[str, str]:
            return {
                "ca": str(ca.certificate_file),
                "client_certificate": str(identity.certificate_file),
                "client_key": str(identity.key_file),
            }

        got = gather(settings(base(api), **keys(client)), LIST)
        assert got.files == {"events.jsonl": b"1\n"}
        for wrong in (keys(stranger), {"ca": str(ca.certificate_file)}):
            error = refused(base(api), **wrong)
            assert error.code.name == "api-untrusted"
            assert not error.transient
            assert "client_certificate" in error.hint


def test_files_that_hold_no_certificate_or_key(make: Make, tmp_path: Path) -> None:
    one, other = make("one"), make("other")
    locked = make("locked", password=b"secret")
    empty = tmp_path / "empty"
    empty.touch()

    def pair(certificate: Path, key: Path) -> dict[str, str]:
        return {"client_certificate": str(certificate), "client_key": str(key)}

    for wrong in (
        {"ca": str(empty)},
        {"ca": str(tmp_path / "none")},
        pair(one.certificate_file, other.key_file),
        pair(empty, one.key_file),
        pair(locked.certificate_file, locked.key_file),
        pair(one.certificate_file, tmp_path / "none"),
    ):
        error = refused("https://127.0.0.1:9", **wrong)
        assert error.code.name == "secret-unusable", wrong
        assert str(tmp_path) in error.message
    one.key_file.chmod(0o644)
    error = refused("https://127.0.0.1:9", **pair(one.certificate_file, one.key_file))
    assert "mode 644" in error.message
