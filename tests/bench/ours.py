"""What spoold does in a benchmark, as a process: prints its seconds, by its own clock, as JSON."""

import io
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from spoold import trust
from spoold.actions.bundle import BundleRequest, build
from spoold.actions.context import ActionSettings, Context
from spoold.bundle import reader
from spoold.bundle.entry import Kind, SourceEntry
from spoold.bundle.writer import BundleWriter, ManifestFields
from spoold.connections import Connections
from spoold.disk import sync_file
from spoold.restore import Restorer
from spoold.trust import Signer, Trust

_SITE = "bench"
_POLICY = reader.Policy(now=datetime.now(UTC))


def _key(folder: Path) -> tuple[Signer, Trust]:
    path = folder / "bench.key"
    if not path.exists():
        path.touch(0o600)
        path.write_bytes(trust.private_pem(trust.generate(trust.Algorithm.RSA)))
    signer = trust.load_signer(path, _SITE)
    return signer, Trust([signer.trusted()])


def _build(signer: Signer, keys: Trust, corpus: Path, scratch: Path) -> None:
    """Exactly what a worker does for a request of one source."""
    request = BundleRequest.model_validate(
        {
            "type": "spoold.request/1",
            "action": "bundle",
            "sources": [{"kind": "files", "root": "corpus"}],
        }
    )
    context = Context(
        request=None,
        request_sha256=None,
        digits="0123456789ab",
        drop=scratch / "none",
        scratch=scratch,
        settings=ActionSettings(connections=Connections(roots={"corpus": corpus})),
        signer=signer,
        trust=keys,
        report=lambda _: None,
        take_key=lambda _key, _content: None,
    )
    built, _ = build(request, context)
    sync_file(built.path)


def _build_entries(signer: Signer, count: int, scratch: Path) -> None:
    """A bundle of so many entries: from memory, for they need not stand on a disk first."""
    with BundleWriter(scratch, bundle_id="entries-0123456789ab") as writer:
        for entry in _entries(count):
            writer.add(entry)
        writer.finish(ManifestFields("entries", datetime.now(UTC)), signer)


def _entries(count: int) -> Iterator[SourceEntry]:
    random_ = random.Random(5)
    for number in range(count):
        path = f"{number // 1000:04d}/record-{number:07d}.txt".encode()
        content = random_.randbytes(40)
        yield SourceEntry(
            path, Kind.FILE, 0o644, number, 0, 0, "bench", 40, content=io.BytesIO(content)
        )


def _verify(keys: Trust, bundle: Path, scratch: Path) -> None:
    with reader.open_bundle(bundle) as file:
        reader.verify(file, keys, _POLICY, scratch=scratch)


def _restore(keys: Trust, bundle: Path, scratch: Path) -> None:
    with reader.open_bundle(bundle) as file:
        Restorer(scratch / "restored").restore(file, keys, _POLICY, lambda *_: None)


def _inspect(bundle: Path) -> None:
    with reader.open_bundle(bundle) as file:
        reader.inspect(file).claims()


def _main(operation: str, folder: Path, what: str, scratch: Path) -> None:
    signer, keys = _key(folder)
    scratch.mkdir()
    calls: dict[str, Callable[[], None]] = {
        "build": lambda: _build(signer, keys, Path(what), scratch),
        "build-entries": lambda: _build_entries(signer, int(what), scratch),
        "verify": lambda: _verify(keys, Path(what), scratch),
        "restore": lambda: _restore(keys, Path(what), scratch),
        "inspect": lambda: _inspect(Path(what)),
        "nothing": lambda: None,
    }
    begin = time.perf_counter()
    calls[operation]()
    print(json.dumps(time.perf_counter() - begin))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
