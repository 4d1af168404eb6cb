"""S3 stores for tests: real servers on loopback, and buckets of theirs."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from spoold.connections import Connections
from spoold.connections.stores import StoreSettings
from spoold.stores import Store


@dataclass(frozen=True)
class Server:
    """An S3 server and keys that it takes."""

    url: str
    access_key: str = "tester"
    secret_key: str = "testing-secret"  # of a server of ours
    region: str = "us-east-1"

    def client(self) -> Any:
        """Somebody else's client, to make and look at what spoold reads and writes."""
        boto3 = pytest.importorskip("boto3")
        config = pytest.importorskip("botocore.config")
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=config.Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@dataclass
class Bucket:
    """A fresh bucket, and the key files of a site that may use it."""

    server: Server
    name: str
    folder: Path
    opened: ExitStack = field(default_factory=ExitStack)

    def settings(self, **changes: Any) -> StoreSettings:
        """The section of the configuration."""
        given = {
            "kind": "s3",
            "bucket": self.name,
            "endpoint": self.server.url,
            "region": self.server.region,
            "access_key_id_file": str(self._secret("id", self.server.access_key)),
            "secret_access_key_file": str(self._secret("secret", self.server.secret_key)),
            "read_timeout_seconds": 5.0,
            "attempts": 3,
            **changes,
        }
        return StoreSettings.model_validate(given)

    def connections(self, **changes: Any) -> Connections:
        """What a job may use: this store, called `vault`."""
        return Connections(stores={"vault": self.settings(**changes)})

    def store(self, **changes: Any) -> Store:
        """The store itself, closed after the test."""
        return self.opened.enter_context(Store("vault", self.settings(**changes)))

    def put(self, key: str, content: bytes = b"") -> None:
        """An object, put by somebody else."""
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        """An object's content, as somebody else gets it."""
        with closing(self.client.get_object(Bucket=self.name, Key=key)["Body"]) as body:
            data: bytes = body.read()
            return data

    def keys(self) -> list[str]:
        """What is in it."""
        found = self.client.list_objects_v2(Bucket=self.name)
        return [item["Key"] for item in found.get("Contents", [])]

    def uploads(self) -> list[str]:
        """The keys of uploads that were begun and neither completed nor thrown away."""
        found = self.client.list_multipart_uploads(Bucket=self.name)
        return [item["Key"] for item in found.get("Uploads", [])]

    @property
    def client(self) -> Any:
        return _client(self.server)

    def _secret(self, name: str, text: str) -> Path:
        path = self.folder / f"store-{name}"
        if not path.exists():
            path.write_text(text + "\n")
            path.chmod(0o600)
        return path


_clients: dict[str, Any] = {}


def _client(server: Server) -> Any:
    if server.url not in _clients:
        _clients[server.url] = server.client()
    return _clients[server.url]


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    """moto: S3 as Amazon's, but it believes every signature."""
    module = pytest.importorskip("moto.server")
    server = module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Server(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenStack Swift with s3api: it checks signatures and hashes."""
    pytest.importorskip("swift")
    folder = tmp_path_factory.mktemp("swift")
    try:
        os.setxattr(folder, "user.spoold.test", b"")
    except OSError:
        pytest.skip("the temporary folder's file system has no extended attributes")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.swift_server", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).parents[1],
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdout, process.stdin:
        port = process.stdout.readline().decode().strip()
        assert port, (folder / "log").read_text()
        yield Server(f"http://127.0.0.1:{port}", "test:tester", "testing")


@pytest.fixture(params=["moto", "swift"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    """A fresh bucket, of each server."""
    made = make_bucket(request.getfixturevalue(request.param), tmp_path)
    with made.opened:
        yield made


@pytest.fixture
def swift_bucket(swift: Server, tmp_path: Path) -> Iterator[Bucket]:
    """A fresh bucket of Swift."""
    made = make_bucket(swift, tmp_path)
    with made.opened:
        yield made


def make_bucket(server: Server, folder: Path) -> Bucket:
    """A fresh bucket."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    made = Bucket(server, name, folder)
    made.client.create_bucket(Bucket=name)
    return made
