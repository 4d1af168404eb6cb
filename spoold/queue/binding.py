"""A spool and its database know each other: neither a copied spool nor a foreign database is used.

`spool.id` holds the database's id; the database holds the spool's id and where its tree stands, by
path, device and inode. A tree that was moved has the same inode, a copy has another one. What does
not fit is refused until an operator accepts it.
"""

import enum
from collections.abc import Collection

from spoold import errors
from spoold.errors import SpooldError
from spoold.postgres import COPY_HINT, Place
from spoold.queue.database import Database
from spoold.queue.rows import to_bigint
from spoold.spool import Spool


class Mismatch(enum.Enum):
    """What does not fit, and can be accepted."""

    PLACE = "place"  # the tree is another one than the database knows: copied, restored
    DATABASE = "database"  # it is another one than the spool knows: its own is gone, or given up


def bind(
    database: Database, spool: Spool, site: str, *, accept: Collection[Mismatch] = ()
) -> list[str]:
    """Check both, and record each with the other where that is missing, has moved or is accepted.

    Returns what was accepted, in sentences. Raises spool-foreign. Crash: the database knows the
    spool before the spool knows the database; the next call goes on.
    """
    found = mismatches(database, spool)
    _refuse(found, accept)
    identity = spool.identity()
    place = _storable_place(spool)
    database.run(
        "bind_spool",
        {
            "spool": identity.spool,
            "site": site,
            "path": place.path,
            "device": place.device,
            "inode": place.inode,
        },
    )
    if identity.database is None or Mismatch.DATABASE in found:
        row = database.row("database_id")
        assert row is not None
        spool.bind_database(row[0])
    return [error.message for error in found.values()]


def check(database: Database, spool: Spool) -> None:
    """Refuse a database that is not the spool's, and a copy of a spool; changes nothing."""
    _refuse(mismatches(database, spool), ())


def check_present(database: Database, spool: Spool) -> None:
    """Refuse to make the tables anew for a spool that had some. Raises database-lost."""
    expected = spool.identity().database
    row = database.row("schema_exists")
    if expected is not None and not (row and row[0]):
        raise SpooldError(
            errors.DATABASE_LOST,
            f"this spool's jobs are in database {expected}, and this one has no tables of spoold",
        )


def mismatches(database: Database, spool: Spool) -> dict[Mismatch, SpooldError]:
    """What does not fit, as the refusals that it leads to."""
    identity = spool.identity()
    row = database.row("database_id")
    if row is None:
        raise SpooldError(
            errors.DATABASE_UNFIT, "the queue's tables are damaged: spoold.database is empty"
        )
    found = {}
    if identity.database not in (None, row[0]):
        found[Mismatch.DATABASE] = SpooldError(
            errors.SPOOL_FOREIGN,
            f"{spool.root} belongs to database {identity.database}, and this is {row[0]}",
            hint="point database_url at the spool's own database; if that is gone for good, "
            "`spoold adopt --new-database` takes this one: unfinished drops begin anew",
        )
    bound = database.row("bound_spool", {"spool": identity.spool})
    if bound is not None and not Place(*bound).is_tree_of(_storable_place(spool)):
        found[Mismatch.PLACE] = SpooldError(
            errors.SPOOL_FOREIGN,
            f"{spool.root} is a copy: its database knows the spool at {bound[0]}",
            hint=COPY_HINT,
        )
    return found


def _storable_place(spool: Spool) -> Place:
    """Where the tree stands, in values that the database can hold."""
    here = Place.of(spool)
    path = here.path.encode("utf-8", "backslashreplace").decode()
    return Place(path, to_bigint(here.device), to_bigint(here.inode))


def _refuse(found: dict[Mismatch, SpooldError], accept: Collection[Mismatch]) -> None:
    for mismatch, error in found.items():
        if mismatch not in accept:
            raise error
