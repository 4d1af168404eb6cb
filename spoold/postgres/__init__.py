"""The PostgreSQL server: ours, started from a wheel's binaries, or one given by its address."""

from spoold.postgres.connection import check_external, connect, database_errors
from spoold.postgres.home import Place
from spoold.postgres.server import Server, ensure_running, find, remove

__all__ = [
    "Place",
    "Server",
    "check_external",
    "connect",
    "database_errors",
    "ensure_running",
    "find",
    "remove",
]
