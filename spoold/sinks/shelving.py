"""Under which name each of a bundle's files goes into a store of artifacts. Pure.

By path, a file's name is `into` and what is left of its path without its first folders. By content
it is `sha256/ab/cdef…`.
"""

from typing import Final, NamedTuple

from spoold import canonical, errors
from spoold.bundle.entry import Entry
from spoold.bundle.paths import path_fault
from spoold.errors import SpooldError

PLACEHOLDERS: Final = ("site", "bundle_id")


class Item(NamedTuple):
    """A file, and its name in the store."""

    target: bytes
    path: bytes  # in the bundle
    sha256: str
    size: int
    mtime_ns: int


def by_path(entry: Entry, into: bytes, strip: int) -> Item:
    """Its name where paths are kept. Raises path-unsupported."""
    segments = entry.path.split(b"/")
    if len(segments) <= strip:
        fault: str | None = f"it does not lie beneath {strip} folders, which `strip` takes away"
        target = b""
    else:
        target = b"/".join(filter(None, (into, *segments[strip:])))
        fault = path_fault(target)
    if fault:
        shown = canonical.text(entry.path)
        raise SpooldError(
            errors.PATH_UNSUPPORTED,
            f"{shown}: {fault}",
            hint="change `strip`, `into` or `entries` of the sink in spoold.toml, then `spoold "
            "retry` the job",
            at=shown,
        )
    return Item(target, entry.path, entry.sha256, entry.size, entry.mtime_ns)


def by_content(entry: Entry) -> Item:
    """Its name where each content is kept once."""
    target = f"sha256/{entry.sha256[:2]}/{entry.sha256[2:]}".encode()
    return Item(target, entry.path, entry.sha256, entry.size, entry.mtime_ns)


def line(item: Item) -> bytes:
    """A line that sorts by the name, with all that lies beneath it right behind it."""
    key = item.target.replace(b"/", b"\0").hex()
    return f"{key} {item.path.hex()} {item.sha256} {item.size} {item.mtime_ns}".encode()


def parse(text: bytes) -> Item:
    """The item of a line."""
    key, path, sha256, size, mtime_ns = text.decode().split(" ")
    target = bytes.fromhex(key).replace(b"\0", b"/")
    return Item(target, bytes.fromhex(path), sha256, int(size), int(mtime_ns))


def require_apart(before: Item | None, item: Item) -> None:
    """Raise artifact-conflict where two files would have one name, or one lie beneath another."""
    if before is None:
        return
    if item.target == before.target or item.target.startswith(before.target + b"/"):
        shown = canonical.text(item.target)
        raise SpooldError(
            errors.ARTIFACT_CONFLICT,
            f"{canonical.text(before.path)} and {canonical.text(item.path)} would both go to "
            f"{shown}",
            hint="let `strip` of the sink in spoold.toml take fewer folders away",
            at=canonical.text(item.path),
        )
