"""The status files that intake writes: `queued` before a claim, `waiting` while a drop is held.

One status file has one writer: intake writes for a name only while no row of an unfinished job has
it, and never again for a job once its row is inserted.

Crash: a `queued` or `waiting` status may stand for a job that never was; the next drop of that name
replaces it.
"""

import itertools
import json
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from spoold import errors
from spoold.canonical import Json
from spoold.disk import rename_over, replace_content, sync_folder
from spoold.errors import Code, SpooldError
from spoold.intake.claimed import Claimed
from spoold.intake.complete import Wait
from spoold.intake.settings import FoundBy, Method, Reason
from spoold.queue.job import Job, State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import WAITING, Host, Status, cut_name, status_name, true_name

_CODES: Final[Mapping[Reason, Code | None]] = {
    Reason.WRITER_OPEN: None,  # nothing is wrong yet
    Reason.UNREADABLE: errors.DROP_UNREADABLE,
    Reason.DATABASE_AWAY: errors.DATABASE_AWAY,
    Reason.SPACE: errors.NO_SPACE,
    Reason.DISK: errors.DISK_ERROR,
    Reason.RATE: errors.TOO_MANY_DROPS,
    Reason.TRUST_STORE: errors.KEY_UNUSABLE,
}

# Names that stand in JSON as they are.
_PLAIN_NAME: Final = re.compile(rb"[A-Za-z0-9_.+-]{1,200}")
_ANY_DROP: Final = b"request-any.json"
_ANY_JOB: Final = uuid.UUID(int=0)


@dataclass(frozen=True, slots=True)
class Told:
    """What a job's `queued` status keeps for the time before it has a row."""

    drop: bytes
    found_by: FoundBy
    method: Method


class Statuses:
    """Writes into `status/`. Not for two threads at once: there is one temporary file."""

    def __init__(self, spool: Spool, store: Store, host: Host) -> None:
        self._root = spool.root
        self._folder = os.fsencode(spool.folder(Folder.STATUS))
        # Text, not a Path: it is used for every drop of a burst.
        self._temporary = os.fspath(spool.folder(Folder.CLAIMED) / ".status.tmp")
        self._store = store
        self._host = host
        self._withdrawn: set[bytes] = set()
        self._templates: dict[tuple[Json, ...], tuple[bytes, bytes, bytes]] = {}

    def queued(self, claimed: Claimed, due: datetime | None = None) -> None:
        """Say that a drop is on its way into the queue: `queued`, or `scheduled` until it is due.

        Raises OSError.
        """
        drop, job_id, intake = claimed.drop, claimed.job_id, claimed.intake()
        if due is None:
            content = self._queued_content(drop, job_id, intake)
        else:
            status = Status(
                drop, State.SCHEDULED, job_id=job_id, next_attempt_at=due, intake=intake
            )
            content = status.live(self._host)
        # Of a claimed drop nothing else tells a name that was cut.
        self._write(drop, content, durable=cut_name(drop) != drop)

    def _queued_content(self, drop: bytes, job_id: uuid.UUID, intake: Mapping[str, Json]) -> bytes:
        # Thousands of these differ in name and id only, and canonical JSON takes its time.
        if _PLAIN_NAME.fullmatch(drop) is None:
            return Status(drop, State.QUEUED, job_id=job_id, intake=intake).live(self._host)
        kind = tuple(intake.values())
        template = self._templates.get(kind)
        if template is None:
            status = Status(_ANY_DROP, State.QUEUED, job_id=_ANY_JOB, intake=intake)
            content = status.live(self._host)
            before, _, rest = content.partition(b'"%s"' % _ANY_DROP)
            between, _, after = rest.partition(b'"%s"' % str(_ANY_JOB).encode())
            template = self._templates[kind] = (before, between, after)
        before, between, after = template
        return b'%s"%s"%s"%s"%s' % (before, drop, between, str(job_id).encode(), after)

    def waiting(
        self,
        drop: bytes,
        wait: Wait,
        job_id: uuid.UUID | None = None,
        intake: Mapping[str, Json] | None = None,
    ) -> None:
        """Say why a drop is held back. Raises OSError."""
        status = Status(drop, WAITING, reason=wait.reason.value, job_id=job_id, intake=intake)
        if code := wait.code or _CODES[wait.reason]:
            status = status.with_error(SpooldError(code, wait.message))
        self._write(drop, status.live(self._host))

    def may_be_of_a_job(self, drop: bytes) -> bool:
        """Whether the status on disk may be that of an unfinished job; asked without a database."""
        try:
            with open(self._path(drop), "rb") as file:
                document = json.load(file)
            return not document["final"] and document["state"] != WAITING
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError):
            return True

    def told(self, drop: bytes, job_id: uuid.UUID) -> "Told | None":
        """What the status file still tells of this very job; `drop` may be the cut name."""
        try:
            with open(self._path(drop), "rb") as file:
                document = json.load(file)
            if document["job_id"] != str(job_id):
                return None
            intake = document["intake"]
            return Told(true_name(document), FoundBy(intake["found_by"]), Method(intake["method"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def withdraw(self, drop: bytes) -> None:
        """Note that a drop is gone: what was said of it is to be taken back."""
        self._withdrawn.add(drop)

    def forget_withdrawals(self) -> None:
        """Note that nobody knows whether the withdrawn drops are gone: what was said stays."""
        self._withdrawn.clear()

    def finish_withdrawals(self, limit: int) -> bool:
        """Put the last final of withdrawn names back, or remove their status; whether some remain.

        Raises OSError, and database-away where the last final cannot be known now.
        """
        names = list(itertools.islice(self._withdrawn, limit))
        if names:
            newest = self._store.newest_of(names)
            for drop in names:
                if not self._is_final(drop):  # else a job of that name has ended meanwhile
                    self._restore(drop, newest.get(drop))
                self._withdrawn.discard(drop)
        return bool(self._withdrawn)

    def _is_final(self, drop: bytes) -> bool:
        try:
            with open(self._path(drop), "rb") as file:
                return bool(json.load(file)["final"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _restore(self, drop: bytes, job: Job | None) -> None:
        path = self._path(drop)
        if job is None or (job.state.final and job.final_document is None):
            with suppress(FileNotFoundError):
                os.unlink(path)
        elif (
            job.state.final  # an unfinished job's worker writes its status
            and job.final_document is not None
            and not self._link(path, job.final_document)
        ):
            self._write(drop, job.final_document)

    def _link(self, path: str, document: bytes) -> bool:
        """Link the final status that stands beside its drop, if it still does."""
        try:
            published = json.loads(document)["files"]["drop"]
            folder, _, name = published.rpartition("/")
            beside = os.path.join(os.fsencode(self._root / folder), status_name(os.fsencode(name)))
            with open(beside, "rb") as file:
                if file.read(len(document) + 1) != document:
                    return False
            with suppress(FileNotFoundError):
                os.unlink(self._temporary)
            os.link(beside, self._temporary, follow_symlinks=False)
            rename_over(self._temporary, path)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def _path(self, drop: bytes) -> str:
        return os.fsdecode(os.path.join(self._folder, status_name(drop)))

    def _write(self, drop: bytes, content: bytes, *, durable: bool = False) -> None:
        replace_content(self._path(drop), content, self._temporary, durable=durable)
        self._withdrawn.discard(drop)  # another drop of that name has come
        if durable:
            sync_folder(os.fsdecode(self._folder))
