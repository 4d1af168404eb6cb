"""Source `mailbox`: each message of a mailbox that the operator has named, as a file."""

import os
from collections.abc import Iterator
from io import BytesIO
from mailbox import mbox
from typing import Literal

from spoold.bundle.entry import Kind, SourceEntry
from spoold.errors import SOURCE_MISSING, SpooldError
from spoold.sources.source import Gathering, Problem, SourceSpec


class MailboxSpec(SourceSpec):
    kind: Literal["mailbox"]
    box: str  # a key of [plugins.mailbox]


class MailboxSource:
    Spec, warnings = MailboxSpec, ()

    def __init__(self, path: str, label: str) -> None:
        self._path, self._label = path, label

    @classmethod
    def open(cls, spec: MailboxSpec, gathering: Gathering, label: str) -> "MailboxSource":
        path = str(gathering.connections.plugins.get("mailbox", {}).get(spec.box, ""))
        if not os.path.isfile(path):
            raise SpooldError(SOURCE_MISSING, f"there is no mailbox {spec.box}", at="box")
        return cls(path, label)

    def measure(self) -> int | None:
        return None  # nobody knows before it is read

    def entries(self, on_problem: Problem) -> Iterator[SourceEntry]:
        box, seconds = mbox(self._path, create=False), int(os.stat(self._path).st_mtime)
        try:
            for number, key in enumerate(box.iterkeys()):
                path, content = f"mail/{number:08}.eml".encode(), box.get_bytes(key)
                about = (path, Kind.FILE, 0o644, seconds * 10**9, 0, 0, self._label)
                yield SourceEntry(*about, len(content), None, "message/rfc822", BytesIO(content))
        finally:
            box.close()
