"""An object as a file that is read: by ranges, ahead, from where it was cut."""

import http.client
import io
import os
from collections.abc import Callable
from typing import Final

from spoold.stores.store import Store
from spoold.stores.wire import Answer

_FIRST_WINDOW_BYTES: Final = 1024 * 1024
_MAX_WINDOW_BYTES: Final = 64 * 1024 * 1024
_SKIP_BYTES: Final = 256 * 1024  # what is sooner read than asked for anew


class StoredObject(io.RawIOBase):
    """Reads one version of an object, `size` bytes.

    With `whole` it is asked for in one piece. Without, in ranges that begin small and grow as long
    as they are read one after the other: who reads a little is sent little. A connection that is
    lost is taken up again where it ended. `told` is given the bytes of each piece that came.

    Raises SpooldError, not OSError: source-changed, store-away, store-refused, store-answer.
    """

    def __init__(
        self,
        store: Store,
        key: bytes,
        size: int,
        etag: str,
        *,
        whole: bool = False,
        told: Callable[[int], None] = lambda _bytes: None,
    ) -> None:
        super().__init__()
        self._store, self._key, self._size, self._etag = store, key, size, etag
        self._whole, self._told = whole, told
        self._answer: Answer | None = None
        self._position = 0  # where the next read begins
        self._at = 0  # where the answer is
        self._end = 0  # of its range
        self._window = _FIRST_WINDOW_BYTES

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a byte; nothing is read for it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, count: int = -1, /) -> bytes:
        """Up to so many bytes: all of them, but at the end."""
        end = self._size if count < 0 else min(self._position + count, self._size)
        pieces = []
        failed = 0
        while self._position < end:
            try:
                data = self._some(end - self._position)
                problem = "the connection ended too early"
            except (OSError, http.client.HTTPException) as error:
                data, problem = b"", str(error) or type(error).__name__
            if data:
                pieces.append(data)
                failed = 0
                continue
            self._drop()
            failed += 1
            if failed >= self._store.settings.attempts:
                raise self._store.client.away(f"{self._store.shown(self._key)}: {problem}")
            self._store.client.pause(failed)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            self._drop()
        super().close()

    def _some(self, count: int) -> bytes:
        answer = self._answer_at_position()
        data = answer.read(min(count, self._end - self._at))
        self._at += len(data)
        self._position = self._at
        self._told(len(data))
        if self._at == self._end:
            self._drop()
        return data

    def _answer_at_position(self) -> Answer:
        answer = self._answer
        if answer is not None and self._at <= self._position < self._end:
            while self._at < self._position <= self._at + _SKIP_BYTES:
                skipped = answer.read(self._position - self._at)
                if not skipped:
                    raise http.client.IncompleteRead(b"")
                self._at += len(skipped)
            if self._at == self._position:
                return answer
        sequential = self._position == self._at
        self._drop()
        if self._whole:
            window = self._size
        else:
            self._window = (
                min(2 * self._window, _MAX_WINDOW_BYTES) if sequential else _FIRST_WINDOW_BYTES
            )
            window = self._window
        self._end = min(self._position + window, self._size)
        self._answer = self._store.open(self._key, self._etag, self._position, self._end)
        self._at = self._position
        return self._answer

    def _drop(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None
