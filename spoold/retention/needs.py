"""What unfinished requests name beneath roots: if that is in the spool's own tree, it stays.

Paths are walked as the actions will walk them; what is compared is device and inode, so that it
does not matter by which way a root reaches the tree. Only a mount inside of a root that does not
reach the tree itself is not seen for sources of kind `files`; a bundle that a request names is
always found.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from spoold.canonical import Document
from spoold.connections import Connections
from spoold.connections.parameters import bind
from spoold.connections.recipes import filled_in
from spoold.errors import SpooldError
from spoold.queue.placed import Places
from spoold.sources.roots import RootedPath
from spoold.spool import Folder, Spool

Identity = tuple[int, int]
"""Device and inode."""

_PUBLISHED: Final = (Folder.PROCESSED, Folder.FAILED, Folder.RESTORED, Folder.STATUS)


class Needed:
    """What is named, and all folders above that."""

    def __init__(self) -> None:
        self._named: set[Identity] = set()
        self._above: set[Identity] = set()

    def add(self, named: Identity, above: list[Identity]) -> None:
        """Take note of a file or a folder with all that is in it."""
        self._named.add(named)
        self._above.update(above)

    def holds(self, target: Identity, folders: list[Identity]) -> bool:
        """Whether a file or folder is named, is in something named, or has something named in it.

        `folders` are those that it is in.
        """
        return target in self._above or target in self._named or not self._named.isdisjoint(folders)


def gather(tree: Spool, places: Places, connections: Connections) -> Needed:
    """What the unfinished requests of this spool name. Raises database-away."""
    needed = Needed()
    actions = ["rehydrate"]
    if any(_reaches(root, tree) for root in connections.roots.values()):
        actions.append("bundle")
    for action, request in places.reading(actions):
        for root, path in named_in(action, request, connections):
            with suppress(SpooldError, OSError):  # what is not there needs nothing
                _resolve(needed, RootedPath(root, path, connections.roots))
    return needed


def named_in(action: str, request: Document, connections: Connections) -> Iterator[tuple[str, str]]:
    """The roots and paths that a request names, itself or by a recipe. Pure."""
    if action == "rehydrate":
        yield from _place(request.get("bundle"))
        return
    sources = request.get("sources")
    recipe = connections.recipes.get(str(request.get("recipe")))
    given = request.get("parameters", {})
    if recipe is not None and isinstance(given, Mapping):
        try:
            values = bind(recipe.parameters, given, at="parameters")
            found = [filled_in(source, values) for source in recipe.sources]
        except SpooldError:  # the job fails by that too
            return
        for source in found:
            yield from _place(source)
    elif isinstance(sources, list):
        for source in sources:
            yield from _place(source)


def folders_above(path: str | bytes | os.PathLike[str]) -> list[Identity]:
    """The identities of a folder and all above it."""
    found = []
    folder = Path(os.path.realpath(os.fsdecode(path)))
    for each in (folder, *folder.parents):
        with suppress(OSError):
            status = each.stat()
            found.append((status.st_dev, status.st_ino))
    return found


def _place(named: object) -> Iterator[tuple[str, str]]:
    if isinstance(named, Mapping) and isinstance(named.get("root"), str):
        yield str(named["root"]), str(named.get("path") or "")


def _resolve(needed: Needed, path: RootedPath) -> None:
    descriptor, name = path.open()
    try:
        folder = os.readlink(f"/proc/self/fd/{descriptor}")
        at = os.stat(name or b".", dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)
    above = folders_above(folder)
    needed.add((at.st_dev, at.st_ino), above if name is not None else above[1:])


def _reaches(root: Path, tree: Spool) -> bool:
    """Whether a root is above, in, or one of the folders that hold what was published."""
    above_root = folders_above(root)
    published = [folders_above(tree.folder(folder)) for folder in _PUBLISHED]
    return any(
        above_root[0] in above_folder or above_folder[0] in above_root
        for above_folder in published
        if above_root and above_folder
    )
