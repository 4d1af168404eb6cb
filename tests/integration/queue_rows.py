"""Many rows at once, written straight into the table, for what must not depend on their number."""

from typing import Final

from spoold.queue.store import Store

DUE: Final = "now() - interval '1 day' + n * interval '1 ms'"
LATER: Final = "now() + interval '1 day'"

# Ids of version 7, one a millisecond, as admissions make them: their index grows at its end.
_ID: Final = (
    "overlay(overlay(lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint + n), 12,"
    " '0') || substr(md5(random()::text), 1, 20) placing '7' from 13) placing '8' from 17)::uuid"
)


def insert_rows(store: Store, count: int, state: str, due_at: str = DUE) -> None:
    """Rows of a queue that has long been busy: of all priorities, due one after the other."""
    finished = state == "succeeded"
    store.database.script(
        f"""
        insert into spoold.job (id, spool, drop_name, drop_sha256, drop_bytes, action, request,
          request_sha256, priority, due_at, rank, state, max_attempts, timeout_seconds, intake,
          finished_at, outcome, final_document)
        select given.id, %(spool)s, convert_to('request-' || given.id, 'UTF8'),
          sha256('x'), 200, 'bundle', '{{"action": "bundle", "sources": []}}', sha256('y'),
          given.priority, given.due_at, given.due_at + given.priority * interval '60 s',
          %(state)s, 5, 3600, '{{"found_by": "event"}}',
          case when %(finished)s then given.due_at end,
          case when %(finished)s then '{{"state": "succeeded"}}'::jsonb end,
          case when %(finished)s then convert_to(repeat('document ', 20), 'UTF8') end
        from (select {_ID} as id, {due_at} as due_at, (random() * 4)::int * 250 as priority
          from generate_series(1, %(count)s) as n) as given
        """.encode(),
        {"spool": store.spool, "state": state, "finished": finished, "count": count},
    )
