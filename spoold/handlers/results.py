"""What a tool left in `{out}`: looked at, brought into order, ready to be published.

Nothing of the tool runs any more, so nothing changes meanwhile. Links are never followed.

Guarantees: what is published are regular files with one name each, folders, and links that stay
within; of our own user, readable for who may drop, never set-user-ID; synced.
Crash: all of it is in scratch, and begun again.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spoold import errors
from spoold.bundle.copying import copy_range
from spoold.canonical import text
from spoold.errors import SpooldError
from spoold.handlers.patterns import is_unfinished
from spoold.publish import Made
from spoold.spool import Folder, sync_file, sync_file_system, sync_folder
from spoold.status import cut_name, is_reserved, show_name

ROLE: Final = "result"
_MAX_ENTRIES: Final = 100_000
_MAX_NAMED: Final = 100
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
    out: Path, scratch: Path, drop: bytes, most_bytes: int, group: int | None
) -> tuple[Found, Made | None]:
    """Make what is in `out` a result in `scratch`; None where there is nothing.

    `group` is whom it is made readable for. Raises handler-output-invalid or an OSError.
    """
    found = _look(out, most_bytes)
    top = os.listdir(os.fsencode(out))
    if not top:
        return found, None
    for path in found.links:
        _require_inside(out, path)
    _take_over(out, found, scratch, group)
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
    """Every entry beneath a folder, a folder before what is in it."""
    todo = [b""]
    while todo:
        above = todo.pop()
        folder = os.path.join(out, above)
        # Whatever modes the tool gave them.
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            for entry in entries:
                path = os.path.join(above, entry.name)
                status = entry.stat(follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    todo.append(path)


def _require_inside(out: Path, path: bytes) -> None:
    """Refuse a link that leads out, by any way: where it ends is asked of the disk."""
    top = os.path.realpath(os.fsencode(out))
    link = os.path.join(top, path)
    end = os.path.realpath(link)
    absolute = os.path.isabs(os.readlink(link))  # would lead elsewhere once it is published
    if absolute or (end != top and not end.startswith(top + b"/")):
        raise _invalid(path, "is a link that leads out of it")


def _take_over(out: Path, found: Found, scratch: Path, group: int | None) -> None:
    """Make all of it ours alone to change, and readable for droppers."""
    top = os.fsencode(out)
    owner = os.geteuid()
    for path in found.files:
        _make_ours(os.path.join(top, path), scratch / "copy", owner, group)
    for path in found.links:
        _give(os.path.join(top, path), owner, group)
    for path in [*reversed(found.folders), b""]:
        folder = os.path.join(top, path)
        _give(folder, owner, group)
        os.chmod(folder, 0o750)  # noqa: S103  # for the droppers' group, as it is meant


def _make_ours(path: bytes, copy: Path, owner: int, group: int | None) -> None:
    status = os.lstat(path)
    if status.st_nlink > 1:
        # Its other name may be anywhere, a source's even: that one stays as it is.
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copy_range(source, target, 0, status.st_size)
        finally:
            os.close(source)
            os.close(target)
        os.rename(os.fsencode(copy), path)
    _give(path, owner, group)
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
