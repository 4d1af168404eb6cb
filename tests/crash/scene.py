"""A spool whose processes are stopped at a point of their work."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoold import points
from spoold.queue import binding
from spoold.queue.database import Database
from spoold.queue.store import Store
from spoold.spool import Folder
from tests.crash.forking import Forks
from tests.crash.table import Answer, Table, make_tree
from tests.sites import request

KILLED = -9
STOPPED = -19
DROP = "request-demo.json"
BUNDLE = "demo-0123456789ab.tar.zst"


@dataclass(kw_only=True)
class Scene(Table):
    """One spool, and the processes that work on it."""

    forks: Forks
    environment: dict[str, str]
    evidence: Path
    bundle: bytes
    """A bundle of `incident-123` in that folder, from another site."""

    @classmethod
    def make(
        cls, folder: Path, conninfo: str, forks: Forks, evidence: Path, bundle: bytes
    ) -> "Scene":
        tree = make_tree(folder / "spool", evidence)
        database = Database(conninfo, "tests")
        binding.bind(database, tree, "site-a")
        environment = {
            "SPOOLD_DATABASE_URL": conninfo,
            "SPOOLD_LOG_FORMAT": "text",
            "SPOOLD_INTAKE_MIN_FREE_BYTES": "0",
            "SPOOLD_INTAKE_SETTLE_SECONDS": "0.05",
            "SPOOLD_RETRY_BASE_SECONDS": "0.01",
            "SPOOLD_RETRY_MAX_ATTEMPTS": "3",
            "SPOOLD_SPOOL": str(tree.root),
        }
        return cls(
            tree=tree,
            store=Store(database, tree.identity().spool),
            scratch=folder,
            log=folder / "log",
            forks=forks,
            environment=environment,
            evidence=evidence,
            bundle=bundle,
        )

    def drop(self, answer: Answer) -> None:
        """Drop a file, by somebody else than the daemon's user as far as its mode tells."""
        aside = self.scratch / "aside"
        aside.write_bytes(answer.content)
        aside.chmod(0o664)
        aside.rename(self.tree.folder(Folder.INBOX) / answer.drop)
        self.answers.append(answer)

    def run(self, task: str, *arguments: str, stop_at: str = "", **environment: str) -> int:
        """Have a part of the daemon do its work, or a command; its exit status."""
        if task != "command":
            arguments = (str(self.tree.root), *arguments)
        armed = {points.VARIABLE: stop_at} if stop_at else {}
        variables = {**self.environment, **environment, **armed}
        return self.forks.run(task, *arguments, log=self.log, **variables)

    def stop(self, task: str, *arguments: str, at: str, **environment: str) -> None:
        """The same, armed: the process must have been stopped at that point."""
        status = self.run(task, *arguments, stop_at=at, **environment)
        assert status == KILLED, f"{at} was not reached: {status}\n{self.said()}"
        self.look()

    def may_stop(self, task: str, *, at: str) -> bool:
        """The same, where the point need not be on its way; whether it was."""
        status = self.run(task, stop_at=at)
        assert status in {0, KILLED}, f"{status}\n{self.said()}"
        self.look()
        return status == KILLED

    def put_foreign(self, name: str) -> None:
        """Somebody else's file under a name that a job has reserved: it has to choose another."""
        (self.tree.root / name).write_text("somebody else's")
        self.foreign.add(name)
        self.promised.clear()

    def suspend(self, task: str, *arguments: str, at: str, **environment: str) -> None:
        """The same, but it can be woken again."""
        status = self.run(task, *arguments, stop_at=f"{at}:1:SIGSTOP", **environment)
        assert status == STOPPED, f"{at} was not reached: {status}\n{self.said()}"

    def everything(self) -> dict[str, tuple[int, int, int]]:
        """All that stands in the spool, but for scratch, so that a change is seen."""
        found = {}
        for path in self.tree.root.rglob("*"):
            if path.is_file() and ".spoold/work" not in str(path):
                status = path.stat()
                found[str(path)] = (status.st_ino, status.st_mtime_ns, status.st_nlink)
        return found

    def finish(self) -> None:
        """A daemon that nobody stops, until all is done."""
        status = self.run("daemon")
        assert status == 0, f"the repair ended with {status}\n{self.said()}\n{self.listing()}"


def bundle_drop(scene: Scene, name: str = DROP, **fields: Any) -> Answer:
    content = json.dumps(request(**fields)).encode()
    return Answer(name, content, bundled=scene.evidence / "incident-123")


def restore_drop(scene: Scene, name: str = BUNDLE) -> Answer:
    return Answer(name, scene.bundle, restored=scene.evidence / "incident-123")


def duplicate_of(answer: Answer, name: str) -> Answer:
    return Answer(name, answer.content, "duplicate")


def invalid_drop(name: str = "request-invalid.json") -> Answer:
    return Answer(name, json.dumps(request(sauces=[])).encode(), "rejected", "request-invalid")


def failing_drop(name: str = "request-failing.json") -> Answer:
    return Answer(name, json.dumps(request("nowhere")).encode(), "failed", "source-missing")
