"""What a tool left in `{out}`: looked at, brought into order, ready to be published.

Nothing of the tool runs any more, but another run of its user's may. So each folder is opened
without following a link, and is ours alone before it is listed: from then on nobody else can
exchange what is in it, and its path leads to it. Links are never followed.

Guarantees: what is published are regular files with one name each, folders, and links that stay
within; of our own user, readable for who may drop, never set-user-ID; synced. Nobody else has them
open for writing where the tool was another user's.
Crash: all of it is in scratch, and begun again.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spoold import errors
from spoold.bundle.copying import copy_range
from spoold.bundle.paths import stays_inside
from spoold.canonical import text
from spoold.disk import sync_file, sync_file_system, sync_folder
from spoold.errors import SpooldError
from spoold.handlers.patterns import is_unfinished
from spoold.publish import Made
from spoold.spool import Folder
from spoold.status import cut_name, is_reserved, show_name

ROLE: Final = "result"
_MAX_ENTRIES: Final = 100_000
_MAX_NAMED: Final = 100
# Folders within folders, and what PATH_MAX leaves of a path beside those of scratch.
_MAX_DEPTH: Final = 128
_MAX_PATH_BYTES: Final = 3072
_MAX_SHOWN_BYTES: Final = 200
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_SUFFIX: Final = b".out"


@dataclass(slots=True)
class Found:
    """What is there; paths relative to `{out}`."""

    files: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    folders: list[bytes] = field(default_factory=list)
    bytes: int = 0

    def shown(self) -> list[str]:
        """The first files and links, as a status names them."""
        return [show_name(path)[0] for path in sorted([*self.files, *self.links])[:_MAX_NAMED]]


def collect(
    out: Path, scratch: Path, drop: bytes, most_bytes: int, group: int | None, maker: int | None
) -> tuple[Found, Made | None]:
    """Make what is in `out` a result in `scratch`; None where there is nothing.

    `group` is whom it is made readable for, `maker` the user of a tool that is not ours. Raises
    handler-output-invalid or an OSError.
    """
    found = _look(out, most_bytes)
    top = os.listdir(os.fsencode(out))
    if not top:
        return found, None
    for path in found.links:
        _require_inside(out, path)
    _take_over(out, found, scratch, group, maker)
    target = scratch / ROLE
    if len(top) == 1 and found.files == top and _may_stand(top[0]):
        os.rename(os.path.join(os.fsencode(out), top[0]), os.fsencode(target))
        name = top[0] if top[0] != drop else _beside(drop)
        sync_file(target)
    else:
        os.rename(out, target)
        name = _stem(drop)[0] + _FOLDER_SUFFIX
        if name == drop:
            name += _FOLDER_SUFFIX
        sync_file_system(scratch)
    sync_folder(scratch)
    return found, Made(ROLE, ROLE, Folder.PROCESSED, name)


def _look(out: Path, most_bytes: int) -> Found:
    found = Found()
    for path, status in _walk(os.fsencode(out)):
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            found.folders.append(path)
        elif stat.S_ISLNK(mode):
            found.links.append(path)
        elif stat.S_ISREG(mode):
            found.files.append(path)
            found.bytes += status.st_size
        else:
            raise _invalid(path, "is neither a file nor a folder")
        if found.bytes > most_bytes:
            raise SpooldError(
                errors.HANDLER_OUTPUT_INVALID, f"it is more than result_bytes, {most_bytes:,}"
            )
        if len(found.files) + len(found.links) + len(found.folders) > _MAX_ENTRIES:
            raise SpooldError(
                errors.HANDLER_OUTPUT_INVALID, f"it holds more than {_MAX_ENTRIES:,} entries"
            )
    return found


def _walk(out: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every entry beneath a folder, a folder before what is in it. All folders become ours."""
    parent, name = os.path.split(out)
    try:
        place = os.open(parent, _FOLDER_FLAGS)
        try:
            handle = _open_folder(place, name)
        finally:
            os.close(place)
    except OSError as error:
        message = f"the tool has removed or replaced it: {error.strerror}"
        raise SpooldError(errors.HANDLER_OUTPUT_INVALID, message) from error
    # The handles of the folders on the way, each with its path and those of its folders to do.
    stack = [(handle, b"", _own(handle))]
    try:
        while stack:
            handle, above, todo = stack[-1]
            if not todo:
                os.close(handle)
                stack.pop()
                continue
            name = todo.pop()
            path = os.path.join(above, name)
            status = os.stat(name, dir_fd=handle, follow_symlinks=False)
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                if len(stack) > _MAX_DEPTH or len(path) > _MAX_PATH_BYTES:
                    raise _invalid(path[:_MAX_SHOWN_BYTES] + b"...", "lies too deep")
                below = _open_folder(handle, name)
                stack.append((below, path, _own(below)))
    finally:
        for handle, _, _ in stack:
            os.close(handle)


def _open_folder(above: int, name: bytes) -> int:
    with suppress(PermissionError):
        return os.open(name, _FOLDER_FLAGS, dir_fd=above)
    # Of our own user, who is no root: whatever mode its tool gave it.
    os.chmod(name, 0o700, dir_fd=above)
    return os.open(name, _FOLDER_FLAGS, dir_fd=above)


def _own(handle: int) -> list[bytes]:
    """Make a folder ours alone, then list it."""
    if os.fstat(handle).st_uid != os.geteuid():
        os.fchown(handle, os.geteuid(), os.getegid())
    os.fchmod(handle, 0o700)
    with os.scandir(handle) as entries:
        return [os.fsencode(entry.name) for entry in entries]


def _require_inside(out: Path, path: bytes) -> None:
    """Refuse a link that may lead out, by any way.

    Where it ends is not asked of the disk: a way out and in again ends inside only as long as
    folders have the names that they had for the tool.
    """
    if not stays_inside(path, os.readlink(os.path.join(os.fsencode(out), path))):
        raise _invalid(path, "is a link that may lead out of it")


def _take_over(
    out: Path, found: Found, scratch: Path, group: int | None, maker: int | None
) -> None:
    """Make all of it ours alone to change, and readable for droppers."""
    top = os.fsencode(out)
    owner = os.geteuid()
    for path in found.files:
        _make_ours(os.path.join(top, path), path, scratch / "copy", group, maker)
    for path in found.links:
        _give(os.path.join(top, path), owner, group)
    for path in [*reversed(found.folders), b""]:
        folder = os.path.join(top, path)
        _give(folder, owner, group)
        os.chmod(folder, 0o750)  # noqa: S103  # for the droppers' group, as it is meant


def _make_ours(path: bytes, name: bytes, copy: Path, group: int | None, maker: int | None) -> None:
    status = os.lstat(path)
    if maker is not None and status.st_uid != maker:
        raise _invalid(name, "is a file of somebody else")
    # Its other name may be anywhere, a source's even: that one stays as it is. And of another
    # user's file nobody knows who has it open.
    if status.st_nlink > 1 or maker is not None:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copy_range(source, target, 0, status.st_size)
        finally:
            os.close(source)
            os.close(target)
        os.rename(os.fsencode(copy), path)
    _give(path, os.geteuid(), group)
    os.chmod(path, 0o750 if status.st_mode & 0o100 else 0o640)


def _give(path: bytes, owner: int, group: int | None) -> None:
    if os.lstat(path).st_uid != owner:
        os.chown(path, owner, os.getegid(), follow_symlinks=False)
    if group is not None:
        try:
            os.chown(path, -1, group, follow_symlinks=False)
        except PermissionError:  # the daemon's user is not of the droppers' group
            return


def _may_stand(name: bytes) -> bool:
    """Whether a result may have its own name in `processed/`, where answers stand."""
    shown, raw = show_name(name)
    return raw is None and bool(shown) and not is_unfinished(name) and not is_reserved(name)


def _stem(drop: bytes) -> tuple[bytes, bytes]:
    stem, dot, suffix = drop.rpartition(b".")
    return (cut_name(stem), dot + suffix) if stem else (cut_name(drop), b"")


def _beside(drop: bytes) -> bytes:
    """`intent-1.out.json`: the result that has the drop's own name."""
    stem, suffix = _stem(drop)
    return (stem + _FOLDER_SUFFIX + suffix)[:255]


def _invalid(path: bytes, what: str) -> SpooldError:
    return SpooldError(errors.HANDLER_OUTPUT_INVALID, f"{text(path)} {what}", at=text(path))
