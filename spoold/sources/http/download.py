"""One file from an API, streamed: a lost connection is resumed where it broke.

A rest is asked for by `Range` with `If-Range`, so that it is one of the same content. Where the
server sends the whole again, what was read before is compared by its hash and dropped; a
difference is source-changed. So nothing is held, in memory or on disk, and nothing mixes two
contents. A server may send less of a rest than was asked for: then the next one is asked for, until
the end is told.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from spoold import canonical, errors
from spoold.bundle.entry import clamp_mtime
from spoold.errors import SpooldError
from spoold.sources.http.client import Answer, ApiClient
from spoold.sources.http.retrying import TryAgainError, content_range, http_date, validator

_TELL_BYTES: Final = 1024 * 1024
_GAIN_BYTES: Final = 1024 * 1024  # so much read after a failure, and the failures begin anew
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be fetched, and what is known of it beforehand."""

    target: str
    path: bytes
    """Of the entry, for errors."""
    size: int | None = None
    sha256: str | None = None


class Download:
    """The content of an entry, read once; `close` it."""

    def __init__(self, client: ApiClient, wanted: Wanted) -> None:
        self._client, self._wanted = client, wanted
        self._tries = client.tries()
        self._hash = hashlib.sha256()
        self._done = self._told = self._gained = 0
        self._rest = b""
        self._ended = self._partial = False
        self._exchange: AbstractContextManager[Answer] | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._validator: str | None = None
        head = self._first()
        self.size = head.length if wanted.size is None else wanted.size
        """None: nobody says, or not yet."""
        self._require_size(head)
        self.media_type = _media_type(head.headers)
        changed = http_date(head.headers.get("last-modified"))
        self.mtime_ns = (
            None if changed is None else clamp_mtime(int(changed.timestamp()) * 1_000_000_000)
        )
        self._require_end(head)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, fewer only at the end; the end is checked before it is told."""
        parts, have = [], 0
        while size < 0 or have < size:
            data = self._rest or self._next()
            if not data:
                break
            part = data if size < 0 else data[: size - have]
            self._rest = data[len(part) :]
            parts.append(part)
            have += len(part)
        if self._done - self._told >= _TELL_BYTES or self._ended:
            self._client.count(self._done - self._told, 0)
            self._told = self._done
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back."""
        exchange, self._exchange = self._exchange, None
        self._chunks = iter(())
        if exchange is not None:
            exchange.__exit__(None, None, None)

    def _first(self) -> Answer:
        while True:
            try:
                answer = self._open({})
            except TryAgainError as error:
                self._tries.failed(error)
                continue
            self._validator = validator(answer.headers)
            return answer

    def _open(self, headers: Mapping[str, str]) -> Answer:
        self.close()
        exchange = self._client.exchange(self._wanted.target, headers)
        answer = exchange.__enter__()
        self._exchange, self._chunks = exchange, answer.body()
        self._partial = answer.status == 206
        return answer

    def _next(self) -> bytes:
        while not self._ended:
            try:
                data = next(self._chunks, b"")
                if data:
                    self._note(data)
                    return data
                if self._partial and self._done != self.size:
                    self._ask_rest()
                else:
                    self._end()
            except TryAgainError as error:
                self._resume(error)
            if self._rest:
                rest, self._rest = self._rest, b""
                return rest
        return b""

    def _note(self, data: bytes) -> None:
        self._hash.update(data)
        self._done += len(data)
        self._gained += len(data)
        if self._gained >= _GAIN_BYTES:
            self._tries.got_on()
        if self.size is not None and self._done > self.size:
            raise self._changed(f"it is longer than {self.size} bytes")

    def _resume(self, error: TryAgainError) -> None:
        while not self._ended:
            self._tries.failed(error)
            self._gained = 0
            try:
                self._ask_rest()
                return
            except TryAgainError as again:
                error = again

    def _ask_rest(self) -> None:
        headers = {}
        if self._validator is not None and self._done:
            headers = {"Range": f"bytes={self._done}-", "If-Range": self._validator}
        self._take_rest(self._open(headers))

    def _take_rest(self, answer: Answer) -> None:
        """Go on where it broke, by whatever the server sent."""
        first, last, whole = content_range(answer.headers.get("content-range"))
        match answer.status:
            case 206:
                if first != self._done or last is None:
                    raise answer.invalid(f"a rest from {self._done} on was asked for, not this one")
                if whole is not None and self.size not in {None, whole}:
                    raise self._changed(f"it had {self.size} bytes, now it has {whole}")
                self._require_same(answer)
                self.size = self.size if whole is None else whole
                self._chunks = self._part(answer, self._chunks, last + 1)
            case 416:
                # All of a file of unknown length was there, but for the mark of its end.
                if whole != self._done or self.size not in {None, whole}:
                    raise answer.invalid(
                        f"it was said to have {self.size} bytes, and has nothing after {self._done}"
                    )
                self._end()
            case _:
                self._require_size(answer)
                self._require_end(answer)
                self._skip_known()

    def _part(self, answer: Answer, chunks: Iterator[bytes], end: int) -> Iterator[bytes]:
        """The bytes up to here, which a part must bring: so each one gets on, or is a failure."""
        for data in chunks:
            if self._done + len(data) > end:
                raise answer.invalid("a rest is more than its Content-Range says")
            yield data
        if self._done < end:
            path = self._client.shown_path(answer.target)
            raise TryAgainError(f"{path}: a rest ended at {self._done}, not at {end}")

    def _require_same(self, answer: Answer) -> None:
        """Not every server that knows ranges knows If-Range: is it the same content's rest?"""
        asked = self._validator or ""
        tag, changed = answer.headers.get("etag"), answer.headers.get("last-modified")
        found = tag if asked.startswith('"') else changed or asked  # a rest needs no Last-Modified
        if found is None:  # it does need an ETag (RFC 9110, section 15.3.7)
            self._validator = None
            raise TryAgainError(f"{self._client.shown_path(answer.target)}: a rest without an ETag")
        if found != asked:
            raise self._changed(f"it was {asked}, now it is {self._client.shown(found)[:100]}")

    def _skip_known(self) -> None:
        known, left = hashlib.sha256(), self._done
        while left:
            data = next(self._chunks, b"")
            if not data:
                raise self._changed(f"it had {self._done} bytes and more, now it has fewer")
            known.update(data[:left])
            left, self._rest = max(0, left - len(data)), data[left:]
        if known.digest() != self._hash.digest():
            raise self._changed("its begin is another than when it was read first")
        if self._rest:
            self._note(self._rest)

    def _end(self) -> None:
        if self.size is not None and self._done < self.size:
            raise self._changed(f"it has {self._done} bytes, not {self.size}")
        digest = self._hash.hexdigest()
        if self._wanted.sha256 not in {None, digest}:
            raise self._changed(f"its SHA-256 is {digest}, the item says {self._wanted.sha256}")
        self._ended = True

    def _require_size(self, answer: Answer) -> None:
        if answer.length is not None and self.size not in {None, answer.length}:
            self.close()
            raise self._changed(f"it has {answer.length} bytes, not {self.size}")

    def _require_end(self, answer: Answer) -> None:
        if not answer.framed and (self._wanted.size is None or self._wanted.sha256 is None):
            self.close()
            raise answer.invalid(
                "it has no length, so that its end and a lost connection look alike; "
                "size and sha256 of an item would help"
            )

    def _changed(self, what: str) -> SpooldError:
        shown = canonical.text(self._wanted.path)
        return SpooldError(errors.SOURCE_CHANGED, f"{shown}: {what}", at=shown)


def _media_type(headers: Mapping[str, str]) -> str | None:
    value = headers.get("content-type", "").partition(";")[0].strip().lower()
    return value if _MEDIA_TYPE.fullmatch(value) else None
