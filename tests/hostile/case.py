"""A hostile case, and the ways to make one from a good bundle."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from spoold.bundle.frames import Codec
from spoold.bundle.reader import Policy
from spoold.trust import Trust
from tests.bundles import BUNDLE_ID, Document, Forge, trusted

BOTH = tuple(Codec)
ZSTD = (Codec.ZSTD,)
GZIP = (Codec.GZIP,)
PREFIX = f"{BUNDLE_ID}/"
MIB = 1024 * 1024

Members = list[bytes]


@dataclass(frozen=True)
class Case:
    """One thing that is wrong, and the code of its refusal.

    `unseen` says why verify-bundle.sh takes it for good all the same.
    """

    row: str
    what: str
    code: str
    make: Callable[[Codec], bytes]
    codecs: tuple[Codec, ...] = BOTH
    keys: Trust | None = None
    policy: Policy = field(default_factory=Policy)
    unseen: str = ""

    @property
    def trust(self) -> Trust:
        return self.keys or trusted()

    def __str__(self) -> str:
        return f"{self.row} {self.what}"


_OF_CASE = ("codecs", "keys", "policy", "unseen")


def forged(row: str, what: str, code: str, **changes: Any) -> Case:
    """The usual good bundle, forged with these changes."""
    own = {name: changes.pop(name) for name in _OF_CASE if name in changes}
    return Case(row, what, code, lambda codec: Forge.good(codec, **changes).build(), **own)


def made(row: str, what: str, code: str, forge: Callable[[Codec], Forge], **own: Any) -> Case:
    """A bundle of a forge's own making."""
    return Case(row, what, code, lambda codec: forge(codec).build(), **own)


def damaged(
    row: str, what: str, code: str, change: Callable[[bytes, Codec], bytes], **own: Any
) -> Case:
    """The usual good bundle, changed after all was signed."""
    return Case(row, what, code, lambda codec: change(Forge.good(codec).build(), codec), **own)


def entry_changed(row: str, what: str, code: str, position: int = 0, **changes: Any) -> Case:
    """The usual good bundle with other fields in one entry; None takes a field away."""
    own = {name: changes.pop(name) for name in _OF_CASE if name in changes}

    def forge(codec: Codec) -> Forge:
        good = Forge.good(codec)
        fields = {**good.entries[position], **changes}
        good.entries[position] = {
            name: value for name, value in fields.items() if value is not None
        }
        return good

    return made(row, what, code, forge, **own)


def edited(**fields: Any) -> Callable[[Document], Document]:
    """A manifest with other fields."""
    return lambda manifest: {**manifest, **fields}


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Bytes in which something is replaced once, which must be there."""

    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    return change
