"""Action `command`: run a handler's tool on a drop, and make a result of what it left.

The handler is looked up by the name in the job's row: what is configured when it runs is what
counts. `{file}` is a copy of the drop under its own name, `{out}` an empty folder.

Crash: everything stands in scratch; an attempt that does not finish leaves nothing of that. What
the tool did elsewhere is its own affair: it may be run again.
"""

import hashlib
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from spoold import errors
from spoold.actions.context import Action, Context, Outcome, ResultError
from spoold.bundle.copying import write_all
from spoold.canonical import Document, Json, text
from spoold.errors import SpooldError
from spoold.handlers import Handler, Mode, arguments, process, results, schema
from spoold.handlers.process import Ended, Place, User
from spoold.publish import LOG_FILE
from spoold.sinks.remove import remove_tree
from spoold.status import Progress

NAME: Final = "command"

HANDLER: Final = "handler"
"""The key in a row's `request` that holds the handler's name."""

_COPY_BYTES: Final = 1024 * 1024
# Somebody outside ended it, or the kernel did for want of memory: the next attempt may do better.
_FROM_OUTSIDE: Final = frozenset(
    {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
)


def request(handler: Handler) -> Document:
    """What the row of a handler's job holds in the place of a request."""
    return {HANDLER: handler.name}


def key(handler: Handler, content_sha256: bytes) -> bytes:
    """The deduplication key of running a handler on a content."""
    name = handler.name.encode()
    return hashlib.sha256(b"handler-content\0" + name + b"\0" + content_sha256).digest()


def run(context: Context) -> Outcome:
    """Run the tool once; its output is `log` in scratch then, whatever became of it."""
    handler = _handler(context)
    place = context.scratch / "tool"
    place.mkdir(mode=0o700)
    file, out, temporary = _prepare(context, handler, place)
    command = _command(context, handler, file, out)
    context.report(Progress(NAME))
    log = context.scratch / LOG_FILE
    try:
        ended = process.run(handler, command, Place(temporary, log), context.check)
    finally:
        _put_in_order(context.scratch, place)
    _let_read(log, context.droppers)
    told = _told(handler, ended)
    _require_success(handler, ended, told)
    maker = _other_user(handler)
    try:
        found, made = results.collect(
            out,
            context.scratch,
            context.drop_name,
            handler.limits.result_bytes,
            context.droppers,
            maker.uid if maker else None,
        )
    except SpooldError as error:
        raise ResultError(error.code, error.message, told, at=error.at) from error
    remove_tree(place)
    return Outcome(
        result={**told, "files": found.shown(), "bytes": found.bytes},
        made=[made] if made else [],
        warnings=_warnings(handler, ended),
    )


def check(handler: Handler, drop: bytes, content: bytes) -> None:
    """Raise what a drop of this name and content would be rejected with."""
    if len(content) > handler.max_bytes:
        raise too_large(handler, len(content))
    values = dict.fromkeys(arguments.PLACEHOLDERS, b"/") | {arguments.NAME: drop}
    arguments.fill(handler.command, values, _document(handler, content))


def too_large(handler: Handler, size: int) -> SpooldError:
    """The refusal of a drop that is larger than its handler takes."""
    message = f"it has {size:,} bytes, handler {handler.name} takes {handler.max_bytes:,}"
    return SpooldError(errors.DROP_TOO_LARGE, message)


def _handler(context: Context) -> Handler:
    name = str((context.request or {}).get(HANDLER))
    handler = context.settings.handlers.named(name)
    if handler is None:
        raise SpooldError(errors.HANDLER_UNKNOWN, f"there is no handler {text(name)}")
    return handler


def _prepare(context: Context, handler: Handler, place: Path) -> tuple[Path, Path, Path]:
    """The copy of the drop, the folders for results and for the tool's own scratch."""
    inside, out, temporary = (place / name for name in ("in", "out", "tmp"))
    for folder in (inside, out, temporary):
        folder.mkdir(mode=0o700)
    file = inside / os.fsdecode(context.drop_name)
    with open(context.drop, "rb", buffering=0) as drop:
        if os.fstat(drop.fileno()).st_size > handler.max_bytes:  # it has become less meanwhile
            raise too_large(handler, os.fstat(drop.fileno()).st_size)
        copy = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        try:
            while block := drop.read(_COPY_BYTES):
                write_all(copy, block)
        finally:
            os.close(copy)
    if (user := _other_user(handler)) is not None:
        for path in (inside, out, temporary, file):
            os.chown(path, user.uid, user.gid)
        # Through, to what is the tool's own; but it cannot put anything in the place of that.
        for folder in (context.scratch, place):
            folder.chmod(0o711)
    return file, out, temporary


def _other_user(handler: Handler) -> User | None:
    """Whom a tool runs as, where that is another user: only root can start it so."""
    return process.other_user(handler) if os.geteuid() == 0 else None


def _command(context: Context, handler: Handler, file: Path, out: Path) -> list[bytes]:
    values = {
        arguments.FILE: os.fsencode(file),
        arguments.OUT: os.fsencode(out),
        arguments.JOB: context.job_id.encode(),
        arguments.NAME: context.drop_name,
    }
    document = _document(handler, file.read_bytes()) if handler.reads_json else None
    return arguments.fill(handler.command, values, document)


def _document(handler: Handler, content: bytes) -> object:
    if not handler.reads_json:
        return None
    document = schema.read(content)
    if handler.schema is not None:
        handler.schema.check(document)
    if handler.mode is Mode.STRUCTURED and not isinstance(document, dict):
        raise SpooldError(errors.DROP_NOT_JSON, "it is no object")
    return document


def _put_in_order(scratch: Path, place: Path) -> None:
    """Undo what a tool of our own user has done around its place: an answer needs that room."""
    with suppress(FileNotFoundError):  # gone altogether
        for folder in (scratch, place):
            folder.chmod(0o700)
        for name in os.listdir(scratch):
            if name not in {place.name, LOG_FILE}:
                remove_tree(scratch / name)


def _let_read(log: Path, group: int | None) -> None:
    """Whoever may drop may read what became of it."""
    if not log.is_file() or log.is_symlink():
        remove_tree(log)  # the tool has put something else in its place
        return
    if group is not None:
        try:
            os.chown(log, -1, group)
        except PermissionError:  # the daemon's user is not of the droppers' group
            return
    log.chmod(0o640)


def _told(handler: Handler, ended: Ended) -> dict[str, Json]:
    status = ended["status"]
    lines = ended["tail"].encode("utf-8", "surrogateescape").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return {
        HANDLER: handler.name,
        "exit_status": status if status >= 0 else None,
        "seconds": round(ended["seconds"]),
        "log_tail": [text(line) for line in lines],
    }


def _warnings(handler: Handler, ended: Ended) -> list[str]:
    if not ended["left_out"]:
        return []
    kept = f"{handler.limits.output_bytes:,}, output_bytes"
    return [
        f"{ended['left_out']:,} bytes of the tool's output are not in the log, which keeps {kept}"
    ]


def _require_success(handler: Handler, ended: Ended, told: Document) -> None:
    status, limits = ended["status"], handler.limits
    if ended["why"] == "timeout":
        message = f"handler {handler.name} was ended after its timeout, {handler.timeout_seconds} s"
        raise ResultError(errors.HANDLER_TIMEOUT, message, told)
    if ended["why"] == "processes":
        message = f"handler {handler.name} was ended: it had more than {limits.processes} processes"
        raise ResultError(errors.HANDLER_FAILED, message, told)
    if status in handler.success_codes:
        return
    if status >= 0:
        message = f"handler {handler.name} ended with exit status {status}"
        raise ResultError(
            errors.HANDLER_FAILED, message, told, transient=status in handler.retry_codes
        )
    number = signal.Signals(-status) if -status in set(signal.Signals) else None
    message = f"handler {handler.name} was ended by signal {number.name if number else -status}"
    transient = number in _FROM_OUTSIDE
    used_up = limits.cpu_seconds and ended["cpu_seconds"] >= limits.cpu_seconds
    if used_up or number is signal.SIGXCPU:
        message, transient = f"{message}: it had used its cpu_seconds, {limits.cpu_seconds}", False
    elif number is signal.SIGXFSZ:
        message = f"{message}: a file became larger than result_bytes, {limits.result_bytes:,}"
    raise ResultError(errors.HANDLER_FAILED, message, told, transient=transient)


ACTION = Action(None, run)
