"""A small API of cases: a timeline in pages, a list of artifacts, and their contents.

It behaves as APIs do: it wants a token, asks once to be asked later, and loses the connection once
in the middle of the largest artifact, which it then resumes.
"""

import hashlib
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

ADDRESS: Final = ("127.0.7.7", 8077)
TOKEN: Final = "Bearer 0f8fad5b-an-example"
EVENTS: Final = 750
_PAGE: Final = 200

_random = random.Random(7)
ARTIFACTS: Final = {
    "memory.dmp": _random.randbytes(6_000_000),
    "disk image.dd": bytes(3_000_000),
    "Grüße.eml": "From: x\nSubject: Grüße\n\n🚒\n".encode(),
    "sample.exe": _random.randbytes(50_000),
    "same as sample.exe": b"",
    "empty": b"",
}
ARTIFACTS["same as sample.exe"] = ARTIFACTS["sample.exe"]
_LARGEST: Final = next(iter(ARTIFACTS))


def events() -> list[dict[str, Any]]:
    """The timeline of the incident."""
    return [
        {
            "id": number,
            "at": f"2026-11-20T10:{number // 60:02}:{number % 60:02}Z",
            "actor": f"user-{number % 9}",
            "what": f'step {number}: "quoted", back\\slash, Grüße',
            "score": number + 0.5,
        }
        for number in range(EVENTS)
    ]


class _Cases(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        where = urlsplit(self.path)
        parts = where.path.split("/")[1:]
        if self.headers["Authorization"] != TOKEN:
            self._answer(401, {"error": "who are you?"})
            return
        match parts:
            case ["v1", "incidents", "INC-7", "timeline"]:
                self._timeline(parse_qs(where.query))
            case ["v1", "incidents", "INC-7", "artifacts"]:
                self._answer(200, {"artifacts": list(_described())})
            case ["v1", "artifacts", number, "content"]:
                self._content(list(ARTIFACTS)[int(number)])
            case _:
                self._answer(404, {"error": "no such incident"})

    def _timeline(self, query: dict[str, list[str]]) -> None:
        if self.server.first("timeline"):
            self._answer(429, {"error": "later"}, {"Retry-After": "1"})
            return
        start = int(query.get("cursor", ["0"])[0])
        found = events()[start : start + _PAGE]
        end = start + len(found)
        self._answer(200, {"events": found, "next": str(end) if end < EVENTS else None})

    def _content(self, name: str) -> None:
        content = ARTIFACTS[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = 0
        if wanted := self.headers["Range"]:
            assert self.headers["If-Range"] == tag
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if name == _LARGEST and self.server.first(name):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _answer(
        self, status: int, document: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        content = json.dumps(document, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(ADDRESS, _Cases)
        self._met: set[str] = set()
        self._lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""

    def first(self, what: str) -> bool:
        """Whether this is asked for the first time."""
        with self._lock:
            fresh = what not in self._met
            self._met.add(what)
            return fresh


def _described() -> Iterator[dict[str, Any]]:
    for number, (name, content) in enumerate(ARTIFACTS.items()):
        digest = hashlib.sha256(content).hexdigest()
        yield {"id": number, "name": name, "size": len(content), "sha256": digest}


@contextmanager
def serving() -> Iterator[None]:
    """The API, for as long as the context lasts."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
