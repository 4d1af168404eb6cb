"""Who is compared, and by which commands. Each leaves its result in `out`, durable."""

import importlib.util
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

OURS = "spoold"
PLAIN = "plain tools"


class Task(NamedTuple):
    """One operation on one corpus: a shell command for each contestant, the baseline's first."""

    operation: str
    corpus: str
    commands: dict[str, str]


def ours(operation: str, folder: Path, what: Path | str, out: str) -> str:
    """The command line of spoold's process: it prints its seconds."""
    return shlex.join(
        [sys.executable, "-m", "tests.bench.ours", operation, str(folder), str(what), out]
    )


def archive(folder: Path, corpus: str) -> Path:
    """What the plain tools made of a corpus."""
    return folder / f"{corpus}.plain.tar.zst"


def bundle(folder: Path, corpus: str) -> Path:
    """What spoold made of a corpus."""
    return folder / f"{corpus}.bundle.tar.zst"


def task(operation: str, folder: Path, corpus: str, out: str) -> Task:
    """The commands of all contestants that are installed."""
    tree, sums = shlex.quote(str(folder / corpus)), shlex.quote(str(folder / f"{corpus}.sha256"))
    plain = shlex.quote(str(archive(folder, corpus)))
    made = bundle(folder, corpus)
    python = shlex.quote(sys.executable)
    zst = f"{out}/x.tar.zst"
    match operation:
        case "build":
            commands = {
                PLAIN: f"mkdir {out} && tar -c -C {tree} . | zstd -3 -T2 -q -o {zst}"
                f" && sync -f {zst}",
                OURS: ours("build", folder, folder / corpus, out),
                "bagit.py + tar": f"mkdir {out} && cp -a {tree} {out}/bag"
                f" && {python} -m bagit --quiet --sha256 {out}/bag"
                f" && tar -c -C {out} bag | zstd -3 -T2 -q -o {zst} && sync -f {zst}",
                "restic": f"{_RESTIC} init -q --repo {out} && {_RESTIC} backup -q --repo {out}"
                f" {tree} && sync -f {out}",
                "borg": f"borg init -e none {out} && borg create -C zstd,3 {out}::x {tree}"
                f" && sync -f {out}",
            }
        case "verify":
            commands = {
                PLAIN: f"mkdir {out} && zstd -q -t {plain} && cd {tree}"
                f" && sha256sum -c --quiet {sums}",
                OURS: ours("verify", folder, made, out),
            }
        case "restore":
            commands = {
                PLAIN: f"mkdir {out} && tar --zstd -xf {plain} -C {out} && sync -f {out}"
                f" && cd {out} && sha256sum -c --quiet {sums}",
                OURS: ours("restore", folder, made, out),
            }
        case _:
            raise AssertionError(operation)
    return Task(operation, corpus, {name: commands[name] for name in commands if _installed(name)})


_RESTIC = "RESTIC_PASSWORD=x restic --no-cache --compression auto"


def _installed(name: str) -> bool:
    match name:
        case "restic" | "borg":
            return shutil.which(name) is not None
        case "bagit.py + tar":
            return importlib.util.find_spec("bagit") is not None
        case _:
            return True
