"""A further signature: the head is swapped, everything else stays byte for byte."""

import datetime
import io
import itertools
import os
from pathlib import Path

import pytest

from spoold import errors, trust
from spoold.bundle.frames import Codec
from spoold.bundle.reader import Policy, inspect
from spoold.bundle.resign import resign
from spoold.errors import SpooldError
from spoold.trust import Algorithm, Trust, TrustedKey
from tests.bundles import Forge, check, frame_edges, refusal, signer, trusted

CODECS = pytest.mark.parametrize("codec", list(Codec))
A, B, C = (signer(f"site-{letter}") for letter in "abc")


def made(folder: Path, codec: Codec = Codec.ZSTD, data: bytes | None = None) -> Path:
    path = folder / f"demo{codec.suffix}"
    path.write_bytes(Forge.good(codec).build() if data is None else data)
    return path


def refused(path: Path, by: trust.Signer = B, keys: Trust | None = None) -> str:
    before = path.read_bytes()
    with pytest.raises(SpooldError) as caught:
        resign(path, by, trusted(A) if keys is None else keys, Policy())
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    return caught.value.code.name


def behind_the_head(data: bytes, codec: Codec) -> bytes:
    """INDEX and PAYLOAD, without what pads between them."""
    edges = [*frame_edges(data, codec), len(data)]
    frames = [data[start:end] for start, end in itertools.pairwise(edges)]
    return b"".join(frame for frame in frames[1:] if frame[:4] != b"\x50\x2a\x4d\x18")


@CODECS
def test_the_payload_stays_and_the_head_has_one_signature_more(
    codec: Codec, tmp_path: Path
) -> None:
    path = made(tmp_path, codec)
    before = path.read_bytes()
    done = resign(path, B, trusted(A), Policy())
    after = path.read_bytes()
    assert (done.path, done.signatures) == (path, 2)
    assert behind_the_head(after, codec) == behind_the_head(before, codec)
    old, new = inspect(io.BytesIO(before)), inspect(io.BytesIO(after))
    assert new.manifest_sha256 == old.manifest_sha256 == done.manifest_sha256
    assert (new.signature, new.tag_manifest) == (old.signature, old.tag_manifest)
    assert list(new.further_signatures) == [B.key_id]
    assert refusal(after, trusted(A, B), Policy(threshold=2)) == "accepted"
    assert refusal(after, trusted(A)) == "accepted"
    assert os.listdir(tmp_path) == [path.name]


@CODECS
def test_the_result_is_the_bundle_that_three_had_signed_at_once(
    codec: Codec, tmp_path: Path
) -> None:
    path = made(tmp_path, codec)
    resign(path, C, trusted(A), Policy())
    resign(path, B, trusted(A, C), Policy(threshold=2))

    def all_three(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        content = members[0][1]
        further = sorted((f"signatures/{by.key_id}.sig", by.sign(content)) for by in (B, C))
        return [*members[:2], *further, *members[2:]]

    assert path.read_bytes() == Forge.good(codec, edit_head=all_three).build()
    names = [key.site for key in check(path.read_bytes(), trusted(A, B, C)).also_signed_by]
    assert sorted(names) == ["site-b", "site-c"]


@CODECS
def test_a_head_that_grows_past_a_block_of_padding_moves_the_payload(
    codec: Codec, tmp_path: Path
) -> None:
    path = made(tmp_path, codec)
    keys = [A, *(signer(f"site-{number}", Algorithm.ED25519) for number in range(16))]
    sizes = {path.stat().st_size}
    for by in keys[1:]:
        resign(path, by, trusted(A), Policy())
        sizes.add(path.stat().st_size)
        assert refusal(path.read_bytes()) == "accepted"
    assert len(sizes) > 3
    assert refusal(path.read_bytes(), trusted(*keys), Policy(threshold=17)) == "accepted"
    assert refused(path, B, trusted(A)) == "signatures-full"


def test_h12_the_same_key_is_refused_the_second_time(tmp_path: Path) -> None:
    path = made(tmp_path)
    assert refused(path, A) == "already-signed"
    resign(path, B, trusted(A), Policy())
    assert refused(path, B) == "already-signed"


def test_a_bundle_that_nobody_trusted_has_signed_is_refused_unless_asked(tmp_path: Path) -> None:
    path = made(tmp_path)
    assert refused(path, B, trusted(C)) == "signature-untrusted"
    revoked = A.trusted()
    revoked = TrustedKey(
        revoked.key_id, revoked.site, revoked.algorithm, revoked.roles, True, revoked.public
    )
    assert refused(path, B, Trust([revoked])) == "key-revoked"
    resign(path, B, None, Policy())
    assert refusal(path.read_bytes(), trusted(A, B), Policy(threshold=2)) == "accepted"


def test_what_is_no_manifest_is_never_signed(tmp_path: Path) -> None:
    forged = Forge.good(edit_manifest=lambda document: {**document, "type": "spoold.status/1"})
    path = made(tmp_path, data=forged.build())
    with pytest.raises(SpooldError) as caught:
        resign(path, B, None, Policy())
    assert caught.value.code is errors.DOCUMENT_TYPE
    forged = Forge.good(edit_manifest=lambda document: {**document, "bundle_id": "other"})
    path.write_bytes(forged.build())
    with pytest.raises(SpooldError) as caught:
        resign(path, B, None, Policy())
    assert caught.value.code is errors.BUNDLE_ID_INVALID


@CODECS
def test_a_bundle_of_the_wrong_length_is_refused_without_reading_its_payload(
    codec: Codec, tmp_path: Path
) -> None:
    data = Forge.good(codec).build()
    assert refused(made(tmp_path, codec, data[:-5])) == "bundle-truncated"
    assert refused(made(tmp_path, codec, data + b"x")) == "trailing-data"
    assert refused(made(tmp_path, codec, data[:-1] + b"x")) == "end-invalid"
    edges = frame_edges(data, codec)
    assert refused(made(tmp_path, codec, data[: edges[1]])) == "bundle-truncated"
    flipped = bytearray(data)
    flipped[edges[1] + 20] ^= 1
    assert refused(made(tmp_path, codec, bytes(flipped))) == "frame-digest-mismatch"


def test_a_new_file_leaves_the_old_one_and_replaces_none(tmp_path: Path) -> None:
    path = made(tmp_path)
    before = path.read_bytes()
    target = tmp_path / "signed.tar.zst"
    assert resign(path, B, trusted(A), Policy(), target).path == target
    assert path.read_bytes() == before
    assert refusal(target.read_bytes(), trusted(A, B), Policy(threshold=2)) == "accepted"
    with pytest.raises(SpooldError) as caught:
        resign(path, C, trusted(A), Policy(), target)
    assert caught.value.code is errors.TARGET_EXISTS
    assert sorted(os.listdir(tmp_path)) == ["demo.tar.zst", "signed.tar.zst"]


def test_the_mode_stays_and_other_names_of_the_file_keep_the_old_content(tmp_path: Path) -> None:
    path = made(tmp_path)
    path.chmod(0o640)
    before = path.read_bytes()
    os.link(path, tmp_path / "kept")
    resign(path, B, trusted(A), Policy())
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "kept").read_bytes() == before


def test_a_link_is_not_followed_and_a_folder_is_no_bundle(tmp_path: Path) -> None:
    path = made(tmp_path)
    link = tmp_path / "link.tar.zst"
    link.symlink_to(path)
    for wrong in (link, tmp_path):
        with pytest.raises(SpooldError) as caught:
            resign(wrong, B, trusted(A), Policy())
        assert caught.value.code is errors.NOT_A_BUNDLE


def test_a_long_name_that_is_not_ascii(tmp_path: Path) -> None:
    path = made(tmp_path).rename(tmp_path / ("ä" * 122 + ".tar.zst"))
    assert resign(path, B, trusted(A), Policy()).signatures == 2


def test_a_bundle_whose_time_has_passed_is_refused(tmp_path: Path) -> None:
    forged = Forge.good(edit_manifest=lambda m: {**m, "not_after": "2026-11-20T12:00:00Z"})
    path = made(tmp_path, data=forged.build())
    now = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
    with pytest.raises(SpooldError) as caught:
        resign(path, B, trusted(A), Policy(now=now))
    assert caught.value.code is errors.EXPIRED
    resign(path, B, None, Policy(now=now))
