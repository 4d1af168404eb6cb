"""Sizes and durations."""

import pytest

from spoold import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("4KiB", 4096),
        ("256 MiB", 256 * 1024**2),
        (" 2gib ", 2 * 1024**3),
        ("1MB", 10**6),
        ("1TiB", 1024**4),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1M", "-1", "1.5GiB", "1 MiB x", "9PiB", "1" * 16])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|more than"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0d", 0), ("90s", 90), ("30m", 1800), ("12h", 43200), ("2w", 1209600)]
)
def test_durations(text: str, seconds: int) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "1.5h", "-1d", "1y", "99999999w"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|more than"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1023 * 1024, "0.999 MiB"),
        (419430, "410 KiB"),
        (50_000_000, "47.7 MiB"),
        (2**53, "8 PiB"),
    ],
)
def test_sizes_are_shown_with_three_digits(size: int, shown: str) -> None:
    assert units.show_size(size) == shown
