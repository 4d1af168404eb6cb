"""Points between durable steps, where a test can stop a process as a power cut would: for good.

In production nothing is armed and `reached` is one comparison. A test arms a process through its
environment, `SPOOLD_STOP_AT=publish.4` or, for the third time the point is reached,
`SPOOLD_STOP_AT=publish.4:3`. `SPOOLD_STOP_AT=publish.4:1:SIGSTOP` only stops it, to be woken when
its lease is over. POINTS is the list that such a test goes through, in the order of a
job's life. Where jobs go through a step together, it is reached for each of them.
"""

import os
import signal
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "SPOOLD_STOP_AT"

POINTS: Final[Mapping[str, str]] = {
    # intake
    "admit.a": "the `queued` status is written, the drop still in the inbox",
    "admit.b": "the drop is in claimed/",
    "admit.c": "it has no writer any more and is checked",
    "admit.d": "our own copies are written beside the claimed drops",
    "admit.e.contents": "contents are synced, the copies still beside",
    "admit.e.named": "the copies have replaced the drops, folders not synced",
    "admit.e": "contents and names are synced",
    "admit.f": "the rows are committed",
    "adopt": "a claimed file without a row is found and held, nothing changed yet",
    # a worker's attempt
    "claim": "the row is under a lease, nothing on disk yet",
    "trash": "a scratch folder of before is in trash/, not removed",
    "take_over": "the scratch folder of a recorded publication has the new epoch",
    "scratch": "older scratch is gone or taken over, the new folder made",
    "own": "a copy has replaced a drop that has other names, the folder not synced",
    "key": "the content's key is the row's",
    "sink.applied": "rows are committed in a sink's database, the job not final",
    "act": "the action has made its results in scratch",
    "live": "a live status has replaced the one before it",
    "progress": "how far it is stands in the row",
    "release": "the job is queued again, the attempt not counted",
    "retry": "the next attempt is scheduled in the row",
    "postpone": "the attempt is scheduled in the row again, not counted",
    "wait_for": "the job waits in its row for the one that has its key",
    # publishing
    "publish.1": "the final status is signed, everything in scratch synced",
    "publish.2": "outcome, document and names are committed",
    "publish.taken-back": "a foreign file has its name: what had moved is in scratch again",
    "publish.renamed": "other names are committed",
    "publish.3": "the results have their names",
    "publish.4": "the drop has its name, folders not synced",
    "publish.4.synced": "the folders of results and drop are synced",
    "publish.5": "the status has its name beside the drop, the folder not synced",
    "publish.5.synced": "the folder is synced",
    "publish.6.linked": "its hard link stands in scratch",
    "publish.6": "the link has its name under status/, the folder not synced",
    "publish.6.synced": "the folder is synced",
    "publish.7": "the row is final, scratch not removed",
    "defer": "what stands in the way is in the row, the publication nobody's for a while",
    # retention
    "retain.renamed": "a published file is in trash/, its folder not synced",
    "retain.synced": "the folders are synced, the rows still have the names",
    "retain.given-up": "the names are given up, the trash not emptied",
    "retain.rows": "names whose files are gone are given up, the jobs' rows still there",
    # maintenance and operators
    "disown": "what a dead worker had claimed and not begun is given back",
    "leave": "a dead worker's row is deleted, its jobs not taken back",
    "rescue": "running jobs of dead workers are taken back",
    "rescue.publishing": "jobs being published by dead workers are nobody's",
    "promote": "what is due is queued",
    "cancel": "the row says cancelled, the worker not stopped",
    "again.copied": "a retried job's copy is written beside its place in claimed/",
    "again.named": "the copy is in claimed/, the folder synced, no row yet",
    "again": "the new row is committed",
}
"""Every point, with what has just happened."""

_armed: str | None = None
_left = 0
_signal = signal.SIGKILL


def arm(where: str | None) -> None:
    """Stop this process at a point, `NAME[:COUNT[:SIGNAL]]`; None arms nothing."""
    global _armed, _left, _signal
    if not where:
        return
    name, count, how = (*where.split(":"), "", "")[:3]
    assert name in POINTS, name
    _armed, _left, _signal = name, int(count or 1), signal.Signals[how or "SIGKILL"]


def reached(name: str) -> None:
    """Say that a point is reached; stops the process where it is the armed one."""
    if _armed is None or _armed != name:
        return
    global _left  # noqa: PLW0603  # one process, one end
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), _signal)
