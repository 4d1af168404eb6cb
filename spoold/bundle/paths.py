"""Paths of entries and names of members. Pure.

A path is what the user gave; a member name is what every tar, BagIt and sha256sum can carry. The
rules are those of the format page, section 2 (names) and 3 (paths).
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from spoold.bundle.hashes import Hashes
from spoold.bundle.unicode14 import unassigned

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
