"""Damage of any kind to a good bundle ends in a refusal of ours, or in the identical content."""

import datetime
import io
import itertools
import json
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
    Document,
    Forge,
    build_files,
    canonical,
    check,
    frame_edges,
    refusal,
    trusted,
)
from tests.hostile import CASES

CODECS = pytest.mark.parametrize("codec", list(Codec))
# Every bit and more examples where it is asked for (minutes), else a sample.
THOROUGH = bool(os.environ.get("SPOOLD_TEST_THOROUGH"))
EXAMPLES = 50 if THOROUGH else 1
# What a reader may say of a bundle whoever made it; anything else is a fault of ours.
CODES = {case.code for case in CASES}
DEADLINE = datetime.timedelta(seconds=5)


@cache
def good(codec: Codec) -> bytes:
    return Forge.good(codec).build()


@CODECS
def test_no_bit_can_be_flipped(codec: Codec) -> None:
    data = good(codec)
    assert refusal(data) == "accepted"
    # The default: one bit of every seventh byte, another one each time.
    bits = range(8 * len(data)) if THOROUGH else range(0, 8 * len(data), 57)
    for at in bits:
        damaged = bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        assert refusal(bytes(damaged)) in CODES, at


@CODECS
def test_no_bit_of_a_frame_header_can_be_flipped(codec: Codec) -> None:
    data = good(codec)
    for edge in frame_edges(data, codec):
        for position, bit in itertools.product(range(edge, min(edge + 14, len(data))), range(8)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            assert refusal(bytes(damaged)) in CODES, (position, bit)


@CODECS
def test_h77_no_cut_is_taken_for_a_bundle(codec: Codec) -> None:
    data = good(codec)
    edges = frame_edges(data, codec)
    near = {edge + offset for edge in edges for offset in (-1, 0, 1)} - {-1}
    rest = range(edges[1], len(data), 1 if THOROUGH else 97)
    for length in sorted({*range(edges[1]), *near, *rest, len(data) - 1}):
        assert refusal(data[:length]) in {"bundle-truncated", "not-a-bundle"}, length


def _same_content(data: bytes, codec: Codec) -> bool:
    found, expected = Collect(), Collect()
    try:
        verify(io.BytesIO(data), trusted(), Policy(), visitor=found, threads=1)
    except SpooldError as error:
        return error.code.name in CODES
    verify(io.BytesIO(good(codec)), trusted(), Policy(), visitor=expected, threads=1)
    return found.files == expected.files and data == good(codec)


@CODECS
@settings(max_examples=60 * EXAMPLES, deadline=DEADLINE)
@given(data=st.data())
def test_random_damage_is_refused(codec: Codec, data: st.DataObject) -> None:
    original = good(codec)
    position = data.draw(st.integers(0, len(original)))
    taken = data.draw(st.integers(0, 64))
    inserted = data.draw(st.binary(max_size=64))
    damaged = original[:position] + inserted + original[position + taken :]
    assert _same_content(damaged, codec)


@CODECS
@settings(max_examples=60 * EXAMPLES, deadline=DEADLINE)
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


@settings(
    max_examples=300 * EXAMPLES, deadline=DEADLINE, suppress_health_check=[HealthCheck.too_slow]
)
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

    # Anything but a refusal of ours fails the test; a change of a free field may be accepted.
    assert refusal(_signed_damage(change, where).build()) in {*CODES, "accepted"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**31, 2**32, 2**53 - 1, 2**53, 2**64])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "..", "/", "data/../x", "a" * 300, "0" * 64, "2026-11-20T10:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


def _with(document: Document, where: list[int], value: object, *, remove: bool) -> Document:
    """The document with another value somewhere in it, or with one less."""
    changed = json.loads(json.dumps(document))
    place, at = changed, where[0]
    for following in [*where[1:], None]:
        keys = list(range(len(place))) if isinstance(place, list) else sorted(place)
        key = keys[at % len(keys)]
        deeper = place[key]
        if following is None or not isinstance(deeper, dict | list) or not deeper:
            if remove:
                del place[key]
            else:
                place[key] = value
            break
        place, at = deeper, following
    return changed


@settings(
    max_examples=300 * EXAMPLES, deadline=DEADLINE, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    target=st.sampled_from(["manifest", "entry", "frame"]),
    where=st.lists(st.integers(0, 1000), min_size=1, max_size=3),
    value=VALUES,
    remove=st.booleans(),
)
def test_other_values_in_signed_documents_are_refused_by_name(
    target: str, where: list[int], value: object, remove: bool
) -> None:
    def change(document: Document) -> Document:
        return _with(document, where, value, remove=remove)

    def lines(found: list[bytes]) -> list[bytes]:
        position = where[-1] % len(found)
        found[position] = canonical(change(json.loads(found[position])))
        return found

    forge = Forge.good()
    match target:
        case "manifest":
            forge.edit_manifest_bytes = lambda data: canonical(change(json.loads(data)))
        case "entry":
            forge.edit_lines = lines
        case _:
            forge.edit_frame_lines = lines
    assert refusal(forge.build()) in {*CODES, "accepted"}


PATHS = st.one_of(
    st.binary(min_size=1, max_size=20).filter(lambda raw: not set(raw) & {0, 0x2F}),
    st.text("aAbB\u00e4A\u0308\u00df.%-_x ", min_size=1, max_size=6).map(str.encode),
).filter(lambda name: name not in {b".", b".."})


@CODECS
@settings(
    max_examples=30 * EXAMPLES, deadline=DEADLINE, suppress_health_check=[HealthCheck.too_slow]
)
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
