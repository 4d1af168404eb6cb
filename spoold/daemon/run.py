"""The process of a spool's daemon: what is checked before its parts are started."""

import structlog

from spoold import log
from spoold.config import Config
from spoold.daemon.daemon import Daemon
from spoold.daemon.wiring import database, require_sound
from spoold.errors import Exit
from spoold.handlers.reach import open_way
from spoold.trust import load_signer
from spoold.trust_store import load_trust

events = structlog.get_logger()


def run(config: Config, *, once: bool = False) -> Exit:
    """Run a spool's daemon until it is told to end; with `once`, until there is nothing to do."""
    log.configure(config.log.level, config.log.format)
    for warning in config.warnings:
        events.warning("config.warning", text=warning)
    tree = config.spool.require()
    require_sound(tree)
    load_signer(config.signing_key, config.site)  # a key that cannot sign is said at once
    load_trust(tree)
    open_way(config.handlers, tree)
    with database(config) as backend:
        return Daemon(config, tree, backend).run(once=once)
