"""Where a server answers: its socket's folder, and the file that tells other commands of it.

The socket stands beside the data where that path is short enough, else in a private temporary
folder. `.spoold/postgres/server.json` says where, with the password.
"""

import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from psycopg.conninfo import make_conninfo

from spoold import errors
from spoold.disk import write_durable
from spoold.errors import SpooldError
from spoold.postgres.binaries import User
from spoold.spool import Folder, Spool

USER: Final = "spoold"
DATABASE: Final = "postgres"
PORT: Final = "5432"  # only the name of the socket: there is no TCP
SOCKET: Final = f".s.PGSQL.{PORT}"

_SOCKET_PATH_BYTES: Final = 107  # sockaddr_un.sun_path without its NUL, unix(7)


@dataclass(frozen=True, slots=True)
class Address:
    """The address file, the folder beside the data, and the user of a server."""

    file: Path
    own: Path
    user: User | None

    def make_folder(self) -> Path:
        """A folder for the socket that only the server's user can enter, with a short path."""
        if _fits(self.own):
            self.own.mkdir(mode=0o700, exist_ok=True)
            if self.user:
                os.chown(self.own, self.user.uid, self.user.gid)
            return self.own
        recorded = self.recorded_folder()
        if recorded is not None and recorded != self.own and _is_private(recorded):
            return recorded
        for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108  # mkdtemp makes a private folder in it
            if parent and _fits(Path(parent, "spoold-12345678")) and os.access(parent, os.W_OK):
                return Path(tempfile.mkdtemp(prefix="spoold-", dir=parent))
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"no folder with a path short enough for a socket ({_SOCKET_PATH_BYTES} bytes)",
            hint="set XDG_RUNTIME_DIR or TMPDIR to a short path",
        )

    def recorded_folder(self) -> Path | None:
        """Where the address file says that the socket is."""
        try:
            return Path(json.loads(self.file.read_bytes())["host"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def present_folder(self) -> Path | None:
        """Where the socket of a running server stands, also after the spool was moved."""
        for folder in (self.own, self.recorded_folder()):
            if folder is not None and _fits(folder) and (folder / SOCKET).exists():
                return folder
        return None

    def write(self, folder: Path, data: Path, password: str) -> str:
        """Tell other commands where the server is; return the conninfo."""
        document = {
            "data": os.fsdecode(data),
            "host": os.fsdecode(folder),
            "password": password,
        }
        write_durable(self.file, json.dumps(document).encode(), mode=0o600)
        return _conninfo(document)

    def forget(self) -> None:
        """Remove the address, and the socket's folder where it is a temporary one."""
        recorded = self.recorded_folder()
        self.file.unlink(missing_ok=True)
        if recorded is not None and recorded != self.own and _is_private(recorded):
            with suppress(OSError):  # not empty: not only ours
                recorded.rmdir()


def read_conninfo(spool: Spool) -> str:
    """The conninfo of the server that a daemon runs for this spool. Raises database-away."""
    path = spool.require().folder(Folder.POSTGRES) / "server.json"
    try:
        return _conninfo(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise SpooldError(
            errors.DATABASE_AWAY, f"no daemon runs for {spool.root}", hint="start it: `spoold run`"
        ) from error
    except PermissionError as error:
        raise SpooldError(
            errors.DATABASE_AWAY,
            f"{path}: {error.strerror}",
            hint="run this as the daemon's user",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpooldError(errors.DATABASE_AWAY, f"{path} cannot be used: {error}") from error


def _conninfo(document: dict[str, str]) -> str:
    # Everything is said, so that no PG* variable of the environment can change it.
    return make_conninfo(
        host=document["host"],
        hostaddr="",
        port=PORT,
        user=USER,
        password=document["password"],
        dbname=DATABASE,
        sslmode="disable",
        gssencmode="disable",
        target_session_attrs="any",
        options="",
    )


def _fits(folder: Path) -> bool:
    # Both libpq and unix_socket_directories take lists, divided by commas.
    raw = os.fsencode(folder / SOCKET)
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return False
    return len(raw) <= _SOCKET_PATH_BYTES and text.isprintable() and not set(text) & set(",\"'\\ ")


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and stat.S_IMODE(status.st_mode) == 0o700
    )
