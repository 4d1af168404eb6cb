"""What has been merged into a database, kept in that database: schema `spoold_rows`.

Guarantees: a job's rows of one sink are written in the transaction that merges them, under a key
that only one attempt can take: whoever finds them knows that all of it was done, and with what
counts.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import psycopg

from spoold import errors
from spoold.canonical import Json
from spoold.connections.sessions import Connection
from spoold.errors import SpooldError

TABLES_SQL: Final = files("spoold.sinks").joinpath("ledger.sql").read_text()
"""What makes the tables, for whoever may not."""

# One that makes the tables after the other: IF NOT EXISTS alone can fail where two do it at once.
_LOCK: Final = int.from_bytes(b"spl rows")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows of one delivery."""

    inserted: int
    updated: int
    skipped: int
    """The same row was there."""
    conflicting: int
    """Other content was there under its key, and stays."""
    conflicts: Sequence[Json] = ()
    """The first of these and of those updated: entry, line and key."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The tables, seen from one job and sink."""

    connection: Connection
    job_id: str
    sink: str

    def find(self) -> Counts | None:
        """What the job has merged through the sink; None: nothing yet.

        Raises sink-refused where the tables are missing and cannot be made, or may not be written:
        once sinks apply their plans, that would be too late to tell.
        """
        row = self.connection.execute(
            "select pg_catalog.to_regclass('spoold_rows.merged_entry') is not null, "
            "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create')"
        ).fetchone()
        assert row is not None
        there, may_make = row
        if not there and not may_make:
            raise SpooldError(
                errors.SINK_REFUSED,
                "the database has no tables spoold_rows.merged and .merged_entry, and this user "
                "may not make them",
                hint='have somebody run what SOURCES.md says under "Rows into PostgreSQL", or '
                "GRANT CREATE ON DATABASE … TO this user",
            )
        if not there:
            return None
        self._require_rights()
        row = self.connection.execute(
            "select inserted, updated, skipped, conflicting, conflicts from spoold_rows.merged"
            " where job_id = %s and sink = %s",
            (self.job_id, self.sink),
        ).fetchone()
        return None if row is None else Counts(*row)

    def _require_rights(self) -> None:
        row = self.connection.execute(
            "select pg_catalog.has_table_privilege('spoold_rows.merged', 'select')"
            " and pg_catalog.has_table_privilege('spoold_rows.merged', 'insert')"
            " and pg_catalog.has_table_privilege('spoold_rows.merged_entry', 'insert')"
        ).fetchone()
        if row is None or not row[0]:
            raise SpooldError(
                errors.SINK_REFUSED,
                "this user may not read and write spoold_rows.merged and .merged_entry",
                hint="GRANT SELECT, INSERT ON spoold_rows.merged, spoold_rows.merged_entry TO "
                "this user",
            )

    def write(
        self,
        counts: Counts,
        entries: Iterable[tuple[str, int]],
        *,
        bundle_id: str,
        manifest_sha256: str,
        site: str,
        target: str,
    ) -> bool:
        """Note what this transaction has merged, entry by entry with its rows.

        Returns whether it is the first one to do so; else it can only be rolled back.
        """
        connection = self.connection
        row = connection.execute(
            "select pg_catalog.to_regclass('spoold_rows.merged_entry') is not null"
        ).fetchone()
        if row is not None and not row[0]:
            connection.execute("select pg_catalog.pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(TABLES_SQL)
        try:
            connection.execute(
                "insert into spoold_rows.merged (job_id, sink, bundle_id, manifest_sha256, site,"
                " target, inserted, updated, skipped, conflicting, conflicts)"
                " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    self.job_id,
                    self.sink,
                    bundle_id,
                    manifest_sha256,
                    site,
                    target,
                    counts.inserted,
                    counts.updated,
                    counts.skipped,
                    counts.conflicting,
                    json.dumps(counts.conflicts),
                ),
            )
        except psycopg.errors.UniqueViolation:
            return False
        with connection.cursor().copy(
            "copy spoold_rows.merged_entry (job_id, sink, entry, rows) from stdin"
        ) as copy:
            for entry, rows in entries:
                copy.write_row((self.job_id, self.sink, entry, rows))
        return True
