"""What `doctor` checks: the tree, the configuration, the key, the database, the inbox, the space.

Each check says what it found and, where something is wrong, the fix. Checks only look; the two that
must try (links and renames, leases) leave nothing behind.
"""

import enum
import fcntl
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spoold import trust, units
from spoold.config import Config
from spoold.errors import SpooldError
from spoold.file_systems import file_system_of
from spoold.intake.names import DROPS, NameKind, classify
from spoold.spool import Folder, Spool, faults
from spoold.status import show_name

_OLD_UPLOAD_SECONDS = 86400
_MAX_STRAYS_SHOWN = 20
_MIN_WATCHES = 128


class Level(enum.StrEnum):
    """How bad a finding is; only FAIL makes `doctor` fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    check: str
    detail: str
    fix: str = ""


def examine(spool: Spool, load: Callable[[], Config]) -> Iterator[Finding]:
    """Check a spool; `load` reads the configuration and may raise SpooldError."""
    try:
        spool.require()
    except SpooldError as error:
        yield Finding(Level.FAIL, "spool", error.message, error.hint)
        return
    except PermissionError:
        detail = f"{spool.folder(Folder.PRIVATE)} is closed to this user"
        yield Finding(Level.FAIL, "spool", detail, "run doctor as the daemon's user")
        return
    yield from _tree(spool)
    try:
        config = load()
    except SpooldError as error:
        yield Finding(Level.FAIL, "configuration", error.message, error.hint)
        yield from _inbox(spool)
        return
    yield from _configuration(config)
    yield from _key(config)
    yield from _database(config)
    yield from _inbox(spool)
    yield from _space(config)


def _tree(spool: Spool) -> Iterator[Finding]:
    found = False
    for fault in faults(spool):
        found = True
        yield Finding(Level.FAIL, "tree", f"{fault.path} {fault.what}", fault.fix)
    if not found:
        yield Finding(Level.OK, "tree", f"{spool.root} is complete and one file system")
    try:
        identity = spool.identity()
    except (SpooldError, OSError) as error:
        yield Finding(
            Level.FAIL,
            "identity",
            str(error),
            "restore .spoold/spool.id from a backup; without it the database refuses the spool",
        )
    else:
        yield Finding(Level.OK, "identity", f"spool {identity.spool}")


def _configuration(config: Config) -> Iterator[Finding]:
    where = str(config.path) if config.path else "no file: all defaults"
    yield Finding(Level.OK, "configuration", f"{where}, site {config.site}")
    for warning in config.warnings:
        yield Finding(Level.WARN, "configuration", warning)
    for name, path in config.roots.items():
        if not path.is_dir():
            yield Finding(
                Level.WARN,
                f"root {name}",
                f"{path} is no folder here, now",
                "mount it or make it before requests name it, or correct [roots]",
            )
        elif not os.access(path, os.R_OK | os.X_OK):
            yield Finding(
                Level.WARN,
                f"root {name}",
                f"{path} cannot be read",
                "let the daemon's user read it",
            )
        else:
            yield Finding(Level.OK, f"root {name}", str(path))


def _key(config: Config) -> Iterator[Finding]:
    try:
        signer = trust.load_signer(config.signing_key, config.site)
        keys = list(trust.load_trust(config.spool))
        shown = config.spool.public_key.read_bytes()
    except SpooldError as error:
        yield Finding(Level.FAIL, "keys", error.message, error.hint)
        return
    except OSError as error:
        yield Finding(
            Level.FAIL,
            "keys",
            f"{error.filename}: {error.strerror}",
            f"spoold init {config.spool.root}",
        )
        return
    if shown != trust.public_pem(signer.trusted().public):
        yield Finding(
            Level.FAIL,
            "keys",
            f"{config.spool.public_key} is not the public half of {config.signing_key}",
            f"spoold init {config.spool.root} writes it anew",
        )
        return
    live = sorted({key.site for key in keys if not key.revoked})
    trusted = f"trusts {', '.join(live)}" if live else "trusts no other site"
    yield Finding(
        Level.OK, "keys", f"signs with {signer.algorithm.value} {signer.key_id[:16]}, {trusted}"
    )


def _database(config: Config) -> Iterator[Finding]:
    if config.database_url:
        yield from _external(config)
    else:
        yield from _embedded(config.spool)


def _external(config: Config) -> Iterator[Finding]:
    from spoold import postgres  # noqa: PLC0415  # the driver is only needed here

    try:
        connection = postgres.connect(config.database_url, "spoold doctor")
        try:
            postgres.check_external(connection)
        finally:
            connection.close()
    except SpooldError as error:
        yield Finding(Level.FAIL, "database", error.message, error.hint)
        return
    yield Finding(Level.OK, "database", f"{config.origins['database_url']} answers and is durable")


def _embedded(spool: Spool) -> Iterator[Finding]:
    from spoold import postgres  # noqa: PLC0415  # the driver is only needed here
    from spoold.postgres import binaries  # noqa: PLC0415

    try:
        found = binaries.locate(None).major
    except SpooldError as error:
        yield Finding(Level.FAIL, "database", error.message, error.hint)
        return
    try:
        connection = postgres.connect(postgres.find(spool), "spoold doctor")
        connection.close()
        state = "running"
    except SpooldError:
        state = "not running: `spoold run` starts it"
    yield Finding(Level.OK, "database", f"embedded PostgreSQL {found}, {state}")


def _inbox(spool: Spool) -> Iterator[Finding]:
    inbox = spool.folder(Folder.INBOX)
    try:
        kind = file_system_of(inbox)
        names = sorted(os.listdir(os.fsencode(inbox)))
    except OSError as error:
        yield Finding(
            Level.FAIL,
            "inbox",
            f"{inbox}: {error.strerror}",
            "mount it, or let the daemon's user in",
        )
        return
    if kind.network:
        yield Finding(
            Level.WARN,
            "inbox",
            f"on {kind.name}: no events, it is polled",
            "a local disk is faster",
        )
    else:
        yield Finding(Level.OK, "inbox", f"on {kind.name}, with events")
    yield from _inotify()
    yield _leases(inbox)
    yield from _strays(inbox, names)


def _inotify() -> Iterator[Finding]:
    folder = Path("/proc/sys/fs/inotify")
    with suppress(OSError, ValueError):
        watches = int((folder / "max_user_watches").read_text())
        instances = int((folder / "max_user_instances").read_text())
        if watches < _MIN_WATCHES or instances < 2:
            yield Finding(
                Level.WARN,
                "inotify",
                f"{watches} watches, {instances} instances a user",
                "sysctl fs.inotify.max_user_watches=8192 fs.inotify.max_user_instances=128",
            )
        else:
            yield Finding(Level.OK, "inotify", f"{watches} watches, {instances} instances a user")


def _leases(inbox: Path) -> Finding:
    """Ask the kernel for a read lease on a file of our own: fcntl(2), F_SETLEASE."""
    # Whoever opens the file while the lease is held makes the kernel send SIGIO, which kills.
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    probe = inbox / f".probe.{os.getpid()}.tmp"
    try:
        descriptor = os.open(probe, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Finding(
            Level.WARN,
            "leases",
            f"{error.strerror}: a file's writers cannot be seen, so drops must settle",
            "move files into the inbox instead of writing them there",
        )
    finally:
        with suppress(OSError):
            probe.unlink()
        signal.signal(signal.SIGIO, before)
    return Finding(Level.OK, "leases", "a file's writers can be seen")


def _strays(inbox: Path, names: list[bytes]) -> Iterator[Finding]:
    now = time.time()
    waiting, strays = 0, []
    for name in names:
        try:
            status = os.lstat(os.path.join(os.fsencode(inbox), name))
        except OSError:
            continue
        kind, shown = classify(name), show_name(name)[0]
        if kind is NameKind.UNFINISHED:
            if now - status.st_mtime > _OLD_UPLOAD_SECONDS:
                strays.append(f"{shown}: an upload that has not gone on for a day")
        elif kind not in DROPS:
            why = "could pass for an answer" if kind is NameKind.RESERVED else "no drop's name"
            strays.append(f"{shown}: {why}")
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            waiting += 1
        else:
            strays.append(f"{shown}: no regular file")
    for stray in strays[:_MAX_STRAYS_SHOWN]:
        yield Finding(Level.WARN, "stray", stray, "remove it, or rename it to a drop's name")
    if len(strays) > _MAX_STRAYS_SHOWN:
        yield Finding(Level.WARN, "stray", f"and {len(strays) - _MAX_STRAYS_SHOWN} more")
    yield Finding(Level.OK, "drops", f"{waiting} in the inbox, {len(strays)} strays")


def _space(config: Config) -> Iterator[Finding]:
    usage = shutil.disk_usage(config.spool.root)
    free, floor = units.show_size(usage.free), units.show_size(config.intake.min_free_bytes)
    if usage.free < config.intake.min_free_bytes:
        yield Finding(
            Level.FAIL,
            "space",
            f"{free} free, less than the {floor} of [intake] min_free_bytes: drops wait",
            "free some space, or lower min_free_bytes",
        )
    else:
        yield Finding(Level.OK, "space", f"{free} free")
    files = os.statvfs(config.spool.root)
    if files.f_files and files.f_favail < files.f_files // 100:
        yield Finding(
            Level.WARN, "space", "less than 1 % of the inodes are free", "remove small files"
        )
