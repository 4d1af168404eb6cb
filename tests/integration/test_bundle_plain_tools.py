"""A bundle is checked without spoold: tar, zstd, gzip, openssl, jq, sha256sum and bagit.py."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import bagit
import pytest

from spoold.bundle.frames import Codec
from spoold.trust import Algorithm, public_pem
from tests.bundles import BUNDLE_ID, build_tree, plain_tar, signer
from tests.integration.test_bundle_trees import make_awkward

MIB = 1024 * 1024
TOOLS = ["tar", "zstd", "openssl", "jq", "sha256sum", "cmp", "sort"]

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"
)

# The lines of the format page.
MEMBERS = (
    'select(.kind=="file")|(.member//("data/"+.path)) as $m|if .chunks then '
    '.chunks|to_entries[]|.value.sha256+"  "+$m+"."+("00000"+(.key|tostring))[-6:]+".chunk" '
    'else .sha256+"  "+$m end'
)
CONTENT = "del(.chunks,.gid,.media_type,.member,.mtime_ns,.source,.uid)"
SCRIPT = f"""
set -eu
tar -xf "$BUNDLE"
cd "$ID"
$CHECK_SIGNATURE
jq -r '.entries.sha256 + "  entries.jsonl", .frames.sha256 + "  frames.jsonl"' manifest.json \\
  | sha256sum -c --quiet
jq -r '{MEMBERS}' entries.jsonl | cmp - manifest-sha256.txt
sha256sum -c --strict --quiet manifest-sha256.txt
sha256sum -c --strict --quiet tagmanifest-sha256.txt
test "$(jq -cS '{CONTENT}' entries.jsonl | LC_ALL=C sort | sha256sum | cut -c1-64)" \\
  = "$(jq -r .content_sha256 manifest.json)"
"""
SIGNATURES = {
    Algorithm.RSA: "openssl dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 "
    "-verify ../site.pub -signature manifest.sig manifest.json",
    Algorithm.ED25519: "openssl pkeyutl -verify -pubin -inkey ../site.pub -rawin "
    "-in manifest.json -sigfile manifest.sig",
}


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_the_plain_tools_agree(codec: Codec, algorithm: Algorithm, tmp_path: Path) -> None:
    make_awkward(tmp_path / "tree")
    by = signer("site-p", algorithm)
    built = build_tree(
        tmp_path / "tree", tmp_path / "work", codec=codec, chunk_size=MIB, by=by, into="in/to"
    )
    (tmp_path / "site.pub").write_bytes(public_pem(by.private.public_key()))
    bundle = built.path.rename(tmp_path / f"b{built.suffix}")
    done = subprocess.run(
        ["sh", "-c", SCRIPT.replace("$CHECK_SIGNATURE", SIGNATURES[algorithm])],
        cwd=tmp_path,
        env={"BUNDLE": str(bundle), "ID": BUNDLE_ID, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / BUNDLE_ID
    canonical = subprocess.run(
        ["jq", "-cjS", ".", folder / "manifest.json"], capture_output=True, check=True
    ).stdout
    assert canonical + b"\n" == (folder / "manifest.json").read_bytes()
    bagit.Bag(str(folder)).validate()
    assert list((folder / "data" / "_x").iterdir())
    pieces = sorted((folder / "data" / "in" / "to").glob("big.bin.??????.chunk"))
    assert len(pieces) == 6
    joined = b"".join(piece.read_bytes() for piece in pieces)
    assert joined == (tmp_path / "tree" / "big.bin").read_bytes()


def test_only_the_head_is_read_for_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("a")
    built = build_tree(tmp_path / "tree", tmp_path / "work")
    bundle = built.path.rename(tmp_path / "b.tar.zst")
    command = ["tar", "--zstd", "--occurrence=1", "-xOf", bundle, f"{BUNDLE_ID}/manifest.json"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == (
        built.manifest.encode()
    )
    assert subprocess.run(["zstd", "-tq", bundle], check=False).returncode == 0


@pytest.mark.parametrize("codec", list(Codec))
def test_members_are_those_that_python_and_tar_list(codec: Codec, tmp_path: Path) -> None:
    make_awkward(tmp_path / "tree")
    built = build_tree(tmp_path / "tree", tmp_path / "work", codec=codec, chunk_size=MIB)
    raw = tmp_path / "b.tar"
    raw.write_bytes(plain_tar(built.path.read_bytes(), codec))
    with tarfile.open(raw) as archive:
        names = archive.getnames()
    listed = subprocess.run(["tar", "-tf", raw], capture_output=True, check=True).stdout
    assert len(listed.splitlines()) == len(names)
    assert names[:2] == [f"{BUNDLE_ID}/manifest.json", f"{BUNDLE_ID}/manifest.sig"]
    assert len(set(names)) == len(names)
    assert raw.stat().st_size % 512 == 0


def test_bagit_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("a")
    built = build_tree(tmp_path / "tree", tmp_path / "work")
    subprocess.run(["tar", "-xf", built.path, "-C", tmp_path, "--zstd"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "bagit", "--validate", tmp_path / BUNDLE_ID],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
