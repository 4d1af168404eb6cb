"""The PostgreSQL server: ours, started from a wheel's binaries, or one given by its address."""

from spoold.postgres.connection import (
    LoginRefusedError,
    check_external,
    connect,
    database_errors,
    is_pooled,
)
from spoold.postgres.home import COPY_HINT, Place
from spoold.postgres.server import (
    Server,
    accept_place,
    check_startable,
    ensure_running,
    find,
    remove,
)

__all__ = [
    "COPY_HINT",
    "LoginRefusedError",
    "Place",
    "Server",
    "accept_place",
    "check_external",
    "check_startable",
    "connect",
    "database_errors",
    "ensure_running",
    "find",
    "is_pooled",
    "remove",
]
