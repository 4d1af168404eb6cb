"""The connections of one source: they wait in short steps, count bytes, and end in time.

Beneath the client's own connection pool, so that a lost lease, a time limit and a stall are noticed
wherever it waits for the server. Imported by whoever speaks HTTP, never with the request model.
"""

import re
import ssl
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import httpcore2

from spoold import errors
from spoold.errors import SpooldError

_STEP_SECONDS: Final = 0.5
_HEAD_END: Final = re.compile(rb"\n\r?\n")


class Clock:
    """The end of a source's time, and whether the attempt still has its job."""

    def __init__(self, seconds: float, check: Callable[[], None]) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._check = check
        self._checked = time.monotonic()

    def look(self) -> None:
        """Raise api-slow after the time limit, and what `check` raises; cheap."""
        now = time.monotonic()
        if now >= self._end:
            raise SpooldError(
                errors.API_SLOW, f"not all was fetched within {self._seconds:g} seconds"
            )
        if now - self._checked >= _STEP_SECONDS:
            self._checked = now
            self._check()

    def wait(self, seconds: float) -> None:
        """Wait, looking now and then."""
        end = time.monotonic() + seconds
        self.look()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _STEP_SECONDS, max(0.0, self._end - time.monotonic())))
            self.look()

    def step(self, left: float) -> float:
        """How long to wait before the next look."""
        return max(0.001, min(left, _STEP_SECONDS, self._end - time.monotonic()))


class Stream(httpcore2.NetworkStream):
    """A connection that reads in steps, and knows how many bytes came after the last head."""

    def __init__(
        self,
        inner: httpcore2.NetworkStream,
        clock: Clock,
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._head = b""
        self._in_body = False
        self.body_bytes = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes. Raises ReadTimeout after a stall, and what the clock raises."""
        end = time.monotonic() + self._read_timeout
        while True:
            self._clock.look()
            left = end - time.monotonic()
            try:
                data = self._inner.read(max_bytes, self._clock.step(left))
            except httpcore2.ReadTimeout:
                if left <= _STEP_SECONDS and time.monotonic() >= end:
                    raise
                continue
            self._count(data)
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send; a request begins, and its answer is counted anew."""
        if buffer:
            self._head, self._in_body, self.body_bytes = b"", False, 0
        self._inner.write(buffer, self._read_timeout)

    def close(self) -> None:
        """Give it back."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """The same over TLS."""
        inner = self._inner.start_tls(ssl_context, server_hostname, self._connect_timeout)
        return Stream(inner, self._clock, self._connect_timeout, self._read_timeout)

    def get_extra_info(self, info: str) -> Any:
        """What the connection beneath says."""
        return self._inner.get_extra_info(info)

    def _count(self, data: bytes) -> None:
        while not self._in_body and data:
            self._head += data
            match = _HEAD_END.search(self._head)
            if match is None:
                return
            data, head = self._head[match.end() :], self._head
            self._head = b""
            # A head of 1xx is followed by another one.
            self._in_body = re.match(rb"HTTP/1\.[01] 1", head) is None
        self.body_bytes += len(data)


class Backend(httpcore2.NetworkBackend):
    """Opens such connections."""

    def __init__(self, clock: Clock, connect_timeout: float, read_timeout: float) -> None:
        self._clock = clock
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A new connection."""
        self._clock.look()
        inner = self._inner.connect_tcp(
            host, port, self._connect_timeout, local_address, socket_options
        )
        return Stream(inner, self._clock, self._connect_timeout, self._read_timeout)
