"""A part of a bundle: only the frames that hold it are read, and they are verified in full."""

import fcntl
import io
import os
import random
import termios
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold import errors
from spoold.bundle.frames import Codec
from spoold.bundle.reader import BundleReader, Policy, verify, verify_head
from spoold.errors import SpooldError
from spoold.restore import Restorer, Selection
from spoold.sources.globs import Globs
from tests.bundles import FRAME, Collect, Forge, build_tree, trusted
from tests.conftest import wait_until

MIB = 1024 * 1024


def _content(name: str, size: int) -> bytes:
    # Not to be compressed away: damage must be possible in each frame.
    return random.Random(name).randbytes(size)


SIZES = {
    "a-small.txt": 10,
    "b-large.bin": 2 * FRAME + 5,
    "c-first.txt": 700,
    "c-second.txt": 0,
    "d/fill.bin": FRAME - 512,
    "d/third.txt": 3 * MIB,
    "e-chunks.bin": 5 * MIB + 1,
    "f-last.txt": 2 * MIB,
    "g-end.txt": 3,
}
FILES = {name: _content(name, size) for name, size in SIZES.items()}


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data

    def read1(self, size: int | None = -1) -> bytes:
        data = super().read1(size)
        self.count += len(data)
        return data


class Pipe(Counted):
    """One that cannot seek."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise AssertionError("a pipe cannot seek")


@pytest.fixture(
    scope="module",
    params=[(Codec.ZSTD, 3 * MIB), (Codec.ZSTD, 256 * MIB), (Codec.GZIP, 3 * MIB)],
    ids=["zstd-chunks", "zstd", "gzip-chunks"],
)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("random-access")
    for name, content in FILES.items():
        path = folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    codec, chunk_size = request.param
    built = build_tree(folder / "tree", folder / "scratch", codec=codec, chunk_size=chunk_size)
    return built.path.read_bytes()


def _read(bundle: io.BytesIO, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    found = Collect()
    with BundleReader(bundle, threads=2) as reader:
        head = verify_head(reader.read_head(), trusted(), Policy())
        index = reader.read_index(head, Policy())
        reader.read_chosen(index, lambda entry: wanted(entry.path.decode()), found)
    return {path.decode(): content for path, content in found.files.items()}


def _subsets() -> Iterator[set[str]]:
    names = list(FILES)
    for bits in range(1 << len(names)):
        yield {name for number, name in enumerate(names) if bits >> number & 1}


def test_every_choice_of_files_comes_back(bundle: bytes) -> None:
    for number, names in enumerate(_subsets()):
        if number % 23 == 0 or len(names) < 2:
            found = _read(io.BytesIO(bundle), names.__contains__)
            assert found == {name: FILES[name] for name in names}


@pytest.mark.parametrize("name", ["a-small.txt", "c-second.txt", "g-end.txt"])
def test_what_is_not_wanted_is_not_read(bundle: bytes, name: str) -> None:
    file = Counted(bundle)
    assert _read(file, {name}.__contains__) == {name: FILES[name]}
    assert file.count < FRAME + 20_000 < len(bundle) / 5


def _restore(file: io.BytesIO, target: Path, only: str) -> Restorer:
    restorer = Restorer(target, Selection(Globs([only])))
    restorer.restore(file, trusted(), Policy(), lambda *_: None)
    return restorer


def test_damage_elsewhere_is_not_seen_but_where_it_is_read(bundle: bytes, tmp_path: Path) -> None:
    damaged = bytearray(bundle)
    damaged[-1000] ^= 1  # in the last frame of the payload
    done = _restore(io.BytesIO(bytes(damaged)), tmp_path / "first", "a-*")
    assert done.partial
    assert (tmp_path / "first" / "a-small.txt").read_bytes() == FILES["a-small.txt"]
    with pytest.raises(SpooldError, match="frame-digest-mismatch"):
        _restore(io.BytesIO(bytes(damaged)), tmp_path / "last", "g-*")
    assert not (tmp_path / "last").exists()
    # A pipe is read to its end: there the damage is seen.
    with pytest.raises(SpooldError, match="frame-digest-mismatch"):
        _restore(Pipe(bytes(damaged)), tmp_path / "piped", "a-*")


def test_a_pipe_is_read_whole(bundle: bytes, tmp_path: Path) -> None:
    pipe = Pipe(bundle)
    done = _restore(pipe, tmp_path / "piped", "d")
    assert not done.partial
    assert pipe.count == len(bundle)
    assert sorted(path.name for path in (tmp_path / "piped" / "d").iterdir()) == [
        "fill.bin",
        "third.txt",
    ]


@pytest.mark.parametrize("end", [None, -1], ids=["whole", "cut"])
def test_a_pipe_that_does_not_wait_is_waited_for(end: int | None) -> None:
    content = Forge.good().build()[:end]
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def feed() -> None:
        with open(writer, "wb", buffering=0) as pipe:
            for at in range(0, len(content), 500):
                wait_until(lambda: not _waiting_bytes(reader))
                pipe.write(content[at : at + 500])

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open(reader, "rb") as file:
        try:
            if end is None:
                verify(file, trusted(), Policy())
            else:
                with pytest.raises(SpooldError) as caught:
                    verify(file, trusted(), Policy())
                assert caught.value.code is errors.BUNDLE_TRUNCATED
        finally:
            feeder.join()


def _waiting_bytes(pipe: int) -> int:
    count = array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def test_a_bundle_that_is_cut_short_is_refused_whatever_is_wanted(bundle: bytes) -> None:
    for end in (len(bundle) - 1, len(bundle) - 30, len(bundle) // 2):
        with pytest.raises(SpooldError):
            _read(io.BytesIO(bundle[:end]), {"a-small.txt"}.__contains__)
    with pytest.raises(SpooldError, match="trailing-data"):
        _read(io.BytesIO(bundle + b"x"), {"a-small.txt"}.__contains__)
