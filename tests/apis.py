"""A small HTTP server of the tests' own that does what a test tells it, also what no server may.

A test gives a function that is called for each request and writes the answer, byte by byte where
it likes.
"""

import contextlib
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from spoold.connections import Connections
from spoold.connections.apis import ApiSettings, EndpointSettings
from spoold.sources.http import HttpSource, HttpSpec
from spoold.sources.source import Gathering, Problem, raise_it


@dataclass
class Exchange:
    """One request, and the ways to answer it."""

    target: str
    headers: dict[str, str]
    number: int
    """How many requests there were before it."""
    connection: socket.socket
    closing: bool = False

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        parsed = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {key: values[-1] for key, values in parsed.items()}

    def raw(self, data: bytes) -> None:
        self.connection.sendall(data)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.raw("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send(self, body: bytes | str = b"", status: int = 200, **headers: str) -> None:
        """An answer as it should be."""
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.head(status, {"Content-Length": str(len(data)), **named})
        self.raw(data)

    def close(self) -> None:
        """End the connection in order."""
        self.closing = True

    def die(self) -> None:
        """End it as a server that is killed: with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.closing = True


Answering = Callable[[Exchange], None]


@dataclass
class Api:
    """A server that runs, and what it was asked."""

    port: int = 0
    answer: Answering = lambda exchange: exchange.send(b"[]")
    asked: list[Exchange] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends: what a test's answer waits for that never comes."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [exchange.target for exchange in self.asked]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Api]:
    """A server on a port of its own, with TLS where there is a context."""
    api = Api()
    lock = threading.Lock()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection = self.request
            with contextlib.suppress(OSError):
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                with connection:
                    self.converse(connection)

        def converse(self, connection: socket.socket) -> None:
            with connection.makefile("rb") as lines:
                while line := lines.readline():
                    target = line.decode("latin-1").split(" ")[1]
                    headers = {}
                    while (field := lines.readline().decode("latin-1").strip()) != "":
                        name, _, value = field.partition(":")
                        headers[name.lower()] = value.strip()
                    with lock:
                        exchange = Exchange(target, headers, len(api.asked), connection)
                        api.asked.append(exchange)
                    api.answer(exchange)
                    if exchange.closing:
                        return

    with _Server(("127.0.0.1", 0), Handler) as server:
        api.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield api
        finally:
            api.ended.set()
            server.shutdown()
            thread.join()


def settings(base: str, **keys: Any) -> ApiSettings:
    """An API whose failures a test does not wait long for."""
    quick = {"pause_seconds": 0.01, "max_pause_seconds": 0.05, "attempts": 3}
    return ApiSettings.model_validate({"base": base, **quick, **keys})


@dataclass
class Got:
    """What a source gave."""

    files: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int | None] = field(default_factory=dict)
    types: dict[str, str | None] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    bytes: int = 0
    rows: int = 0


def gather(
    api: ApiSettings,
    endpoint: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
    *,
    into: str | None = None,
    on_problem: Problem = raise_it,
    check: Callable[[], None] = lambda: None,
    scratch: Path | None = None,
    piece: int = 1000,
) -> Got:
    """Read a whole source as a bundle's writer would, piece by piece."""
    got = Got()

    def count(more_bytes: int, more_rows: int) -> None:
        got.bytes += more_bytes
        got.rows += more_rows

    section = EndpointSettings.model_validate({"api": "a", **endpoint})
    connections = Connections(apis={"a": api}, endpoints={"events": section})
    spec = HttpSpec.model_validate(
        {"kind": "http", "endpoint": "events", "parameters": parameters or {}, "into": into}
    )
    with Gathering(connections, check, count, scratch) as gathering:
        source = HttpSource.open(spec, gathering, "http:events")
        for entry in source.entries(on_problem):
            path = entry.path.decode()
            assert entry.content is not None
            assert not isinstance(entry.content, int)
            with contextlib.closing(entry.content) as content:
                parts = []
                while data := content.read(piece):
                    parts.append(data)
            got.files[path] = b"".join(parts)
            got.sizes[path], got.types[path] = entry.size, entry.media_type
            got.times[path] = entry.mtime_ns
        got.warnings = source.warnings
    assert list(got.files) == sorted(got.files, key=str.encode)
    return got
