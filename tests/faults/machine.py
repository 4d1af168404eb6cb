"""A machine whose spool and embedded server are on disks of the test's own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spoold.spool import Spool
from spoold.trust import public_pem
from tests.bundles import signer
from tests.conftest import wait_until
from tests.sites import DEADLINE_SECONDS, Site, Status, prepared

_SYSTEM_FOLDER = Path("/var/lib/spoold")


@dataclass
class Machine(Site):
    """A site whose embedded server has its data in a folder of ours, even where root starts it."""

    data: Path = Path()
    log_file: Path = Path()

    @property
    def home(self) -> Path:
        """Where root's daemon looks for the server's data."""
        return _SYSTEM_FOLDER / str(Spool.at(self.root).identity().spool)

    def process(self, *arguments: str, command: str = "run") -> subprocess.Popen[bytes]:
        """Start a daemon that sees the disk's folder where the server's data is to be."""
        self.home.mkdir(parents=True, exist_ok=True)
        mount = 'mount --bind "$0" "$1"; shift; exec "$@"'
        inside = ["unshare", "--mount", "sh", "-ec", mount, self.data, self.home]
        with open(self.log_file, "ab") as log:
            daemon = subprocess.Popen(
                [*inside, sys.executable, "-m", "spoold", command, self.root, *arguments],
                stderr=log,
                stdout=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        self.daemons.append(daemon)
        return daemon

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def jobs(self) -> list[Status]:
        """The rows, as the running daemon's database has them."""
        inside = ["nsenter", "--mount", "--target", str(self.daemons[-1].pid)]
        command = [*inside, sys.executable, "-m", "spoold", "jobs", "--json", "--limit", "1000"]
        answers: list[bytes] = []

        def answered() -> bool:
            done = subprocess.run(
                [*command, "--spool", self.root], capture_output=True, check=False
            )
            answers.append(done.stdout)
            return done.returncode == 0

        wait_until(answered, DEADLINE_SECONDS)  # its server may still be recovering
        jobs: list[Status] = json.loads(answers[-1])["jobs"]
        return jobs

    def drop_durably(self, name: str, content: bytes) -> None:
        """Drop a file so that it stays dropped whatever happens."""
        aside = self.root / f".{name}.aside"
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.inbox / name)
        descriptor = os.open(self.inbox, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


@contextmanager
def machine_on(
    disk: Path, evidence: Path, log_file: Path, *, data_disk: Path | None = None
) -> Iterator[Machine]:
    """A machine with its disk mounted at `disk`, a root `evidence`, and trust in site-b.

    With a `data_disk` only the server's data is on that.
    """
    data = (data_disk or disk) / "server"
    data.mkdir(mode=0o711)
    root = disk / "site"
    prepared("init", root, "--site", "site-a", "--algorithm", "ed25519")
    with open(root / "spoold.toml", "a") as file:
        file.write(f"\n[roots]\nevidence = {json.dumps(str(evidence))}\n")
    key = log_file.with_suffix(".pub")
    key.write_bytes(public_pem(signer("site-b").trusted().public))
    prepared("keys", "trust", key, "--site", "site-b", "--spool", root)
    environment = {
        "SPOOLD_HTTP_LISTEN": "",
        "SPOOLD_INTAKE_MIN_FREE_BYTES": "0",
        "SPOOLD_INTAKE_SETTLE_SECONDS": "0.5",
        "SPOOLD_WORKERS_COUNT": "2",
        "SPOOLD_RETRY_BASE_SECONDS": "0.1",
    }
    machine = Machine(root, "site-a", environment, data=data, log_file=log_file)
    home = machine.home  # its disk may be gone at the end
    try:
        yield machine
    finally:
        for daemon in list(machine.daemons):
            machine.stop(daemon)
        home.rmdir()
