"""Rows over TLS: whole and without pauses, and certificates that do not fit."""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spoold import errors
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.errors import SpooldError
from spoold.postgres import binaries
from spoold.sources.source import Gathering
from tests.conftest import DEBIAN_PROGRAMS, wait_until
from tests.integration.rows import documents, read

QUERY = "select n, repeat(chr(65 + n % 26), n * 35) as v from generate_series(1, 2000) n"


@dataclass
class Server:
    port: int
    certificate: Path

    def url(self, **keys: str) -> str:
        given = {"host": "localhost", "hostaddr": "127.0.0.1", "sslmode": "verify-full"} | keys
        words = " ".join(f"{key}={value}" for key, value in given.items())
        return f"port={self.port} user=spoold dbname=postgres {words}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that is reached by TCP, with a certificate that it has signed itself."""
    if not DEBIAN_PROGRAMS.is_dir():
        pytest.skip("PostgreSQL 15 is not installed; the wheel's is built without TLS")
    user, programs = binaries.server_user(), DEBIAN_PROGRAMS
    folder = Path("/var/tmp", f"spoold-tests-{uuid.uuid4().hex}")
    folder.mkdir(mode=0o700)
    certificate, key = make_certificate("localhost")
    (folder / "server.crt").write_bytes(certificate)
    (folder / "server.key").touch(0o600)
    (folder / "server.key").write_bytes(key)
    if user is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, user.uid, user.gid)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def start(*command: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    data = folder / "data"
    made = start(programs / "initdb", "-D", data, "-U", "spoold", "-A", "trust", "--no-sync")
    assert made.wait() == 0
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": f"{port}",
        "unix_socket_directories": "",
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": f"{folder}/server.crt",
        "ssl_key_file": f"{folder}/server.key",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = start(programs / "postgres", "-D", data, *words)
    found = Server(port, folder / "server.crt")
    try:
        wait_until(lambda: answers(found.url(sslmode="require")))
        yield found
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def make_certificate(name: str) -> tuple[bytes, bytes]:
    """One that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def connections(url: str) -> Connections:
    return Connections(
        databases={"soc": DatabaseSettings(url=url)},
        queries={"rows": QuerySettings(database="soc", sql=QUERY)},
    )


def test_rows_come_whole_over_tls_without_a_pause_between_records(server: Server) -> None:
    found = connections(server.url(sslrootcert=str(server.certificate)))
    begin = time.monotonic()
    with Gathering(found) as gathering:
        lines, schema = read(gathering, "rows")
    assert time.monotonic() - begin < 10
    assert schema.rows == 2000
    assert all(
        line["v"] == chr(65 + line["n"] % 26) * (line["n"] * 35) for line in documents(lines)
    )


def test_the_server_asks_now_and_then_whether_we_are_still_there(server: Server) -> None:
    asked = (
        "select current_setting('tcp_keepalives_' || name) as set from unnest(%(x)s::text[]) name"
    )
    found = Connections(
        databases={"soc": DatabaseSettings(url=server.url(sslrootcert=str(server.certificate)))},
        queries={
            "rows": QuerySettings.model_validate(
                {"database": "soc", "sql": asked, "parameters": {"x": "text"}}
            )
        },
    )
    with Gathering(found) as gathering:
        lines, _ = read(gathering, "rows", {"x": "{idle,interval,count}"})
    assert [line["set"] for line in documents(lines)] == ["10", "5", "3"]


@pytest.fixture(params=["unknown", "name", "missing"])
def misfit(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> str:
    """An address with which no certificate fits."""
    if request.param == "unknown":
        (tmp_path / "ca.pem").write_bytes(make_certificate("localhost")[0])
        return server.url(sslrootcert=f"{tmp_path}/ca.pem")
    if request.param == "name":
        return server.url(sslrootcert=str(server.certificate), host="db.invalid")
    return server.url(sslrootcert=f"{tmp_path}/missing.pem")


def test_a_certificate_that_does_not_fit_is_refused_for_good(misfit: str) -> None:
    with Gathering(connections(misfit)) as gathering, pytest.raises(SpooldError) as caught:
        read(gathering, "rows")
    assert caught.value.code is errors.SOURCE_REFUSED
    assert not caught.value.transient
    assert "sslrootcert" in caught.value.hint
