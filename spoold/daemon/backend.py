"""The database of a daemon: brought up, migrated, bound to its spool, and kept alive."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from spoold import errors, postgres
from spoold.config import Config
from spoold.daemon.wiring import worker_settings
from spoold.errors import SpooldError
from spoold.queue import binding, migrate
from spoold.queue.database import Database
from spoold.queue.listen import Wakes
from spoold.queue.patience import patiently
from spoold.worker.settings import CONNECTIONS_OF_A_WORKER

log = structlog.get_logger()

CONNECTIONS_OF_A_DAEMON: Final = 15
"""Its threads', and some for commands and for whoever looks."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The database of a running daemon. `server` is None for one that others run."""

    conninfo: str
    server: postgres.Server | None
    wakes: Wakes = Wakes.NOTIFY

    def keep_alive(self) -> None:
        """Start the embedded server again if it has died; to be called now and then."""
        if self.server is None:
            return
        try:
            if self.server.alive():
                return
            log.error("postgres.died", data=str(self.server.data))
            self.server.revive()
        except (SpooldError, OSError) as error:  # jobs and drops wait; the next call tries again
            failure = errors.of_failure(error)
            log.error("postgres.down", error=str(failure), fix=failure.hint)


@contextmanager
def database(config: Config) -> Iterator[Backend]:
    """A database that is up, migrated, and this spool's own; stopped at the end if it is ours."""
    if config.database_url:
        external = Database(config.database_url, "spoold run")
        patiently(_check, external)
        wakes = Wakes.POLLING if postgres.is_pooled(external.connection) else Wakes.NOTIFY
        if wakes is Wakes.POLLING:
            log.warning("database.pooled", effect="no LISTEN through a pooler: workers poll")
        patiently(_prepare, external, config)
        yield Backend(config.database_url, None, wakes)
        return
    workers = worker_settings(config).count
    # Twice: a second daemon may use the server that this one has started.
    connections = 2 * (workers * CONNECTIONS_OF_A_WORKER + CONNECTIONS_OF_A_DAEMON)
    server = postgres.ensure_running(config.spool, connections=connections)
    backend = Backend(server.conninfo, server)
    try:
        patiently(_prepare_embedded, Database(server.conninfo, "spoold run"), backend, config)
        yield backend
    finally:
        server.stop_if_last()


def _check(external: Database) -> None:
    try:
        postgres.check_external(external.connection)
    except postgres.LoginRefusedError as refusal:  # at the start nobody waits for that to change
        raise SpooldError(
            errors.DATABASE_UNFIT, refusal.message, hint=refusal.hint, at="database_url"
        ) from refusal


def _prepare_embedded(ready: Database, backend: Backend, config: Config) -> None:
    backend.keep_alive()  # it may be killed as soon as it is up
    _prepare(ready, config)


def _prepare(ready: Database, config: Config) -> None:
    binding.check_present(ready, config.spool)
    if applied := migrate.migrate(ready):
        log.info("database.migrated", steps=applied)
    binding.bind(ready, config.spool, config.site)
    ready.close()
