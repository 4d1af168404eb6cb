"""The command: see the package."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import corpora
from tests.bench.contestants import OURS, PLAIN, archive, bundle, ours, task
from tests.bench.report import Row, machine, table
from tests.bench.running import clear, in_turns, run

_OPERATIONS = ("build", "verify", "restore", "memory", "inspect")
_BASELINE = {
    "build": "`tar -c \\| zstd -3 -T2`, `sync -f`",
    "verify": "`zstd -t`, `sha256sum -c`",
    "restore": "`tar --zstd -x`, `sync -f`, `sha256sum -c`",
}
_MUST = {"big": 1.15, "binaries": 1.15, "small": 1.6}
_MEMORY_MUST_MB = 200
_HEAD = ("operation", "input", "by", "median", "ratio", "must", "peak memory")


class Bench:
    """One run of the whole."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self._folder = folder
        self._out = folder / "out"
        self._quick = quick
        self._scale = 0.25 if quick else 1.0
        self._rounds = 3 if quick else 5
        self._sparse_gb, self._large_gb = (2, 1) if quick else (20, 10)
        self._entries = 100_000 if quick else 1_000_000
        self.rows: list[Row] = []

    def start(self) -> None:
        """How long a process of spoold takes before it begins to work."""
        runs = []
        for _ in range(3):
            clear(self._out)
            command = ours("nothing", self._folder, "", str(self._out))
            runs.append(run(command, own_clock=False).seconds)
        self._row("start of a process", "", OURS, f"{sorted(runs)[1]:.2f} s")

    def compare(self, operation: str) -> None:
        """One operation on the three corpora."""
        for corpus in corpora.NAMES:
            self._prepare(corpus, bundles=operation != "build")
            work = task(operation, self._folder, corpus, str(self._out))
            if self._quick:
                plain = {name: work.commands[name] for name in (PLAIN, OURS)}
                work = work._replace(commands=plain)
            results = in_turns(work, self._rounds, self._out)
            baseline = results[0].seconds
            for result in results:
                name = _BASELINE[operation] if result.name == PLAIN else result.name
                must = _MUST[corpus] if operation == "build" else 1.0
                self._row(
                    operation,
                    corpus,
                    name,
                    f"{result.seconds:.2f} s",
                    f"{result.seconds / baseline:.2f}",
                    f"{must:.2f}" if result.name == OURS else "",
                    f"{result.memory_mb:.0f} MB",
                )

    def sizes(self) -> None:
        """Bundles against the plain archives."""
        for corpus in corpora.NAMES:
            self._prepare(corpus, bundles=True)
            plain = archive(self._folder, corpus).stat().st_size
            made = bundle(self._folder, corpus).stat().st_size
            self._row(
                "size", corpus, OURS, f"{made / 1e6:.1f} MB", f"{made / plain:.3f}", "1.03", ""
            )

    def memory(self) -> None:
        """Peak memory where content or entries are many."""
        sparse = self._folder / "sparse"
        sparse.mkdir(exist_ok=True)
        with (sparse / "disk.img").open("wb") as file:
            file.truncate(self._sparse_gb * 10**9)
        inputs = (
            ("build", sparse, f"a sparse file of {self._sparse_gb} GB"),
            ("build-entries", str(self._entries), f"{self._entries:,} entries"),
        )
        for build, what, label in inputs:
            clear(self._out)
            self._memory(build, what, label)
            made = self._folder / "memory.bundle.tar.zst"
            _built(self._out).rename(made)
            for operation in ("verify", "restore"):
                clear(self._out)
                self._memory(operation, made, label)
            made.unlink()
        clear(self._out)
        shutil.rmtree(sparse)

    def inspect(self) -> None:
        """The head of a bundle that is large, because the same random bytes stand in it often."""
        source = self._folder / "large"
        source.mkdir(exist_ok=True)
        first = source / "part-0.raw"
        with Path("/dev/urandom").open("rb") as random_, first.open("wb") as file:
            for _ in range(100):
                file.write(random_.read(self._large_gb * 1_000_000))
        for number in range(1, 10):
            (source / f"part-{number}.raw").hardlink_to(first)
        clear(self._out)
        run(ours("build", self._folder, source, str(self._out)), own_clock=True)
        made = self._folder / "large.bundle.tar.zst"
        _built(self._out).rename(made)
        seconds = []
        for _ in range(3):
            clear(self._out)
            command = ours("inspect", self._folder, made, str(self._out))
            seconds.append(run(command, own_clock=True).seconds)
        self._row(
            "inspect",
            f"a bundle of {made.stat().st_size / 1e9:.1f} GB",
            OURS,
            f"{sorted(seconds)[1]:.4f} s",
            "",
            "0.3 s",
        )
        made.unlink()
        clear(self._out)
        shutil.rmtree(source)

    def _memory(self, operation: str, what: Path | str, label: str) -> None:
        done = run(ours(operation, self._folder, what, str(self._out)), own_clock=True)
        self._row(
            f"{operation.partition('-')[0]}, memory",
            label,
            OURS,
            f"{done.seconds:.1f} s",
            "",
            f"{_MEMORY_MUST_MB} MB",
            f"{done.memory_mb:.0f} MB",
        )

    def _prepare(self, corpus: str, *, bundles: bool) -> None:
        scale = str(self._scale)
        subprocess.run(
            [sys.executable, "-m", "tests.bench.corpora", str(self._folder), corpus, scale],
            check=True,
        )
        if bundles and not bundle(self._folder, corpus).exists():
            work = task("build", self._folder, corpus, str(self._out))
            for name, target in (
                (PLAIN, archive(self._folder, corpus)),
                (OURS, bundle(self._folder, corpus)),
            ):
                clear(self._out)
                run(work.commands[name], own_clock=name == OURS)
                _built(self._out).rename(target)
            clear(self._out)

    def _row(self, *cells: str) -> None:
        row = (*cells, *[""] * (7 - len(cells)))
        self.rows.append(row)
        print(" · ".join(filter(None, row)), file=sys.stderr, flush=True)


def _built(out: Path) -> Path:
    (made,) = (path for path in out.iterdir() if path.is_file())
    return made


def main() -> None:
    """Parse the arguments, run, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="a quarter of it, in 2 minutes")
    parser.add_argument("--folder", type=Path, help="keep the corpora here, for the next time")
    parser.add_argument("operations", nargs="*", choices=[*_OPERATIONS, []], metavar="OPERATION")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spoold-bench-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder = folder / ("quick" if arguments.quick else "whole")
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder.resolve(), quick=arguments.quick)
        bench.start()
        for operation in arguments.operations or _OPERATIONS:
            if operation in _BASELINE:
                bench.compare(operation)
                if operation == "build":
                    bench.sizes()
            elif operation == "memory":
                bench.memory()
            else:
                bench.inspect()
        print(table(_HEAD, bench.rows))
        print(f"\n{machine(folder, 'tar', 'zstd')}")


if __name__ == "__main__":
    main()
