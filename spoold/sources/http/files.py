"""A file for each item: the list is read first, into scratch, since a bundle is in order.

Guarantees: memory is bounded whatever the list's length. Crash: scratch files have no name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spoold import canonical, errors
from spoold.bundle.scratch import LineFile, LineSorter
from spoold.connections.apis import ITEM_FIELD, DownloadSettings
from spoold.connections.parameters import Value
from spoold.errors import SpooldError
from spoold.sources.http.addresses import fill_in, path_of
from spoold.sources.http.pages import NoPageError, decoded, field_of, line_of

_MAX_NAME_BYTES: Final = 255
# Controls and line separators hide what a name is; half a character is none at all.
_NO_NAME: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/]")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_SHA256: Final = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


def name_of(template: str, values: Mapping[str, Value]) -> str:
    """A file's name from a template of the configuration. Raises parameters-invalid."""
    name = fill_in(template, values)
    if fault := name_fault(name):
        shown = canonical.text(name[:100])
        raise SpooldError(
            errors.PARAMETERS_INVALID,
            f"the file would be called {shown!r}, but {fault}",
            at="parameters",
        )
    return name


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a file in a bundle's folder, or None."""
    if name in {"", ".", ".."}:
        return "that is no name"
    if _NO_NAME.search(name):
        return "it holds a / or a character that cannot be seen"
    if len(name.encode()) > _MAX_NAME_BYTES:
        return f"it has more than {_MAX_NAME_BYTES} bytes"
    return None


@dataclass(frozen=True, slots=True)
class ItemFile:
    """One file, as its item describes it."""

    name: str
    path: str
    size: int | None
    sha256: str | None


class ItemFiles:
    """The items as lines, and their files sorted by name."""

    def __init__(self, scratch: Path | None) -> None:
        self.lines = LineFile(scratch)
        self._sorter, self._sorted = LineSorter(scratch), LineFile(scratch)
        self.unchecked = 0
        """How many items give no SHA-256."""

    def add(self, item: str, file: ItemFile) -> None:
        """Take an item and its file."""
        self.lines.append(line_of(item))
        self.unchecked += file.sha256 is None
        rest = json.dumps([file.path, file.size, file.sha256]).encode()
        self._sorter.add(file.name.encode() + b"\0" + rest)

    def close(self) -> None:
        """Give the disk space back."""
        self.lines.close()
        self._sorter.close()
        self._sorted.close()

    def sort(self) -> None:
        """After the last item. Raises api-answer-invalid for twins."""
        last: ItemFile | None = None
        with closing(self._sorter):
            for line in self._sorter:
                file = _read(line)
                if last is not None and last.name == file.name:
                    raise SpooldError(
                        errors.API_ANSWER_INVALID,
                        f"two items are called {canonical.text(file.name)}: "
                        f"{canonical.text(last.path)} and {canonical.text(file.path)}",
                        hint="put what tells them apart into download.name: "
                        '"{item.id}-{item.name}"',
                    )
                self._sorted.append(line + b"\n")
                last = file

    def __iter__(self) -> Iterator[ItemFile]:
        """The files by the bytes of their names, once they are sorted."""
        return map(_read, self._sorted)


def _read(line: bytes) -> ItemFile:
    name, _, rest = line.partition(b"\0")
    return ItemFile(name.decode(), *json.loads(rest))


def file_of(
    item: str, settings: DownloadSettings, base: str, values: Mapping[str, Value]
) -> ItemFile:
    """The file that an item describes. Raises NoPageError where it does not."""
    value = decoded(item)
    templates = (settings.name, settings.path, settings.size, settings.sha256)
    dotted = {name for template in templates for name in ITEM_FIELD.findall(template)}
    fields = {f"item.{name}": field_of(value, name) for name in dotted}
    for name in ITEM_FIELD.findall(settings.name + settings.path):
        if fields[f"item.{name}"] is None:
            raise NoPageError(f"an item has no {name}, which its file needs")
    known = {**values, **{name: text for name, text in fields.items() if text is not None}}
    name = fill_in(settings.name, known)
    if fault := name_fault(name):
        raise NoPageError(f"an item's name is none, {fault}: {name!r}")
    try:
        path = path_of(base, settings.path, known)
    except SpooldError as error:
        raise NoPageError(f"an item leads nowhere: {error.message}") from error
    # A field that an item does not have leaves its placeholder: it says nothing of the file.
    size = ITEM_FIELD.sub("", fill_in(settings.size, known))
    sha256 = ITEM_FIELD.sub("", fill_in(settings.sha256, known))
    return ItemFile(name, path, _size(size), _sha256(sha256))


def _size(text: str) -> int | None:
    if not text:
        return None
    if not _DIGITS.fullmatch(text):
        raise NoPageError(f"an item's size is {text!r}")
    return int(text)


def _sha256(text: str) -> str | None:
    if not text:
        return None
    match = _SHA256.fullmatch(text)
    if match is None:
        raise NoPageError(f"an item's SHA-256 is {text!r}")
    return match[1].lower()
