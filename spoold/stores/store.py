"""A bucket: what is in it, and reading it, always one version of an object (`If-Match`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from spoold import canonical, errors
from spoold.connections import Connections
from spoold.connections.stores import StoreSettings, named
from spoold.errors import SpooldError
from spoold.stores import answers
from spoold.stores.client import Client, Request
from spoold.stores.wire import Answer

# Stores skip over what was deleted by pages that hold nothing; but not this often in a row.
_MAX_EMPTY_PAGES: Final = 1000


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What an object is: bytes, version, time of its last change."""

    size: int
    etag: str
    modified: datetime


class Store:
    """One store for one attempt. `check` is called while waiting and ends it by raising."""

    def __init__(
        self, name: str, settings: StoreSettings, check: Callable[[], None] = lambda: None
    ) -> None:
        self.name, self.settings = name, settings
        self.client = Client(name, settings, check)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def key(self, path: str) -> bytes:
        """The key of a path beneath the store's prefix."""
        return "/".join(filter(None, (self.settings.prefix, path))).encode()

    def shown(self, key: bytes) -> str:
        """An object as messages name it."""
        return f"{self.name}:{canonical.text(key)}"

    def list(self, prefix: bytes) -> Iterator[answers.Listed]:
        """The objects whose keys begin so, in the order of their keys' bytes."""
        token: str | None = None
        last: bytes | None = None
        empty = 0
        while True:
            query = {"list-type": "2", "prefix": prefix.decode(), "encoding-type": "url"}
            if token is not None:
                query["continuation-token"] = token
            body = self.client.ask(Request("GET", None, query)).body
            try:
                page = answers.page(body)
            except ValueError as error:
                raise self.client.invalid(str(error)) from error
            for item in page.objects:
                if (last is not None and item.key <= last) or not item.key.startswith(prefix):
                    raise self.client.invalid(f"{item.key!r} is listed out of its order")
                last = item.key
                yield item
            if page.next_token is None:
                return
            empty = 0 if page.objects else empty + 1
            if page.next_token == token or empty > _MAX_EMPTY_PAGES:
                raise self.client.invalid("its listing goes on for ever and names nothing more")
            token = page.next_token

    def look(self, key: bytes) -> ObjectInfo | None:
        """What stands under a key; None for nothing."""
        # The body of an error that answers HEAD is not sent: a bucket that is missing says the
        # same as an object that is.
        answer = self.client.ask(Request("HEAD", key), {200, 404})
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        try:
            modified = parsedate_to_datetime(answer.headers["last-modified"])
            size = answers.size(answer.headers["content-length"])
        except (KeyError, ValueError) as error:
            raise self.client.invalid(f"it does not say what {self.shown(key)} is") from error
        return ObjectInfo(size, answer.headers.get("etag", ""), modified)

    def open(self, key: bytes, etag: str, begin: int, end: int) -> Answer:
        """An answer whose body is the bytes from `begin` up to `end`, of that version.

        Raises source-changed where there is another version, or none any more.
        """
        headers = {"range": f"bytes={begin}-{end - 1}"}
        if etag:
            headers["if-match"] = etag
        request = Request("GET", key, headers=headers)
        answer = self.client.stream(request, {200, 206, 404, 412, 416})
        try:
            if answer.status in {404, 412, 416}:
                raise changed(self.shown(key), "it was replaced or removed while it was read")
            if answer.status == HTTPStatus.PARTIAL_CONTENT:
                given = answer.headers.get("content-range", "")
                fits = given.startswith(f"bytes {begin}-{end - 1}/")
            else:  # where the range is all there is
                fits = not begin and answer.headers.get("content-length") == str(end)
            if not fits:
                raise self.client.invalid(f"it sends other bytes of {self.shown(key)} than asked")
            # Not every store that speaks S3 knows If-Match.
            if etag and answer.headers.get("etag", etag).strip('"') != etag.strip('"'):
                raise changed(self.shown(key), "it was replaced while it was read")
        except BaseException:
            answer.close()
            raise
        return answer


def open_store(
    name: str, connections: Connections, check: Callable[[], None] = lambda: None
) -> Store:
    """The store of that name. Raises store-unknown or config-invalid; connects to nothing yet."""
    return Store(name, named(name, connections.stores), check)


def changed(shown: str, what: str) -> SpooldError:
    """The source-changed of an object."""
    return SpooldError(errors.SOURCE_CHANGED, f"{shown}: {what}", at=shown)
