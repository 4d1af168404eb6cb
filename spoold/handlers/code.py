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
    PYTHON = "the text after -c, the module after -m, or a script"
    SCRIPT = "a script, or a text in some way of its own"
    PROGRAM = "the program that its arguments name"
    ALL = "whatever it is given"


_BUILD: Final = r"[0-9.]*(?:-[\w.]+)*"  # -static, 3.11-dbg, 5.36-x86_64-linux-gnu
# Found wherever they stand.
_INTERPRETERS: Final = {
    _Runs.TEXT: re.compile(
        rf"(?:(?:ba|da|a|z|k|mk|lk|pdk|ya|rba|c|tc|po)?sh|busybox|toybox){_BUILD}"
    ),
    _Runs.PYTHON: re.compile(rf"(?:python(?:[0-9.]+[dt])?|pypy){_BUILD}"),
    _Runs.SCRIPT: re.compile(
        r"(?:perl|ruby|node|nodejs|deno|bun|php|luajit|lua|tclsh|wish|expect|fish|pwsh"
        rf"|(?:[gmn]|original-)?awk|Rscript|julia|groovy|osascript){_BUILD}"
        r"|-(?:exec|execdir|ok|okdir)"  # of find
    ),
    # They look for options behind their operands too: no path says what they run.
    _Runs.ALL: re.compile("runuser|g?sed|su"),
}
# Found where a program stands, or as a path: their names are words, too.
_RUNNERS: Final = {
    _Runs.PROGRAM: re.compile(
        "chrt|doas|env|find|ionice|ltrace|nice|nohup|nsenter|prlimit|setpriv|setsid|stdbuf"
        "|strace|sudo|systemd-run|taskset|time|timeout|unshare|xargs"
    ),
    _Runs.ALL: re.compile(
        "bwrap|chroot|flock|g?make|parallel|proot|rsh|screen|script|sg|ssh|tmux|vim?|watch"
    ),
}

# `-c` of a shell or Python, `-m` of Python: alone, or last of several letters of which none takes
# a value. (What stands behind the value is then an argument of what is run.)
_TEXT_FOLLOWS: Final = {
    _Runs.TEXT: re.compile("-[^-oO]*c"),
    _Runs.PYTHON: re.compile("-[^-WX]*[cm]"),
}
# But these modules run what they are given.
_RUNNING_MODULE: Final = re.compile(
    r"-[^-WX ]*m ?(?:IPython|code|coverage|cProfile|doctest|idlelib|pdb|pip|profile|pytest|runpy"
    r"|timeit|trace|unittest)(?:\.\S*)?"
)

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
            if runs is _Runs.PYTHON and _runs_its_arguments(before, text):
                runs = _Runs.ALL
            elif runs is not None and _says_what_is_run(runs, before, text):
                runs = None
        before = text
    return None


def _named(text: str, *, is_program: bool) -> _Runs | None:
    """What a program of that name or path runs."""
    name = text.rpartition("/")[2]
    known = [*_INTERPRETERS.items()]
    if is_program or text.startswith("/"):
        known += _RUNNERS.items()
    return next((runs for runs, names in known if names.fullmatch(name)), None)


def _runs_its_arguments(before: str, text: str) -> bool:
    """Whether that is Python's option for a module of that kind: in one argument or in two."""
    return any(_RUNNING_MODULE.fullmatch(option) for option in (text, f"{before} {text}"))


def _says_what_is_run(runs: _Runs, before: str, text: str) -> bool:
    if text.startswith(("-", "+")):
        return False
    if runs in _TEXT_FOLLOWS and _TEXT_FOLLOWS[runs].fullmatch(before):
        return True
    # Behind an option it may be that one's value.
    return text.startswith("/") and (before == "--" or not before.startswith(("-", "+")))
