"""What a name in the inbox means: a drop, an unfinished upload, a reserved name, or none of ours.

Pure. The type of the file is another question, which `inbox` answers.
"""

import enum
from typing import Final

from spoold.handlers import NO_HANDLERS, Handlers
from spoold.handlers.patterns import is_unfinished
from spoold.status import DOUBLE_SUFFIXES, LOG_SUFFIX, SUFFIX, is_reserved

_REQUEST_PREFIX: Final = b"request-"
_REQUEST_SUFFIX: Final = b".json"


class NameKind(enum.Enum):
    """What a name says about its file."""

    REQUEST = "request"
    BUNDLE = "bundle"
    HANDLED = "handled"
    UNFINISHED = "unfinished"
    RESERVED = "reserved"
    FOREIGN = "foreign"


DROPS: Final = frozenset({NameKind.REQUEST, NameKind.BUNDLE, NameKind.HANDLED})


def classify(name: bytes, handlers: Handlers = NO_HANDLERS) -> NameKind:
    """Say what a name in the inbox means, to a site with these handlers.

    A name of a drop that is reserved would be published under the very name of another drop's
    answer.

    >>> classify(b"request-demo.json")
    <NameKind.REQUEST: 'request'>
    """
    if is_unfinished(name):
        return NameKind.UNFINISHED
    if name.startswith(_REQUEST_PREFIX) and name.endswith(_REQUEST_SUFFIX):
        kind = NameKind.REQUEST
    elif name.endswith(DOUBLE_SUFFIXES):
        kind = NameKind.BUNDLE
    elif handlers.of_drop(name) is not None:
        kind = NameKind.HANDLED
    else:
        return NameKind.RESERVED if name.endswith((SUFFIX, LOG_SUFFIX)) else NameKind.FOREIGN
    return NameKind.RESERVED if is_reserved(name) else kind
