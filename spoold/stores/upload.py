"""Puts a file into a store where nothing stands yet, a large one in parts.

Guarantees: the object appears whole or not at all and never takes another one's place; its content
is what was hashed here (the hash is signed with each request, and kept as a checksum).
Not guaranteed: create-only where the store does not know `If-None-Match`; S3 does, since 2024.
Crash: parts stay in the store, unseen; the next `put_new` of the same key throws them away, and so
can a lifecycle rule of the bucket.
"""

import base64
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from spoold.errors import SpooldError
from spoold.stores import answers
from spoold.stores.answers import Part
from spoold.stores.client import Request, ShortAnswer
from spoold.stores.contents import Bytes, FileRange
from spoold.stores.store import Store

MAX_PARTS: Final = 10_000
_MIB: Final = 1024 * 1024
_DONE: Final = frozenset({200})
_STANDS: Final = frozenset({409, 412})
"""What `If-None-Match: *` is answered with where something stands, or is being put there."""
_ONLY_NEW: Final = {"if-none-match": "*"}


def put_new(store: Store, key: bytes, descriptor: int, told: Callable[[int], None]) -> bool:
    """Put a whole file; False where an object stands there, whatever it is.

    False too where the store did so but its answer was lost: look at what stands there. `told` is
    given the bytes of each block that is sent. Raises store-away, store-refused, store-answer.
    """
    size = os.fstat(descriptor).st_size
    upload = _Upload(store, key, descriptor, size, told)
    return upload.in_one() if size <= store.settings.part_bytes else upload.in_parts()


def part_bytes(size: int, wanted: int) -> int:
    """The size of the parts of an object: what is wanted, or so large that they are 10,000."""
    least = -(-size // MAX_PARTS)
    return max(wanted, -(-least // _MIB) * _MIB)


class _Upload:
    def __init__(
        self, store: Store, key: bytes, descriptor: int, size: int, told: Callable[[int], None]
    ) -> None:
        self._store, self._key, self._client = store, key, store.client
        self._descriptor, self._size, self._told = descriptor, size, told
        self._checksums = store.settings.checksums

    def in_one(self) -> bool:
        answer = self._put({}, _ONLY_NEW, 0, self._size, _DONE | _STANDS)[0]
        return answer.status in _DONE

    def in_parts(self) -> bool:
        self._throw_away_old()
        headers = {"x-amz-checksum-algorithm": "SHA256"} if self._checksums else {}
        body = self._client.ask(Request("POST", self._key, {"uploads": ""}, headers)).body
        try:
            upload_id = answers.upload_id(body)
        except ValueError as error:
            raise self._client.invalid(str(error)) from error
        try:
            done = self._complete(upload_id, self._put_parts(upload_id))
        except BaseException:
            # What ended it is what counts.
            with suppress(SpooldError):
                self._throw_away(upload_id)
            raise
        # This one, where it was not joined; and one that was begun twice, its first answer lost.
        with suppress(SpooldError):
            self._throw_away_old()
        return done

    def _put_parts(self, upload_id: str) -> list[Part]:
        size = part_bytes(self._size, self._store.settings.part_bytes)
        parts = []
        for number, begin in enumerate(range(0, self._size, size), start=1):
            query = {"partNumber": str(number), "uploadId": upload_id}
            length = min(size, self._size - begin)
            answer, digest = self._put(query, {}, begin, length, _DONE)
            etag = answer.headers.get("etag", "")
            if not etag:
                raise self._client.invalid("a part was stored, but has no ETag")
            parts.append(Part(number, etag, digest if self._checksums else None))
        return parts

    def _put(
        self,
        query: dict[str, str],
        headers: dict[str, str],
        begin: int,
        size: int,
        expected: frozenset[int],
    ) -> tuple[ShortAnswer, bytes]:
        content = FileRange(self._descriptor, begin, size, self._told)
        digest = content.sha256()
        checksum = base64.b64encode(digest).decode()
        if self._checksums:
            headers = {**headers, "x-amz-checksum-sha256": checksum}
        answer = self._client.ask(
            Request("PUT", self._key, query, headers, content, digest), expected
        )
        if answer.headers.get("x-amz-checksum-sha256", checksum) != checksum:
            raise self._client.away("it has stored other content than it was sent")
        return answer, digest

    def _complete(self, upload_id: str, parts: list[Part]) -> bool:
        request = Request(
            "POST",
            self._key,
            {"uploadId": upload_id},
            {**_ONLY_NEW, "content-type": "application/xml"},
            Bytes(answers.completion(parts)),
        )
        # 404: an earlier try had come through, only its answer had not.
        answer = self._client.ask(request, _DONE | _STANDS | {404})
        if answer.status not in _DONE:
            return False
        # It begins to answer before it is done, and may end in an error all the same.
        said = answers.refusal(answer.body)
        if said.code:
            if said.code in {"PreconditionFailed", "ConditionalRequestConflict"}:
                return False
            raise self._client.away(f"{said.code} {said.message}"[:300])
        return True

    def _throw_away_old(self) -> None:
        """What workers that died had begun under this key."""
        query = {"uploads": "", "prefix": self._key.decode(), "encoding-type": "url"}
        answer = self._client.ask(Request("GET", None, query), _DONE | {501})
        if answer.status not in _DONE:
            return  # not every store can tell
        try:
            found = list(answers.uploads(answer.body))
        except ValueError as error:
            raise self._client.invalid(str(error)) from error
        for key, upload_id in found:
            if key == self._key:
                self._throw_away(upload_id)

    def _throw_away(self, upload_id: str) -> None:
        request = Request("DELETE", self._key, {"uploadId": upload_id})
        self._client.ask(request, {200, 204, 404})
