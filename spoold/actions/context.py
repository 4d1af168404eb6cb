"""What an action is given and what it returns."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoold.actions.request import Envelope
from spoold.canonical import Document
from spoold.connections import NO_CONNECTIONS, Connections
from spoold.errors import Code, SpooldError
from spoold.handlers import NO_HANDLERS, Handlers
from spoold.publish import Made
from spoold.publish.plan import Name
from spoold.sinks.sink import SinkSettings
from spoold.sinks.tree import LinkPolicy
from spoold.status import Progress
from spoold.trust import Signer, Trust


@dataclass(frozen=True, slots=True)
class Quotas:
    """How large a bundle may be that is restored here. None: no limit."""

    max_bytes: int | None = None
    max_entries: int | None = None
    max_depth: int | None = None
    max_expansion: int | None = None


@dataclass(frozen=True, slots=True)
class ActionSettings:
    """What the configuration says that actions need. `threads` 0 means one a core."""

    connections: Connections = NO_CONNECTIONS
    sinks: Sequence[SinkSettings] = ()
    threads: int = 0
    min_free_bytes: int = 0
    threshold: int = 1  # how many different trusted keys must have signed a bundle
    quotas: Quotas = Quotas()
    links: LinkPolicy = LinkPolicy.INSIDE
    handlers: Handlers = NO_HANDLERS


class KeyHeldError(Exception):
    """Another, unfinished job has this job's key: this one waits for it."""

    def __init__(self, holder: uuid.UUID, key: bytes, content_sha256: bytes) -> None:
        super().__init__(f"held by {holder}")
        self.holder = holder
        self.key = key
        self.content_sha256 = content_sha256


class KeyDoneError(Exception):
    """A job that succeeded has this job's key: this one is its duplicate."""

    def __init__(self, job: uuid.UUID) -> None:
        super().__init__(f"done by {job}")
        self.job = job


class ResultError(SpooldError):
    """A failure that leaves something to tell: the status file's `result`."""

    def __init__(
        self,
        code: Code,
        message: str,
        result: Document,
        *,
        at: str | None = None,
        transient: bool | None = None,
    ) -> None:
        super().__init__(code, message, at=at, transient=transient)
        self.result = result


@dataclass(frozen=True, slots=True)
class Context:
    """One attempt: what is asked, its own scratch folder, and the few doors to the outside."""

    request: Document | None
    """The request's JSON; None where the drop is the content itself."""
    request_sha256: bytes | None
    digits: str
    """12 hex digits that are this job's own: its short id."""
    drop: Path
    scratch: Path
    settings: ActionSettings
    signer: Signer
    trust: Trust
    report: Callable[[Progress], None]
    take_key: Callable[[bytes, bytes], None]
    """Make this the one unfinished job with that key, a digest, for that content, another digest.

    Raises KeyHeldError or KeyDoneError."""
    drop_name: bytes = b""
    job_id: str = ""
    droppers: int | None = None
    """The group of those who may drop, whom results are made readable for."""
    require_place: Callable[[bytes, Name, bytes], None] = lambda key, name, content_sha256: None
    """That a job of that key and content can have that name beneath `restored/`.

    To be asked before anything is done outside of scratch. Raises bundle-id-taken or
    restored-exists; not where the key is done: then whoever takes it is a duplicate."""
    check: Callable[[], None] = lambda: None
    """To be called now and then by what acts outside of scratch; raises where it must not go on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt made: the status file's `result` and the files to publish."""

    result: Document
    made: Sequence[Made] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of job: the model of its requests, if it can be requested, and the work itself.

    `run` works in `context.scratch` only and raises SpooldError where the work cannot be done.
    """

    request: type[Envelope] | None
    run: Callable[[Context], Outcome]
    key_of: Callable[[Document], tuple[bytes, bytes] | None] = lambda result: None
    """From the result of a job that succeeded, what `take_key` was given; None: nothing."""
    check: Callable[[Any, Connections], None] = lambda request, connections: None
    """Whether what a request, of the model above, names is configured. Raises what `run` would."""
