"""Logging: one event, one line, in three forms."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from spoold import log

_HOSTILE = "a\nlevel=error\x1b[2J\x9b\udce4\u2028"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(format_: str, level: str = "info") -> list[str]:
    stream = io.StringIO()
    log.configure(level, format_, stream)
    logger = structlog.get_logger()
    logger.debug("unseen")
    logger.info("job.finished", job="0199", attempt=1, drop=_HOSTILE, raw=b"\xff", nothing=None)
    return stream.getvalue().splitlines(keepends=True)


@pytest.mark.parametrize("format_", ["json", "journal", "text", "auto"])
def test_an_event_is_one_line_whatever_it_holds(format_: str) -> None:
    stream = io.StringIO()
    log.configure("info", format_, stream)
    structlog.get_logger().info("job.finished", drop=_HOSTILE)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert not set(text) & {"\x1b", "\x9b", "\udce4"}


def test_json_lines_have_their_fields() -> None:
    [line] = lines("json")
    event = json.loads(line)
    assert (event["event"], event["level"], event["attempt"]) == ("job.finished", "info", 1)
    assert event["raw"] == "\\xff"
    assert event["drop"].startswith("a\nlevel=error")
    assert event["time"].endswith("Z")


def test_journal_lines_begin_with_their_priority() -> None:
    [line] = lines("journal")
    assert line.startswith('<6>job.finished job=0199 attempt=1 drop="a\\nlevel=error')
    assert "nothing=-" in line


def test_debug_is_written_when_asked_for() -> None:
    assert len(lines("json", "debug")) == 2


def test_auto_is_json_where_nobody_watches() -> None:
    assert json.loads(lines("auto")[0])["event"] == "job.finished"


def test_an_exception_keeps_its_traceback() -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)
    try:
        raise ValueError("odd")
    except ValueError:
        structlog.get_logger().exception("intake.failed")
    assert "ValueError: odd" in json.loads(stream.getvalue())["exception"]


def test_what_libraries_log_arrives_as_an_event() -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)
    logging.getLogger("watchdog").warning("lost %s", "it")
    logging.getLogger("watchdog").info("not this")
    event = json.loads(stream.getvalue())
    assert (event["event"], event["name"], event["message"]) == ("library", "watchdog", "lost it")


def test_a_closed_log_stops_nothing() -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)
    stream.close()
    structlog.get_logger().info("job.finished")
