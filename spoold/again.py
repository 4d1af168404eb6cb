"""Run the drop of a finished job again, as a new job; the old answer stays.

Crash: a copy may stay in `claimed/` that has no row; intake admits it under its id.
"""

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from spoold import errors, points
from spoold.actions import MODELS, command
from spoold.bundle.copying import own_mode
from spoold.config import Config
from spoold.daemon.wiring import intake_settings
from spoold.disk import rename_new, sync_folder
from spoold.errors import SpooldError
from spoold.file_lock import shared
from spoold.intake.claimed import Claimed, prepare
from spoold.intake.complete import Fingerprint, Wait
from spoold.intake.names import DROPS, NameKind, classify
from spoold.intake.own_copy import copy_name
from spoold.intake.settings import FoundBy, Method, Reason
from spoold.ownership import hand_over
from spoold.publish.plan import DROP
from spoold.queue.answers import Verdict
from spoold.queue.job import Job, new_job_id
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import claimed_name, show_name

_COPY_BYTES = 8 * 1024 * 1024
_DROP_IT_AGAIN = "drop the file itself again"


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
    # Named as intake names its copies: what a crash leaves of it is swept as one of those.
    temporary = claimed_folder / os.fsdecode(copy_name(job_id))
    # Under its name intake finds it too, and would take it for one that a crash has left.
    with _copied(source, temporary, job.drop_sha256), shared(claimed_folder):
        rename_new(temporary, target)
        sync_folder(claimed_folder)
        points.reached("again.named")
        try:
            verdict = _admit(store, config, job, job_id, target)
        except SpooldError as error:
            if error.code is errors.DATABASE_AWAY:  # and may have the row
                raise SpooldError(
                    errors.DATABASE_AWAY,
                    f"{error.message}: job {job_id} is taken in as soon as it is back",
                    hint="do not retry it again: look for that job",
                ) from error
            verdict = error
        except OSError as error:
            verdict = errors.of_os_error(error)
        if verdict is not None:
            Path(os.fsdecode(target)).unlink(missing_ok=True)
            raise verdict
    return job_id


def _admit(
    store: Store, config: Config, job: Job, job_id: uuid.UUID, path: bytes
) -> SpooldError | None:
    """Insert the new row; what stands against it, if anything does."""
    settings = intake_settings(config)
    kind = classify(job.drop_name, settings.handlers)
    if job.action == command.NAME and kind is not NameKind.HANDLED:
        return SpooldError(errors.HANDLER_UNKNOWN)
    claimed = Claimed(
        job_id,
        job.drop_name,
        kind if kind in DROPS else NameKind.BUNDLE,
        path,
        FoundBy.SCAN,
        Method.MOVED,
        time.monotonic(),
        # Our own copy, complete: nothing to wait for, and nothing to copy.
        fingerprint=Fingerprint.of(os.lstat(path)),
        ours=True,
    )
    admission = prepare(claimed, time.monotonic(), settings, MODELS, leases=False)
    if isinstance(admission, Wait):  # not for a writer: nobody else knows of the copy
        assert admission.reason is Reason.TRUST_STORE, admission
        return SpooldError(errors.KEY_UNUSABLE, admission.message)
    [answer] = store.admit([replace(admission, retry_of=job.id)])
    points.reached("again")
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
    places = [(move.folder, move.name) for move in job.sources if move.role == DROP]
    if not places and job.final_document:  # the row followed a final that stood on disk
        files = json.loads(job.final_document)["files"]
        folder, _, shown = str(files.get("drop", "")).rpartition("/")
        places = [(folder, shown.encode()), (folder, job.drop_name)]
    for folder, name in places:
        path = spool.root / folder / os.fsdecode(name)
        if path.is_file() and not path.is_symlink():
            return path
    raise SpooldError(
        errors.DROP_MISSING,
        f"the drop of job {job.id} is not in processed/ or failed/ any more",
        hint=_DROP_IT_AGAIN,
    )


@contextmanager
def _copied(source: Path, temporary: Path, sha256: bytes | None) -> Iterator[None]:
    """A copy of a published drop, gone again at the end unless it was moved.

    Locked, so that intake sees that it is in use: of those that nobody has it removes.
    """
    digest = hashlib.sha256()
    try:
        with open(temporary, "xb") as writer:
            hand_over(temporary)
            fcntl.flock(writer, fcntl.LOCK_EX)
            for block in _blocks(source):
                writer.write(block)
                digest.update(block)
            writer.flush()
            os.fsync(writer.fileno())
            os.fchmod(writer.fileno(), own_mode(source.stat()))
            points.reached("again.copied")
            if sha256 not in {None, digest.digest()}:
                raise SpooldError(
                    errors.DROP_MISSING, f"{source} is another drop by now", hint=_DROP_IT_AGAIN
                )
            yield
    except OSError as error:
        where = os.fsdecode(error.filename or temporary)
        raise SpooldError(errors.disk_code(error), f"{where}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _blocks(source: Path) -> Iterator[bytes]:
    try:
        with open(source, "rb") as reader:
            while block := reader.read(_COPY_BYTES):
                yield block
    except OSError as error:
        raise SpooldError(errors.disk_code(error), f"{source}: {error.strerror}") from error
