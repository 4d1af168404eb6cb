"""The ustar profile of members: a header is a function of name and size. Pure.

Source: POSIX.1-2017, pax, "ustar Interchange Format"; the profile is the format page's, section 2.
"""

import struct
from typing import Final

from spoold import errors
from spoold.bundle.paths import ustar_split
from spoold.errors import SpooldError

BLOCK: Final = 512
ZEROS: Final = tuple(bytes(count) for count in range(BLOCK))  # padding, by how much is missing
MAX_MEMBER_BYTES: Final = 0o77777777777

# name; mode, uid, gid; size; mtime; checksum; typeflag to devminor; prefix. Filled up with zeros.
_HEADER: Final = struct.Struct("100s24s12s12s8s189s155s12x")
_MODE_UID_GID = b"0000644\x00" + b"0000000\x00" * 2
_MTIME = b"00000000000\x00"
_AFTER_CHECKSUM = (
    b"0" + bytes(100) + b"ustar\x0000" + bytes(32) + bytes(32) + b"0000000\x00" * 2
)  # typeflag, linkname, magic and version, uname, gname, devmajor, devminor
# The checksum counts its own field as spaces.
_CONSTANT_SUM = sum(_MODE_UID_GID) + sum(_MTIME) + 8 * 32 + sum(_AFTER_CHECKSUM)


def header(name: bytes, size: int) -> bytes:
    """The 512 bytes before a member's content. The name must fit (see `ustar_split`)."""
    assert size <= MAX_MEMBER_BYTES
    if len(name) <= 100:
        prefix = b""
    else:
        split = ustar_split(name)
        assert split is not None, name
        prefix, name = split
    digits = b"%011o" % size
    checksum = _CONSTANT_SUM + sum(name) + sum(prefix) + sum(digits)
    return _HEADER.pack(
        name, _MODE_UID_GID, digits, _MTIME, b"%06o\x00 " % checksum, _AFTER_CHECKSUM, prefix
    )


def member_bytes(size: int) -> int:
    """What a member takes in the tar: header, content, padding."""
    return BLOCK + size + -size % BLOCK


def member(name: bytes, content: bytes) -> bytes:
    """A whole member, for the small ones."""
    return header(name, len(content)) + content + ZEROS[-len(content) % BLOCK]


def split_members(tar: bytes) -> list[tuple[bytes, bytes]]:
    """Cut tar bytes without end blocks into names and contents.

    Raises head-malformed unless every byte is what `member` would make.
    """
    members = []
    position = 0
    while position < len(tar):
        block = tar[position : position + BLOCK]
        name, size = _read_header(block)
        end = position + member_bytes(size)
        content = tar[position + BLOCK : position + BLOCK + size]
        if end > len(tar) or member(name, content) != tar[position:end]:
            raise SpooldError(
                errors.HEAD_MALFORMED, f"the member at byte {position} is outside the profile"
            )
        members.append((name, content))
        position = end
    return members


def _read_header(block: bytes) -> tuple[bytes, int]:
    # Only finds out what to compare with: `header` then decides.
    name = block[:100].rstrip(b"\x00")
    prefix = block[345:500].rstrip(b"\x00")
    digits = block[124:135]
    if len(block) < BLOCK or not name or digits.strip(b"01234567"):
        raise SpooldError(errors.HEAD_MALFORMED, "there is no member header where one must be")
    full = prefix + b"/" + name if prefix else name
    if ustar_split(full) != (prefix, name):
        raise SpooldError(errors.HEAD_MALFORMED, "a member's name is split elsewhere than it must")
    return full, int(digits, 8)
