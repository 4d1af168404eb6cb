"""Accept what nobody can see from here: that a copied tree is the spool itself, a database lost.

A tree that was restored from a backup, or moved by copying, looks like the copy of a spool that may
still run elsewhere: the operator says that it does not. Then the database is told where the tree
stands now, by path and inode, also in the rows of jobs whose files were half published.

Crash: run it again.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from spoold import errors, postgres
from spoold.config import Config
from spoold.daemon.wiring import worker_settings
from spoold.errors import SpooldError
from spoold.file_lock import FileLock
from spoold.publish.place import Placement
from spoold.publish.plan import target_path
from spoold.queue import binding, migrate
from spoold.queue.binding import Mismatch
from spoold.queue.database import Database
from spoold.queue.job import State
from spoold.queue.placed import Places
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.trust import load_signer
from spoold.worker import scratch
from spoold.worker.processes import here, host_of, is_worker
from spoold.worker.recovery import drop_answered

_MOST = 100_000


def adopt(config: Config, *, new_database: bool = False) -> list[str]:
    """Accept a spool's tree as it stands, and with `new_database` also another database.

    Returns what was accepted, in sentences; none where all fitted. Raises spool-busy,
    spool-foreign, database-lost, database-unfit or database-away.
    """
    tree = config.spool
    signer = load_signer(config.signing_key, config.site)
    with _no_daemon(tree), _database(config, new_database=new_database) as (database, started):
        migrate.migrate(database)
        store = Store(database, tree.identity().spool)
        if config.database_url:
            _refuse_living(store, worker_settings(config).lease_seconds)
        both = {Mismatch.PLACE, Mismatch.DATABASE}
        accept = both if new_database else {Mismatch.PLACE}
        bound = binding.bind(database, tree, config.site, accept=accept)
        drop_answered(tree, signer)
        _repoint(tree, store)
        _find_again(tree, store)
    return list(dict.fromkeys([*started, *bound]))


@contextmanager
def _no_daemon(tree: Spool) -> Iterator[None]:
    """Every daemon has an intake, and one of them this lock."""
    lock = FileLock(tree.intake_lock)
    if not lock.acquire():
        raise SpooldError(errors.SPOOL_BUSY, f"a daemon runs on {tree.root}")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _database(config: Config, *, new_database: bool) -> Iterator[tuple[Database, list[str]]]:
    """The spool's database, the embedded one started, and what had to be accepted for that."""
    tree, accepted = config.spool, list[str]()
    server = None
    if not config.database_url:
        if sentence := postgres.accept_place(tree):
            accepted.append(sentence)
        if new_database:
            accepted += _give_up_lost(tree)
        server = postgres.ensure_running(tree)
    database = Database(server.conninfo if server else config.database_url, "spoold adopt")
    try:
        if server is None:
            postgres.check_external(database.connection)
            if not new_database:
                binding.check_present(database, tree)
        yield database, accepted
    finally:
        database.close()
        if server is not None:
            server.stop_if_last()


def _give_up_lost(tree: Spool) -> list[str]:
    try:
        postgres.check_startable(tree)
    except SpooldError as error:
        if error.code is not errors.DATABASE_LOST:
            raise
        tree.forget_database()
        return [error.message]
    return []


def _refuse_living(store: Store, lease_seconds: float) -> None:
    """A daemon of the tree that this one was copied from, on another host perhaps.

    In this place its processes are looked for: a database that was just restored remembers some.
    """
    place = here()
    for worker in store.workers():
        lives = worker.place != place or is_worker(worker.pid)
        if lives and worker.seen_seconds < lease_seconds:
            raise SpooldError(
                errors.SPOOL_BUSY,
                f"a worker of this spool, process {worker.pid} on {host_of(worker.place)}, was "
                f"there {worker.seen_seconds:.0f} s ago",
            )


def _find_again(tree: Spool, store: Store) -> None:
    """Record the inodes of published files anew: else retention would take them for foreign."""
    places = Places(store)
    for page in places.all():
        found = []
        for one in page:
            with suppress(OSError):
                status = os.lstat(target_path(tree, one.folder, one.name))
                same = stat.S_ISREG(status.st_mode) and status.st_size == one.size
                if one.inode is not None and (same or stat.S_ISDIR(status.st_mode)):
                    inode, size, time = status.st_ino, status.st_size, status.st_mtime_ns
                    found.append(replace(one, inode=inode, size=size, mtime_ns=time))
        places.found_again(found)


def _repoint(tree: Spool, store: Store) -> None:
    for job in store.jobs([State.PUBLISHING], _MOST):
        if job.final_document is None:
            continue
        folder = scratch.newest(tree, job.id) or tree.folder(Folder.WORK)
        moves = Placement(tree, job, folder, job.sources, job.final_document).as_found()
        if moves != job.sources:
            store.repoint(job, moves)
