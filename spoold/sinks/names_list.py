"""The names that a bundle's files had, in a store that keeps each content once.

The list stands at `names/<site>/<bundle id>.<sink>.jsonl`: a line that says whose it is, then the
lines that the bundle's index has of the files.

Guarantees: a list names what some delivery of its bundle has brought, and nothing that another
delivery of the same bundle has listed is lost, also where both come at once.
Crash: the list stands as it was before, or whole.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import groupby
from typing import BinaryIO, Final

from spoold import canonical, errors
from spoold.bundle.copying import write_all
from spoold.bundle.entry import Entry
from spoold.bundle.lines import entry_lines, parse_entry
from spoold.bundle.scratch import LineFile, LineSorter
from spoold.errors import SpooldError
from spoold.sinks.sink import Delivery
from spoold.sinks.store import Standing, Store, store_errors

_TYPE: Final = "spoold.names/1"


class NamesList:
    """The list of one bundle, as one sink of that name has it in the store."""

    def __init__(self, store: Store, delivery: Delivery, sink: str) -> None:
        self._store, self._delivery = store, delivery
        self._name = f"names/{delivery.site}/{delivery.bundle_id}.{sink}.jsonl".encode()
        self._head = canonical.encode(
            {
                "type": _TYPE,
                "from": delivery.site,
                "bundle_id": delivery.bundle_id,
                "manifest_sha256": delivery.manifest_sha256,
            }
        )

    def check(self) -> None:
        """Raise artifact-conflict where the list of another bundle stands under the name."""
        if (standing := self._open()) is not None:
            standing.close()

    def write(self) -> None:
        """List what the bundle had, besides what an earlier delivery of some of it has listed."""
        with ExitStack() as stack:
            # Another part of the same bundle may come at this moment: no name is lost between them.
            stack.enter_context(self._store.alone())
            names = stack.enter_context(closing(LineSorter(self._delivery.scratch)))
            lines = stack.enter_context(closing(LineFile(self._delivery.scratch)))
            for entry in self._delivery.entries():
                names.add(_sortable(entry))
            standing = self._open()
            if standing is not None:
                with standing:
                    for entry in self._entries(standing):
                        names.add(_sortable(entry))
            lines.append(self._head)
            for line, _ in groupby(names):
                lines.append(line.partition(b" ")[2] + b"\n")
            self._put(lines, replaces=standing is not None)

    def _open(self) -> BinaryIO | None:
        """The list that stands in the store, behind its first line."""
        found = self._store.open_file(self._name)
        if found is None:
            return None
        try:
            with store_errors(self._name):
                head = found.readline(len(self._head) + 1)
            if head != self._head:
                raise self._conflict("it lists another bundle of that id")
        except BaseException:
            found.close()
            raise
        return found

    def _entries(self, standing: BinaryIO) -> Iterator[Entry]:
        with store_errors(self._name):
            for line in standing:
                try:
                    yield parse_entry(line.removesuffix(b"\n"))
                except SpooldError as error:
                    raise self._conflict("it is no list of names") from error

    def _put(self, lines: LineFile, *, replaces: bool) -> None:
        sha256 = lines.sha256()
        if self._store.look(self._name, sha256, lines.bytes) is Standing.SAME:
            return
        with closing(self._store.new_file(self._name)) as file, store_errors(self._name):
            for line in lines:
                write_all(file.descriptor, line)
            self._store.dress(file, None)
            self._store.sync_contents([file])
            self._store.read_again(file, self._name, sha256)
            file.take_name() if replaces else file.give_name()

    def _conflict(self, what: str) -> SpooldError:
        shown = canonical.text(self._name)
        return SpooldError(errors.ARTIFACT_CONFLICT, f"{shown}: {what}", at=shown)


def _sortable(entry: Entry) -> bytes:
    """Its line, behind what that sorts by: the entry's path."""
    return entry.path.hex().encode() + b" " + entry_lines(entry)[0]
