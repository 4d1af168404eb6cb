"""Tools that run as other users: whether they can be had, and get through to their scratch.

Only root can start a process as somebody else. Scratch lies below `.spoold`, which is closed: for
these tools it is opened to pass through, not to look into; what is not the tool's own stays closed.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from spoold import errors
from spoold.errors import SpooldError
from spoold.handlers.handler import Handler, Handlers
from spoold.handlers.process import User, other_user
from spoold.spool import Folder, Spool

_PASS: Final = 0o711


def open_way(handlers: Handlers, tree: Spool) -> None:
    """Let the users of handlers through to the spool's scratch. Raises config-invalid."""
    others = [handler for handler in handlers if other_user(handler)]
    if others and os.geteuid() == 0:
        for folder in (Folder.PRIVATE, Folder.WORK):
            path = tree.folder(folder)
            path.chmod(stat.S_IMODE(path.stat().st_mode) | _PASS)
    for handler, what, fix in problems(handlers, tree):
        raise SpooldError(errors.CONFIG_INVALID, f"handlers.{handler.name}.user: {what}", hint=fix)


def problems(handlers: Handlers, tree: Spool) -> Iterator[tuple[Handler, str, str]]:
    """What keeps a tool from running as its user, with the fix."""
    for handler in handlers:
        user = other_user(handler)
        if user is None:
            continue
        if os.geteuid() != 0:
            what = f"only a daemon that is root's can run a tool as {user.name}"
            yield handler, what, f"run the daemon as root, or as {user.name}; or take `user` away"
        elif (closed := _closed_to(user, tree.root)) is not None:
            what = f"{user.name} cannot get through {closed} to the scratch of its tool"
            yield handler, what, f"chmod o+x {closed}"


def _closed_to(user: User, root: Path) -> Path | None:
    """The first folder on the way to the spool that a user cannot pass through."""
    for folder in [*reversed(root.resolve().parents), root.resolve()]:
        status = folder.stat()
        if status.st_uid == user.uid:
            needed = stat.S_IXUSR
        elif status.st_gid in user.groups:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return folder
    return None
