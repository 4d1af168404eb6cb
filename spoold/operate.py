"""What an operator does to jobs from the command line: find one, cancel it."""

import os
import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from spoold import errors, points, postgres
from spoold.client import drop_names, read_status
from spoold.config import Config
from spoold.errors import SpooldError
from spoold.queue.binding import check
from spoold.queue.database import Database
from spoold.queue.job import Job
from spoold.queue.migrate import require_current
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import show_name


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


def find(store: Store, spool: Spool, text: str) -> Job:
    """The job of an id, of the last 12 digits of one, or the newest of a drop's name.

    A name may be given as status files show it, with `\\xNN`. Raises job-unknown, which says so
    where it is the name of a drop that is no job yet.
    """
    wanted = text.strip()
    try:
        job = store.get(uuid.UUID(wanted)) if len(wanted) == 36 else None
    except ValueError:
        job = None
    if job is None and len(wanted) == 12:
        found = store.find_short(wanted.lower())
        job = found[0] if len(found) == 1 else None
    names = drop_names(text)
    job = job or next((job for name in names if (job := store.find_name(name))), None)
    if job is None:
        for name in names:
            _refuse_unadmitted(spool, name)
        raise SpooldError(errors.JOB_UNKNOWN, f"there is no job {show_name(os.fsencode(text))[0]}")
    return job


def cancel(store: Store, spool: Spool, text: str) -> Job:
    """Cancel the job that a text names, as `find` has it; how it stood before.

    Raises job-unknown or job-state.
    """
    job = find(store, spool, text)
    if job.state.final and job.drop_name in drop_names(text):
        _refuse_unadmitted(spool, job.drop_name)  # it is the one in the inbox that is meant
    store.cancel(job.id)
    points.reached("cancel")
    return job


def _refuse_unadmitted(spool: Spool, name: bytes) -> None:
    """Raise job-unknown for a drop that waits in the inbox, or that intake has only just taken."""
    shown = show_name(name)[0]
    inbox = os.path.join(os.fsencode(spool.folder(Folder.INBOX)), name)
    if os.path.lexists(inbox):
        raise SpooldError(
            errors.JOB_UNKNOWN,
            f"{shown} waits in the inbox and is no job yet",
            hint=f"to withdraw it, remove the file: rm {shlex.quote(os.fsdecode(inbox))}",
        )
    answer = read_status(spool, name)
    if answer is not None and not answer.final:
        reason = answer.document.get("reason")
        raise SpooldError(
            errors.JOB_UNKNOWN,
            f"{shown} was taken out of the inbox and is no job yet: {answer.state}"
            + (f", {reason}" if reason else ""),
            hint="ask again when it is one; its status says what it waits for",
        )
