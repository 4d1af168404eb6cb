"""What `doctor` checks, in order: each check yields what it found, with the fix where it is wrong.

Checks only look; those that must try (links, renames, leases, events) leave nothing behind.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from spoold import client, daemon_status, trust, trust_store, units
from spoold.config import Config
from spoold.doctor.database import examine_database
from spoold.doctor.finding import Finding, Level
from spoold.doctor.inbox import examine_inbox
from spoold.doctor.sinks import examine_sinks
from spoold.errors import SpooldError
from spoold.handlers.arguments import plain
from spoold.handlers.process import environment, find_program
from spoold.handlers.reach import problems
from spoold.spool import Folder, Spool, faults


def examine(spool: Spool, load: Callable[[], Config]) -> Iterator[Finding]:
    """Check a spool; `load` reads the configuration and may raise SpooldError."""
    try:
        spool.require()
    except SpooldError as error:
        yield Finding(Level.FAIL, "spool", error.message, error.hint)
        return
    yield from _tree(spool)
    try:
        config = load()
    except SpooldError as error:
        yield Finding(Level.FAIL, "configuration", error.message, error.hint)
        yield from examine_inbox(spool, None)
        return
    yield from _configuration(config)
    yield from examine_sinks(config)
    yield from _handlers(config)
    yield from _key(config)
    yield from _daemon(config)
    yield from examine_database(config)
    yield from examine_inbox(spool, config)
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
        if not os.path.isdir(path) and not _is_closed(path):
            yield Finding(
                Level.WARN,
                f"root {name}",
                f"{path} is no folder here, now",
                "mount it or make it before requests name it, or correct [roots]",
            )
        elif not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
            yield Finding(
                Level.WARN,
                f"root {name}",
                f"{path} cannot be read",
                "let the daemon's user read it",
            )
        else:
            yield Finding(Level.OK, f"root {name}", str(path))


def _is_closed(path: Path) -> bool:
    """Whether this user cannot even know what is there."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        pass
    return False


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
        Level.OK,
        "keys",
        f"signs with {signer.algorithm.value} {trust.short_key_id(signer.key_id)}, {trusted}",
    )


def _daemon(config: Config) -> Iterator[Finding]:
    path = config.spool.folder(Folder.STATUS) / daemon_status.NAME
    answer = None
    try:
        answer = client.read_daemon(config.spool)
        if answer is None:
            yield Finding(Level.OK, "daemon", "none has run yet")
            return
        signer = trust.load_signer(config.signing_key, config.site)
        keys = trust_store.load_trust(config.spool, signer)
        document = keys.verify_document(answer.raw, daemon_status.TYPE, trust.Role.STATUS).document
    except SpooldError as error:
        # Where it could not be read, the message names it.
        detail = error.message if answer is None else f"{path}: {error.message}"
        fix = "remove it, and find out who else writes to status/"
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
