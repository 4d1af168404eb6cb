"""Durable writes, renames and fsyncs: what every stage that changes the disk builds on.

Guarantees: a name made by `rename_new` never replaced another file; after `sync_folder` returns,
the names in that folder survive a power cut; `write_durable` leaves either the whole new content
or what was there before, `write_new` the whole new content or nothing.
Not guaranteed: anything on network file systems.
Crash: `.<name>.<process id>.tmp` may stay beside what `write_durable` was to replace, and
`.<random>.part` beside what `write_new` was to make.
"""

import ctypes
import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_SYNC_RANGE_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)


def rename_new(
    source: str | bytes | os.PathLike[str], target: str | bytes | os.PathLike[str]
) -> None:
    """Rename, but never onto an existing name (renameat2(2), RENAME_NOREPLACE).

    Raises FileExistsError, FileNotFoundError or another OSError. Where the file system does not
    know the flag (NFS, 9p, much of FUSE), a hard link and an unlink do the same for files. A folder
    makes an empty one at the target first, which a crash may leave: rename(2) replaces that, but
    none that has content.
    """
    try:
        rename_no_replace(source, target)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mode = os.lstat(source).st_mode
        if not stat.S_ISDIR(mode):
            os.link(source, target, follow_symlinks=False)
            os.unlink(source)
            return
        os.mkdir(target, stat.S_IMODE(mode))
        try:
            os.rename(source, target)
        except OSError:
            with suppress(OSError):  # somebody has put something into it
                os.rmdir(target)
            raise


def rename_unique(source: bytes, target: bytes) -> None:
    """Rename to a name that nobody else makes, in one step on every file system.

    Where the kernel cannot refuse to replace, a hard link and an unlink would do the same in two
    steps, and a crash between them would leave the file in both places. Raises OSError.
    """
    try:
        rename_no_replace(source, target)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.rename(source, target)


def rename_no_replace(
    source: str | bytes | os.PathLike[str], target: str | bytes | os.PathLike[str]
) -> None:
    """renameat2(2) with RENAME_NOREPLACE, and nothing instead. Raises OSError."""
    raw_source, raw_target = os.fsencode(source), os.fsencode(target)
    if _libc.renameat2(_AT_FDCWD, raw_source, _AT_FDCWD, raw_target, _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), raw_source, None, raw_target)


def rename_over(
    source: str | bytes | os.PathLike[str], target: str | bytes | os.PathLike[str]
) -> None:
    """Rename, also onto another name of the same file: rename(2) alone does nothing there.

    Raises OSError.
    """
    os.rename(source, target)
    with suppress(FileNotFoundError):
        os.unlink(source)


def sync_file(path: str | os.PathLike[str]) -> None:
    """fsync a regular file by path, without following a symbolic link."""
    _sync(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """fsync a folder: the names in it become durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_file_system(path: str | os.PathLike[str]) -> None:
    """syncfs(2): everything on the file system of `path` becomes durable, data and names."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(path))
    finally:
        os.close(descriptor)


def begin_sync(descriptor: int) -> None:
    """sync_file_range(2): have the kernel begin to write a file, so that a later fsync waits less.

    Nothing is durable by it, and its errors are left to that fsync.
    """
    _libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_RANGE_WRITE)


def _sync(path: str | os.PathLike[str], flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durable(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content for good: write beside it, fsync, rename, fsync the folder."""
    # A name of its own: two processes may do this at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        replace_content(path, content, temporary, mode=mode, durable=True)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Make a file for good where there is none, never over another. Raises FileExistsError.

    In a folder that this user may not read, its name is for the folder's owner to make durable.
    """
    # An unfinished upload by its name: the folder may well be an inbox.
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        _write(temporary, content, mode=mode, durable=True)
        rename_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(PermissionError):  # an inbox for its droppers: the daemon syncs it
        sync_folder(path.parent)


def replace_content(
    path: str | os.PathLike[str],
    content: bytes,
    temporary: str | os.PathLike[str],
    *,
    mode: int = 0o644,
    durable: bool = False,
) -> None:
    """Write `temporary` and rename it over `path`; readers see the old or the new content.

    `durable` also fsyncs the content before the rename; the name is the caller's to sync.
    """
    _write(temporary, content, mode=mode, durable=durable)
    os.rename(temporary, path)


def _write(path: str | os.PathLike[str], content: bytes, *, mode: int, durable: bool) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    with open(descriptor, "wb", buffering=0) as file:
        os.fchmod(descriptor, mode)
        view = memoryview(content)
        try:
            while view:
                view = view[file.write(view) :]
            if durable:
                os.fsync(descriptor)
        except OSError as error:
            error.filename = os.fspath(path)  # write(2) and fsync(2) know no names
            raise
