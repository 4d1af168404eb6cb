"""The command line: parse, call one function, print, exit status.

Commands load when they are called: a script that polls `spoold status` must not pay for the
database driver, cryptography or the terminal library.
"""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import click

from spoold import __version__, errors, points
from spoold.cli import output
from spoold.errors import Exit, SpooldError

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the help, and where the command is: "module:attribute" beneath this package."""

    name: str
    place: str
    summary: str


COMMANDS: Final = {
    "Set up": (
        _Entry("init", "site:init", "Make a spool: tree, signing key, configuration."),
        _Entry("keys", "keys:keys", "Show, make, trust and revoke keys."),
        _Entry("config", "site:show_config", "What is in force, and where each value came from."),
        _Entry("doctor", "site:doctor", "Check everything; each fault comes with its fix."),
        _Entry("adopt", "adopting:adopt", "Accept a spool that was moved or restored."),
        _Entry("selftest", "selftest:selftest", "Prove on your database that the fence holds."),
        _Entry("demo", "daemon:demo", "Two sites, a drop, a bundle, a restore: the whole loop."),
    ),
    "Run": (
        _Entry("run", "daemon:run", "Run the daemon: intake, workers, publishing."),
        _Entry("worker", "daemon:worker", "Run one worker process (the daemon starts its own)."),
    ),
    "Drops and jobs": (
        _Entry("sign", "signing:sign", "Sign a request: needs no spool, only a key."),
        _Entry("submit", "drops:submit", "Put a file into the inbox safely, and wait if asked."),
        _Entry("status", "drops:status", "How a drop, a job or the daemon fares; needs none."),
        _Entry("check", "requests:check", "Validate a request: no daemon, no database."),
        _Entry("jobs", "jobs:jobs", "List jobs; prune the rows of old ones."),
        _Entry("retry", "retrying:retry", "Run drops of finished jobs again, as new jobs."),
        _Entry("cancel", "jobs:cancel", "Stop a job."),
        _Entry("forget", "jobs:forget", "Let a bundle that was restored be restored again."),
    ),
    "Bundles": (
        _Entry("build", "requests:build", "Build a bundle from a request, without the queue."),
        _Entry(
            "inspect", "inspecting:inspect", "What a bundle says of itself; reads the head only."
        ),
        _Entry("verify", "verifying:verify", "Check a bundle, every byte of it."),
        _Entry("resign", "verifying:resign", "Add this site's signature to a bundle."),
        _Entry("restore", "restoring:restore", "Verify a bundle and restore its files."),
        _Entry("bundles", "bundles:bundles", "List, show, delete, pin, prune those of a spool."),
    ),
    "Other": (
        _Entry("schema", "schema:schema", "JSON Schemas of requests, statuses and manifests."),
        _Entry("completion", "schema:completion", "Print the completion script of a shell."),
    ),
}

_ENTRIES: Final = {entry.name: entry for entries in COMMANDS.values() for entry in entries}


class _Commands(click.Group):
    """The group of all commands: loads one when it is called, reports errors in one way."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(entry.name, entry.summary) for entry in entries])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # always: this method ends the process
        **extra: Any,
    ) -> NoReturn:
        """Run a command, print what went wrong, and exit."""
        args = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
        try:
            status = super().main(
                args, prog_name or "spoold", complete_var, standalone_mode=False, **extra
            )
        except click.ClickException as error:
            status = error.exit_code
            if as_json:
                _tell(SpooldError(errors.USAGE, error.format_message()), as_json=True)
            else:
                error.show()
        except SpooldError as error:
            status = error.code.exit_status
            _tell(error, as_json=as_json)
        except (click.Abort, KeyboardInterrupt):
            status = _INTERRUPTED
        except OSError as error:  # where no command knew better: still a sentence, not a traceback
            status = Exit.FAILED
            _tell(errors.of_os_error(error, errors.FIX_PATH), as_json=as_json)
        except Exception as error:  # noqa: BLE001  # a fault of ours: told as one, with its trace
            status = Exit.FAILED
            traceback.print_exc()
            _tell(SpooldError(errors.INTERNAL, f"{type(error).__name__}: {error}"), as_json=as_json)
        sys.exit(int(status or 0))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit status of every command:
  0 done · 1 failed · 2 usage · 3 not trusted · 4 rejected, invalid, not a bundle
  5 duplicate · 6 broken (verification failed) · 7 timed out waiting · 8 cancelled
  69 service away · 75 left for later · 78 bad configuration · 130 interrupted
""",
)
@click.version_option(__version__, prog_name="spoold")
def cli() -> None:
    """A folder as a durable, signed job system, and a link between networks that never touch.

    \b
    spoold init ./spool --site site-a
    spoold run ./spool
    cp request-demo.json ./spool/inbox/
    """


def main() -> NoReturn:
    """The entry point of the installed program."""
    _fill_standard_streams()
    points.arm(os.environ.get(points.VARIABLE))
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup(1) has it ignored
            signal.signal(number, _end)
    cli.main()


def _end(number: int, _frame: object) -> NoReturn:
    """End as on Ctrl-C: what a command has half made is removed on the way out."""
    sys.exit(128 + number)


def _tell(failure: SpooldError, *, as_json: bool) -> None:
    # Who does not listen any more still gets the exit status.
    with suppress(OSError):
        output.error(failure, as_json=as_json)


def _fill_standard_streams() -> None:
    """Open the null device where 0, 1 or 2 is closed: the next file opened would be taken for it.

    Otherwise a lock or a socket would stand there, and what is printed would go into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest free number is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has set to None those that it found closed.
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
