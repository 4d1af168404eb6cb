"""The part of a bundle that a request asks for: entries that match, and the folders above them."""

from collections.abc import Sequence

from spoold import errors
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.reader import Index
from spoold.errors import SpooldError
from spoold.sources.globs import Globs


class Part:
    """What `only` takes of one bundle."""

    def __init__(self, index: Index, only: Sequence[str]) -> None:
        self._globs = Globs(only)
        self._above: set[bytes] = set()  # folders that come along
        self.entries = self.bytes = 0
        for entry in index.entries():
            if self._covers(entry):
                self.bytes += entry.size
                self._note_above(entry.path)
        self.entries = sum(self.takes(entry) for entry in index.entries())
        if not self.entries:
            raise SpooldError(
                errors.NOTHING_TO_RESTORE, f"of {index.head.manifest.entries.count}", at="only"
            )

    def takes(self, entry: Entry) -> bool:
        """Whether it is wanted."""
        return self._covers(entry) or (entry.kind is Kind.DIR and entry.path in self._above)

    def _covers(self, entry: Entry) -> bool:
        path = entry.path.decode("utf-8", "surrogateescape")
        return self._globs.cover(path, folder=entry.kind is Kind.DIR)

    def _note_above(self, path: bytes) -> None:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in self._above:
            self._above.add(folder)
            folder = folder.rpartition(b"/")[0]
