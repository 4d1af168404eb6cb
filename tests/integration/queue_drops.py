"""Admissions, workers and publications for tests of the queue."""

import hashlib
import itertools
import uuid
from dataclasses import replace

from spoold.queue.answers import Begun
from spoold.queue.job import Admission, Claim, Move, Publication, new_job_id
from spoold.queue.store import Store

_numbers = itertools.count()


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def drop(name: str | None = None, **changes: object) -> Admission:
    """An ordinary request; its digest is that of `request`, so that equal requests have one."""
    name = f"request-{next(_numbers)}.json" if name is None else name
    changes.setdefault("request", {"action": "bundle", "sources": []})
    admission = Admission(
        id=new_job_id(),
        drop_name=name.encode(),
        drop_sha256=digest(name),
        drop_bytes=100,
        intake={"found_by": "scan", "method": "moved"},
        action="bundle",
        request_sha256=digest(str(changes["request"])),
    )
    return replace(admission, **changes)  # type: ignore[arg-type]


def worker(store: Store) -> uuid.UUID:
    identity = uuid.uuid4()
    store.register_worker(identity, "place", 1, "1.0")
    return identity


def publication(claim: Claim, state: str = "succeeded", name: bytes | None = None) -> Publication:
    name = claim.job.drop_name if name is None else name
    move = Move("drop", f"work/{claim.id}.{claim.epoch}/drop", "processed", name, 1, 2, 3)
    return Publication(
        outcome={"state": state, "result": None, "error": None, "warnings": []},
        final_document=b"{}\n",
        sources=(move,),
        names=(("processed", name),),
    )


def begin_publishing(store: Store, claim: Claim, plan: Publication) -> Begun:
    """Of one job, as the next two are."""
    [begun] = store.begin_publishing([(claim, plan)])
    return begun


def amend_publishing(store: Store, claim: Claim, plan: Publication) -> Begun:
    [begun] = store.amend_publishing([(claim, plan)])
    return begun


def finish(store: Store, claim: Claim) -> bool:
    return claim.id in store.finish([claim], {})


def end(store: Store, claim: Claim, state: str = "succeeded") -> None:
    """Take a running claim through publishing to its end."""
    assert begin_publishing(store, claim, publication(claim, state)) is Begun.BEGUN
    assert finish(store, claim)
