"""Damage of any kind to a good bundle ends in a refusal of ours, or in the identical content."""

import io
import itertools
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoold.bundle.frames import Codec
from spoold.bundle.reader import Policy, verify
from spoold.errors import SpooldError
from tests.bundles import (
    Collect,
    Forge,
    build_files,
    check,
    frame_edges,
    refusal,
    trusted,
)

CODECS = pytest.mark.parametrize("codec", list(Codec))
# Every byte where it is asked for (minutes), else every so many.
STEP = 1 if os.environ.get("SPOOLD_TEST_EVERY_BYTE") else 7


@cache
def good(codec: Codec) -> bytes:
    return Forge.good(codec).build()


@CODECS
def test_no_byte_can_be_flipped(codec: Codec) -> None:
    data = good(codec)
    assert refusal(data) == "accepted"
    for position in range(0, len(data), STEP):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        assert refusal(bytes(damaged)) != "accepted", position


@CODECS
def test_no_bit_of_a_frame_header_can_be_flipped(codec: Codec) -> None:
    data = good(codec)
    for edge in frame_edges(data, codec):
        for position, bit in itertools.product(range(edge, min(edge + 14, len(data))), range(8)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            assert refusal(bytes(damaged)) != "accepted", (position, bit)


@CODECS
def test_h77_no_cut_is_taken_for_a_bundle(codec: Codec) -> None:
    data = good(codec)
    for length in range(0, len(data), STEP):
        assert refusal(data[:length]) in {"bundle-truncated", "not-a-bundle"}, length


def _same_content(data: bytes, codec: Codec) -> bool:
    found, expected = Collect(), Collect()
    try:
        verify(io.BytesIO(data), trusted(), Policy(), visitor=found, threads=1)
    except SpooldError:
        return True
    verify(io.BytesIO(good(codec)), trusted(), Policy(), visitor=expected, threads=1)
    return found.files == expected.files and data == good(codec)


@CODECS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_damage_is_refused(codec: Codec, data: st.DataObject) -> None:
    original = good(codec)
    position = data.draw(st.integers(0, len(original)))
    taken = data.draw(st.integers(0, 64))
    inserted = data.draw(st.binary(max_size=64))
    damaged = original[:position] + inserted + original[position + taken :]
    assert _same_content(damaged, codec)


@CODECS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_frames_in_another_order_are_refused(codec: Codec, data: st.DataObject) -> None:
    original = good(codec)
    edges = [*frame_edges(original, codec), len(original)]
    pieces = [original[a:b] for a, b in itertools.pairwise(edges)]
    chosen = data.draw(st.lists(st.sampled_from(pieces), max_size=len(pieces) + 2))
    assert _same_content(b"".join(chosen), codec)


def _signed_damage(change: Callable[[bytes], bytes], where: str) -> Forge:
    forge = Forge.good()
    match where:
        case "entries":
            forge.edit_lines = lambda lines: change(b"".join(lines)).splitlines(keepends=True)
        case "frames":
            forge.edit_frame_lines = lambda lines: change(b"".join(lines)).splitlines(keepends=True)
        case "manifest":
            forge.edit_manifest_bytes = change
        case "payload":
            forge.edit_payload = lambda frames: [change(frame) for frame in frames]
        case "packed":
            forge.edit_packed = lambda frames: [change(frame) for frame in frames]
        case _:
            forge.edit_head_raw = change
    return forge


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    where=st.sampled_from(["entries", "frames", "manifest", "payload", "packed", "head"]),
    position=st.integers(0, 20_000),
    taken=st.integers(0, 4),
    inserted=st.binary(max_size=4),
)
def test_damage_that_was_signed_is_refused_by_name(
    where: str, position: int, taken: int, inserted: bytes
) -> None:
    def change(data: bytes) -> bytes:
        at = position % (len(data) + 1)
        return data[:at] + inserted + data[at + taken :]

    # Anything but an error of ours fails the test; a change of a free field may be accepted.
    refusal(_signed_damage(change, where).build())


PATHS = st.one_of(
    st.binary(min_size=1, max_size=20).filter(lambda raw: not set(raw) & {0, 0x2F}),
    st.text("aAbB\u00e4A\u0308\u00df.%-_x ", min_size=1, max_size=6).map(str.encode),
).filter(lambda name: name not in {b".", b".."})


@CODECS
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    files=st.dictionaries(
        st.lists(PATHS, min_size=1, max_size=3).map(b"/".join),
        st.binary(max_size=3000),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_can_be_written_reads_back(
    codec: Codec, files: dict[bytes, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kept = {
        path: content
        for path, content in files.items()
        if not any(other != path and path.startswith(other + b"/") for other in files)
    }
    data = build_files(kept, _scratch(tmp_path_factory), codec=codec)
    found = Collect()
    verify(io.BytesIO(data), trusted(), Policy(), visitor=found, threads=1)
    assert found.files == kept
    assert check(data).manifest.totals.files == len(kept)


def _scratch(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("scratch")
