"""What must hold after a crash and its repair: DESIGN's third section, as a check of one spool."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spoold import daemon_status, trust, trust_store
from spoold.bundle.reader import Policy, open_bundle
from spoold.queue.job import Job
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import status_name
from spoold.trust import Role, Trust
from tests.bundles import restore, signer

FROM_SITE = "site-b"
"""Whose bundles are restored."""

Tree = dict[str, bytes]


@dataclass(frozen=True)
class Answer:
    """How one drop must end, once and for all."""

    drop: str
    content: bytes
    state: str = "succeeded"
    code: str | None = None
    bundled: Path | None = None
    """The folder that its bundle must hold."""
    restored: Path | None = None
    """The folder that its restored tree must equal."""


def make_tree(root: Path, evidence: Path) -> Spool:
    """A spool of site-a, as `init` makes it, that trusts site-b; the keys are those of a run."""
    tree = Spool.at(root)
    tree.create()
    key = tree.folder(Folder.KEYS) / "signing.pem"
    key.write_bytes(trust.private_pem(signer().private))
    key.chmod(0o600)
    tree.public_key.write_bytes(trust.public_pem(signer().trusted().public))
    trust_store.store_trusted(tree, signer(FROM_SITE).trusted())
    (root / "spoold.toml").write_text(
        f'site = "site-a"\n[roots]\nevidence = {json.dumps(str(evidence))}\n'
    )
    return tree


@dataclass
class Table:
    """One spool, its rows, and how its drops must end."""

    tree: Spool
    store: Store
    scratch: Path
    """A folder for bundles to be unpacked in."""
    log: Path
    """What its processes said."""
    answers: list[Answer] = field(default_factory=list)
    promised: dict[uuid.UUID, bytes] = field(default_factory=dict)
    """Final documents that somebody may have seen: no repair may change them."""
    foreign: set[str] = field(default_factory=set)
    """Files of nobody's."""

    def jobs(self) -> list[Job]:
        """All jobs, the oldest first."""
        return self.store.jobs(limit=100_000)[::-1]

    def said(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def listing(self) -> str:
        """Where everything is, for whoever reads a failure."""
        files = sorted(str(path.relative_to(self.tree.root)) for path in self.tree.root.rglob("*"))
        rows = [f"{job.id} {job.drop_name!r} {job.state} {job.epoch}" for job in self.jobs()]
        return "\n".join([*files, *rows])

    # --- in between -----------------------------------------------------------------------------

    def look(self) -> None:
        """Right after a crash: nothing is lost, and what was answered is an answer that stays."""
        rows = {job.id: job for job in self.jobs()}
        for job in rows.values():
            if job.final_document is not None and not self.foreign:
                assert self.promised.setdefault(job.id, job.final_document) == job.final_document
        for answer in {answer.drop: answer for answer in self.answers}.values():
            path = self._status_path(answer.drop)
            if path.exists() and json.loads(path.read_bytes())["final"]:
                document = json.loads(path.read_bytes())
                job_id = uuid.UUID(document["job_id"])
                assert path.read_bytes() == rows[job_id].final_document
                self.promised[job_id] = path.read_bytes()
            assert self._is_somewhere(answer), f"{answer.drop} is lost\n{self.listing()}"

    def _is_somewhere(self, answer: Answer) -> bool:
        folders = (Folder.INBOX, Folder.CLAIMED, Folder.PROCESSED, Folder.FAILED)
        return any(
            path.stat().st_size == len(answer.content) and path.read_bytes() == answer.content
            for folder in folders
            for path in self.tree.folder(folder).iterdir()
            if path.name.endswith((".json", ".zst"))
        )

    # --- in the end -----------------------------------------------------------------------------

    def check(self) -> None:
        """The table of what a crash leaves: each drop has one answer, and nothing else is there."""
        jobs = self.jobs()
        assert Counter(job.drop_name.decode() for job in jobs) == Counter(
            answer.drop for answer in self.answers
        ), self.listing()
        expected: set[str] = set()
        newest = {job.drop_name: job.id for job in jobs}
        for job in jobs:
            answer = self._answer_of(job, jobs)
            expected |= self._check_job(job, answer, newest=newest[job.drop_name] == job.id)
        self._check_folders(expected)
        assert self.store.workers() == []
        for job_id, document in self.promised.items():
            [job] = [job for job in jobs if job.id == job_id]
            assert job.final_document == document, "a final document was replaced"

    def _answer_of(self, job: Job, jobs: Sequence[Job]) -> Answer:
        same_name = [one.id for one in jobs if one.drop_name == job.drop_name]
        answers = [one for one in self.answers if one.drop.encode() == job.drop_name]
        return answers[same_name.index(job.id)]

    def _check_job(self, job: Job, answer: Answer, *, newest: bool) -> set[str]:
        """One job's row, files and status; returns the names that it has beneath the spool."""
        assert job.state == answer.state, f"{job.state}: {job.error} {job.outcome}\n{self.said()}"
        assert job.worker is None
        assert job.final_document is not None
        status = self._verified(job.final_document)
        assert (status["state"], status["final"]) == (answer.state, True)
        assert status["job_id"] == str(job.id)
        assert status["drop"] == answer.drop
        assert (status["error"] or {}).get("code") == answer.code
        drop = self.tree.root / status["files"]["drop"]
        assert drop.read_bytes() == answer.content
        assert drop.parent.name == (
            "processed" if answer.state in {"succeeded", "duplicate"} else "failed"
        )
        beside = drop.with_name(f"{drop.name}.status.json")
        assert beside.read_bytes() == job.final_document
        if newest:
            assert self._status_path(answer.drop).samefile(beside)
        assert beside.stat().st_nlink == (2 if newest else 1)
        if answer.bundled is not None:
            bundle = self.tree.root / status["files"]["bundle"]
            assert bundle.stat().st_size == status["result"]["bytes"]
            assert self._unpacked(bundle) == files_of(answer.bundled)
        if answer.restored is not None:
            restored = self.tree.root / status["files"]["restored"]
            assert files_of(restored) == files_of(answer.restored)
        if job.dedup_key is not None and job.state == "succeeded":
            done = "select job from spoold.done where spool = %s and dedup_key = %s"
            assert self._rows(done, job.spool, job.dedup_key) == [(job.id,)]
        names = {*status["files"].values(), str(beside.relative_to(self.tree.root))}
        answers = {f"status/{self._status_path(answer.drop).name}"} if newest else set()
        rows = self._rows("select folder, name from spoold.published where job = %s", job.id)
        assert {f"{folder}/{name.decode()}" for folder, name in rows} == names | answers
        return names

    def _verified(self, document: bytes) -> dict[str, Any]:
        own = Trust([signer().trusted()])
        return dict(own.verify_document(document, "spoold.status/1", Role.STATUS).document)

    def _unpacked(self, bundle: Path) -> Tree:
        target = self.scratch / f"unpacked-{uuid.uuid4().hex}"
        with open_bundle(bundle) as file:
            restore(file, target, Trust([signer().trusted()]), Policy(site="site-a"))
        return files_of(target)

    def _check_folders(self, expected: set[str]) -> None:
        for folder in (Folder.INBOX, Folder.CLAIMED, Folder.WORK, Folder.TRASH):
            assert list(self.tree.folder(folder).iterdir()) == [], self.listing()
        found = [
            str(path.relative_to(self.tree.root))
            for path in (
                *self.tree.folder(Folder.PROCESSED).iterdir(),
                *self.tree.folder(Folder.FAILED).iterdir(),
                *self.tree.folder(Folder.RESTORED).glob("*/*"),
            )
        ]
        assert sorted(found) == sorted(expected | self.foreign), self.listing()
        for name in self.foreign:
            assert (self.tree.root / name).read_text() == "somebody else's"
        statuses = {path.name for path in self.tree.folder(Folder.STATUS).iterdir()}
        assert statuses - {daemon_status.NAME} == {
            os.fsdecode(status_name(answer.drop.encode())) for answer in self.answers
        }

    def _rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.store.database.connection.execute(sql.encode(), parameters).fetchall()

    def _status_path(self, drop: str) -> Path:
        return self.tree.folder(Folder.STATUS) / os.fsdecode(status_name(drop.encode()))


def files_of(folder: Path) -> Tree:
    """The content of every file, the names of empty folders with a slash."""
    found: Tree = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[f"{name}/"] = b""
        else:
            found[name] = path.read_bytes()
    return found
