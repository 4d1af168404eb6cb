"""The process of one of a spool's workers: its parts wired together."""

import os
import signal
import socket
import uuid

from spoold import log, postgres
from spoold.config import Config
from spoold.daemon.wiring import action_settings, worker_settings
from spoold.errors import Exit
from spoold.queue import binding, migrate
from spoold.queue.database import Database
from spoold.status import Host
from spoold.trust import load_signer
from spoold.trust_store import load_trust
from spoold.worker import limits, supervisor
from spoold.worker.attempt import Site
from spoold.worker.loop import Worker


def work(config: Config) -> Exit:
    """Be one worker of a spool whose daemon runs, until told to end."""
    log.configure(config.log.level, config.log.format)
    supervisor.hold_lifeline()
    tree = config.spool.require()
    conninfo = config.database_url or postgres.find(tree)
    ready = Database(conninfo, "spoold worker")
    migrate.require_current(ready)
    binding.check(ready, tree)
    ready.close()
    settings = worker_settings(config)
    limits.limit_process(settings.memory_bytes)
    signer = load_signer(config.signing_key, config.site)
    site = Site(
        tree=tree,
        host=Host(config.site, socket.gethostname()),
        signer=signer,
        load_trust=lambda: load_trust(tree, signer),
        actions=action_settings(config),
        retry=settings.retry,
    )
    identity = uuid.UUID(os.environ.get(supervisor.ID_VARIABLE) or str(uuid.uuid4()))
    worker = Worker(site, settings, conninfo, supervisor.events(), identity)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.drain())
    worker.run()
    return Exit.DONE
