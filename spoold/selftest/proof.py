"""One self-test: its jobs, its workers, who takes jobs back from them, and the reckoning."""

import json
import os
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from spoold import __version__, postgres, trust
from spoold.config import Config
from spoold.file_lock import FileLock
from spoold.queue.answers import Key
from spoold.queue.binding import check
from spoold.queue.database import Database
from spoold.queue.job import Admission, Job, RetryPolicy, State, new_job_id
from spoold.queue.migrate import require_current
from spoold.queue.store import Store
from spoold.selftest.record import Fence, Record
from spoold.selftest.worker import HELD_KEY, RESULT, WRITES, Stage, Worker
from spoold.sinks.remove import remove_tree
from spoold.spool import Folder, Spool
from spoold.status import Host, claimed_name, status_name
from spoold.worker import scratch as scratch_folder

JOBS: Final = 600

_LEASE_SECONDS: Final = 0.015
_PREFIX: Final = "selftest."
_MEASURED: Final = 5  # jobs to learn from how long one takes here
_WORKERS: Final = 4
_STALLS: Final = 0.2
_MAX_ATTEMPTS: Final = 30_000
_PAUSE_SECONDS: Final = 0.002
_LOOK_SECONDS: Final = 0.05
_DEADLINE_SECONDS: Final = 600.0
_DEADLINE_SECONDS_A_JOB: Final = 5.0
_ENOUGH_PROBLEMS: Final = 20
_POLICY: Final = RetryPolicy(base_seconds=0.001, cap_seconds=0.002)


def fence(
    config: Config, jobs: int = JOBS, on_begin: Callable[[Fence], None] | None = None
) -> Fence:
    """Prove the fence with so many jobs; `on_begin` is called when the length of leases is known.

    Raises database-away, database-unfit and spool-foreign.
    """
    conninfo = config.database_url or postgres.find(config.spool)
    database = Database(conninfo, "spoold selftest")
    try:
        require_current(database)
        check(database, config.spool)
        with _ground(config.spool, database) as tree:
            store = Store(database, tree.identity().spool)
            return _Proof(_stage(tree, conninfo, config.site), store, jobs).run(on_begin)
    finally:
        database.close()


@contextmanager
def _ground(own: Spool, database: Database) -> Iterator[Spool]:
    """A spool of its own inside `.spoold`; its folder and its rows are removed at the end."""
    private = own.folder(Folder.PRIVATE)
    for left in private.glob(f"{_PREFIX}*"):
        _remove(Spool.at(left), database)
    tree = Spool.at(private / f"{_PREFIX}{secrets.token_hex(6)}")
    lock = FileLock(tree.intake_lock)
    try:
        tree.create()
        lock.acquire()
        yield tree
    finally:
        lock.release()
        database.close()  # an interrupt may have left it in the middle of a statement
        _remove(tree, database)


def _remove(tree: Spool, database: Database) -> None:
    lock = FileLock(tree.intake_lock)
    with suppress(FileNotFoundError):  # made only half
        if not lock.acquire():  # a self-test that runs
            return
    if tree.exists():  # the rows first: without the folder nobody would know of them
        Store(database, tree.identity().spool).erase()
    remove_tree(tree.root)
    lock.release()


def _stage(tree: Spool, conninfo: str, site: str) -> Stage:
    private = trust.generate(trust.Algorithm.ED25519)
    key_id = trust.key_id(private.public_key())
    return Stage(
        tree=tree,
        conninfo=conninfo,
        spool=tree.identity().spool,
        host=Host(site, "selftest"),
        signer=trust.Signer(key_id, site, trust.Algorithm.ED25519, private),
        record=Record(Fence(0)),
        ended=threading.Event(),
    )


class _Proof:
    """One run."""

    def __init__(self, stage: Stage, store: Store, jobs: int) -> None:
        self._fence = Fence(jobs)
        self._stage = replace(stage, record=Record(self._fence))
        self._store = store
        self._failure: BaseException | None = None

    def run(self, on_begin: Callable[[Fence], None] | None) -> Fence:
        """Work until every job is final, then compare rows and files."""
        fence, began = self._fence, time.monotonic()
        fence.lease_seconds = self._lease()
        self._stage = replace(
            self._stage, lease_seconds=fence.lease_seconds, holder=self._admit_holder()
        )
        if on_begin is not None:
            on_begin(fence)
        self._admit(fence.jobs - _MEASURED)
        in_time = self._work(began + self._patience_seconds())
        if self._failure is not None:
            raise self._failure
        if in_time:  # else each job that is left would be told
            self._compare_all()
        self._judge()
        fence.seconds = time.monotonic() - began
        return fence

    # --- the jobs -------------------------------------------------------------------------------

    def _lease(self) -> float:
        """A short one, which a worker that is not stopped can keep, whatever the disk."""
        worker = Worker(self._stage, 0, stalls=0.0)
        worker.register()
        seconds = []
        for _ in range(_MEASURED):
            self._admit(1)
            began = time.monotonic()
            worker.round()
            seconds.append(time.monotonic() - began)
        worker.close()
        return max(_LEASE_SECONDS, min(seconds) / 2)  # it beats half-way

    def _admit(self, jobs: int) -> None:
        batch = [_admission() for _ in range(jobs)]
        for admission in batch:
            name = os.fsdecode(claimed_name(admission.id, admission.drop_name))
            path = self._stage.tree.folder(Folder.CLAIMED) / name
            path.write_bytes(admission.drop_name)
        self._store.admit(batch)

    def _admit_holder(self) -> uuid.UUID:
        """A job that has a key and is never due, so that a stale worker has whom to wait for."""
        admission, worker = _admission(), uuid.uuid4()
        self._store.admit([admission])
        self._store.register_worker(worker, "selftest", os.getpid(), __version__)
        [claim] = self._store.claim(worker)
        assert self._store.take_key(claim, HELD_KEY, HELD_KEY).verdict is Key.TAKEN
        assert self._store.postpone(claim, {}, 10 * self._patience_seconds())
        return admission.id

    def _patience_seconds(self) -> float:
        return max(_DEADLINE_SECONDS, self._fence.jobs * _DEADLINE_SECONDS_A_JOB)

    # --- the work -------------------------------------------------------------------------------

    def _work(self, deadline: float) -> bool:
        """Have all jobs done; whether they were in time."""
        workers = [Worker(self._stage, number, _STALLS) for number in range(_WORKERS)]
        work = [self._rescue, *(worker.work for worker in workers)]
        threads = [threading.Thread(target=self._guarded, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        try:
            while not self._stage.ended.wait(_LOOK_SECONDS):
                if self._store.unfinished() == 1:  # the holder
                    return True
                if len(self._fence.problems) > _ENOUGH_PROBLEMS:
                    return True
                if time.monotonic() > deadline:
                    self._fence.problems.append(
                        f"{self._store.unfinished() - 1} of {self._fence.jobs} jobs did not end in "
                        "time: try fewer, with --jobs"
                    )
                    return False
            return False  # a thread has failed
        finally:
            self._stage.ended.set()
            for thread in threads:
                thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised again where the thread is awaited
            self._failure = error
            self._stage.ended.set()

    def _rescue(self) -> None:
        """What a daemon does once a second, and after a lease of half a minute."""
        store = Store(self._stage.database(), self._stage.spool)
        while not self._stage.ended.wait(_PAUSE_SECONDS):
            store.rescue(self._stage.lease_seconds, _POLICY)
            store.promote()
        store.database.close()

    # --- the reckoning --------------------------------------------------------------------------

    def _compare_all(self) -> None:
        fence, tree = self._fence, self._stage.tree
        scratch_folder.sweep(tree, self._store)
        expected: set[str] = set()
        for job in self._store.jobs(limit=fence.jobs + 1):
            if job.id != self._stage.holder:
                expected |= self._compare_one(job)
        for stray in expected.symmetric_difference(os.listdir(tree.folder(Folder.PROCESSED))):
            fence.problems.append(f"processed/{stray} is one too many, or missing")
        for folder in (Folder.FAILED, Folder.CLAIMED, Folder.WORK):
            for stray in os.listdir(tree.folder(folder)):
                fence.problems.append(f"{folder}/{stray} is left over")

    def _judge(self) -> None:
        fence = self._fence
        for verb, count in fence.accepted.items():
            if count:
                fence.problems.append(f"{count} stale writes were accepted: {verb}")
        if fence.renames_done:
            fence.problems.append(f"{fence.renames_done} stale renames moved something")
        if untried := [verb.value for verb in WRITES if not fence.tried[verb.value]]:
            fence.problems.append(f"with so few jobs nothing was proved of {', '.join(untried)}")
        elif not fence.renames_tried:
            fence.problems.append("with so few jobs nothing was proved of renames")

    def _compare_one(self, job: Job) -> set[str]:
        """The names that must stand in `processed/` for a job."""
        drop = os.fsdecode(job.drop_name)
        if job.state is not State.SUCCEEDED or job.final_document is None:
            self._fence.problems.append(f"{drop} is {job.state}")
            return set()
        status, made = os.fsdecode(status_name(job.drop_name)), f"{job.short_id}.{RESULT}"
        result = json.loads(job.final_document).get("result") or {}
        found = [
            self._read(Folder.PROCESSED, made) == str(result.get("epoch")).encode(),
            self._read(Folder.PROCESSED, drop) == job.drop_name,
            self._read(Folder.PROCESSED, status) == job.final_document,
            self._read(Folder.STATUS, status) == job.final_document,
        ]
        if all(found):
            self._fence.results += 1
        else:
            self._fence.problems.append(f"{drop}: what stands on disk is not what its row records")
        return {drop, status, made}

    def _read(self, folder: Folder, name: str) -> bytes:
        with suppress(FileNotFoundError):
            return (self._stage.tree.folder(folder) / name).read_bytes()
        return b""


def _admission() -> Admission:
    job_id = new_job_id()
    return Admission(
        id=job_id,
        drop_name=f"request-{job_id.hex[-12:]}.json".encode(),
        drop_sha256=None,
        drop_bytes=0,
        intake={},
        action="selftest",
        max_attempts=_MAX_ATTEMPTS,
    )
