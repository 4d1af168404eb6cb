"""What is made to be costly is refused in bounded time and memory, by a process with limits."""

import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from spoold.bundle.frames import Codec
from spoold.trust import public_pem
from tests.bundles import FRAME, Forge, canonical, signer, zstd_frame
from tests.hostile import CASES
from tests.hostile.case import MIB, Case

TOP = Path(__file__).parents[2]
ADDRESS_SPACE = 1024 * MIB
MORE_BYTES = 64 * MIB  # than the process takes for a small good bundle
SECONDS = 20

# Verifies each file that it is given and prints the codes, the time of each, and the memory.
CHILD = """
import json, resource, sys, time
from pathlib import Path
from spoold.bundle.reader import Policy, open_bundle, verify
from spoold.errors import SpooldError
from spoold.trust import Trust, trusted_key
keys = Trust([trusted_key(Path(sys.argv[1]).read_bytes(), "site-a", "key")])
found = []
for path in sys.argv[2:]:
    start = time.monotonic()
    try:
        with open_bundle(path) as file:
            verify(file, keys, Policy(), scratch=Path(sys.argv[1]).parent)
        code = "accepted"
    except SpooldError as error:
        code = error.code.name
    found.append([code, time.monotonic() - start])
print(json.dumps([found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def _limited(bundles: list[Path]) -> tuple[list[str], int]:
    """The codes of these bundles from one process, and the most memory that it had."""
    key = bundles[0].parent / "site-a.pub"
    key.write_bytes(public_pem(signer().private.public_key()))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (3 * SECONDS, 3 * SECONDS))

    done = subprocess.run(
        [sys.executable, "-c", CHILD, key, *bundles],
        preexec_fn=limit,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * SECONDS,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, peak = json.loads(done.stdout)
    assert max(seconds for _, seconds in found) < SECONDS
    return [code for code, _ in found], peak


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The memory for two good bundles of two frames."""
    folder = tmp_path_factory.mktemp("usual")
    files = {"a": bytes(3 * MIB), "b": bytes(3 * MIB)}
    paths = [folder / codec.suffix[1:] for codec in Codec]
    for path, codec in zip(paths, Codec, strict=True):
        path.write_bytes(Forge.of(files, codec=codec).build())
    codes, peak = _limited(paths)
    assert codes == ["accepted", "accepted"]
    return peak


COSTLY = {"H16", "H17", "H19", "H82", "H84", "H85", "H86"}


def test_h16_h17_h19_h82_h84_h85_h86_bombs_cost_little(tmp_path: Path, usual: int) -> None:
    cases: list[tuple[Case, Codec]] = [
        (case, codec) for case in CASES for codec in case.codecs if case.row in COSTLY
    ]
    paths = []
    for number, (case, codec) in enumerate(cases):
        path = tmp_path / f"{number}"
        path.write_bytes(case.make(codec))
        paths.append(path)
    codes, peak = _limited(paths)
    assert codes == [case.code for case, _ in cases]
    assert peak < usual + MORE_BYTES


def _one_large(**changes: object) -> Forge:
    """A file that fills one frame."""
    return Forge.of({"a": os.urandom(FRAME - 512)}, **changes)


def _gzip_of_gigabytes(_: bytes) -> bytes:
    """4 GiB of zeros in 4 MiB: what a frame of a full size may take."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = deflate.compress(bytes(64 * MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = deflate.flush()
    return bytes.fromhex("1f8b08000000000000ff") + piece * 60 + last + struct.pack("<II", 0, FRAME)


def _zstd_of_gigabytes(claimed: int) -> Callable[[bytes], bytes]:
    """A million blocks that each stand for 128 KiB."""
    block = (131072 << 3 | 2).to_bytes(3, "little") + b"\0"
    last = (131072 << 3 | 3).to_bytes(3, "little") + b"\0"
    header = b"\x28\xb5\x2f\xfd\xc4\x58" + struct.pack("<Q", claimed)
    return lambda _: header + block * 1_000_000 + last + bytes(4)


LARGE: list[tuple[str, str, Callable[[], bytes]]] = [
    (
        "H84 4 GiB in a gzip frame",
        "frame-invalid",
        lambda: _one_large(codec=Codec.GZIP, compress=_gzip_of_gigabytes).build(),
    ),
    (
        "H84 122 GiB in a zstd frame",
        "frame-invalid",
        lambda: _one_large(compress=_zstd_of_gigabytes(1_000_001 * 131072)).build(),
    ),
    (
        "H84 122 GiB that claim 4 MiB",
        "frame-invalid",
        lambda: _one_large(compress=_zstd_of_gigabytes(FRAME)).build(),
    ),
    (
        "H86 a million empty frames before the end",
        "end-invalid",
        lambda: Forge.good(end=zstd_frame(b"") * 1_000_000).build(),
    ),
    (
        "H86 200,000 lines of frames that there are not",
        "frame-cut",
        lambda: Forge.good(
            edit_frame_lines=lambda lines: (
                lines + [canonical({"raw": 512, "sha256": "0" * 64, "size": 9})] * 200_000
            )
        ).build(),
    ),
    (
        "H16 a line of 4 MiB of brackets",
        "entry-invalid",
        lambda: Forge.good(edit_lines=lambda _: [b"[" * (4 * MIB) + b"\n"]).build(),
    ),
    (
        "H17 a line of 4 MiB of digits",
        "not-canonical",
        lambda: Forge.good(edit_lines=lambda _: [b"1" * (4 * MIB - 2) + b"\n"]).build(),
    ),
    (
        "H88 a line of 40,000 chunks",
        "entry-chunks",
        lambda: Forge.good(edit_lines=_chunky).build(),
    ),
    (
        "H88 a file of eight thousand million chunks",
        "entry-chunks",
        lambda: Forge.good(edit_lines=_vast(size=2**53 - MIB), chunk_size=MIB).build(),
    ),
    (
        "H88 a file of eight thousand million chunks that lists one",
        "entry-chunks",
        lambda: Forge.good(
            edit_lines=_vast(size=2**53 - MIB, chunks=[{"sha256": "0" * 64, "size": MIB}]),
            chunk_size=MIB,
        ).build(),
    ),
    (
        "H89 20,000 files of 4 GiB that nobody has counted",
        "totals-mismatch",
        lambda: Forge.good(edit_lines=_many_vast, chunk_size=4096 * MIB).build(),
    ),
    (
        "H89 20,000 files of 4 GiB, counted, but without frames",
        "frame-cut",
        lambda: Forge.good(
            edit_lines=_many_vast, chunk_size=4096 * MIB, totals={"bytes": 2**53 - 1}
        ).build(),
    ),
    (
        "H89 20,000 files of 4 GiB, counted, and frames that cannot be as many as are said",
        "frame-cut",
        lambda: Forge.good(
            edit_lines=_many_vast,
            chunk_size=4096 * MIB,
            totals={"bytes": 2**53 - 1},
            edit_manifest=lambda manifest: {
                **manifest,
                "frames": {**manifest["frames"], "count": 2**53 - 1},
            },
        ).build(),
    ),
    (
        "H89 a line of 43,000 chunks of 4 GiB that nobody has counted",
        "totals-mismatch",
        lambda: Forge.good(edit_lines=_vast(**_CHUNKED), chunk_size=4096 * MIB).build(),
    ),
    (
        "H89 a line of 43,000 chunks of 4 GiB, counted, but without frames",
        "frame-cut",
        lambda: Forge.good(
            edit_lines=_vast(**_CHUNKED), chunk_size=4096 * MIB, totals={"bytes": 2**53 - 1}
        ).build(),
    ),
    (
        "H89 a line of 43,000 chunks of 4 GiB, counted, and frames that are said to be listed",
        "frame-cut",
        lambda: _counted_chunks().build(),
    ),
    (
        "H13 a line of strings that never end",
        "not-canonical",
        lambda: Forge.good(edit_lines=lambda _: [b'{"chunks":[' + b'"\\' * MIB + b"\n"]).build(),
    ),
]


def _chunky(lines: list[bytes]) -> list[bytes]:
    document = json.loads(lines[0])
    document["chunks"] = [{"sha256": "0" * 64, "size": MIB}] * 40_000
    return [canonical(document), *lines[1:]]


def _vast(**changes: object) -> Callable[[list[bytes]], list[bytes]]:
    """The first file is said to be vast."""
    return lambda lines: [canonical({**json.loads(lines[0]), **changes}), *lines[1:]]


# As many chunks as a line holds: some 44 million frames.
_CHUNKED = {
    "chunks": [{"sha256": "0" * 64, "size": 4096 * MIB}] * 43_000,
    "size": 43_000 * 4096 * MIB,
}


def _counted_chunks() -> Forge:
    """All totals are right, and frames.jsonl is as large as a member can be; says the manifest."""
    small = 512 + 512 * 21  # the other two files
    forge = Forge.good(
        chunk_size=4096 * MIB,
        totals={"raw": 43_000 * (512 + 4096 * MIB) + small},
        edit_manifest=lambda manifest: {
            **manifest,
            "frames": {**manifest["frames"], "count": 2**53 - 1, "bytes": 8**11 - 1},
        },
    )
    forge.entries[0] |= _CHUNKED
    return forge


def _many_vast(lines: list[bytes]) -> list[bytes]:
    entry = {**json.loads(lines[0]), "size": 4096 * MIB}
    return [canonical({**entry, "path": f"{number:07d}"}) for number in range(20_000)]


def test_large_bundles_of_nothing_cost_little(tmp_path: Path, usual: int) -> None:
    paths = []
    for number, (_, _, make) in enumerate(LARGE):
        path = tmp_path / f"{number}"
        path.write_bytes(make())
        paths.append(path)
    codes, peak = _limited(paths)
    assert codes == [code for _, code, _ in LARGE]
    assert peak < usual + MORE_BYTES
