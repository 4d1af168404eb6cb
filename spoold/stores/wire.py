"""One request to a store and its answer, over connections that are kept and used again.

No proxy, no cookie, no redirect: nobody but the configured host is spoken to.
"""

import http.client
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol
from urllib.parse import urlsplit

from spoold.connections.stores import StoreSettings

BLOCK_BYTES: Final = 256 * 1024
_DRAIN_BYTES: Final = 64 * 1024  # so little is read to its end, that the connection can be kept
_MAX_IDLE: Final = 4


class Content(Protocol):
    """What a request sends, from its begin each time `rewind` was called."""

    @property
    def size(self) -> int:
        """In bytes."""

    def rewind(self) -> None:
        """Begin again."""

    def read(self, count: int = -1, /) -> bytes:
        """The next bytes; none at the end."""


@dataclass(slots=True)
class Answer:
    """What came back; closing it gives the connection back, or up where much is unread."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    _response: http.client.HTTPResponse
    _give_back: Callable[[bool], None]
    _broken: bool = False

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def read(self, count: int) -> bytes:
        """Up to so many bytes; none at the end, or where the connection was lost."""
        self._broken = True  # should this raise
        data = self._response.read(count)
        self._broken = False
        return data

    def whole(self, limit: int) -> bytes:
        """All of a short answer. Raises ValueError where it is longer or incomplete."""
        expected = self._response.length  # 0 of a HEAD, whatever its headers say
        data = self._response.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"it is longer than {limit} bytes")
        if expected is not None and len(data) != expected:
            raise http.client.IncompleteRead(data)
        return data

    def close(self) -> None:
        """Nothing more is wanted of it."""
        left = self._response.length
        clean = self._response.isclosed() and not self._broken
        if not clean and not self._broken and left is not None and left <= _DRAIN_BYTES:
            with suppress(OSError, http.client.HTTPException):
                self._response.read()
                clean = self._response.isclosed()
        self._give_back(clean)


class Wire:
    """The connections of one attempt to one store."""

    def __init__(self, settings: StoreSettings) -> None:
        parts = urlsplit(settings.url)
        assert parts.hostname is not None
        host, port = parts.hostname, parts.port
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = ssl.create_default_context(cafile=settings.ca)
        if not settings.path_style:
            host = f"{settings.bucket}.{host}"
        self._host, self._port = host, port
        shown = f"[{host}]" if ":" in host else host
        self.host = shown if port is None else f"{shown}:{port}"
        """What the Host header says."""
        self._connect_seconds = settings.connect_timeout_seconds
        self._read_seconds = settings.read_timeout_seconds
        self._idle: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def send(
        self, method: str, target: str, headers: Mapping[str, str], content: Content
    ) -> Answer:
        """Make a request. Raises OSError or http.client.HTTPException where no answer comes.

        A connection that was kept may have been closed by the other side: what fails on it is
        made again on a new one.
        """
        while self._idle:
            connection = self._idle.pop()
            try:
                return self._exchange(connection, method, target, headers, content)
            except (ConnectionError, http.client.RemoteDisconnected):
                connection.close()
            except BaseException:
                connection.close()
                raise
        connection = self._connect()
        try:
            return self._exchange(connection, method, target, headers, content)
        except BaseException:
            connection.close()
            raise

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(
                self._host,
                self._port,
                timeout=self._connect_seconds,
                context=self._tls,
                blocksize=BLOCK_BYTES,
            )
        else:
            connection = http.client.HTTPConnection(
                self._host, self._port, timeout=self._connect_seconds, blocksize=BLOCK_BYTES
            )
        connection.connect()
        connection.sock.settimeout(self._read_seconds)
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        content: Content,
    ) -> Answer:
        content.rewind()
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if content.size or method in {"PUT", "POST"}:
                connection.putheader("content-length", str(content.size))
            connection.endheaders()
            # Block by block: the timeout is that of each one, not of the whole.
            while block := content.read(BLOCK_BYTES):
                connection.send(block)
        except (BrokenPipeError, ConnectionResetError):
            # Who refuses a large request may answer before it is sent and then close.
            with suppress(OSError, http.client.HTTPException):
                return self._answer(connection, keep=False)
            raise
        return self._answer(connection, keep=True)

    def _answer(self, connection: http.client.HTTPConnection, *, keep: bool) -> Answer:
        response = connection.getresponse()

        def give_back(clean: bool) -> None:
            response.close()
            # A connection whose answer says that it closes has no socket any more.
            if clean and keep and connection.sock is not None and len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
            else:
                connection.close()

        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response, give_back)
