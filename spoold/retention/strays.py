"""What stands among published files and was not put there by spoold: nobody's to remove."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from spoold.publish.plan import shown
from spoold.queue.placed import Places
from spoold.retention.remover import Found, look
from spoold.spool import Folder, Spool

_PAGE: Final = 1000
_MOST_SHOWN: Final = 5


@dataclass(slots=True)
class Strays:
    """How many there are in a folder, and the names of some."""

    folder: Folder
    count: int = 0
    some: list[str] = field(default_factory=list)


def strays(tree: Spool, places: Places) -> Iterator[Strays]:
    """What is foreign in `processed/`, `failed/` and `restored/`. Lists them: on demand only.

    Raises database-away and OSError.
    """
    for top in (Folder.PROCESSED, Folder.FAILED, Folder.RESTORED):
        found = Strays(top)
        folders = [str(top)]
        if top is Folder.RESTORED:
            with os.scandir(tree.folder(top)) as sites:
                folders = [f"{top}/{site.name}" for site in sites if site.is_dir()]
        for folder in folders:
            for names in _pages(tree, folder):
                placed = {one.name: one for one in places.at(folder, names)}
                for name in names:
                    one = placed.get(name)
                    if one is None or look(tree, one)[0] is Found.FOREIGN:
                        found.count += 1
                        if len(found.some) < _MOST_SHOWN:
                            found.some.append(shown(folder, name))
        if found.count:
            yield found


def _pages(tree: Spool, folder: str) -> Iterator[list[bytes]]:
    with os.scandir(os.fsencode(tree.root / folder)) as entries:
        while page := [entry.name for entry in islice(entries, _PAGE)]:
            yield page
