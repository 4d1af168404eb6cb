"""From the configuration to what each stage is given."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from spoold import errors, postgres, spool
from spoold.actions.context import ActionSettings, Quotas
from spoold.config import Config
from spoold.errors import SpooldError
from spoold.intake.settings import Idempotency, IntakeSettings, WriterCheck
from spoold.queue import binding, migrate
from spoold.queue.database import Database
from spoold.queue.job import RetryPolicy
from spoold.queue.listen import Wakes
from spoold.queue.patience import patiently
from spoold.retention import RetentionSettings
from spoold.sinks.tree import LinkPolicy
from spoold.spool import Spool
from spoold.trust import load_signer
from spoold.trust_store import FreshTrust
from spoold.worker.settings import CONNECTIONS_OF_A_WORKER, WorkerSettings

log = structlog.get_logger()

CONNECTIONS_OF_A_DAEMON: Final = 15
"""Its threads', and some for commands and for whoever looks."""


def require_sound(tree: Spool) -> None:
    """Refuse a tree that cannot work; warn of what is only unwise."""
    for fault in spool.faults(tree):
        if fault.fatal:
            raise SpooldError(errors.SPOOL_INVALID, f"{fault.path}: {fault.what}", hint=fault.fix)
        log.warning("spool.fault", path=str(fault.path), what=fault.what, fix=fault.fix)


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


def intake_settings(config: Config) -> IntakeSettings:
    """What the intake is given."""
    intake = config.intake
    return IntakeSettings(
        site=config.site,
        host=socket.gethostname(),
        settle_seconds=intake.settle_seconds,
        rescan_seconds=intake.rescan_seconds,
        incomplete_seconds=intake.incomplete_seconds,
        polling=intake.watch == "polling",
        writer_check=WriterCheck(intake.writer_check),
        idempotency=Idempotency(intake.idempotency),
        max_request_bytes=intake.max_request_bytes,
        max_bundle_bytes=intake.max_bundle_bytes,
        min_free_bytes=intake.min_free_bytes,
        max_drops_per_minute=intake.max_drops_per_minute,
        max_drops_per_minute_per_owner=intake.max_drops_per_minute_per_owner,
        max_attempts=config.retry.max_attempts,
        timeout_seconds=config.workers.timeout_seconds,
        require_signed=intake.require_signed,
        trust=FreshTrust(config.spool, lambda: load_signer(config.signing_key, config.site)),
        handlers=config.handlers,
    )


def worker_settings(config: Config) -> WorkerSettings:
    """What the workers and their supervisor are given."""
    return WorkerSettings(
        count=config.workers.count or len(os.sched_getaffinity(0)),
        drain_seconds=config.workers.drain_seconds,
        aging_seconds=config.workers.aging_seconds,
        retry=RetryPolicy(config.retry.base_seconds, config.retry.cap_seconds),
        memory_bytes=config.workers.memory_bytes,
        cpu_seconds=config.workers.cpu_seconds,
    )


def retention_settings(config: Config) -> RetentionSettings:
    """What is kept how long."""
    return RetentionSettings(**config.retention.model_dump())


def action_settings(config: Config) -> ActionSettings:
    """What the actions are given."""
    restore = config.restore
    return ActionSettings(
        connections=config.connections,
        sinks=config.sinks,
        threads=config.workers.threads,
        links=LinkPolicy(restore.links),
        threshold=config.trust.bundle_threshold,
        quotas=Quotas(
            max_bytes=restore.max_bytes or None,
            max_entries=restore.max_entries or None,
            max_depth=restore.max_depth or None,
            max_expansion=restore.max_expansion or None,
        ),
        min_free_bytes=config.intake.min_free_bytes,
        handlers=config.handlers,
    )
