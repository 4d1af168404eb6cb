"""What a name in the inbox means: a drop, an unfinished upload, a reserved name, or none of ours.

Pure. The type of the file is another question, which `inbox` answers.
"""

import enum
import re
from typing import Final

from spoold.status import DOUBLE_SUFFIXES, LOG_SUFFIX, SUFFIX

_REQUEST_PREFIX: Final = b"request-"
_REQUEST_SUFFIX: Final = b".json"

# What cp, rsync, sftp servers, browsers and editors call a file that is not whole yet.
_UNFINISHED: Final = (
    b".part",
    b".partial",
    b".filepart",
    b".tmp",
    b".swp",
    b".crdownload",
    b"~",
)

# A published set whose names were taken is called `<stem>~<12 hex digits><suffix>`, and a cut name
# ends in `~<12 hex digits>`: a drop of such a name, or of a status file's, would be published under
# the very name of another drop's answer.
_NUMBERED: Final = re.compile(rb"~[0-9a-f]{12}(?:\.json|\.tar\.zst|\.tar\.gz)?\Z")


class NameKind(enum.Enum):
    """What a name says about its file."""

    REQUEST = "request"
    BUNDLE = "bundle"
    UNFINISHED = "unfinished"
    RESERVED = "reserved"
    FOREIGN = "foreign"


DROPS: Final = frozenset({NameKind.REQUEST, NameKind.BUNDLE})


def classify(name: bytes) -> NameKind:
    """Say what a name in the inbox means.

    >>> classify(b"request-demo.json")
    <NameKind.REQUEST: 'request'>
    """
    if name.startswith(b".") or name.endswith(_UNFINISHED):
        return NameKind.UNFINISHED
    request = name.startswith(_REQUEST_PREFIX) and name.endswith(_REQUEST_SUFFIX)
    if not request and not name.endswith(DOUBLE_SUFFIXES):
        return NameKind.RESERVED if name.endswith((SUFFIX, LOG_SUFFIX)) else NameKind.FOREIGN
    if name.endswith((SUFFIX, LOG_SUFFIX)) or (b"~" in name and _NUMBERED.search(name)):
        return NameKind.RESERVED
    return NameKind.REQUEST if request else NameKind.BUNDLE
