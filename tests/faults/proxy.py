"""A door before the database that can be shut at any byte, or at a statement of one's choice."""

import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_CHUNK: Final = 65536
_SOCKET: Final = ".s.PGSQL.5432"


def beginnings(queries: Mapping[str, bytes]) -> dict[str, bytes]:
    """What each named statement begins with on the wire: all before its first parameter."""
    found = {name: sql.partition(b"%(")[0] for name, sql in queries.items()}
    return {name: beginning for name, beginning in found.items() if len(beginning) > 20}


@dataclass
class Fault:
    """What happens to the next connection that sends a certain text.

    `unanswered`: its transaction is committed, and the answer never comes. Otherwise the text
    itself never arrives. `then` is called first, while the connection is still held.
    """

    text: bytes
    unanswered: bool = False
    then: Callable[[], None] = lambda: None
    happened: threading.Event = field(default_factory=threading.Event)


class _CutError(Exception):
    pass


class Proxy:
    """Passes bytes between clients and one server, until something is to go wrong."""

    def __init__(self, server: str, folder: Path) -> None:
        parts = conninfo_to_dict(server)
        self._server = f"{parts['host']}/{_SOCKET}"
        self.conninfo = make_conninfo(server, host=str(folder))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / _SOCKET))
        self._listener.listen(64)
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._budget: Callable[[], int] | None = None
        self.shut = False
        """Whether all connections are closed, and new ones at once."""
        self.cuts = 0
        """How many connections were cut so far."""
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="proxy")
        self._accepting.start()

    def arm(self, fault: Fault) -> Fault:
        """Let this happen once."""
        with self._lock:
            self._fault = fault
        return fault

    def cut_each_after(self, budget: Callable[[], int] | None) -> None:
        """Cut each new connection after so many bytes, both ways together; None: no more."""
        self._budget = budget

    def close(self) -> None:
        """Cut everything and end."""
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), name="proxy connection")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server:
            if self.shut:
                return
            with suppress(OSError):  # no server, or one that has gone
                server.connect(self._server)
                try:
                    _Connection(self, client, server, self._budget).run()
                except _CutError:
                    self.cuts += 1

    def matching(self, data: bytes) -> Fault | None:
        """Take the armed fault if it is about this text."""
        with self._lock:
            fault = self._fault
            if fault is None or fault.text not in data:
                return None
            self._fault = None
            return fault

    @property
    def closing(self) -> bool:
        return self._closing


@dataclass
class _Connection:
    proxy: Proxy
    client: socket.socket
    server: socket.socket
    budget: Callable[[], int] | None
    in_block: bool = False
    fault: Fault | None = None

    def run(self) -> None:
        left = self.budget() if self.budget else None
        while True:
            readable, _, _ = select.select([self.client, self.server], [], [], 0.1)
            if self.proxy.closing or self.proxy.shut:
                return
            for side in readable:
                data = side.recv(_CHUNK)
                if not data:
                    return
                if left is not None:
                    data, left = data[:left], left - len(data)
                if side is self.client:
                    self._ask(data)
                elif self.fault is None or self.in_block:
                    self.client.sendall(data)
                else:  # committed, and nobody is told
                    self._cut(self.fault)
                if left is not None and left <= 0:
                    raise _CutError

    def _ask(self, data: bytes) -> None:
        if self.fault is None:
            self.fault = self.proxy.matching(data)
            if self.fault is not None:
                self.fault.then()
                if not self.fault.unanswered:
                    self._cut(self.fault)
        if b"BEGIN\0" in data:
            self.in_block = True
        elif b"COMMIT\0" in data or b"ROLLBACK\0" in data:
            self.in_block = False
        self.server.sendall(data)

    def _cut(self, fault: Fault) -> None:
        self.client.close()
        self.server.close()
        fault.happened.set()
        raise _CutError


@contextmanager
def proxy_to(server: str) -> Iterator[Proxy]:
    """A proxy to the server of a conninfo; a socket's path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="proxy-", dir="/tmp"))
    proxy = Proxy(server, folder)
    try:
        yield proxy
    finally:
        proxy.close()
        shutil.rmtree(folder)
