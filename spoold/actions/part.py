"""The part of a bundle that a request asks for: what matches, and what that cannot do without.

Entries that match come with the folders above them, and rows with the schema entry beside them:
without it a sink could not tell how their values are to be read.
"""

from collections.abc import Sequence
from typing import Final

from spoold import errors
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.reader import Index
from spoold.connections.row_types import ROWS_SUFFIX, SCHEMA_SUFFIX
from spoold.errors import SpooldError
from spoold.sources.globs import Globs

_ROWS: Final = ROWS_SUFFIX.encode()
_SCHEMA: Final = SCHEMA_SUFFIX.encode()


class Part:
    """What `only` takes of one bundle."""

    def __init__(self, index: Index, only: Sequence[str]) -> None:
        self._globs = Globs(only)
        self._above: set[bytes] = set()  # folders that come along
        self._schemas: set[bytes] = set()  # where there are such
        self.entries = self.bytes = 0
        for entry in index.entries():
            if self._covers(entry):
                self._note_above(entry.path)
                if entry.kind is Kind.FILE and entry.path.endswith(_ROWS):
                    self._schemas.add(entry.path.removesuffix(_ROWS) + _SCHEMA)
        for entry in filter(self.takes, index.entries()):
            self.entries += 1
            self.bytes += entry.size
        if not self.entries:
            raise SpooldError(
                errors.NOTHING_TO_RESTORE, f"of {index.head.manifest.entries.count}", at="only"
            )

    def takes(self, entry: Entry) -> bool:
        """Whether it is wanted."""
        return (
            self._covers(entry)
            or entry.path in self._schemas
            or (entry.kind is Kind.DIR and entry.path in self._above)
        )

    def _covers(self, entry: Entry) -> bool:
        path = entry.path.decode("utf-8", "surrogateescape")
        return self._globs.cover(path, folder=entry.kind is Kind.DIR)

    def _note_above(self, path: bytes) -> None:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in self._above:
            self._above.add(folder)
            folder = folder.rpartition(b"/")[0]
