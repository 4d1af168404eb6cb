"""The items of an endpoint, page after page, each as a line of its own text."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spoold.connections.apis import EndpointSettings
from spoold.connections.parameters import Value
from spoold.sources.http.addresses import next_link, path_of, query_of, target_of
from spoold.sources.http.client import Answer, ApiClient
from spoold.sources.http.pages import NoPageError, Page, line_of, read_page
from spoold.sources.http.retrying import TryAgainError


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A page and what says where the next one is."""

    page: Page
    digest: bytes
    link: str | None


class _Circle:
    """Whether marks come round again, known from one of them, however many there are.

    The one that is kept is replaced after 1, 2, 4, 8… others: once it lies in the circle and the
    circle is no longer than that, it comes again (R. P. Brent's cycle finding).
    """

    def __init__(self) -> None:
        self._kept = self._last = b""
        self._since, self._patience = 0, 1

    def closes(self, mark: bytes) -> bool:
        """Take the next mark: whether it is the one that is kept, or the last one over again."""
        if mark in {self._kept, self._last}:
            return True
        self._last = mark
        self._since += 1
        if self._since == self._patience:
            self._kept, self._since, self._patience = mark, 0, 2 * self._patience
        return False


class Listing:
    """Walks the pages of one endpoint, once."""

    def __init__(
        self, client: ApiClient, base: str, endpoint: EndpointSettings, values: Mapping[str, Value]
    ) -> None:
        self._client, self._endpoint, self._values = client, endpoint, values
        self._path = path_of(base, endpoint.path, values)
        self._seen = _Circle()

    def items(self) -> Iterator[str]:
        """The text of each item. Raises api-answer-invalid where pages come round again."""
        pages, place, target = self._endpoint.pages, 0, self._first()
        while True:
            fetched = self._fetch(target)
            page = fetched.page
            yield from page.items
            match pages:
                case "none":
                    return
                case "link":
                    if fetched.link is None:
                        return
                    target = self._client.follow(target, fetched.link)
                case "cursor":
                    if page.cursor is None:
                        return
                    target = self._target({self._endpoint.cursor_parameter: page.cursor})
                case "offset" | "page":
                    # Only an empty page is the end: an API may give fewer than the limit.
                    if not page.items:
                        return
                    place += len(page.items) if pages == "offset" else 1
                    target = self._numbered(place)

    def _first(self) -> str:
        if self._endpoint.pages in {"offset", "page"}:
            return self._numbered(0)
        return self._target({})

    def _numbered(self, place: int) -> str:
        if self._endpoint.pages == "offset":
            return self._target({self._endpoint.offset_parameter: str(place)})
        return self._target({self._endpoint.page_parameter: str(place + 1)})

    def _target(self, more: dict[str, str]) -> str:
        if self._endpoint.limit:
            more[self._endpoint.limit_parameter] = str(self._endpoint.limit)
        return target_of(self._path, query_of(self._endpoint.query, self._values, more))

    def _fetch(self, target: str) -> _Fetched:
        """A page, asked for as often as is allowed."""
        tries = self._client.tries()
        while True:
            try:
                with self._client.exchange(target, {"Accept": "application/json"}) as answer:
                    fetched = self._read(answer)
                    self._require_new(answer, target, fetched)
                    return fetched
            except TryAgainError as error:
                tries.failed(error)

    def _read(self, answer: Answer) -> _Fetched:
        data = answer.read(self._endpoint.max_page_bytes)
        try:
            page = read_page(data, self._endpoint.items, self._endpoint.cursor)
        except NoPageError as error:
            # Without a length, an answer that was cut off cannot be told from a wrong one.
            raise answer.invalid(str(error), transient=not answer.framed) from error
        self._client.count(len(data), len(page.items))
        link = next_link(answer.headers.get("link", ""))
        return _Fetched(page, hashlib.sha256(data).digest()[:16], link)

    def _require_new(self, answer: Answer, target: str, fetched: _Fetched) -> None:
        # A server that does not know offset or page gives the first page for ever; a cursor or a
        # link that leads back does the same.
        counted = self._endpoint.pages in {"offset", "page"}
        if counted and not fetched.page.items:
            return
        mark = fetched.digest if counted else hashlib.sha256(target.encode()).digest()[:16]
        if self._seen.closes(mark):
            raise answer.invalid("its pages come round again: this one was there before")


class Lines:
    """The items as the content of an entry: JSON lines, fetched as they are read."""

    def __init__(self, listing: Listing) -> None:
        self._lines = (line_of(item) for item in listing.items())
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, fewer only at the end."""
        parts, have = [self._rest], len(self._rest)
        while size < 0 or have < size:
            line = next(self._lines, b"")
            if not line:
                break
            parts.append(line)
            have += len(line)
        data = b"".join(parts)
        end = len(data) if size < 0 else size
        data, self._rest = data[:end], data[end:]
        return data

    def close(self) -> None:
        """Ask for no more."""
        self._lines.close()
