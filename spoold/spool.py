"""The spool tree: its folders, its id, and what is wrong with it.

TREE is read twice: `Spool.create` makes what it says, `faults` compares the disk with it.
"""

import enum
import json
import os
import pwd
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spoold import errors
from spoold.disk import rename_new, write_durable
from spoold.errors import SpooldError
from spoold.file_systems import file_system_of
from spoold.ownership import hand_over


class Folder(enum.StrEnum):
    """A folder of the tree, by its path beneath the spool."""

    INBOX = "inbox"
    PROCESSED = "processed"
    FAILED = "failed"
    STATUS = "status"
    RESTORED = "restored"
    PRIVATE = ".spoold"
    CLAIMED = ".spoold/claimed"
    WORK = ".spoold/work"
    TRASH = ".spoold/trash"
    KEYS = ".spoold/keys"
    TRUST = ".spoold/trust"
    POSTGRES = ".spoold/postgres"


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree: where, with which mode, and what for."""

    folder: Folder
    mode: int
    purpose: str


TREE: Final = (
    Node(Folder.INBOX, 0o1730, "drops arrive here; droppers of the group write, but do not list"),
    Node(Folder.PROCESSED, 0o755, "drop, results and signed status of jobs that succeeded"),
    Node(Folder.FAILED, 0o755, "drop, log and signed status of jobs that did not"),
    Node(Folder.STATUS, 0o755, "<drop>.status.json of every drop: the path to poll"),
    Node(Folder.RESTORED, 0o755, "<site>/<bundle id>/: restored bundles"),
    Node(Folder.PRIVATE, 0o700, "spoold's own"),
    Node(Folder.CLAIMED, 0o700, "drops of unfinished jobs, <job id>.<name>"),
    Node(Folder.WORK, 0o700, "<job id>.<epoch>/: scratch of running attempts"),
    Node(Folder.TRASH, 0o700, "scratch on its way out"),
    Node(Folder.KEYS, 0o700, "this site's private keys"),
    Node(Folder.TRUST, 0o700, "keys of other sites"),
    Node(Folder.POSTGRES, 0o700, "the embedded server's locks, address and data"),
)

# Folders that files are renamed and linked between: they must be one file system.
_ONE_FILE_SYSTEM: Final = (
    Folder.CLAIMED,
    Folder.INBOX,
    Folder.PROCESSED,
    Folder.FAILED,
    Folder.STATUS,
    Folder.RESTORED,
    Folder.WORK,
    Folder.TRASH,
)


@dataclass(frozen=True, slots=True)
class Spool:
    """Paths of one spool. `root` is absolute."""

    root: Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "Spool":
        """The spool at a path, whether it exists or not."""
        return cls(Path(os.path.abspath(path)))

    def folder(self, folder: Folder) -> Path:
        """The absolute path of a folder of the tree."""
        return self.root / folder

    @property
    def intake_lock(self) -> Path:
        """The file whose flock makes an intake the spool's only one."""
        return self.root / ".spoold/intake.lock"

    @property
    def retention_lock(self) -> Path:
        """The file whose flock makes a process the only one that removes published files."""
        return self.root / ".spoold/retention.lock"

    @property
    def public_key(self) -> Path:
        """This site's public key, PEM."""
        return self.root / "site.pub"

    @property
    def identity_file(self) -> Path:
        """`spool.id`: this spool's id and that of its database."""
        return self.root / ".spoold/spool.id"

    def exists(self) -> bool:
        """Whether `init` has been here."""
        return self.identity_file.is_file()

    def require(self) -> "Spool":
        """Return self; raise `spool-missing` where `init` has not been, or what `closed` says."""
        try:
            if not self.exists():
                raise self._missing()
        except PermissionError as error:
            raise self.closed() from error
        return self

    def require_folders(self) -> "Spool":
        """The same for somebody who may not look into `.spoold`: what everybody sees is there."""
        if not all(self.folder(each).is_dir() for each in (Folder.INBOX, Folder.STATUS)):
            raise self._missing()
        return self

    def closed(self) -> SpooldError:
        """The refusal of what only the spool's owner, or root, can do."""
        hint = "run this as the spool's owner"
        with suppress(OSError):  # a folder above may be closed too: then nobody says whose it is
            uid = os.stat(self.root).st_uid
            try:
                owner = pwd.getpwuid(uid).pw_name
            except KeyError:
                owner = f"#{uid}"
            hint += f": sudo -u {owner} spoold …"
        what = f"{self.root}/.spoold is closed to this user"
        return SpooldError(errors.SPOOL_INVALID, what, hint=hint)

    def create(self) -> None:
        """Make what is missing of the tree, and its id. What is there keeps its mode."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for node in TREE:
                path = self.folder(node.folder)
                if not path.is_dir():
                    path.mkdir()
                    path.chmod(node.mode)  # mkdir heeds the umask and not every bit
        except OSError as error:
            raise SpooldError(
                errors.SPOOL_INVALID,
                f"{error.filename}: {error.strerror}",
                hint="init needs to write there: choose another place or another user",
            ) from error
        if not self.identity_file.exists():
            self._identify(uuid.uuid4(), None)

    def identity(self) -> "Identity":
        """Read `spool.id`."""
        try:
            document = json.loads(self.identity_file.read_bytes())
            database = document["database"]
            return Identity(uuid.UUID(document["spool"]), uuid.UUID(database) if database else None)
        except FileNotFoundError:
            self.require()
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise SpooldError(
                errors.SPOOL_INVALID, f"{self.identity_file} is damaged: {error}"
            ) from error

    def bind_database(self, database: uuid.UUID) -> None:
        """Record, durably, which database holds this spool's jobs."""
        self._identify(self.identity().spool, database)

    def forget_database(self) -> None:
        """Record that there is no database any more: the next one will be this spool's."""
        self._identify(self.identity().spool, None)

    def _missing(self) -> SpooldError:
        return SpooldError(
            errors.SPOOL_MISSING,
            f"{self.root} is no spool",
            hint=f"make it with `spoold init {self.root}`, or name another: --spool, "
            "SPOOLD_SPOOL, or ./spool",
        )

    def _identify(self, spool: uuid.UUID, database: uuid.UUID | None) -> None:
        write_durable(self.identity_file, _identity_bytes(spool, database), mode=0o600)
        hand_over(self.identity_file)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this spool is, and which database it belongs to (None: none yet)."""

    spool: uuid.UUID
    database: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a tree, and its fix."""

    path: Path
    what: str
    fix: str
    fatal: bool = True
    """Whether the daemon cannot work with it; otherwise it is only unwise."""


def faults(spool: Spool) -> Iterator[Fault]:
    """Compare the disk with TREE, and try a rename and a hard link between each pair of folders.

    Trying is the only proof: with bind mounts st_dev is equal and the rename fails all the same.
    """
    missing = False
    for node in TREE:
        path = spool.folder(node.folder)
        try:
            status = path.lstat()
        except OSError as error:
            missing = True
            yield Fault(path, f"{error.strerror}", f"spoold init {spool.root}")
            continue
        if not stat.S_ISDIR(status.st_mode):
            missing = True
            yield Fault(path, "is not a folder", f"move it away, then spoold init {spool.root}")
        elif what := _mode_fault(node, stat.S_IMODE(status.st_mode)):
            yield Fault(path, what, f"chmod {node.mode:04o} {path}", fatal=False)
        elif os.statvfs(path).f_flag & os.ST_RDONLY:
            missing = True
            yield Fault(
                path,
                "is on a file system that can only be read",
                "see the kernel's log for the reason, then mount -o remount,rw",
            )
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            missing = True
            ours = status.st_uid == os.geteuid()
            fix = f"chmod {node.mode:04o} {path}" if ours else "chown it to the daemon's user"
            yield Fault(path, "cannot be written by this user", fix)
    if missing:
        return
    if file_system_of(spool.root).network:
        yield Fault(spool.root, "is on a network file system", "put the spool on a local disk")
    for folder in _ONE_FILE_SYSTEM[1:]:
        yield from _crossing_fault(spool, _ONE_FILE_SYSTEM[0], folder)


def _mode_fault(node: Node, mode: int) -> str:
    if mode & ~node.mode & ~_may_pass(node.folder) & 0o777:
        return f"mode is {mode:04o}, wider than {node.mode:04o}"
    if node.mode & ~mode & stat.S_ISVTX and mode & 0o022:
        return (
            f"mode is {mode:04o}, without the sticky bit: who may write there may rename and "
            "remove what others have put there"
        )
    return ""


def _may_pass(folder: Folder) -> int:
    """Modes that are not too wide: tools of other users pass through to scratch of their own."""
    return 0o011 if folder in {Folder.PRIVATE, Folder.WORK} else 0


def _crossing_fault(spool: Spool, first: Folder, second: Folder) -> Iterator[Fault]:
    # Every folder is tried against `claimed/`, both ways: file systems and mounts are equivalence
    # classes, so all that reach it reach each other.
    name = f".probe.{os.getpid()}"
    here, there = spool.folder(first) / name, spool.folder(second) / name
    try:
        here.touch()
        os.link(here, there)
        there.unlink()
        rename_new(here, there)
        rename_new(there, here)
    except OSError as error:
        full = errors.disk_code(error) is errors.NO_SPACE
        fix = "the whole spool must be one file system and one mount: remove the mount or the link"
        yield Fault(
            spool.folder(second),
            f"no rename and hard link to and from {spool.folder(first)}: {error.strerror}",
            "make room: drops and jobs wait until there is some" if full else fix,
            fatal=not full,
        )
    finally:
        for path in (here, there):
            with suppress(OSError):
                path.unlink()


def _identity_bytes(spool: uuid.UUID, database: uuid.UUID | None) -> bytes:
    document = {"spool": str(spool), "database": str(database) if database else None}
    return (json.dumps(document) + "\n").encode()
