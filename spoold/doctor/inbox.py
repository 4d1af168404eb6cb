"""The inbox: whether events come, what its file system can do, and which names are no drops'."""

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from spoold.config import Config
from spoold.doctor.finding import Finding, Level
from spoold.file_systems import file_system_of
from spoold.handlers import NO_HANDLERS, Handlers
from spoold.intake.names import DROPS, NameKind, classify
from spoold.intake.settings import WatchMode
from spoold.intake.touch import Touched, touch
from spoold.intake.watch import Watch
from spoold.spool import Folder, Spool
from spoold.status import show_name

_OLD_UPLOAD_SECONDS = 86400
_MAX_STRAYS_SHOWN = 20
_MIN_WATCHES = 128
_CAP_LEASE = 28  # linux/capability.h


def examine_inbox(spool: Spool, config: Config | None) -> Iterator[Finding]:
    """What the inbox is on, what works there, and what stands in it; `config` None: not valid."""
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
        found = touch(raw)
        if config is not None and config.intake.writer_check == "settle":
            yield Finding(
                Level.OK, "leases", "not asked for: [intake] writer_check says so; drops settle"
            )
        else:
            yield _leases(spool, found.leases, believed=kind.leases)
        yield from _abilities(found)
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


def _leases(spool: Spool, refused: str, *, believed: bool) -> Finding:
    """Whose files' writers can be seen.

    `refused`: why the kernel refused a lease on a file of this user's; empty where it gave one.
    """
    fix = "move files into the inbox instead of writing them there"
    if refused or not believed:
        why = refused or "other hosts may write there unseen"
        detail = f"{why}: a file's writers cannot be seen, so drops must settle"
        return Finding(Level.WARN, "leases", detail, fix)
    seen = "the writers of its own user's files can be seen by the daemon"
    if spool.root.stat().st_uid != os.geteuid():  # what this user may says nothing of the daemon
        return Finding(Level.OK, "leases", f"{seen}; without CAP_LEASE other users' must settle")
    if not _has_cap_lease():
        detail = (
            f"{seen}; this user has no CAP_LEASE: where the daemon has none, others' must settle"
        )
        fix = f"give the daemon CAP_LEASE, as the unit in systemd/ does; or {fix}"
        return Finding(Level.WARN, "leases", detail, fix)
    return Finding(Level.OK, "leases", "a file's writers can be seen, whoever owns it")


def _has_cap_lease() -> bool:
    [powers] = re.findall(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.M)
    return bool(int(powers, 16) >> _CAP_LEASE & 1)


def _abilities(found: Touched) -> Iterator[Finding]:
    """What was tried in the inbox, and what follows from it."""
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
