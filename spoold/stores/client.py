"""Signed requests to one store, each tried a few times; what it refuses becomes a code of ours."""

import http.client
import random
import ssl
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from spoold import canonical, errors
from spoold.connections.stores import StoreSettings
from spoold.errors import SpooldError
from spoold.stores import answers
from spoold.stores.contents import Bytes, FileRange
from spoold.stores.credentials import Keys
from spoold.stores.signing import Scope, encoded_path, encoded_query, sign
from spoold.stores.wire import Answer, Wire

_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024  # of XML; a page of 1,000 long keys has 4
_MAX_ERROR_BYTES: Final = 64 * 1024
_STEP_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES: Final = frozenset(
    {
        "BadDigest",  # what arrived is not what was sent
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
    }
)
_STALE_CODES: Final = frozenset({"ExpiredToken", "TokenRefreshRequired"})
_NOTHING: Final = Bytes()
OK: Final = frozenset({200})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked; `key` None asks the bucket itself."""

    method: str
    key: bytes | None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: Bytes | FileRange = _NOTHING
    sha256: bytes | None = None
    """Of the content; None: it is short and hashed here."""


@dataclass(frozen=True, slots=True)
class ShortAnswer:
    """An answer that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _AgainError(Exception):
    """This try came to nothing, another one may."""

    def __init__(self, problem: str, pause: float = 0.0) -> None:
        super().__init__(problem)
        self.pause = pause


class Client:
    """The requests of one attempt. `check` is called while waiting and ends it by raising."""

    def __init__(self, name: str, settings: StoreSettings, check: Callable[[], None]) -> None:
        self.name, self.settings, self.check = name, settings, check
        self._keys = Keys(name, settings)
        try:
            self._wire = Wire(settings)
        except OSError as error:  # ssl.SSLError is one
            raise SpooldError(
                errors.CONFIG_INVALID, f"{settings.ca}: {error}", at=f"stores.{name}.ca"
            ) from error

    def close(self) -> None:
        """Give the connections back."""
        self._wire.close()

    def ask(self, request: Request, expected: AbstractSet[int] = OK) -> ShortAnswer:
        """The whole of a short answer of an expected status.

        Raises store-away after the last try, or store-refused with what the store says.
        """

        def read() -> ShortAnswer:
            with self._answer(request, expected) as answer:
                try:
                    body = answer.whole(_MAX_ANSWER_BYTES)
                except ValueError as error:
                    raise self.invalid(str(error)) from error
                return ShortAnswer(answer.status, answer.headers, body)

        return self._try(read)

    def stream(self, request: Request, expected: AbstractSet[int] = OK) -> Answer:
        """An answer whose body is read by the caller, who closes it. Raises what `ask` does."""
        return self._try(lambda: self._answer(request, expected))

    def pause(self, tries: int, least: float = 0.0) -> None:
        """Wait after so many tries that failed; longer each time."""
        jitter = random.uniform(0.5, 1)  # noqa: S311  # it spreads load
        end = time.monotonic() + min(max(0.2 * 2**tries * jitter, least), _LONGEST_PAUSE_SECONDS)
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _STEP_SECONDS))

    def away(self, what: str) -> SpooldError:
        """The store-away of a store that does not do its work now."""
        return SpooldError(
            errors.STORE_AWAY, f"[stores.{self.name}] {self._wire.host}: {canonical.text(what)}"
        )

    def invalid(self, what: str) -> SpooldError:
        """The store-answer of what no store should say."""
        return SpooldError(
            errors.STORE_ANSWER, f"[stores.{self.name}] {self._wire.host}: {canonical.text(what)}"
        )

    def _try(self, do: Callable[[], T]) -> T:
        tries = 0
        while True:
            self.check()
            try:
                return do()
            except _AgainError as error:
                problem, least = str(error), error.pause
            except ssl.SSLCertVerificationError as error:
                raise SpooldError(
                    errors.STORE_REFUSED,
                    f"[stores.{self.name}] {self._wire.host}: {error.verify_message}",
                    hint="check the endpoint's name, and `ca` if its authority is one of your own",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                problem, least = str(error) or type(error).__name__, 0.0
            tries += 1
            if tries >= self.settings.attempts:
                raise self.away(problem)
            self.pause(tries, least)

    def _answer(self, request: Request, expected: AbstractSet[int]) -> Answer:
        answer = self._send(request)
        if answer.status in expected:
            return answer
        with answer:
            said = answers.refusal(answer.read(_MAX_ERROR_BYTES))
            problem = f"{answer.status} {said.code} {said.message}".strip()[:300]
            stale = said.code in _STALE_CODES and self._keys.forget()
            if stale or answer.status in _PASSING or said.code in _PASSING_CODES:
                raise _AgainError(problem, _retry_after(answer.headers))
            raise self._refused(request, answer, said, problem)

    def _send(self, request: Request) -> Answer:
        now = datetime.now(UTC)
        key = b"/" + (request.key or b"")
        if self.settings.path_style:
            key = f"/{self.settings.bucket}".encode() + (key if request.key is not None else b"")
        path, query = encoded_path(key), encoded_query(request.query)
        digest = request.content.sha256() if request.sha256 is None else request.sha256
        headers = sign(
            self._keys.get(now),
            Scope(self.settings.region, now),
            method=request.method,
            path=path,
            query=query,
            headers={"host": self._wire.host, **request.headers},
            payload_sha256=digest.hex(),
        )
        target = f"{path}?{query}" if query else path
        return self._wire.send(request.method, target, headers, request.content)

    def _refused(
        self, request: Request, answer: Answer, said: answers.Refusal, problem: str
    ) -> SpooldError:
        shown = canonical.text(request.key) if request.key is not None else "the bucket"
        region = answer.headers.get("x-amz-bucket-region", "")
        hint = ""
        if said.code == "RequestTimeTooSkewed":
            hint = "set this host's clock: requests are good for some minutes only"
        elif 300 <= answer.status < 400 or said.code == "AuthorizationHeaderMalformed":
            hint = "set the store's region" + (f' to "{canonical.text(region)}"' if region else "")
        elif answer.status == http.client.NOT_FOUND:
            hint = "check the store's bucket, and path_style"
        return SpooldError(
            errors.STORE_REFUSED,
            f"[stores.{self.name}] {request.method} {shown}: {canonical.text(problem)}",
            hint=hint,
        )


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:6])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
