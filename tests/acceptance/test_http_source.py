"""A daemon that gathers from an API: each trouble ends in a clear status, and nothing is left."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apis import Api, Exchange, serving
from tests.sites import Site, Status, spoold

MakeSite = Callable[..., Site]

SECRET = "Bearer s3cret-token"
CONTENT = bytes(range(256)) * 4000
SETTINGS = """
[apis.soc]
base = "{base}/api"
secret_headers = {{ Authorization = "../token" }}
attempts = 2
pause_seconds = 0.05
read_timeout_seconds = 0.5
max_bytes = "20MiB"

[endpoints.timeline]
api = "soc"
path = "/incidents/{{incident_id}}/events"
parameters = {{ incident_id = "text" }}
items = "data"
pages = "cursor"
cursor = "next"

[endpoints.artifacts]
api = "soc"
path = "/incidents/{{incident_id}}/artifacts"
parameters = {{ incident_id = "text" }}
download = {{ path = "/artifacts/{{item.id}}", name = "{{item.name}}", sha256 = "{{item.sha256}}" }}
"""


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def site(make_site: MakeSite, api: Api, tmp_path: Path) -> Site:
    site: Site = make_site(retry_base_seconds=0.1)
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    token.chmod(0o600)
    with open(site.root / "spoold.toml", "a") as file:
        file.write(SETTINGS.format(base=api.base))
    return site


class Incidents:
    """Each incident's artifact has its own trouble; `tried` counts how often it was asked for."""

    def __init__(self, ended: threading.Event) -> None:
        self.ended = ended
        self.tried: dict[str, int] = {}

    def __call__(self, exchange: Exchange) -> None:
        assert exchange.headers["authorization"] == SECRET
        _, _, kind, name, *rest = exchange.path.split("/")
        if kind == "artifacts":
            self.tried[name] = self.tried.get(name, 0) + 1
            self.send_artifact(exchange, name)
        elif rest == ["artifacts"]:
            digest = hashlib.sha256(CONTENT).hexdigest()
            item = {"id": name, "name": f"{name}.bin", "sha256": digest}
            exchange.send(json.dumps([item]))
        elif "cursor" in exchange.query:
            exchange.send('{"data": [{"n": 2}], "next": null}')
        else:
            exchange.send('{"data": [{"n": 1.10}], "next": "b"}')

    def send_artifact(self, exchange: Exchange, name: str) -> None:
        match name:
            case "dying" | "dead" if name == "dead" or self.tried[name] <= 3:
                exchange.head(200, {"Content-Length": str(len(CONTENT))})
                exchange.raw(CONTENT[:1000])
                exchange.die()
            case "stalling":
                exchange.head(200, {"Content-Length": str(len(CONTENT))})
                self.ended.wait()
            case "lying":
                exchange.head(200, {"Content-Length": str(len(CONTENT) - 1)})
                exchange.raw(CONTENT)
            case "broken":
                exchange.send(status=500)
            case "busy":
                exchange.send(status=429, Retry_After="0")
            case "elsewhere":
                exchange.send(status=302, Location="https://storage.example/artifact")
            case "endless":
                exchange.head(200, {"Transfer-Encoding": "chunked"})
                while True:
                    exchange.raw(b"100000\r\n" + bytes(2**20) + b"\r\n")
            case "secretive":
                exchange.send(f"not for {exchange.headers['authorization']}", 403)
            case _:
                exchange.send(CONTENT)


def drop(site: Site, incident: str) -> str:
    sources = [
        {
            "kind": "http",
            "endpoint": endpoint,
            "parameters": {"incident_id": incident},
            "into": endpoint,
        }
        for endpoint in ("timeline", "artifacts")
    ]
    name = f"request-{incident}.json"
    document: dict[str, Any] = {
        "type": "spoold.request/1",
        "action": "bundle",
        "name": incident,
        "sources": sources,
        "max_attempts": 2,
    }
    site.drop(name, document)
    return name


ENDS = {
    "dead": ("api-away", 2),
    "stalling": ("api-away", 2),
    "lying": ("api-answer-invalid", 1),
    "broken": ("api-away", 2),
    "busy": ("api-away", 2),
    "elsewhere": ("api-redirect", 1),
    "endless": ("api-too-large", 1),
    "secretive": ("api-refused", 1),
}


def test_every_trouble_of_an_api_has_a_clear_end(site: Site, api: Api, tmp_path: Path) -> None:
    api.answer = incidents = Incidents(api.ended)
    site.start()
    drops = {incident: drop(site, incident) for incident in ("good", "dying", *ENDS)}
    statuses: dict[str, Status] = {name: site.final(drops[name]) for name in drops}
    for incident, (code, attempts) in ENDS.items():
        status = statuses[incident]
        assert (status["state"], status["error"]["code"]) == ("failed", code), incident
        assert status["attempt"] == attempts, incident
        assert "bundle" not in status["files"]
    for incident in ("good", "dying"):
        status = statuses[incident]
        assert status["state"] == "succeeded", status
        bundle = site.root / status["files"]["bundle"]
        target = tmp_path / incident
        spoold("restore", bundle, "--to", target, "--spool", site.root)
        assert (target / "timeline/timeline.jsonl").read_bytes() == b'{"n": 1.10}\n{"n": 2}\n'
        assert (target / f"artifacts/{incident}.bin").read_bytes() == CONTENT
    assert statuses["dying"]["attempt"] == 2
    assert incidents.tried["dying"] == 4
    assert not site.leftovers()
    processed = [path for path in (site.root / "processed").iterdir() if path.suffix == ".zst"]
    assert len(processed) == 2
    assert "s3cret" not in json.dumps(statuses) + site.log
