"""Sizes and durations as people write them: "256MiB", "30m".

Requests and configuration share these two grammars. An integer is bytes; a duration always names
its unit, since nobody guesses the same one.
"""

import re
from typing import Final

_SIZE: Final = re.compile(r"\s*([0-9]{1,15})\s*([A-Za-z]*)\s*")
_DURATION: Final = re.compile(r"\s*([0-9]{1,12})\s*([A-Za-z]+)\s*")
_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE_UNITS: Final[dict[str, int]] = {
    "": 1,
    **{name.lower(): int(1024**power) for power, name in enumerate(_BINARY)},
    **{
        name.lower(): int(1000**power)
        for power, name in enumerate(("B", "kB", "MB", "GB", "TB", "PB"))
    },
}
_DURATION_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

MAX_SIZE: Final = 2**53 - 1
MAX_DURATION_SECONDS: Final = 100 * 366 * 86400


def parse_size(text: str) -> int:
    """Bytes of "1048576", "1MiB" (1024 x 1024) or "1MB" (1000 x 1000). Raises ValueError."""
    match = _SIZE.fullmatch(text)
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f'{text!r} is no size: write "512", "4KiB", "256MiB", "2GiB" or "1TiB"')
    size = int(match[1]) * factor
    if size > MAX_SIZE:
        raise ValueError(f"{text!r} is more than 8 PiB")
    return size


def parse_duration(text: str) -> int:
    """Seconds of "90s", "30m", "12h", "7d" or "2w". Raises ValueError."""
    match = _DURATION.fullmatch(text)
    factor = _DURATION_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f'{text!r} is no duration: write "90s", "30m", "12h", "7d" or "2w"')
    seconds = int(match[1]) * factor
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError(f"{text!r} is more than 100 years")
    return seconds


def show_size(size: int) -> str:
    """A size for people, three digits: "419 KiB"."""
    if size < 1024:
        return f"{size} B"
    power = 1
    while size >= 999.5 * 1024**power and power < len(_BINARY) - 1:
        power += 1
    return f"{size / 1024**power:.3g} {_BINARY[power]}"
