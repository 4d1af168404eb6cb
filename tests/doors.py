"""A door before an S3 server: passes requests on, and goes wrong as a test has it."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.stores import Bucket, Server

_BLOCK = 16 * 1024


@dataclass(frozen=True)
class Passing:
    """A request that came to the door."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def byte_range(self) -> str | None:
        return self.headers.get("range")


@dataclass
class Fault:
    """What becomes of the requests that `when` takes, `times` of them.

    `answer`: a status, a code of S3's and headers, and the server hears nothing of it. `cut`: only
    so many bytes of the body are passed back; -1: the server does its work, and the answer is lost.
    `flip`: a bit of what is sent is changed. `stall`: until it is set, nothing is passed back.
    """

    when: Callable[[Passing], bool] = lambda _passing: True
    times: int = 1
    answer: tuple[int, str, Mapping[str, str]] | None = None
    cut: int | None = None
    flip: bool = False
    stall: threading.Event | None = None


@dataclass
class Door:
    """What passed, what is to go wrong, and how much went back."""

    server: Server
    faults: list[Fault] = field(default_factory=list)
    passed: list[Passing] = field(default_factory=list)
    bytes_back: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, passing: Passing) -> Fault:
        """What becomes of it."""
        with self.lock:
            self.passed.append(passing)
            for fault in self.faults:
                if fault.times and fault.when(passing):
                    fault.times -= 1
                    return fault
        return Fault()


class _Front(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Nothing: clients that are killed are what it is for."""


@contextmanager
def door(server: Server, tls: ssl.SSLContext | None = None) -> Iterator[tuple[Door, Server]]:
    """A door, and the server as it looks from before it: with TLS, as https://localhost."""
    made = Door(server)
    upstream = urlsplit(server.url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def handle_any(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            fault = made.fault(Passing(self.command, self.path, headers))
            body = self.rfile.read(int(headers.get("content-length", 0)))
            if fault.answer is not None:
                self._refuse(*fault.answer)
                return
            if fault.flip:
                body = body[:-1] + bytes([body[-1] ^ 1])
            connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port)
            try:
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                data = response.read()
                if fault.stall is not None:
                    fault.stall.wait(20)
                self._pass_back(response, data, fault.cut)
            finally:
                connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815  # http.server's

        def _refuse(self, status: int, code: str, headers: Mapping[str, str]) -> None:
            data = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _pass_back(
            self, response: http.client.HTTPResponse, data: bytes, cut: int | None
        ) -> None:
            if cut == -1:
                self.close_connection = True
                return
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                    self.send_header(name, value)
            length = response.getheader("content-length") if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if cut is not None:
                data = data[:cut]
                self.close_connection = True
            for begin in range(0, len(data), _BLOCK):
                block = data[begin : begin + _BLOCK]
                try:
                    self.wfile.write(block)
                except OSError:  # who is not interested any more closes
                    self.close_connection = True
                    return
                with made.lock:
                    made.bytes_back += len(block)

    front = _Front(("127.0.0.1", 0), Handler)
    if tls is not None:
        front.socket = tls.wrap_socket(front.socket, server_side=True)
    where = "https://localhost" if tls is not None else "http://127.0.0.1"
    thread = threading.Thread(target=front.serve_forever, args=(0.05,), name="door")
    thread.start()
    try:
        here = Server(
            f"{where}:{front.server_port}",
            server.access_key,
            server.secret_key,
            server.region,
        )
        yield made, here
    finally:
        front.shutdown()
        thread.join()
        front.server_close()


def behind(bucket: Bucket, server: Server) -> Bucket:
    """The same bucket, reached by another way."""
    return Bucket(server, bucket.name, bucket.folder, bucket.opened)
