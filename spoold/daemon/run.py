"""The process of a spool's daemon: what is checked before its parts are started."""

import structlog

from spoold import errors, log, spool
from spoold.config import Config
from spoold.daemon.backend import database
from spoold.daemon.daemon import Daemon
from spoold.errors import Exit, SpooldError
from spoold.handlers.reach import open_way
from spoold.spool import Spool
from spoold.trust import load_signer
from spoold.trust_store import load_trust

events = structlog.get_logger()


def run(config: Config, *, once: bool = False) -> Exit:
    """Run a spool's daemon until it is told to end; with `once`, until there is nothing to do."""
    log.configure(config.log.level, config.log.format)
    for warning in config.warnings:
        events.warning("config.warning", text=warning)
    tree = config.spool.require()
    _require_sound(tree)
    load_signer(config.signing_key, config.site)  # a key that cannot sign is said at once
    load_trust(tree)
    open_way(config.handlers, tree)
    with database(config) as backend:
        return Daemon(config, tree, backend).run(once=once)


def _require_sound(tree: Spool) -> None:
    """Refuse a tree that cannot work; warn of what is only unwise."""
    for fault in spool.faults(tree):
        if fault.fatal:
            raise SpooldError(errors.SPOOL_INVALID, f"{fault.path}: {fault.what}", hint=fault.fix)
        events.warning("spool.fault", path=str(fault.path), what=fault.what, fix=fault.fix)
