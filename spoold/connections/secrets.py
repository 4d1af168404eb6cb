"""Secrets in files that the configuration names: read at each attempt, by one rule.

Nothing of a file's content ever stands in an error.
"""

import os
import re
import stat
from collections.abc import Callable
from typing import Final

from spoold import errors
from spoold.errors import SpooldError

_MAX_SECRET_BYTES: Final = 16 * 1024


def read_secret(
    path: str, *, at: str | None = None, is_secret: Callable[[bytes], bool] = lambda _: True
) -> bytes:
    """The content of a regular file that, if it is a secret, not everybody can use.

    Raises secret-unusable; config-invalid for a file whose key in the configuration is `at`.
    """
    try:
        # A FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            require_regular(path, status, at=at)
            data = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise unusable(path, str(error.strerror), at=at) from error
    if is_secret(data):
        require_private(path, status, at=at)
    if len(data) > _MAX_SECRET_BYTES:
        raise unusable(path, f"it has more than {_MAX_SECRET_BYTES} bytes", at=at)
    return data


def require_regular(path: str, status: os.stat_result, *, at: str | None = None) -> None:
    """Raise secret-unusable for a folder, a FIFO or a device."""
    if not stat.S_ISREG(status.st_mode):
        raise unusable(path, "it is no regular file", at=at)


def require_private(path: str, status: os.stat_result, *, at: str | None = None) -> None:
    """Raise secret-unusable where everybody may use a file."""
    if status.st_mode & 0o007:
        mode = f"mode {status.st_mode & 0o777:03o}"
        hint = f"chmod o= {path}; if others may have seen what it holds, have that changed"
        what = f"it can be read or written by everybody ({mode})"
        raise unusable(path, what, at=at, hint=hint)


def unusable(path: str, what: str, *, at: str | None = None, hint: str = "") -> SpooldError:
    """Why a file of secrets or certificates cannot be used."""
    hint = hint or errors.SECRET_UNUSABLE.hint
    code = errors.SECRET_UNUSABLE if at is None else errors.CONFIG_INVALID
    return SpooldError(code, f"{path}: {what}", hint=hint, at=at)


def scrubbed(text: str) -> str:
    """A URL or a libpq keyword string without its password."""
    # Some write ? # or / in a password as they are; what may be one is hidden, rather than shown.
    hidden = re.sub(r"(?<=://)([^:/@\s]*):(?:[^?#\s]*|[^/@\s]*)@", r"\1:***@", text)
    hidden = re.sub(r"(?i)([?&](?:ssl)?password=)[^&#]*", r"\1***", hidden)
    return re.sub(r"(?i)(\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)", r"\1***", hidden)
