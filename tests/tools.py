"""Handlers for tests: their tools are small programs in Python, run as the worker runs them."""

import os
import sys
import textwrap
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoold.actions import command
from spoold.actions.context import ActionSettings, Context, Outcome
from spoold.handlers import Handler, Handlers, Mode, arguments
from spoold.handlers.patterns import Pattern
from spoold.status import Progress
from spoold.trust import Trust
from tests.bundles import signer

DROP = b"intent-1.json"
_SIGNER = signer("site-a")


def handler(*arguments_: str, structured: bool = False, **fields: Any) -> Handler:
    """A handler of `intent-*.json` with this command."""
    return Handler(
        name=fields.pop("name", "intent"),
        pattern=Pattern.parse(fields.pop("pattern", "intent-*.json")),
        command=tuple(arguments.parse(each, structured=structured) for each in arguments_),
        mode=Mode.STRUCTURED if structured else Mode.DIRECT,
        timeout_seconds=fields.pop("timeout_seconds", 30),
        **fields,
    )


def python(code: str, *more: str, **fields: Any) -> Handler:
    """A handler whose tool is this code; `sys.argv[1:]` are the file, the folder and the rest."""
    code = "import os, sys, time, signal\nfile, out, *rest = sys.argv[1:]\n" + textwrap.dedent(code)
    braced = code.replace("{", "{{").replace("}", "}}")
    return handler(sys.executable, "-I", "-S", "-c", braced, "{file}", "{out}", *more, **fields)


@dataclass
class Run:
    """One attempt at a handler's job, in a folder of its own."""

    folder: Path
    handler: Handler
    drop: bytes = DROP
    content: bytes = b"{}"
    check: Callable[[], None] = lambda: None

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def log(self) -> str:
        return (self.scratch / "log").read_text(errors="replace")

    def act(self) -> Outcome:
        self.scratch.mkdir(mode=0o700)
        claimed = self.folder / "claimed"
        claimed.write_bytes(self.content)
        return command.ACTION.run(
            Context(
                request=command.request(self.handler),
                request_sha256=None,
                digits="0" * 12,
                drop=claimed,
                scratch=self.scratch,
                settings=ActionSettings(handlers=Handlers(self.handler)),
                signer=_SIGNER,
                trust=Trust([]),
                report=_ignore,
                take_key=lambda key, content: None,
                drop_name=self.drop,
                job_id=str(uuid.UUID(int=7)),
                check=self.check,
            )
        )


def _ignore(progress: Progress) -> None:
    pass


def alive(process: int) -> bool:
    """Whether a process runs."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except FileNotFoundError:
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"


def root() -> bool:
    return os.geteuid() == 0
