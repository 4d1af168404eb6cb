"""Paths of entries, names of members, and which of them may stand beside each other. Pure.

A path is what the user gave; a member name is what every tar, BagIt and sha256sum can carry. The
rules are those of the format page, section 2 (names) and 3 (paths and their order).
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from spoold import canonical, errors
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.hashes import Hashes
from spoold.bundle.unicode14 import unassigned
from spoold.errors import SpooldError

MAX_PATH_BYTES: Final = 4096
MAX_SEGMENTS: Final = 128
MAX_SEGMENT_BYTES: Final = 255
CHUNK_SUFFIX_BYTES: Final = len(".000000.chunk")

_USTAR_NAME = 100
_USTAR_PREFIX = 155
_BUNDLE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")

# ASCII paths that are ordinary at a glance; what holds ".chunk" takes the slow way.
_PLAIN_ASCII = re.compile(
    r"(?!_[xX](?:/|\Z))"
    r"(?:(?!-|\.\.?(?:/|\Z))[^\x00-\x1f\x7f%\\/]{1,255}(?:/(?=.)|\Z))+(?<! )"
)
# Good paths, when they are too short to have too many segments; of others it is found out why.
_GOOD_PATH = re.compile(rb"(?:(?!\.\.?(?:/|\Z))[^\x00/]{1,255}(?:/(?=.)|\Z))+", re.DOTALL)
# Controls (Cc), the two line separators, and what BagIt and sha256sum escape differently.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029%\\\\]")


def valid_bundle_id(text: str) -> bool:
    """Whether a bundle may have this id (bagit.py trips over `tagmanifest-` in one)."""
    return _BUNDLE_ID.fullmatch(text) is not None and "tagmanifest-" not in text


def path_fault(path: bytes) -> str | None:  # noqa: PLR0911 - a sentence each
    """What is wrong with an entry's path, or None."""
    if len(path) < 2 * MAX_SEGMENTS and _GOOD_PATH.fullmatch(path):
        return None
    if not path or len(path) > MAX_PATH_BYTES:
        return f"it has {len(path)} bytes, not 1 to {MAX_PATH_BYTES}"
    if b"\0" in path:
        return "it holds a NUL byte"
    segments = path.split(b"/")
    if len(segments) > MAX_SEGMENTS:
        return f"it has more than {MAX_SEGMENTS} segments"
    for segment in segments:
        if segment in {b"", b".", b".."}:
            return "it is not a plain relative path"
        if len(segment) > MAX_SEGMENT_BYTES:
            return f"it has a segment of more than {MAX_SEGMENT_BYTES} bytes"
    return None


def fold(text: str) -> str:
    """The form in which names are compared: NFD of casefold of NFD."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


def ustar_split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split a member's name into ustar prefix and name, at the leftmost `/` that fits.

    None: it fits no ustar header.
    """
    length = len(name)
    if length <= _USTAR_NAME:
        return b"", name
    slash = name.find(b"/", length - _USTAR_NAME - 1)
    if slash < 0 or slash > _USTAR_PREFIX or slash == length - 1:
        return None
    return name[:slash], name[slash + 1 :]


class MemberNames:
    """Gives each file of one bundle its member name; a writer and a reader ask in the same order.

    Names are remembered as 64-bit hashes (salted per process): a million cost 16 MB. Equal names
    always meet; that two different ones do has a chance of 3e-8 in a bundle of a million files,
    and the reader then refuses a good bundle once, never accepts a bad one.
    """

    def __init__(self, bundle_id: str) -> None:
        self._base_bytes = len(bundle_id) + len("/data/")
        self._members = Hashes()
        self._folders: dict[int, int] = {}  # folded name -> its one exact spelling
        self._settled = ""  # the last file's folder: known, and spelled this way
        self._pending: tuple[int, str, tuple[tuple[int, int], ...]] | None = None

    def propose(self, path: bytes, *, chunked: bool) -> str:
        """The member, `data/…`, that a file of this path gets; `commit` makes it stand."""
        text = self._ordinary(path, chunked=chunked)
        if text is not None and self._is_free(text):
            return "data/" + text
        self._pending = None
        return "data/_x/" + hashlib.sha256(path).hexdigest()

    def commit(self) -> None:
        """Take the proposed name: the entry is part of the bundle."""
        if self._pending is not None:
            key, parent, folders = self._pending
            self._members.add(key)
            self._folders.update(folders)
            self._settled = parent

    def _ordinary(self, path: bytes, *, chunked: bool) -> str | None:
        try:
            text = path.decode()
        except UnicodeDecodeError:
            return None
        if path.isascii() and b".chunk" not in path.lower():
            if not _PLAIN_ASCII.fullmatch(text):
                return None
        elif not _is_ordinary(text):
            return None
        length = self._base_bytes + len(path) + (CHUNK_SUFFIX_BYTES if chunked else 0)
        if length > _USTAR_NAME:
            suffix = b".000000.chunk" if chunked else b""
            if ustar_split(b"x" * (self._base_bytes - 6) + b"/data/" + path + suffix) is None:
                return None
        return text

    def _is_free(self, text: str) -> bool:
        folded = fold(text)
        key = hash(folded)
        if key in self._members or key in self._folders:
            return False
        parent = text.rpartition("/")[0]
        if parent == self._settled:
            self._pending = (key, parent, ())
            return True
        folders = []
        for exact, folder in zip(_ancestors(text), _ancestors(folded), strict=True):
            folder_key, spelling = hash(folder), hash(exact)
            if folder_key in self._members:
                return False
            known = self._folders.get(folder_key)
            if known is None:
                folders.append((folder_key, spelling))
            elif known != spelling:
                return False
        self._pending = (key, parent, tuple(folders))
        return True


class PathOrder:
    """Checks the order of entries and, within each source, that paths can stand beside each other.

    In sorted order everything that begins with a path follows it directly, so the entries that are
    a prefix of the present one are a short stack, and uniqueness costs no memory. Across sources
    `finish_keys` and `check_sorted` do the same over keys that the caller has sorted.
    """

    def __init__(self) -> None:
        self._source: str | None = None
        self._seen: set[int] = set()
        self._last = b""
        self._stack: list[bytes] = []

    @property
    def sources(self) -> int:
        """How many sources there were so far."""
        return len(self._seen)

    def add(self, path: bytes, kind: Kind, source: str) -> None:
        """Take the next entry. Raises entry-order or entry-collides."""
        key = path + b"/" if kind is Kind.DIR else path
        if source != self._source:
            if hash(source) in self._seen:
                raise SpooldError(
                    errors.ENTRY_ORDER,
                    f"entries of {canonical.text(source)} stand in two places",
                    at=canonical.text(path),
                )
            self._seen.add(hash(source))
            self._source = source
            self._stack.clear()
        elif key <= self._last:
            code = errors.ENTRY_COLLIDES if key == self._last else errors.ENTRY_ORDER
            raise SpooldError(
                code,
                f"{canonical.text(path)} follows {canonical.text(self._last)}",
                at=canonical.text(path),
            )
        self._last = key
        _stand_beside(self._stack, key)


def sort_key(entry: Entry) -> bytes:
    """A line, free of line feeds, whose order is that of the entries' paths across sources."""
    key = entry.path + b"/" if entry.kind is Kind.DIR else entry.path
    return key.hex().encode()


def check_sorted(keys: Iterator[bytes]) -> None:
    """Check the `sort_key`s of all entries, sorted. Raises entry-collides."""
    stack: list[bytes] = []
    last = b""
    for line in keys:
        key = bytes.fromhex(line.decode())
        if key == last:
            shown = canonical.text(key.rstrip(b"/"))
            raise SpooldError(errors.ENTRY_COLLIDES, f"{shown} stands there twice", at=shown)
        last = key
        _stand_beside(stack, key)


def _stand_beside(stack: list[bytes], key: bytes) -> None:
    while stack and not key.startswith(stack[-1]):
        stack.pop()
    for other in stack:
        if key[len(other) : len(other) + 1] == b"/":
            shown = canonical.text(key.rstrip(b"/"))
            raise SpooldError(
                errors.ENTRY_COLLIDES,
                f"{canonical.text(other)} is not a folder, but {shown} needs one of that name",
                at=shown,
            )
    # A folder may be followed by what is in it: its key ends in "/".
    if not key.endswith(b"/"):
        stack.append(key)


def _is_ordinary(text: str) -> bool:
    if (
        _FORBIDDEN.search(text)
        or unassigned().search(text)
        or unicodedata.category(text[-1]) == "Zs"
    ):
        return False
    segments = text.split("/")
    if fold(segments[0]) == "_x":
        return False
    return all(
        segment not in {"", ".", ".."}
        and not segment.startswith("-")
        and len(segment.encode()) <= MAX_SEGMENT_BYTES
        and not fold(segment).endswith(".chunk")
        for segment in segments
    )


def _ancestors(path: str) -> Iterator[str]:
    position = path.find("/")
    while position >= 0:
        yield path[:position]
        position = path.find("/", position + 1)


def stays_inside(path: bytes, target: bytes) -> bool:
    """Whether a symbolic link at `path` leads nowhere out of its tree, whatever else is in it.

    Only what holds without looking: `..` first, no more of them than folders above the link, and
    none after a name, which might be a link itself.
    """
    depth = path.count(b"/")
    if target.startswith(b"/"):
        return False
    below = False
    for segment in target.split(b"/"):
        if segment == b"..":
            depth -= 1
            if below or depth < 0:
                return False
        elif segment not in {b"", b"."}:
            below = True
    return True
