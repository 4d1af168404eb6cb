"""HTTP for probes and metrics: `/metrics`, `/livez`, `/readyz`, `/healthz`. Read only.

`/livez`: the process answers. `/readyz`: it can take drops now (200), or not (503). `/healthz`:
every check with its text, 503 as soon as one fails. A port that is taken is a warning: the files
are the interface, this is a window.
"""

import json
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import structlog

from spoold.metrics import CONTENT_TYPE, Metrics

log = structlog.get_logger()

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_SOCKET_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `needed`: without it no drop can be taken."""

    name: str
    good: bool
    text: str
    needed: bool = True


Checks = Callable[[], Sequence[Check]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind, and ask no name server for a name that nothing here needs."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """One who does not wait for the answer is no event."""
        if not isinstance(sys.exc_info()[1], OSError):
            log.exception("http.failed")


class HealthServer:
    """Serves on one address in threads of its own."""

    def __init__(self, address: tuple[str, int], metrics: Metrics, checks: Checks) -> None:
        self._address = address
        self._metrics = metrics
        self._checks = checks
        self._server: _Server | None = None

    def start(self) -> None:
        """Begin to serve; log a warning where the address cannot be had."""
        handler = _handler(self._metrics, self._checks)
        try:
            self._server = _Server(self._address, handler)
        except OSError as error:
            log.warning(
                "http.unavailable",
                listen=_shown(self._address),
                error=error.strerror,
                fix="set [http] listen to a free address, or to an empty text to turn it off",
            )
            return
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        log.info("http.listening", listen=_shown(self._server.server_address))

    def stop(self) -> None:
        """End serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _shown(address: Sequence[object]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _handler(metrics: Metrics, checks: Checks) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One request."""

        timeout = _SOCKET_SECONDS
        server_version = "spoold"
        sys_version = ""

        def do_GET(self) -> None:
            match self.path.split("?")[0]:
                case "/metrics":
                    self._answer(HTTPStatus.OK, CONTENT_TYPE, metrics.text())
                case "/livez":
                    self._answer(HTTPStatus.OK, _TEXT, b"alive\n")
                case "/readyz":
                    missing = [check for check in checks() if check.needed and not check.good]
                    text = "".join(f"{check.name}: {check.text}\n" for check in missing)
                    self._answer(_status(not missing), _TEXT, (text or "ready\n").encode())
                case "/healthz":
                    found = checks()
                    document = {
                        "healthy": all(check.good for check in found),
                        "checks": {
                            check.name: {"good": check.good, "text": check.text} for check in found
                        },
                    }
                    body = json.dumps(document, indent=1).encode() + b"\n"
                    self._answer(_status(bool(document["healthy"])), _JSON, body)
                case _:
                    self._answer(HTTPStatus.NOT_FOUND, _TEXT, b"no such page\n")

        do_HEAD = do_GET  # noqa: N815  # the base class looks for this name

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its own name
            """Probes are no events."""

    return Handler


def _status(good: bool) -> HTTPStatus:
    return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
