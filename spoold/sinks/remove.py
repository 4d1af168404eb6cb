"""Removes trees that were restored: folders in them may have any mode.

Guarantees: links in the tree are removed, never followed, also one that is put there meanwhile: it
may hold folders of a handler's tool, of another user, which a process of that user still changes.
Not guaranteed: that it succeeds against someone who does.
"""

import os
import secrets
import stat
from contextlib import suppress

# A handle each: beyond that many, a folder is moved up first.
_MAX_HANDLES = 256
_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str | bytes | os.PathLike[str]) -> None:
    """Remove a file, a link, or a folder with all that is in it, whatever their modes.

    What is missing is fine. Raises OSError.
    """
    parent, name = os.path.split(os.path.abspath(os.fsencode(path)))
    try:
        handle = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    # A stack of folders that are being emptied: their parent's handle is one below.
    stack = [(handle, [name])]
    try:
        while stack:
            handle, names = stack[-1]
            if not names:
                os.close(handle)
                stack.pop()
                if stack:
                    os.rmdir(stack[-1][1].pop(), dir_fd=stack[-1][0])
                continue
            if len(stack) > _MAX_HANDLES and (higher := _move_up(stack, names[-1])) is not None:
                names.pop()
                stack[1][1].insert(-1, higher)
                continue
            below = _remove_or_open(handle, names[-1])
            if below is None:
                names.pop()
            else:
                with os.scandir(below) as found:
                    stack.append((below, [os.fsencode(item.name) for item in found]))
    finally:
        for handle, _ in stack:
            with suppress(OSError):
                os.close(handle)


def _move_up(stack: list[tuple[int, list[bytes]]], name: bytes) -> bytes | None:
    """Move a folder into the topmost one, under a name of its own; None where it is no folder."""
    handle, top = stack[-1][0], stack[1][0]
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            higher = b".%d.%s" % (status.st_ino, secrets.token_hex(8).encode())
            os.rename(name, higher, src_dir_fd=handle, dst_dir_fd=top)
            return higher
    return None


def _remove_or_open(handle: int, name: bytes) -> int | None:
    """Unlink a name; of a folder, return a handle, made writable so that it can be emptied."""
    try:
        status = os.stat(name, dir_fd=handle, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=handle)
            return None
        folder = os.open(name, os.O_PATH | _FLAGS, dir_fd=handle)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            # By its handle: in the place of its name a link may stand by now. fchmod(2) refuses
            # one that was opened without leave to read.
            os.chmod(f"/proc/self/fd/{folder}", 0o700)
        return os.open(b".", os.O_RDONLY | _FLAGS, dir_fd=folder)
    finally:
        os.close(folder)
