"""What an operator does to jobs from the command line: find one, run its drop again.

Crash: `retry` may leave a copy in `claimed/` that has no row; intake admits it under its id.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from spoold import errors, postgres
from spoold.actions import MODELS
from spoold.client import Answer, find_job
from spoold.config import Config
from spoold.daemon.wiring import intake_settings
from spoold.errors import SpooldError
from spoold.intake.claimed import Claimed, copy_name, prepare
from spoold.intake.complete import Fingerprint, Wait
from spoold.intake.names import NameKind, classify
from spoold.intake.settings import FoundBy, Method
from spoold.ownership import hand_over
from spoold.queue.binding import check
from spoold.queue.database import Database
from spoold.queue.job import Job, Verdict, new_job_id
from spoold.queue.migrate import require_current
from spoold.queue.store import Store
from spoold.spool import Folder, Spool, rename_new, sync_folder
from spoold.status import claimed_name, show_name

_COPY_BYTES = 8 * 1024 * 1024


@contextmanager
def open_store(config: Config, command: str) -> Iterator[Store]:
    """The queue of a spool, for one command. Raises database-away and spool-foreign."""
    conninfo = config.database_url or postgres.find(config.spool)
    database = Database(conninfo, f"spoold {command}")
    try:
        require_current(database)
        check(database, config.spool)
        yield Store(database, config.spool.identity().spool)
    finally:
        database.close()


def find(store: Store, text: str) -> Job:
    """The job of an id, of the last 12 digits of one, or the newest of a drop's name.

    Raises job-unknown.
    """
    wanted = text.strip()
    try:
        job = store.get(uuid.UUID(wanted)) if len(wanted) == 36 else None
    except ValueError:
        job = None
    if job is None and len(wanted) == 12:
        found = store.find_short(wanted.lower())
        job = found[0] if len(found) == 1 else None
    job = job or store.find_name(os.path.basename(os.fsencode(text)))
    if job is None:
        raise SpooldError(errors.JOB_UNKNOWN, f"there is no job {show_name(os.fsencode(text))[0]}")
    return job


def retry(store: Store, config: Config, job: Job) -> uuid.UUID:
    """Run a finished job's drop again, as a new job; the old answer stays. Returns the new id.

    Raises job-state, drop-missing, or the error that a drop of today would be rejected with.
    """
    shown = show_name(job.drop_name)[0]
    if not job.state.final:
        raise SpooldError(
            errors.JOB_STATE,
            f"{shown} is {job.state}: only a finished job can be retried",
            hint="wait until it is final, or cancel it first",
        )
    source = _published_drop(config.spool, job)
    job_id = new_job_id()
    claimed_folder = config.spool.folder(Folder.CLAIMED)
    target = os.path.join(os.fsencode(claimed_folder), claimed_name(job_id, job.drop_name))
    _copy(source, target, job_id)
    hand_over(Path(os.fsdecode(target)))
    sync_folder(claimed_folder)
    # From here on intake would find it too; it waits a minute before it takes a copy for left.
    verdict = _admit(store, config, job, job_id, target)
    if verdict is not None:
        Path(os.fsdecode(target)).unlink(missing_ok=True)
        raise verdict
    return job_id


def _admit(
    store: Store, config: Config, job: Job, job_id: uuid.UUID, path: bytes
) -> SpooldError | None:
    """Insert the new row; what stands against it, if anything does."""
    kind = classify(job.drop_name)
    claimed = Claimed(
        job_id,
        job.drop_name,
        NameKind.REQUEST if kind is NameKind.REQUEST else NameKind.BUNDLE,
        path,
        FoundBy.SCAN,
        Method.MOVED,
        time.monotonic(),
        # Our own copy, complete: nothing to wait for.
        fingerprint=Fingerprint.of(os.lstat(path)),
    )
    settings = intake_settings(config)
    admission = prepare(claimed, time.monotonic(), settings, MODELS, leases=False)
    if claimed.copy is not None:  # the file is a copy of ours already
        os.unlink(claimed.copy)
    assert not isinstance(admission, Wait)  # nobody else knows of the copy
    [answer] = store.admit([replace(admission, retry_of=job.id)])
    if answer.verdict is Verdict.NAME_BUSY:
        return SpooldError(
            errors.JOB_STATE,
            f"an unfinished job has the name {show_name(job.drop_name)[0]}",
            hint="wait until it is final",
        )
    if answer.verdict is Verdict.REFUSED:
        return SpooldError(errors.DROP_REFUSED, answer.message)
    return None


def _published_drop(spool: Spool, job: Job) -> Path:
    """Where a finished job's drop was published."""
    answer: Answer | None = find_job(spool, str(job.id))
    files = answer.document.get("files") if answer else None
    named = files.get("drop") if isinstance(files, dict) else None
    if isinstance(named, str):
        folder, _, name = named.rpartition("/")
        for candidate in (
            spool.root / folder / name,
            spool.root / folder / os.fsdecode(job.drop_name),
        ):
            if candidate.is_file() and not candidate.is_symlink():
                return candidate
    raise SpooldError(
        errors.DROP_MISSING,
        f"the drop of job {job.id} is not in processed/ or failed/ any more",
        hint="drop the file itself again",
    )


def _copy(source: Path, target: bytes, job_id: uuid.UUID) -> None:
    # Named as intake names its copies: what a crash leaves of it is swept as one of those.
    temporary = os.path.join(os.path.dirname(target), copy_name(job_id))
    try:
        with open(source, "rb") as reader, open(temporary, "xb") as writer:
            while block := reader.read(_COPY_BYTES):
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
            os.fchmod(writer.fileno(), os.fstat(reader.fileno()).st_mode & 0o777)
        rename_new(temporary, target)
    except OSError as error:
        Path(os.fsdecode(temporary)).unlink(missing_ok=True)
        raise SpooldError(errors.DISK_ERROR, f"{source}: {error.strerror}") from error
