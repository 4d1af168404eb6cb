"""Speaks to one API: GET only, to its own host only, in bounded time and bytes.

The client library does what no application should do itself, HTTP/1.1 and connections; redirects,
retries, limits and what an answer's length must be are decided here.
"""

import random
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import httpcore2

from spoold import __version__, canonical, errors
from spoold.connections.apis import ApiSettings
from spoold.errors import SpooldError
from spoold.sources.http.addresses import Origin, followed
from spoold.sources.http.credentials import read_headers, scrubbed, tls_context
from spoold.sources.http.retrying import RETRIED, Backoff, TryAgainError, retry_after
from spoold.sources.http.wire import Backend, Clock, Stream

_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_EXCERPT_BYTES: Final = 64 * 1024  # more than is shown: half a secret would not be known as one
_EXCERPT: Final = 200
_KEY_HINT: Final = (
    "see secret_headers or client_certificate in [apis]: the API takes another key, or this one "
    "may not read this"
)
_PASSES: Final = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
    ssl.SSLSyscallError,
)


class RefusedError(SpooldError):
    """The API answered with a status that says no for good."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(errors.API_REFUSED, message, hint=hint)
        self.status = status


class Pace:
    """Requests of one attempt to one API, at most so many in a second."""

    def __init__(self, requests_per_second: float) -> None:
        self._seconds = 1 / requests_per_second if requests_per_second else 0.0
        self._next = 0.0

    def wait(self, clock: Clock) -> None:
        """Wait for the next request's turn."""
        now = time.monotonic()
        if self._next > now:
            clock.wait(self._next - now)
        self._next = max(now, self._next) + self._seconds


class Answer:
    """The head of an answer, and its body to be read once."""

    def __init__(self, client: "ApiClient", response: httpcore2.Response, target: str) -> None:
        self._client, self._response = client, response
        self.target = target
        self.status = response.status
        self.headers: dict[str, str] = {}
        for name, value in response.headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text
        chunked = "transfer-encoding" in self.headers
        self.framed = chunked or "content-length" in self.headers
        """Whether the end of the body differs from a lost connection."""
        self.length = None if chunked else _length(self.headers.get("content-length"))

    def body(self) -> Iterator[bytes]:
        """The body's bytes, counted. Raises TryAgainError where it ends early."""
        encoding = self.headers.get("content-encoding", "identity").strip()
        if encoding.lower() not in {"identity", ""}:
            raise self.invalid(f"no encoding was accepted, but it is encoded as {encoding!r}")
        self._client.require_room(self.length or 0)
        with self._client.trouble(self.target):
            for data in self._response.iter_stream():
                self._client.take(len(data))
                yield data
        stream = self._response.extensions["network_stream"]
        if self.length is not None and isinstance(stream, Stream):
            more = stream.body_bytes - self.length
            if more > 0:
                raise self.invalid(f"{more} bytes follow the {self.length} of its Content-Length")

    def read(self, limit: int) -> bytes:
        """The whole body. Raises api-too-large beyond the limit."""
        if (self.length or 0) > limit:
            raise self._too_large(limit)
        parts, size = [], 0
        for data in self.body():
            size += len(data)
            if size > limit:
                raise self._too_large(limit)
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back; one with an unread rest is closed."""
        self._response.close()

    def invalid(self, what: str, *, transient: bool = False) -> SpooldError:
        """The answer as an error."""
        path = self._client.shown_path(self.target)
        return SpooldError(
            errors.API_ANSWER_INVALID,
            f"{path}: {self._client.shown(what)[:_EXCERPT]}",
            transient=transient,
        )

    def excerpt(self) -> str:
        """The begin of a refusal's body, for its error."""
        data = b""
        try:
            for part in self._response.iter_stream():
                data += part
                if len(data) >= _EXCERPT_BYTES:
                    break
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException):
            return ""
        text = " ".join(data[:_EXCERPT_BYTES].decode("utf-8", "replace").split())
        return self._client.shown(text)[:_EXCERPT]

    def _too_large(self, limit: int) -> SpooldError:
        path = self._client.shown_path(self.target)
        return SpooldError(
            errors.API_TOO_LARGE, f"{path}: a page of more than {limit} bytes (max_page_bytes)"
        )


class ApiClient:
    """One source's connections to its API; closed with the context."""

    def __init__(
        self,
        api: ApiSettings,
        pace: Pace,
        *,
        check: Callable[[], None],
        count: Callable[[int, int], None],
    ) -> None:
        self.origin = Origin.of(api.base)
        self.count = count
        self.clock = Clock(api.time_limit_seconds, check)
        self._backoff = Backoff(api.attempts, api.pause_seconds, api.max_pause_seconds)
        self._pace = pace
        self._max_bytes, self._bytes = api.max_bytes, 0
        headers = read_headers(api)
        self._secrets = [headers[name] for name in api.secret_headers]
        self._headers = headers
        context = tls_context(api) if self.origin.scheme == "https" else None
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context,
            keepalive_expiry=30,
            network_backend=Backend(
                self.clock, api.connect_timeout_seconds, api.read_timeout_seconds
            ),
        )

    def __enter__(self) -> "ApiClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    @contextmanager
    def exchange(self, target: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """One request and its answer of 2xx; of 416 too where a range was asked for.

        Raises TryAgainError where the same may succeed a little later, and the error of one that
        will not.
        """
        more = headers or {}
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._ask(target, more)
            try:
                if answer.status not in _REDIRECTS:
                    self._require_good(answer, ranged="Range" in more)
                    yield answer
                    return
                target = self.follow(target, self._location(answer))
            finally:
                answer.close()
        path = self.shown_path(target)
        raise SpooldError(
            errors.API_REDIRECT, f"{path}: more than {_MAX_REDIRECTS} redirects in a row"
        )

    def tries(self) -> "Tries":
        """The failures of one request, in a row."""
        return Tries(self.clock, self._backoff)

    def take(self, size: int) -> None:
        """Count bytes of a body. Raises api-too-large beyond the source's limit."""
        self.require_room(size)
        self._bytes += size

    def require_room(self, size: int) -> None:
        """Raise api-too-large where so many more bytes would be too many."""
        if self._max_bytes and self._bytes + size > self._max_bytes:
            raise SpooldError(
                errors.API_TOO_LARGE,
                f"{self.origin}: answers of more than {self._max_bytes} bytes (max_bytes)",
            )

    def shown(self, text: str) -> str:
        """A text of the API's as errors may show it; what is too long is cut afterwards."""
        return canonical.text(scrubbed(text, self._secrets))

    def shown_path(self, target: str) -> str:
        """A target's path, which may be one that the API has led to."""
        return self.shown(target.partition("?")[0])

    def follow(self, target: str, link: str) -> str:
        """The target that a link leads to, see `addresses.followed`."""
        return followed(self.origin, target, link, self.shown)

    @contextmanager
    def trouble(self, target: str) -> Iterator[None]:
        """Failures of the connection as TryAgainError or api-untrusted."""
        path = self.shown_path(target)
        try:
            yield
        except (
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
            httpcore2.TimeoutException,
        ) as error:
            self.clock.look()
            for cause in _causes(error):
                if isinstance(cause, ssl.SSLError) and not isinstance(cause, _PASSES):
                    raise _untrusted(self.origin, cause) from error
            what = self.shown(_what(error))[:_EXCERPT]
            raise TryAgainError(f"{self.origin}{path}: {what}") from error

    def _ask(self, target: str, headers: Mapping[str, str]) -> Answer:
        self._pace.wait(self.clock)
        port = self.origin.port
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        default = port == {"http": 80, "https": 443}[self.origin.scheme]
        named = {
            "Host": host if default else f"{host}:{port}",
            "User-Agent": f"spoold/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        configured = {name.lower() for name in self._headers}
        sent = [(name, value) for name, value in named.items() if name.lower() not in configured]
        request = httpcore2.Request(
            "GET",
            httpcore2.URL(
                scheme=self.origin.scheme, host=self.origin.host, port=port, target=target
            ),
            headers=[*sent, *self._headers.items()],
        )
        with self.trouble(target):
            return Answer(self, self._pool.handle_request(request), target)

    def _location(self, answer: Answer) -> str:
        location = answer.headers.get("location")
        if location is None:
            raise answer.invalid(f"{answer.status} without a Location")
        return location

    def _require_good(self, answer: Answer, *, ranged: bool) -> None:
        status = answer.status
        if status == 200 or (ranged and status in {206, 416}):
            return
        path = self.shown_path(answer.target)
        said = f"{self.origin}{path}: {status} {_phrase(status)}".strip()
        if status in RETRIED:
            asked = retry_after(answer.headers.get("retry-after"), datetime.now(UTC))
            raise TryAgainError(said, asked)
        if 400 <= status < 600:
            excerpt = answer.excerpt()
            raise RefusedError(
                status,
                f"{said}: {excerpt}" if excerpt else said,
                _KEY_HINT if status in {401, 403} else "",
            )
        raise answer.invalid(f"{status} {_phrase(status)} is no answer to this")


class Tries:
    """Counts the failures of one request, and waits between them."""

    def __init__(self, clock: Clock, backoff: Backoff) -> None:
        self._clock, self._backoff = clock, backoff
        self._failed = 0

    def failed(self, error: TryAgainError) -> None:
        """Wait for the next attempt. Raises api-away after the last one."""
        self._failed += 1
        pause = self._backoff.pause(self._failed, error.wait_seconds, random.random())  # noqa: S311 - spreads load
        if pause is None:
            times = "once" if self._failed == 1 else f"{self._failed} times in a row"
            raise SpooldError(errors.API_AWAY, f"{error.what} ({times})") from error
        self._clock.wait(pause)

    def got_on(self) -> None:
        """Something was gained: what failed before does not count any more."""
        self._failed = 0


def _length(value: str | None) -> int | None:
    # The client library has refused what is no number and lengths that differ.
    return None if value is None else int(value.partition(",")[0])


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _what(error: Exception) -> str:
    """A sentence on a failed connection; of the system's words only the known part."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return f"{_NOUN.get(type(error), 'the connection failed')}: {cause.strerror}"
    if isinstance(error, httpcore2.RemoteProtocolError):
        return f"the answer broke off or breaks HTTP: {error}"
    return _NOUN.get(type(error), "the connection failed")


_NOUN: Final[Mapping[type[Exception], str]] = {
    httpcore2.ConnectTimeout: "no connection in time",
    httpcore2.ConnectError: "no connection",
    httpcore2.ReadTimeout: "the answer stalled",
    httpcore2.ReadError: "the connection was lost",
    httpcore2.WriteError: "the connection was lost",
    httpcore2.WriteTimeout: "the request was not taken in time",
}


def _untrusted(origin: Origin, error: ssl.SSLError) -> SpooldError:
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"its certificate is not good: {error.verify_message}"
    else:
        what = f"no TLS with it: {(error.reason or 'unknown').lower().replace('_', ' ')}"
    return SpooldError(errors.API_UNTRUSTED, f"{origin}: {canonical.text(what)}")
