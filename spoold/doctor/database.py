"""The database: whether it answers and is this spool's, and what in it or beside it is unwise."""

import os
from collections.abc import Iterator
from contextlib import suppress

from spoold import postgres
from spoold.config import Config
from spoold.doctor.finding import Finding, Level
from spoold.errors import SpooldError
from spoold.postgres import binaries, horizon
from spoold.postgres.horizon import Holder
from spoold.queue import binding, migrate
from spoold.queue.database import Database
from spoold.queue.placed import Places
from spoold.queue.store import Store
from spoold.retention.strays import strays
from spoold.spool import Spool

# Our own transactions end after 5 minutes. Where only the number is known, as of a slot, this many.
_HELD_SECONDS = 600
_HELD_TRANSACTIONS = 1_000_000


def examine_database(config: Config) -> Iterator[Finding]:
    """Whether the database can be used, who keeps its dead rows, and what it says of the tree."""
    if config.database_url:
        yield from _external(config)
    else:
        yield from _embedded(config.spool)
    yield from _published(config)


def _external(config: Config) -> Iterator[Finding]:
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
    with suppress(SpooldError, OSError):  # the checks of tree and database have said so
        conninfo = config.database_url or postgres.find(config.spool)
        store = Store(Database(conninfo, "spoold doctor"), config.spool.identity().spool)
        try:
            migrate.require_current(store.database)
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


def held_rows(holders: list[Holder]) -> Iterator[Finding]:
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
