"""Who keeps dead rows from being removed: the oldest transaction that could still see them.

Every claim and every finish leaves dead rows. While one transaction stays open, vacuum removes
none of what was left since it began, and each claim walks over them: 20,000 make it four times as
slow. What another user's session holds is only seen by a superuser or a member of pg_monitor.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html
"""

import enum
from dataclasses import dataclass
from typing import Final, assert_never

from spoold.postgres.connection import Connection, database_errors

# Autovacuum is left out: it holds nothing back for another vacuum. A standby that reports back
# holds all databases, and so does a slot.
_HOLDERS: Final = b"""
select kind, pid, name, detail, seconds::float8, transactions from (
  select case when backend_type = 'walsender' then 'standby' else 'session' end as kind, pid,
    application_name as name, coalesce(usename, '?') || ', ' || coalesce(state, '?') as detail,
    extract(epoch from now() - xact_start) as seconds,
    greatest(age(backend_xmin), age(backend_xid)) as transactions
  from pg_stat_activity
  where (backend_xmin is not null or backend_xid is not null) and pid <> pg_backend_pid()
    and backend_type <> 'autovacuum worker'
    and (datname = current_database() or backend_type = 'walsender')
  union all
  select 'prepared', null, gid, owner::text, extract(epoch from now() - prepared), age(transaction)
  from pg_prepared_xacts where database = current_database()
  union all
  select 'slot', active_pid, slot_name::text, slot_type, null, age(xmin)
  from pg_replication_slots where xmin is not null
) as holder
order by seconds desc nulls last, transactions desc
"""


class Kind(enum.StrEnum):
    """What can hold dead rows."""

    SESSION = "session"
    STANDBY = "standby"
    PREPARED = "prepared"
    SLOT = "slot"


@dataclass(frozen=True, slots=True)
class Holder:
    """One of them. `seconds` is None where the server does not know since when.

    `name` is the application, the prepared transaction or the slot; `transactions` how many have
    begun since the one that it holds.
    """

    kind: Kind
    pid: int | None
    name: str
    detail: str
    seconds: float | None
    transactions: int

    def __str__(self) -> str:
        match self.kind:
            case Kind.SESSION | Kind.STANDBY:
                return f"{self.kind} {self.pid} ({self.name or 'no name'}; {self.detail})"
            case Kind.PREPARED:
                return f"the prepared transaction {self.name!r} of {self.detail}"
            case Kind.SLOT:
                return f"the {self.detail} replication slot {self.name}"
            case _:
                assert_never(self.kind)

    @property
    def fix(self) -> str:
        """What ends it."""
        match self.kind:
            case Kind.SESSION:
                return (
                    f"end it: SELECT pg_terminate_backend({self.pid}); and give its role a limit: "
                    "ALTER ROLE … SET idle_in_transaction_session_timeout = '1min'"
                )
            case Kind.STANDBY:
                return "end the long query on the standby, or turn its hot_standby_feedback off"
            case Kind.PREPARED:
                gid = self.name.replace("'", "''")
                return f"COMMIT PREPARED '{gid}', or ROLLBACK PREPARED '{gid}'"
            case Kind.SLOT:
                name = self.name.replace("'", "''")
                return f"if its standby is gone: SELECT pg_drop_replication_slot('{name}')"
            case _:
                assert_never(self.kind)


def holders(connection: Connection) -> list[Holder]:
    """Whoever holds dead rows of this database now, the longest first. Raises database-away."""
    with database_errors():
        rows = connection.execute(_HOLDERS).fetchall()
    return [Holder(Kind(kind), *rest) for kind, *rest in rows]
