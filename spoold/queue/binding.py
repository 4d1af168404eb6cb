"""A spool and its database know each other: neither a copied spool nor a foreign database is used.

`spool.id` holds the database's id; the database holds the spool's id and where its tree stands, by
path, device and inode. A tree that was moved has the same inode, a copy has another one.
"""

from spoold import errors
from spoold.errors import SpooldError
from spoold.postgres import Place
from spoold.queue.database import Database
from spoold.spool import Spool


def bind(database: Database, spool: Spool, site: str, *, adopt: bool = False) -> None:
    """Check both, and record each with the other where that is missing or has moved.

    `adopt` accepts a copy as the spool itself, for one that was restored from a backup: the
    operator says that no other is left. Raises spool-foreign. Crash: the database knows the spool
    before the spool knows the database; the next call goes on.
    """
    check(database, spool, adopt=adopt)
    identity = spool.identity()
    place = Place.of(spool)
    database.run(
        "bind_spool",
        {
            "spool": identity.spool,
            "site": site,
            "path": place.path.encode("utf-8", "backslashreplace").decode(),
            "device": _signed(place.device),
            "inode": _signed(place.inode),
        },
    )
    if identity.database is None:
        row = database.row("database_id")
        assert row is not None
        spool.bind_database(row[0])


def check(database: Database, spool: Spool, *, adopt: bool = False) -> None:
    """Refuse a database that is not the spool's, and a copy of a spool; changes nothing."""
    identity = spool.identity()
    row = database.row("database_id")
    if row is None:
        raise SpooldError(
            errors.DATABASE_UNFIT, "the queue's tables are damaged: spoold.database is empty"
        )
    if identity.database not in (None, row[0]):
        raise SpooldError(
            errors.SPOOL_FOREIGN,
            f"{spool.root} belongs to database {identity.database}, and this is {row[0]}",
        )
    bound = database.row("bound_spool", {"spool": identity.spool})
    if bound is None or adopt:
        return
    here = Place.of(spool)
    path, device, inode = bound
    recorded = Place(path, device, inode)
    mine = Place(
        here.path.encode("utf-8", "backslashreplace").decode(),
        _signed(here.device),
        _signed(here.inode),
    )
    if not recorded.is_tree_of(mine):
        raise SpooldError(
            errors.SPOOL_FOREIGN,
            f"{spool.root} is a copy: this database knows the spool at {path}",
        )


def _signed(number: int) -> int:
    # bigint is signed; st_dev and st_ino are 64 bits without a sign.
    return number - (1 << 64) if number >= 1 << 63 else number
