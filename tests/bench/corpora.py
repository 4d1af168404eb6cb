"""The corpora: made from fixed seeds, equal everywhere; sizes as they are in the wild.

small     20,000 files of 1 to 30 KB of text, in 200 folders
binaries  2,000 files, 425 MB: code, tables, zeros and what is compressed already
big       600 MB of JSON lines and 300 MB of random bytes: two files
"""

import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NAMES: Final = ("small", "binaries", "big")
_MEGABYTE = 1_000_000


def make(folder: Path, name: str, scale: float) -> None:
    """Make one corpus in `folder`/`name`, and the file of its sums beside it; keep what is there.

    `scale` 1 is the whole; less makes fewer, not smaller files (of big: smaller ones).
    """
    top, sums = folder / name, folder / f"{name}.sha256"
    if sums.exists():
        return
    source = {"small": _small, "binaries": _binaries, "big": _big}[name]
    lines = []
    for path, pieces in source(scale):
        target = top / path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
        lines.append(f"{digest.hexdigest()}  ./{path}\n")
    sums.write_text("".join(lines))


def _small(scale: float) -> Iterator[tuple[str, Iterator[bytes]]]:
    random_ = random.Random(1)
    words = [_word(random_) for _ in range(20_000)]
    # Zipf: the words of a language are not equally frequent.
    weights = [1 / (rank + 2) for rank in range(len(words))]
    text = " ".join(random_.choices(words, weights, k=6_000_000)).encode()
    for number in range(round(20_000 * scale)):
        size = random_.randint(1_000, 30_000)
        start = random_.randrange(len(text) - size)
        yield f"{number // 100:03d}/note-{number:05d}.txt", iter((text[start : start + size],))


def _binaries(scale: float) -> Iterator[tuple[str, Iterator[bytes]]]:
    random_ = random.Random(2)
    instructions = [random_.randbytes(random_.choice((1, 2, 3, 4, 5, 7))) for _ in range(6_000)]
    weights = [1 / (rank + 5) for rank in range(len(instructions))]
    code = b"".join(random_.choices(instructions, weights, k=6_000_000))
    for number in range(round(2_000 * scale)):
        size = min(8_000_000, int(random_.lognormvariate(11.34, 1.35)))
        yield f"lib/{number % 40:02d}/module-{number:04d}.so", _binary(random_, code, size)


def _binary(random_: random.Random, code: bytes, size: int) -> Iterator[bytes]:
    while size > 0:
        count = min(size, random_.randrange(4_096, 65_536))
        kind = random_.random()
        if kind < 0.70:
            start = random_.randrange(len(code) - count)
            yield code[start : start + count]
        elif kind < 0.85:
            yield random_.randbytes(count)
        else:
            yield bytes(count)
        size -= count


def _big(scale: float) -> Iterator[tuple[str, Iterator[bytes]]]:
    yield "events.jsonl", _json_lines(round(600 * _MEGABYTE * scale))
    yield "image.raw", _random_bytes(round(300 * _MEGABYTE * scale))


def _json_lines(size: int) -> Iterator[bytes]:
    random_ = random.Random(3)
    hosts = [f"host-{number:03d}.site.example" for number in range(200)]
    verbs = ["accepted", "refused", "queued", "delivered", "deferred", "bounced"]
    while size > 0:
        lines = []
        for _ in range(5_000):
            number = random_.getrandbits(48)
            lines.append(
                f'{{"at":{1_760_000_000_000 + (number & 0xFFFFFFF)},"host":"{hosts[number % 200]}",'
                f'"event":"{verbs[number % 6]}","id":"{number:012x}","bytes":{number % 65_521},'
                f'"message":"connection {number % 9_973} from 10.{number % 251}.{number % 241}.7 '
                f'took {number % 1_999} ms"}}\n'
            )
        block = "".join(lines).encode()[:size]
        yield block
        size -= len(block)


def _random_bytes(size: int) -> Iterator[bytes]:
    random_ = random.Random(4)
    while size > 0:
        block = random_.randbytes(min(size, 4 * 1024 * 1024))
        yield block
        size -= len(block)


def _word(random_: random.Random) -> str:
    return "".join(random_.choices("etaoinshrdlucmfwypvbgkjqxz", k=random_.randint(2, 9)))


if __name__ == "__main__":
    # In a process of its own: the peak memory that is measured later counts that of the parent.
    make(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
