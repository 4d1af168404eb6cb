"""Whether a command, as configured, could run what a dropper chooses as a program. Pure.

Behind the name of a program that runs another one, or a text, an argument is taken for what is run
until plain ones have said what that is. So nothing has to be known of each program's options, and
what is not understood is refused.

Not guaranteed: anything about programs that are not named here, or that stand elsewhere than where
programs do; what a script does with its arguments.
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
    AWK = "the script after -f, or a text"
    SCRIPT = "a script, or a text in some way of its own"
    PROGRAM = "the program that its arguments name"
    ALL = "whatever it is given"


# A bare name, or a path where programs are: others are an operator's own folders and scripts.
_PROGRAM: Final = re.compile(r"(?:(?:\S*/)?(?:s?bin|shims)/+)?([^/]+)")
_BUILD: Final = r"[0-9.]*(?:-[\w.]+)*"  # -static, 3.11-dbg, 5.36-x86_64-linux-gnu
# Found wherever they stand.
_INTERPRETERS: Final = {
    _Runs.TEXT: re.compile(
        rf"(?:(?:ba|da|a|z|k|mk|lk|pdk|ya|rba|c|tc|po)?sh|busybox|toybox){_BUILD}"
    ),
    _Runs.PYTHON: re.compile(rf"(?:python(?:[0-9.]+[dt])?|pypy){_BUILD}"),
    _Runs.AWK: re.compile(rf"(?:[gmn]|original-)?awk{_BUILD}"),
    _Runs.SCRIPT: re.compile(
        r"(?:perl|ruby|node|nodejs|deno|bun|php|luajit|lua|tclsh|wish|expect|fish|pwsh"
        rf"|Rscript|julia|groovy|osascript){_BUILD}"
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

# Of Python's options, some that take no value.
_PYTHON_FLAGS: Final = re.compile("-[uBEsSIO]+")

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
    texts = ["".join(part for part in argument if isinstance(part, str)) for argument in command]
    for position, (argument, text) in enumerate(zip(command, texts, strict=True)):
        following = "".join(texts[position + 1 : position + 2])
        placeholders = [part for part in argument if isinstance(part, Placeholder)]
        chosen = next((part for part in placeholders if part.name not in _HARMLESS), None)
        if chosen is not None:
            if runs is not None:
                return Chosen(chosen, program)
        elif runs is not _Runs.ALL:
            is_program = position == 0 or runs is not None
            is_value = not is_program and _is_a_value(before, text, following)
            named = None if is_value else _named(text, is_program=is_program)
            if named is not None:
                program, runs, before = text, named, ""
                continue
            if runs is _Runs.PYTHON and _runs_its_arguments(before, text):
                runs = _Runs.ALL
            elif runs is not None and _says_what_is_run(runs, before, text, following):
                runs = None
        before = text
    return None


def _is_option(text: str) -> bool:
    return text.startswith(("-", "+")) and text != "--"


def _is_a_value(before: str, text: str, following: str) -> bool:
    """Whether it looks like an option's, not like a program with options of its own."""
    return _is_option(before) and not _is_option(text) and not _is_option(following)


def _named(text: str, *, is_program: bool) -> _Runs | None:
    """What a program of that name or path runs."""
    program = _PROGRAM.fullmatch(text)
    if program is None:
        return None
    known = [*_INTERPRETERS.items()]
    if is_program or text.startswith("/"):
        known += _RUNNERS.items()
    return next((runs for runs, names in known if names.fullmatch(program[1])), None)


def _runs_its_arguments(before: str, text: str) -> bool:
    """Whether that is Python's option for a module of that kind: in one argument or in two."""
    return any(_RUNNING_MODULE.fullmatch(option) for option in (text, f"{before} {text}"))


def _says_what_is_run(runs: _Runs, before: str, text: str, following: str) -> bool:
    if text.startswith(("-", "+")):
        return False
    if runs in _TEXT_FOLLOWS and _TEXT_FOLLOWS[runs].fullmatch(before):
        return True
    if not text.startswith("/"):
        return False
    if runs is _Runs.AWK and before == "-f":
        return not _is_option(following)  # it could be one for a further script
    if runs is _Runs.PYTHON and _PYTHON_FLAGS.fullmatch(before):
        return True
    return not _is_option(before)  # behind an option it may be that one's value
