"""The same tree gives the same bundle; the same content has the same hash, however it is packed."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spoold.bundle.frames import Codec
from spoold.bundle.reader import inspect
from spoold.trust import Algorithm
from tests.bundles import BUNDLE_ID, build_tree, frame_edges, plain_tar, signer
from tests.integration.test_bundle_trees import make_awkward
from tests.sites import Site, request

MIB = 1024 * 1024
CONTENT = "del(.chunks,.gid,.media_type,.member,.mtime_ns,.source,.uid)"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_awkward(tmp_path / "tree")
    return tmp_path / "tree"


def _copied(tree: Path, target: Path) -> Path:
    """The tree again: other inodes, the same names, contents, modes and times."""
    subprocess.run(["cp", "-a", tree, target], check=True)
    return target


@pytest.mark.parametrize("codec", list(Codec))
def test_the_same_tree_gives_the_same_bytes(codec: Codec, tree: Path, tmp_path: Path) -> None:
    again = _copied(tree, tmp_path / "again")
    one = build_tree(tree, tmp_path / "1", codec=codec, chunk_size=MIB, threads=1)
    other = build_tree(again, tmp_path / "2", codec=codec, chunk_size=MIB, threads=4)
    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.manifest_sha256 == other.manifest_sha256


@pytest.mark.parametrize("codec", list(Codec))
def test_with_rsa_all_but_the_signature_is_the_same(
    codec: Codec, tree: Path, tmp_path: Path
) -> None:
    by = signer("site-r", Algorithm.RSA)
    paths = [
        build_tree(tree, tmp_path / name, codec=codec, chunk_size=MIB, by=by).path
        for name in ("1", "2")
    ]
    one, other = (path.read_bytes() for path in paths)
    assert one != other
    heads = []
    for path in paths:
        with open(path, "rb") as file:
            heads.append(inspect(file))
    assert heads[0].manifest_bytes == heads[1].manifest_bytes
    assert heads[0].signature != heads[1].signature
    assert heads[0].tag_manifest == heads[1].tag_manifest
    edge = frame_edges(one, codec)[1]
    assert one[edge:] == other[edge:]


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
def test_content_sha256_is_that_of_the_content_alone(tree: Path, tmp_path: Path) -> None:
    again = _copied(tree, tmp_path / "again")
    for path in again.rglob("*.txt"):
        os.utime(path, (1, 1), follow_symlinks=False)
    packed = [
        build_tree(tree, tmp_path / "1", codec=Codec.ZSTD),
        build_tree(tree, tmp_path / "2", codec=Codec.GZIP),
        build_tree(again, tmp_path / "3", codec=Codec.ZSTD, chunk_size=MIB),
        build_tree(tree, tmp_path / "4", codec=Codec.GZIP, chunk_size=2 * MIB),
        build_tree(again, tmp_path / "5", by=signer("site-b"), to=("site-c",)),
    ]
    hashes = {built.manifest.content_sha256 for built in packed}
    assert len(hashes) == 1
    assert len({built.manifest_sha256 for built in packed}) == len(packed)
    for built, codec in zip(packed[:3], (Codec.ZSTD, Codec.GZIP, Codec.ZSTD), strict=True):
        assert _by_hand(built.path.read_bytes(), codec, tmp_path) in hashes
    (again / "plain.txt").write_text("other content")
    changed = build_tree(again, tmp_path / "6")
    assert changed.manifest.content_sha256 not in hashes


def _by_hand(data: bytes, codec: Codec, tmp_path: Path) -> str:
    """The line of the format page."""
    raw = tmp_path / "raw.tar"
    raw.write_bytes(plain_tar(data, codec))
    script = (
        f'tar -xOf "$1" "$2/entries.jsonl" | jq -cS "{CONTENT}" '
        "| LC_ALL=C sort | sha256sum | cut -c1-64"
    )
    command = ["sh", "-c", script, "sh", raw, BUNDLE_ID]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_source_date_epoch_dates_a_requested_bundle(
    make_site: Callable[..., Site], evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence})
    site.environment["SOURCE_DATE_EPOCH"] = "1700000000"
    site.start()
    for number in (1, 2):
        name = f"request-{number}.json"
        site.drop(name, request(idempotency_key=f"key-{number}"))
        assert site.final(name)["state"] == "succeeded"
    one, other = (_manifest(path) for path in (site.root / "processed").glob("*.tar.zst"))
    assert one["created_at"] == other["created_at"] == "2023-11-14T22:13:20Z"
    # The id is the job's and stands in member names; all that is of the source is the same.
    assert one["bundle_id"] != other["bundle_id"]
    for same in ("content_sha256", "entries", "totals"):
        assert one[same] == other[same]


def _manifest(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        manifest: dict[str, Any] = json.loads(inspect(file).manifest_bytes)
    return manifest
