"""Whether a command, as configured, could run what a dropper chooses as a program. Pure.

Behind the name of a program that runs another one, or a text, an argument is taken for what is run
until plain ones have said what that is. So nothing has to be known of each program's options, and
what is not understood is refused.

Not guaranteed: anything about programs that are not named here, or what a script does with its
arguments.
"""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spoold.handlers.arguments import JOB, OUT, Argument, Placeholder


class _Runs(enum.Enum):
    TEXT = "the text after -c, or a script"
    SCRIPT = "a script, or a text in some way of its own"
    PROGRAM = "the program that its arguments name"
    ALL = "whatever it is given"


_SHELL: Final = re.compile(
    r"(?:(?:ba|da|a|z|k|mk|pdk|ya|rba|c|tc)?sh|busybox|toybox|python|pypy)[0-9.]*"
)
_INTERPRETER: Final = re.compile(
    r"(?:perl|ruby|node|nodejs|deno|bun|php|luajit|lua|tclsh|wish|expect|[gmn]?awk|fish|pwsh"
    r"|Rscript|julia|groovy|osascript)[0-9.]*"
    r"|-(?:exec|execdir|ok|okdir)"  # of find
)
_RUNNER: Final = re.compile(
    "chrt|doas|env|find|ionice|ltrace|nice|nohup|nsenter|prlimit|setpriv|setsid|stdbuf"
    "|strace|sudo|systemd-run|taskset|time|timeout|unshare|xargs"
)
_RUNS_ALL: Final = re.compile(
    "bwrap|chroot|flock|g?make|parallel|proot|rsh|screen|script|sg|ssh|tmux|vim?|watch"
)
# They look for options behind their operands too: no path says what they run.
_RUNS_LATER_OPTIONS: Final = re.compile("runuser|g?sed|su")

# `-c` of a shell or Python, `-m` of Python: alone, or last of several letters of which none takes
# a value. (What stands behind the value is then an argument of what is run.)
_TEXT_FOLLOWS: Final = re.compile(r"-[^-oOWX]*[cm]")

# These are spoold's own, without anything that a dropper has chosen.
_HARMLESS: Final = frozenset({OUT, JOB})


@dataclass(frozen=True, slots=True)
class Chosen:
    """A placeholder of a dropper's that could become a part of what a program runs."""

    placeholder: Placeholder
    program: str
    """Its name, as the command has it."""


def run_as_code(command: Sequence[Argument]) -> Chosen | None:
    """What a dropper could have run, if there is anything: the first of it."""
    program = before = ""
    runs: _Runs | None = None
    for position, argument in enumerate(command):
        placeholders = [part for part in argument if isinstance(part, Placeholder)]
        chosen = next((part for part in placeholders if part.name not in _HARMLESS), None)
        text = "".join(part for part in argument if isinstance(part, str))
        if chosen is not None:
            if runs is not None:
                return Chosen(chosen, program)
        elif runs is not _Runs.ALL:
            named = _named(text, is_program=position == 0 or runs is not None)
            if named is not None:
                program, runs, before = text, named, ""
                continue
            if runs is not None and _says_what_is_run(runs, before, text):
                runs = None
        before = text
    return None


def _named(text: str, *, is_program: bool) -> _Runs | None:
    """What a program of that name or path runs; interpreters are found wherever they stand."""
    name = text.rpartition("/")[2]
    if _SHELL.fullmatch(name):
        return _Runs.TEXT
    if _INTERPRETER.fullmatch(name):
        return _Runs.SCRIPT
    if _RUNS_LATER_OPTIONS.fullmatch(name):
        return _Runs.ALL
    if is_program or text.startswith("/"):
        if _RUNNER.fullmatch(name):
            return _Runs.PROGRAM
        if _RUNS_ALL.fullmatch(name):
            return _Runs.ALL
    return None


def _says_what_is_run(runs: _Runs, before: str, text: str) -> bool:
    if text.startswith(("-", "+")):
        return False
    if runs is _Runs.TEXT and _TEXT_FOLLOWS.fullmatch(before):
        return True
    # Behind an option it may be that one's value.
    return text.startswith("/") and (before == "--" or not before.startswith(("-", "+")))
