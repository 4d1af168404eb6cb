"""S3 stores for tests: real servers on loopback, and buckets of theirs."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
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
    checks_signatures: bool = False

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
        """The store itself."""
        return Store("vault", self.settings(**changes))

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
    """moto: everything that the tests need, but it believes every signature."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Server(f"http://{host}:{port}")
    server.stop()


@pytest.fixture
def bucket(moto: Server, tmp_path: Path) -> Bucket:
    """A fresh bucket of moto."""
    return make_bucket(moto, tmp_path)


def make_bucket(server: Server, folder: Path) -> Bucket:
    """A fresh bucket."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    made = Bucket(server, name, folder)
    made.client.create_bucket(Bucket=name)
    return made
