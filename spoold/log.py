"""Log events: one line each, to the standard error, in the form its reader wants.

Modules call `structlog.get_logger()` and log a fixed event name with fields ("job.finished",
job=…, attempt=…). `configure` decides once, in the command, how that looks: text for a person at
a terminal, `<priority>name key=value` where the journal reads (sd-daemon(3)), JSON lines elsewhere.

Guarantees: one event is one line and one write, whatever its fields hold, so that lines of several
processes do not mix and content cannot forge a line. A log that cannot be written stops nothing.
"""

import enum
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock
from typing import Final, TextIO, assert_never

import structlog
from structlog.typing import WrappedLogger


class Level(enum.StrEnum):
    """The least important event that is still written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(enum.StrEnum):
    """How an event looks. AUTO chooses by what the standard error is."""

    AUTO = "auto"
    TEXT = "text"
    JOURNAL = "journal"
    JSON = "json"


# sd-daemon(3): the journal takes a line's priority from a prefix.
_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_COLOUR: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}
# Undecodable bytes of file names arrive as lone surrogates; DEL and C1 steer terminals; some
# readers break lines at U+2028 and U+2029.
_UNPRINTED: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLAIN: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/+-@,~%"
)


def configure(
    level: Level | str = Level.INFO,
    format: Format | str = Format.AUTO,  # noqa: A002  # the configuration's own word
    stream: TextIO | None = None,
) -> None:
    """Set up structlog, and route what libraries log the standard way through it.

    `stream` is the standard error unless given. Calling it again replaces the earlier set-up.
    """
    target = sys.stderr if stream is None else stream
    least = logging.getLevelNamesMapping()[Level(level).value.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _Renderer(_chosen(Format(format), target), target.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=_Lines(target),
        cache_logger_on_first_use=False,
    )
    # Libraries get a say from "warning" up: their debug lines are not events of ours.
    logging.basicConfig(
        handlers=[_Forward()], level=max(least, logging.WARNING), force=True, format="%(message)s"
    )
    logging.captureWarnings(True)


def _chosen(format_: Format, stream: TextIO) -> Format:
    if format_ is not Format.AUTO:
        return format_
    if stream.isatty():
        return Format.TEXT
    return Format.JOURNAL if _is_journal(stream) else Format.JSON


def _is_journal(stream: TextIO) -> bool:
    # systemd.exec(5): JOURNAL_STREAM holds device:inode of the stream that it reads.
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Lines:
    """A logger factory, and its one logger: every level writes the rendered line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def __call__(self, *_: object) -> "_Lines":
        return self

    def _write(self, line: str) -> None:
        # A closed terminal, a full disk: the work goes on without its log.
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    msg = debug = info = warning = error = critical = exception = _write


class _Renderer:
    """The last processor: an event's fields become its line."""

    def __init__(self, format_: Format, colour: bool) -> None:
        self._format = format_
        self._colour = colour

    def __call__(self, _: WrappedLogger, __: str, event: MutableMapping[str, object]) -> str:
        level = str(event.pop("level", "info"))
        name = str(event.pop("event", ""))
        match self._format:
            case Format.JSON:
                document = {"time": _now(), "level": level, "event": name, **event}
                line = json.dumps(document, default=_jsonable, ensure_ascii=False)
                return _UNPRINTED.sub(_json_escape, line)
            case Format.JOURNAL:
                return f"<{_PRIORITY.get(level, 6)}>{_fields(name, event)}"
            case Format.TEXT | Format.AUTO:
                shown = f"{level:7}"
                if self._colour:
                    shown = f"\x1b[{_COLOUR.get(level, '0')}m{shown}\x1b[0m"
                return f"{datetime.now().astimezone():%H:%M:%S.%f}"[:-3] + (
                    f" {shown} {_fields(name, event, traceback_below=True)}"
                )
            case _:
                assert_never(self._format)


class _Forward(logging.Handler):
    """What libraries log becomes the event "library" with its text as a field."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger()
        level = record.levelname.lower()
        write = {"warning": logger.warning, "error": logger.error, "critical": logger.critical}.get(
            level, logger.info
        )
        write("library", name=record.name, message=record.getMessage(), exc_info=record.exc_info)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(name: str, event: Mapping[str, object], *, traceback_below: bool = False) -> str:
    below = ""
    parts = [name]
    for key, value in event.items():
        if traceback_below and key in {"exception", "stack"}:
            shown = str(value).encode("utf-8", "backslashreplace").decode()
            below += f"\n{shown}"
        else:
            parts.append(f"{key}={_value(value)}")
    return " ".join(parts) + below


def _value(value: object) -> str:
    if value is None:
        return "-"
    shown = value if isinstance(value, str) else str(_jsonable(value))
    # json escapes quotes and C0 only; DEL, C1 and line separators would reach the terminal.
    return shown if shown and _PLAIN.issuperset(shown) else _escaped(shown)


def _escaped(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in quoted
    )


def _json_escape(match: re.Match[str]) -> str:
    # A lone surrogate has no JSON form that every parser takes: the byte it stands for is shown.
    point = ord(match[0])
    return f"\\\\x{point & 0xFF:02x}" if 0xD800 <= point <= 0xDFFF else f"\\u{point:04x}"


def _jsonable(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return str(value)
