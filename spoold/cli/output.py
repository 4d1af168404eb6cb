"""How commands print: tables and bars on a terminal, plain lines elsewhere, or one JSON document.

Results go to the standard output, everything else to the standard error. Whatever came from a
file name or a document of somebody else is shown with its control characters escaped.
"""

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from spoold import canonical, units
from spoold.errors import SpooldError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_PLAIN_INTERVAL_SECONDS = 10.0


def document(value: object) -> None:
    """Print one JSON document: indented for a terminal, on one line for a program."""
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    # DEL and C1 steer terminals; JSON lets them stand as they are, and takes them escaped too.
    text = re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)
    raw(text.encode("utf-8", "backslashreplace") + b"\n")


def raw(content: bytes) -> None:
    """Print bytes as they are."""
    click.echo(content, nl=False)


def line(text: str = "") -> None:
    """Print a line of the result."""
    raw(_safe(text) + b"\n")


def note(text: str) -> None:
    """Say something beside the result."""
    click.echo(_safe(text), err=True)


def error(failure: SpooldError, *, as_json: bool) -> None:
    """Tell what failed, on what, and the fix."""
    if as_json:
        document({"error": error_document(failure)})
        return
    label = click.style("error", fg="red", bold=True) if sys.stderr.isatty() else "error"
    # One mistake a line: the lines are ours, what stands in them may not be.
    first, *more = failure.message.split("\n")
    click.echo(f"{label}: {failure.code.name}: {canonical.text(first)}", err=True)
    for each in more:
        note(each)
    if failure.at is not None:
        note(f"  at: {failure.at}")
    note(f"  fix: {failure.hint}")


def error_document(failure: SpooldError) -> dict[str, canonical.Json]:
    """The `error` object, as status files have it, but with the lines of its message."""
    lines = [canonical.text(part) for part in failure.message.split("\n")]
    return {**canonical.error_document(failure), "message": "\n".join(lines)}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns."""
    cells = [[canonical.text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            shown.add_column(column, overflow="fold")
        for row in cells:
            shown.add_row(*(Text(cell) for cell in row))
        Console().print(shown)
        return
    cells.insert(0, list(columns))
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    for row in cells:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(pairs: Mapping[str, str | None]) -> None:
    """Print names with their values, one a line; what has no value is left out."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        if value:
            line(f"  {name.ljust(width)}  {value}")


class Progress:
    """How far something is, on the standard error: a bar on a terminal, else a line now and then.

    Use as a context manager; `quiet` prints nothing.
    """

    def __init__(self, label: str, *, quiet: bool = False) -> None:
        self._label = canonical.text(label)
        self._quiet = quiet
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._phase = ""
        self._told_at = 0.0

    def __enter__(self) -> "Progress":
        if not self._quiet and sys.stderr.isatty():
            self._start_bar()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, phase: str, done: int = 0, total: int | None = None) -> None:
        """Tell the phase, and the bytes done and in all, where there are any."""
        if self._bar is not None:
            shown = canonical.text(phase)
            self._bar.update(self._task, completed=done, total=total, phase=shown)
        elif not self._quiet:
            self._plain(phase, done, total)

    def _plain(self, phase: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._told_at < _PLAIN_INTERVAL_SECONDS:
            return
        self._phase, self._told_at = phase, now
        amount = ""
        if done or total:
            amount = f" {units.show_size(done)}" + (
                f" of {units.show_size(total)}" if total is not None else ""
            )
        note(f"{self._label}: {phase}{amount}")

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn(escape(self._label)),
            TextColumn("{task.fields[phase]}", markup=False),
            BarColumn(bar_width=30),
            DownloadColumn(binary_units=True),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, phase="")
        self._bar.start()


def _safe(text: str) -> bytes:
    return canonical.text(text).encode()
