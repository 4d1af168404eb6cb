"""The order in which a job is made durable, as the kernel was asked for it.

What a row says must be on the disk before the row says so, or a power cut makes a liar of it. A
real daemon works under strace; RULES are held against a model of the disk at each step.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from spoold import points
from spoold.queue.database import QUERIES
from tests.conftest import wait_until
from tests.faults.trace import (
    Call,
    Disk,
    Statement,
    need_strace,
    record,
    replay,
    statements,
    without_syncs,
)
from tests.sites import Site, Status, request, spoold, trust

MakeSite = Callable[..., Site]
LARGE = 5 * 1024 * 1024  # more than a frame: restored through a file without a name


@dataclass(frozen=True, slots=True)
class Job:
    """What a job was and made, by its final status."""

    root: str
    status: Status

    @property
    def id(self) -> str:
        return str(self.status["job_id"])

    @property
    def drop(self) -> str:
        return str(self.status["drop"])

    @property
    def published(self) -> list[str]:
        """The drop and the results."""
        names = [*self.status["files"].values()]
        return [f"{self.root}/{name}" for name in names]

    @property
    def sites(self) -> list[str]:
        """The folder that was made for the sender, if there is one."""
        return [os.path.dirname(path) for path in self.published if "/restored/" in path]

    @property
    def dropped(self) -> str:
        return f"{self.root}/inbox/{self.drop}"

    @property
    def beside(self) -> str:
        """The status beside the drop."""
        return f"{self.root}/{self.status['files']['drop']}.status.json"

    @property
    def answer(self) -> str:
        """The status under status/."""
        return f"{self.root}/status/{self.drop}.status.json"

    @property
    def claimed(self) -> str:
        return f"{self.root}/.spoold/claimed/{self.id}.{self.drop}"

    @property
    def scratch(self) -> str:
        return f"{self.root}/.spoold/work/{self.id}.1"


@dataclass(frozen=True, slots=True)
class Moment:
    """A call that is about to be made for a job, and the statements that it commits."""

    job: Job
    call: Call
    committed: Sequence[Statement] = ()

    def commits(self, name: str) -> bool:
        return any(said.name == name and speaks_of(said, self.job) for said in self.committed)

    def moves_to(self, path: str) -> bool:
        renames = self.call.name in {"rename", "renameat", "renameat2", "link", "linkat"}
        return renames and self.call.paths[-1] == path and not self.call.failed

    @property
    def source(self) -> str:
        return self.call.paths[0]


@dataclass(frozen=True, slots=True)
class Rule:
    """When it applies, and what a power cut must not be able to take away then."""

    name: str
    when: Callable[[Moment], bool]
    lacks: Callable[[Moment, Disk], list[str]]


def speaks_of(said: Statement, job: Job) -> bool:
    """Whether the job's id is among the parameters, as bytes or as text without dashes."""
    digits = job.id.replace("-", "")
    return digits in said.text or bytes.fromhex(digits).decode("latin-1") in said.text


def _tree(disk: Disk, path: str) -> list[str]:
    files, names = disk.beneath(path)
    return disk.lacks(files=files, names=names)


RULES = (
    Rule(
        "a row is inserted for a drop that is claimed for good",
        lambda m: m.commits("admit"),
        lambda m, disk: disk.lacks(files=[m.job.claimed], names=[m.job.claimed, m.job.dropped]),
    ),
    Rule(
        "the outcome is recorded of results that are on the disk",
        lambda m: m.commits("begin_publishing"),
        # What a tool has for itself there never leaves it.
        lambda m, disk: [one for one in _tree(disk, m.job.scratch) if "/tool" not in one],
    ),
    Rule(
        "what gets its name has its content",
        lambda m: any(m.moves_to(path) for path in m.job.published),
        lambda m, disk: _tree(disk, m.source),
    ),
    Rule(
        "the status stands beside a drop and results that have their names",
        lambda m: m.moves_to(m.job.beside),
        lambda m, disk: disk.lacks(files=[m.source], names=m.job.published),
    ),
    Rule(
        "a script is told of a status that stands beside the drop",
        lambda m: m.moves_to(m.job.answer) and m.job.scratch in m.source,
        lambda m, disk: disk.lacks(files=[m.source], names=[*m.job.published, m.job.beside]),
    ),
    Rule(
        "the row is final when the answer is",
        lambda m: m.commits("finish"),
        lambda m, disk: disk.lacks(
            files=[m.job.answer, m.job.beside],
            names=[*m.job.published, *m.job.sites, m.job.beside, m.job.answer],
        ),
    ),
)


TAKEN_BACK = Rule(
    "other names are recorded of what is back where it came from",
    lambda m: m.commits("amend_publishing"),
    lambda m, disk: disk.lacks(names=[m.job.claimed, f"{m.job.root}/processed/{m.job.drop}"]),
)


def broken(
    calls: Sequence[Call], jobs: Sequence[Job], rules: Sequence[Rule] = RULES
) -> tuple[set[tuple[str, str]], list[str]]:
    """Hold the rules against a record: which applied to which job, and what was lacking."""
    committed: defaultdict[int, list[Statement]] = defaultdict(list)
    for said in statements(calls, QUERIES):
        committed[said.committed].append(said)
    applied: set[tuple[str, str]] = set()
    faults: list[str] = []

    def look(call: Call, disk: Disk) -> None:
        for job in jobs:
            moment = Moment(job, call, committed.get(call.began, ()))
            for rule in rules:
                if rule.when(moment):
                    applied.add((rule.name, job.id))
                    lacking = rule.lacks(moment, disk)
                    faults.extend(f"{rule.name}: {job.drop}: {lost}" for lost in lacking)

    replay(calls, look)
    return applied, faults


def check(calls: Sequence[Call], jobs: Sequence[Job], rules: Sequence[Rule] = RULES) -> None:
    """All rules hold, each has applied to each job, and each would notice a missing sync."""
    applied, faults = broken(calls, jobs, rules)
    assert faults == []
    assert applied == {(rule.name, job.id) for rule in rules for job in jobs}
    _, without = broken(without_syncs(calls), jobs, rules)
    assert {fault.rpartition(": ")[0] for fault in without} == {
        f"{rule.name}: {job.drop}" for rule in rules for job in jobs
    }


def check_turns(calls: Sequence[Call], jobs: Sequence[Job]) -> None:
    """Nothing gets its name before the outcome's commit is answered; the row ends last."""
    said = statements(calls, QUERIES)
    for job in jobs:
        moments = [(Moment(job, call), call) for call in calls]
        moved = [
            call.began
            for path in (*job.published, job.beside, job.answer)
            for moment, call in moments
            if moment.moves_to(path) and (path != job.answer or job.scratch in moment.source)
        ]
        assert len(moved) == len(job.published) + 2
        begun = [one for one in said if one.name == "begin_publishing" and speaks_of(one, job)]
        ended = [one for one in said if one.name == "finish" and speaks_of(one, job)]
        assert len(begun) == len(ended) == 1
        assert begun[0].answered < min(moved)
        assert max(moved) < ended[0].committed
        # The last that becomes visible is the answer, and before it the status beside the drop.
        assert moved[-2:] == sorted(moved)[-2:]


def traced(
    site: Site, drops: Sequence[str], output: Path, ends: Collection[str] = ("succeeded",)
) -> tuple[list[Call], list[Job]]:
    """Let a daemon under strace work through what is in the inbox."""
    command = [sys.executable, "-m", "spoold", "run", site.root, "--once"]
    status = int("failed" in ends)
    calls = record(command, output, {**os.environ, **site.environment}, site.root, status)
    jobs = [Job(str(site.root), site.final(name)) for name in drops]
    assert {job.status["state"] for job in jobs} == set(ends)
    return calls, jobs


@pytest.fixture(autouse=True)
def _strace() -> None:
    need_strace()


@pytest.fixture
def make_bundle(make_site: MakeSite, evidence: Path, tmp_path: Path) -> Callable[[Site, int], Path]:
    """Make a bundle of site-b with so many small files, for a site that trusts it."""

    def make(receiver: Site, files: int) -> Path:
        (evidence / "incident-123" / "large").write_bytes(os.urandom(LARGE))
        for number in range(files):
            (evidence / "incident-123" / f"small-{number}").write_text("small")
        sender = make_site("site-b", roots={"evidence": evidence})
        trust(receiver, sender)
        asked = tmp_path / "asked.json"
        asked.write_text(json.dumps(request()))
        spoold("build", asked, "-o", tmp_path / "made", "--spool", sender.root)
        (made,) = (tmp_path / "made").glob("*.tar.zst")
        return made

    return make


def test_e37_bundles_and_restored_trees_are_durable_before_anybody_is_told_of_them(
    make_site: MakeSite,
    make_bundle: Callable[..., Path],
    evidence: Path,
    conninfo: str,
    tmp_path: Path,
) -> None:
    site = make_site(roots={"evidence": evidence}, database_url=conninfo)
    site.drop("demo.tar.zst", make_bundle(site, files=3))
    site.drop("request-demo.json", request())
    calls, jobs = traced(site, ["demo.tar.zst", "request-demo.json"], tmp_path / "calls")
    check(calls, jobs)
    check_turns(calls, jobs)


def test_e37_jobs_in_batches_are_durable_in_the_same_order(
    make_site: MakeSite,
    make_bundle: Callable[..., Path],
    evidence: Path,
    conninfo: str,
    tmp_path: Path,
) -> None:
    site = make_site(roots={"evidence": evidence}, database_url=conninfo, workers_count=1)
    site.drop("demo.tar.zst", make_bundle(site, files=30))
    drops = [f"request-{number}.json" for number in range(6)]
    for name in drops:
        site.drop(name, request())
    calls, jobs = traced(site, ["demo.tar.zst", *drops], tmp_path / "calls")
    check(calls, jobs)
    check_turns(calls, jobs)


def test_e37_what_handlers_leave_and_failures_are_durable_in_the_same_order(
    make_site: MakeSite, evidence: Path, conninfo: str, tmp_path: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, database_url=conninfo, workers_count=1)
    with open(site.root / "spoold.toml", "a") as file:
        for name, script in {
            "one": "echo done; echo 1 > $1/one.txt",
            "many": "echo done; mkdir $1/folder; echo 1 > $1/folder/a; echo 2 > $1/b",
            "bad": "echo failed; exit 1",
        }.items():
            command = json.dumps(["sh", "-c", script, "-", "{out}"])
            file.write(f'\n[[handlers]]\npattern = "{name}-*.txt"\ncommand = {command}\n')
    names = ["one-1.txt", "many-1.txt", "bad-1.txt", "request-nowhere.json"]
    for name in names[:3]:
        site.drop(name, "x")
    site.drop(names[3], request("nowhere"))
    ends = {"succeeded", "failed"}
    calls, jobs = traced(site, names, tmp_path / "calls", ends)
    assert ["log" in job.status["files"] for job in jobs] == [True, True, True, False]
    check(calls, jobs)
    check_turns(calls, jobs)


def test_e37_what_is_taken_back_is_durable_before_the_row_has_other_names(
    make_site: MakeSite, evidence: Path, conninfo: str, tmp_path: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, database_url=conninfo)
    site.environment[points.VARIABLE] = "publish.4"  # the drop has its name, the status has not
    site.drop("request-demo.json", request())
    daemon = site.start()
    wait_until((site.root / "processed/request-demo.json").exists)
    daemon.kill()
    daemon.wait()
    site.daemons.remove(daemon)
    del site.environment[points.VARIABLE]
    (site.root / "processed/request-demo.json.status.json").write_text("somebody else's")
    calls, jobs = traced(site, ["request-demo.json"], tmp_path / "calls")
    assert "~" in jobs[0].status["files"]["drop"]
    check(calls, jobs, [TAKEN_BACK])
