"""Where one spool's server lives: its folder, its locks, its password, and the tree it is of.

Run by an ordinary user everything is in the spool's own `.spoold/postgres/`. Run by root, locks and
data are in /var/lib/spoold/<spool id>, which the server's user can reach wherever the spool is; the
folder itself stays root's (root opens files in it), only `data` and `socket` are the server's.

The locks are flock(2) on open files, so they end with their holders, whatever kills those:
`start.lock` is held while a server is started or stopped, `use.lock` shared by each daemon for as
long as it needs the server, `server.lock` by the server itself, which inherits it. The last says
truly whether a server lives, where a process id may have been given to somebody else since.
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spoold import errors
from spoold.disk import write_durable
from spoold.errors import SpooldError
from spoold.postgres.address import Address
from spoold.postgres.binaries import SYSTEM_FOLDER, User, server_user, user_of
from spoold.spool import Folder, Spool

COPY_HINT: Final = (
    "if this is the spool from now on, moved or restored from a backup, and no other is left: "
    "`spoold adopt`; README.md says how a copy becomes a spool of its own"
)

_START_LOCK: Final = "start.lock"
_LOCK_SECONDS: Final = 630.0  # longer than a start may take: it waits for crash recovery
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """Where a spool stands: what tells a moved tree from a copied one."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, spool: Spool) -> "Place":
        """The place of a spool on disk."""
        status = spool.root.stat()
        return cls(os.fsdecode(spool.root.resolve()), status.st_dev, status.st_ino)

    def is_tree_of(self, other: "Place") -> bool:
        """Whether both are one tree: moved, or mounted again under another device number."""
        return self.inode == other.inode and (
            self.device == other.device or self.path == other.path
        )


@dataclass(frozen=True, slots=True)
class Home:
    """The paths of one spool's server, and the user it runs as (None: this process's own)."""

    folder: Path
    address_file: Path
    user: User | None

    @classmethod
    def of(cls, spool: Spool) -> "Home":
        """The home of a spool's server, made if missing. Raises database-unfit, spool-missing."""
        identity = spool.identity()
        own = spool.folder(Folder.POSTGRES)
        address = own / "server.json"
        if os.geteuid() != 0:
            with disk_errors(own):
                own.mkdir(mode=0o700, exist_ok=True)
            home = cls(own, address, None)
        elif (own / "data").exists():
            owner = user_of(own / "data")
            raise SpooldError(
                errors.DATABASE_UNFIT,
                f"this spool's database belongs to {owner.name if owner else 'root'}",
                hint="run spoold as that user, or chown the whole spool to it",
            )
        else:
            home = cls(_system_home(identity.spool), address, server_user())
        if home.data.exists():
            home = cls(home.folder, address, user_of(home.data))
        return home

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    @property
    def password_file(self) -> Path:
        """The server's password, mode 0600."""
        return self.folder / "password"

    @property
    def address(self) -> Address:
        """Where the server answers."""
        return Address(self.address_file, self.folder / "socket", self.user)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Hold `start.lock`: nobody else starts or stops the server meanwhile."""
        descriptor = self._lock_start()
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock_start(self) -> int:
        while True:
            if self.folder.parent == SYSTEM_FOLDER:  # it may have been removed meanwhile
                _system_home(uuid.UUID(self.folder.name))
            descriptor = self._open(_START_LOCK)
            try:
                _wait_for(descriptor, fcntl.LOCK_EX, f"another process starts or stops {self.data}")
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), (self.folder / _START_LOCK).lstat()):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            # Whoever held it has removed it, with the server: by now others lock another file.
            os.close(descriptor)

    def use(self) -> int:
        """Take `use.lock` shared; the caller closes the descriptor when it needs no server."""
        descriptor = self._open("use.lock")
        try:
            _wait_for(descriptor, fcntl.LOCK_SH, f"another process stops {self.data}")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def in_use(self) -> bool:
        """Whether a daemon, or another command that needs the server, uses it."""
        descriptor = self._open("use.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def take_server_lock(self) -> int | None:
        """The descriptor for the server to inherit; None while a server of ours lives."""
        descriptor = self._open("server.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def server_lives(self) -> bool:
        """Whether a server of ours lives, starting and stopping included."""
        descriptor = self.take_server_lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def check_place(self, spool: Spool) -> None:
        """Refuse a copied spool before it can touch the original's server. Raises spool-foreign."""
        if refusal := self.foreign_place(spool):
            raise refusal

    def foreign_place(self, spool: Spool) -> SpooldError | None:
        """Why this tree is not the one that the server belongs to; None where it is."""
        recorded = self.recorded_place()
        if recorded is None or recorded.is_tree_of(Place.of(spool)):
            return None
        return SpooldError(
            errors.SPOOL_FOREIGN,
            f"{spool.root} is a copy: its database knows the spool at {recorded.path}",
            hint=COPY_HINT,
        )

    def check_data(self, spool: Spool) -> None:
        """Refuse to make a database anew for a spool that had one. Raises database-lost."""
        database = spool.identity().database
        if database is not None and not self.data.exists():
            raise SpooldError(
                errors.DATABASE_LOST,
                f"this spool's jobs are in database {database}, and {self.data} is not there",
            )

    def recorded_place(self) -> Place | None:
        """Where the tree stood when a daemon last started here."""
        path = self.folder / "place.json"
        try:
            return Place(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise SpooldError(errors.SPOOL_INVALID, f"{path} is damaged: {error}") from error

    def record_place(self, spool: Spool) -> None:
        """Note where the tree stands. What a copied tree says of the server is the original's."""
        here = Place.of(spool)
        if self.recorded_place() == here:
            return
        if self.foreign_place(spool):
            self.address_file.unlink(missing_ok=True)
        content = {"path": here.path, "device": here.device, "inode": here.inode}
        write_durable(self.folder / "place.json", json.dumps(content).encode(), mode=0o600)

    def write_address(self, sockets: Path) -> str:
        """Tell other commands where the server is; return the conninfo."""
        return self.address.write(sockets, self.data, self.password_file.read_text())

    def remove(self) -> None:
        """Delete everything of a server that does not live, the lock that is held last."""
        self.address.forget()
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _START_LOCK:
                path.unlink()
        (self.folder / _START_LOCK).unlink()
        if self.folder != self.address_file.parent:
            with contextlib.suppress(OSError):  # somebody has made the lock anew
                self.folder.rmdir()

    def _open(self, name: str) -> int:
        with disk_errors(self.folder):
            return os.open(
                self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say which folder of the server is full or closed to us, and what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if errors.disk_code(error) is errors.NO_SPACE:
            raise SpooldError(errors.NO_SPACE, f"no room for the database at {where}") from error
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"{where}: {error.strerror}",
            hint="the daemon's user must be able to write there",
        ) from error


def _system_home(spool: uuid.UUID) -> Path:
    folder = SYSTEM_FOLDER / str(spool)
    with disk_errors(folder):
        for path, mode in ((SYSTEM_FOLDER, 0o755), (folder, 0o711)):
            # No mode of a folder that is there is ever changed: it may be somebody's.
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                path.chmod(mode)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"{folder} is not a folder of root's",
            hint="move it away: root must not open files in a folder that others can change",
        )
    return folder


def _wait_for(descriptor: int, lock: int, why: str) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SpooldError(errors.DATABASE_AWAY, f"{why}, for too long") from None
            time.sleep(_POLL_SECONDS)
        else:
            return
