"""What `doctor` checks: the tree, the configuration, the key, the database, the inbox, the space.

Each check says what it found and, where something is wrong, the fix. Checks only look; those that
must try (links, renames, leases, events) leave nothing behind.
"""

import enum
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from spoold import client, daemon_status, trust, trust_store, units
from spoold.config import Config
from spoold.errors import SpooldError
from spoold.file_systems import file_system_of
from spoold.handlers import NO_HANDLERS, Handlers
from spoold.handlers.arguments import plain
from spoold.handlers.process import environment, find_program
from spoold.handlers.reach import problems
from spoold.intake.names import DROPS, NameKind, classify
from spoold.intake.settings import WatchMode
from spoold.spool import Folder, Spool, faults
from spoold.status import show_name

if TYPE_CHECKING:
    from spoold.postgres.horizon import Holder

if TYPE_CHECKING:
    from spoold.intake.touch import Touched

_OLD_UPLOAD_SECONDS = 86400
_MAX_STRAYS_SHOWN = 20
_MIN_WATCHES = 128
# Our own transactions end after 5 minutes. Where only the number is known, as of a slot, this many.
_HELD_SECONDS = 600
_HELD_TRANSACTIONS = 1_000_000


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
        yield from _inbox(spool, None)
        return
    yield from _configuration(config)
    yield from _handlers(config)
    yield from _key(config)
    yield from _daemon(config)
    yield from _database(config)
    yield from _published(config)
    yield from _inbox(spool, config)
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


def _handlers(config: Config) -> Iterator[Finding]:
    """The programs; what is missing of them is a warning of the configuration already."""
    found = problems(config.handlers, config.spool)
    closed = {handler.name: (what, fix) for handler, what, fix in found}
    # Another user's doctor cannot know what the daemon may.
    ours = config.spool.root.stat().st_uid == os.geteuid()
    for handler in config.handlers:
        check = f"handler {handler.name}"
        program = find_program(
            plain(handler.command[0]) or "", environment(handler, config.spool.root, os.environ)
        )
        if handler.name in closed:
            what, fix = closed[handler.name]
            yield Finding(Level.FAIL if ours else Level.WARN, check, what, fix)
        elif program is not None:
            yield Finding(Level.OK, check, f"{handler.pattern.text}: {program}")


def _key(config: Config) -> Iterator[Finding]:
    try:
        signer = trust.load_signer(config.signing_key, config.site)
        keys = list(trust_store.load_trust(config.spool))
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


def _daemon(config: Config) -> Iterator[Finding]:
    answer = client.read_daemon(config.spool)
    if answer is None:
        yield Finding(Level.OK, "daemon", "none has run yet")
        return
    try:
        signer = trust.load_signer(config.signing_key, config.site)
        keys = trust_store.load_trust(config.spool, signer)
        document = keys.verify_document(answer.raw, daemon_status.TYPE, trust.Role.STATUS).document
    except SpooldError as error:
        detail = f"{answer.path}: {error.message}"
        fix = "remove the file, and find out who else writes to status/"
        yield Finding(Level.FAIL, "daemon", detail, fix)
        return
    state, since = document["state"], document["renewed_at"]
    if daemon_status.is_alive(document, datetime.now(UTC)):
        yield Finding(Level.OK, "daemon", f"{state}, process {document['pid']}, seen at {since}")
    elif state == daemon_status.DaemonState.STOPPED:
        yield Finding(Level.OK, "daemon", f"stopped at {since}")
    else:
        yield Finding(
            Level.WARN,
            "daemon",
            f"no sign of life since {since}",
            "start it again: it goes on by itself; its log says why it ended",
        )


def _database(config: Config) -> Iterator[Finding]:
    if config.database_url:
        yield from _external(config)
    else:
        yield from _embedded(config.spool)


def _external(config: Config) -> Iterator[Finding]:
    from spoold import postgres  # noqa: PLC0415  # the driver is only needed here
    from spoold.postgres import horizon  # noqa: PLC0415
    from spoold.queue import binding, migrate  # noqa: PLC0415
    from spoold.queue.database import Database  # noqa: PLC0415

    database = Database(config.database_url, "spoold doctor")
    try:
        try:
            postgres.check_external(database.connection)
            pooled = postgres.is_pooled(database.connection)
            held = horizon.holders(database.connection)
            binding.check_present(database, config.spool)
            if config.spool.identity().database is not None:  # else no daemon has been here yet
                migrate.require_current(database)
                binding.check(database, config.spool)
        finally:
            database.close()
    except SpooldError as error:
        yield Finding(Level.FAIL, "database", error.message, error.hint)
        return
    yield Finding(Level.OK, "database", f"{config.origins['database_url']} answers and is durable")
    if pooled:
        yield Finding(
            Level.WARN,
            "wakes",
            "a pooler stands before the database: no LISTEN, workers look for jobs every second",
            "let database_url name the server itself if that is too slow",
        )
    yield from held_rows(held)


def _embedded(spool: Spool) -> Iterator[Finding]:
    from spoold import postgres  # noqa: PLC0415  # the driver is only needed here
    from spoold.postgres import binaries, horizon  # noqa: PLC0415

    held: list[Holder] = []
    try:
        found = binaries.locate(None).major
    except SpooldError as error:
        yield Finding(Level.FAIL, "database", error.message, error.hint)
        return
    try:
        with postgres.connect(postgres.find(spool), "spoold doctor") as connection:
            held = horizon.holders(connection)
        state = "running"
    except SpooldError:
        state = "not running: `spoold run` starts it"
        try:
            # The daemon is another user's: root would look for its server elsewhere.
            ours = spool.root.stat().st_uid == os.geteuid()
            if ours and spool.identity().database is not None:
                postgres.check_startable(spool)
        except SpooldError as error:
            yield Finding(Level.FAIL, "database", error.message, error.hint)
            return
    yield Finding(Level.OK, "database", f"embedded PostgreSQL {found}, {state}")
    yield from held_rows(held)


def _published(config: Config) -> Iterator[Finding]:
    from spoold import postgres  # noqa: PLC0415  # the driver is only needed here
    from spoold.queue.database import Database  # noqa: PLC0415
    from spoold.queue.migrate import require_current  # noqa: PLC0415
    from spoold.queue.placed import Places  # noqa: PLC0415
    from spoold.queue.store import Store  # noqa: PLC0415
    from spoold.retention.strays import strays  # noqa: PLC0415

    with suppress(SpooldError, OSError):  # the checks of tree and database have said so
        conninfo = config.database_url or postgres.find(config.spool)
        store = Store(Database(conninfo, "spoold doctor"), config.spool.identity().spool)
        try:
            require_current(store.database)
            for found in strays(config.spool, Places(store)):
                some = ", ".join(found.some) + (", …" if found.count > len(found.some) else "")
                yield Finding(
                    Level.WARN,
                    "published",
                    f"{found.count:,} names in {found.folder}/ are not spoold's: {some}",
                    "move them away: `[retention]` never removes what spoold has not published",
                )
        finally:
            store.database.close()


def held_rows(holders: "list[Holder]") -> Iterator[Finding]:
    """Warn of those who keep dead rows from being removed, where it is long enough to matter."""
    for holder in holders:
        seconds = holder.seconds or 0.0
        if seconds > _HELD_SECONDS:
            since = f"for {seconds / 60:.0f} minutes"
        elif holder.transactions > _HELD_TRANSACTIONS:
            since = f"through {holder.transactions:,} transactions"
        else:
            continue
        yield Finding(
            Level.WARN,
            "vacuum",
            f"{holder} has kept dead rows from being removed {since}: claims become slower",
            holder.fix,
        )


def _inbox(spool: Spool, config: Config | None) -> Iterator[Finding]:
    from spoold.intake.touch import touch  # noqa: PLC0415  # these load watchdog
    from spoold.intake.watch import Watch  # noqa: PLC0415

    inbox = spool.folder(Folder.INBOX)
    raw = os.fsencode(inbox)
    watch = Watch(raw)
    try:
        kind = file_system_of(inbox)
        began = time.monotonic()
        names = sorted(os.listdir(raw))
        look_seconds = time.monotonic() - began
        by_hand = config is not None and config.intake.watch == "polling"
        events = not by_hand and watch.arm() is WatchMode.EVENTS
        watch.disarm()
        why = "[intake] watch says so" if by_hand else watch.why
        yield _watching(kind.name, events, why, f"{len(names):,} names take {look_seconds:.3f} s")
        yield from _inotify()
        yield from _abilities(touch(raw), believed=kind.leases)
    except OSError as error:
        yield Finding(
            Level.FAIL,
            "inbox",
            f"{inbox}: {error.strerror}",
            "mount it, or let the daemon's user in",
        )
        return
    yield from _strays(inbox, names, config.handlers if config else NO_HANDLERS)


def _watching(kind: str, events: bool, why: str, cost: str) -> Finding:
    if events:
        return Finding(Level.OK, "inbox", f"on {kind}, with events (tried); {cost} to list")
    return Finding(
        Level.WARN,
        "inbox",
        f"on {kind}, polled every second or more rarely: {why}; {cost} each time",
        "none is needed: drops are found by listing; an inbox on a local disk is faster",
    )


def _inotify() -> Iterator[Finding]:
    folder = Path("/proc/sys/fs/inotify")
    with suppress(OSError, ValueError):
        watches = int((folder / "max_user_watches").read_text())
        instances = int((folder / "max_user_instances").read_text())
        queued = int((folder / "max_queued_events").read_text())
        found = f"{watches:,} watches, {instances:,} instances a user, {queued:,} events wait"
        if watches < _MIN_WATCHES or instances < 2:
            yield Finding(
                Level.WARN,
                "inotify",
                found,
                "sysctl fs.inotify.max_user_watches=8192 fs.inotify.max_user_instances=128",
            )
        else:  # what does not fit into the queue is found by listing
            yield Finding(Level.OK, "inotify", found)


def _abilities(found: "Touched", *, believed: bool) -> Iterator[Finding]:
    """What was tried in the inbox, and what follows from it."""
    if found.leases or not believed:
        why = found.leases or "other hosts may write there unseen"
        yield Finding(
            Level.WARN,
            "leases",
            f"{why}: a file's writers cannot be seen, so drops must settle",
            "move files into the inbox instead of writing them there",
        )
    else:
        yield Finding(Level.OK, "leases", "a file's writers can be seen")
    if found.hard_links:
        yield Finding(
            Level.FAIL,
            "hard links",
            f"{found.hard_links}: final statuses cannot be linked into status/",
            "put the spool on ext4, XFS, btrfs or another file system with hard links",
        )
    else:
        yield Finding(Level.OK, "hard links", "work")
    if found.rename_no_replace:
        yield Finding(
            Level.WARN,
            "rename",
            f"no rename that never replaces ({found.rename_no_replace}): a hard link and an unlink "
            "do the same",
            "none is needed; ext4, XFS, btrfs and tmpfs have it",
        )
    else:
        yield Finding(Level.OK, "rename", "never replaces a file")
    if found.unnamed_files:
        detail = f"none ({found.unnamed_files}): what is restored has a name of ours until verified"
    else:
        detail = "work: what is restored has no name until verified"
    yield Finding(Level.OK, "unnamed files", detail)


def _strays(inbox: Path, names: list[bytes], handlers: Handlers) -> Iterator[Finding]:
    now = time.time()
    waiting, strays = 0, []
    for name in names:
        try:
            status = os.lstat(os.path.join(os.fsencode(inbox), name))
        except OSError:
            continue
        kind, shown = classify(name, handlers), show_name(name)[0]
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
