"""The schema's versions: numbered SQL files, applied once each, in one transaction, under a lock.

Guarantees: daemons that start at once apply each file once; a file that fails leaves the schema as
it was. A schema newer than this program, or made by other files than it ships, is refused: at the
start, and by a daemon that runs, which ends when another one has brought the tables further.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import structlog

from spoold import errors
from spoold.errors import SpooldError
from spoold.queue.database import Database

_log = structlog.get_logger()

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    number: int
    name: str
    sql: bytes

    @property
    def sha256(self) -> bytes:
        """The digest that the ledger keeps."""
        return hashlib.sha256(self.sql).digest()


@cache
def shipped() -> tuple[Migration, ...]:
    """The migrations of this program, in order, numbered from 1 without gaps."""
    found = []
    for path in files("spoold.queue").joinpath("migrations").iterdir():
        if match := _FILE_NAME.fullmatch(path.name):
            found.append(Migration(int(match[1]), match[2], path.read_bytes()))
    found.sort(key=lambda migration: migration.number)
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    return tuple(found)


def migrate(database: Database, migrations: tuple[Migration, ...] | None = None) -> int:
    """Bring the schema up to date; how many files were applied.

    Raises schema-newer or database-unfit.
    """
    known = shipped() if migrations is None else migrations
    if _current(database, known):
        return 0
    with database.answering_within(math.inf):
        return database.atomically(lambda: _apply(database, known))


def require_current(database: Database, migrations: tuple[Migration, ...] | None = None) -> None:
    """Refuse a schema that is not this program's; changes nothing.

    Raises schema-newer or database-unfit.
    """
    if not _current(database, shipped() if migrations is None else migrations):
        raise SpooldError(
            errors.DATABASE_UNFIT,
            "the queue's tables are missing or of an earlier version",
            hint="start the daemon (`spoold run`): it brings them up to date",
        )


def require_known(database: Database) -> None:
    """Refuse a schema that was brought further since we began. Raises schema-newer."""
    row = database.row("schema_version")
    assert row is not None
    _refuse_newer(row[0], len(shipped()))


def _current(database: Database, known: tuple[Migration, ...]) -> bool:
    row = database.row("schema_exists")
    return row is not None and row[0] and len(_applied(database, known)) == len(known)


def _apply(database: Database, known: tuple[Migration, ...]) -> int:
    database.run("migration_lock")
    database.run("make_ledger")
    # In a statement after the lock: whoever held it has committed.
    pending = known[len(_applied(database, known)) :]
    if pending:
        database.run("migration_patience")
    for migration in pending:
        database.script(migration.sql)
        database.run(
            "migrated",
            {"number": migration.number, "name": migration.name, "sha256": migration.sha256},
        )
        _log.info("schema.migrated", number=migration.number, name=migration.name)
    return len(pending)


def _applied(database: Database, known: tuple[Migration, ...]) -> list[int]:
    applied = []
    for number, name, sha256 in database.rows("migrations"):
        _refuse_newer(number, len(known))
        if bytes(sha256) != known[number - 1].sha256:
            raise SpooldError(
                errors.DATABASE_UNFIT,
                f"migration {number:04}_{name} differs from the one this spoold ships",
                hint="the tables were made by a changed spoold: install that one, or use a new "
                "database",
            )
        applied.append(number)
    return applied


def _refuse_newer(number: int, known: int) -> None:
    if number > known:
        raise SpooldError(
            errors.SCHEMA_NEWER,
            f"the queue's tables are of version {number}, this spoold knows {known}",
        )
