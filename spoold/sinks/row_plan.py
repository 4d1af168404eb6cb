"""The plan of a delivery of rows: a transaction in which all is done, and which waits.

Guarantees: what the plan reports is what will be there after `apply`, which is its COMMIT; nobody
sees any of it before, and without it nothing has changed. All rows of a delivery are merged, or
none, and those of one job and sink once: the ledger in the same database says so in the same
transaction.
Not guaranteed: sequences that defaults and triggers draw from do not go back.
Crash: before the COMMIT nothing was done; after it the next attempt finds the ledger, and reports
what that says.
"""

from typing import Final

import psycopg

from spoold import errors, points
from spoold.canonical import Document, Json
from spoold.connections import sessions
from spoold.connections.databases import DatabaseSettings
from spoold.connections.sessions import Codes, Connection
from spoold.errors import SpooldError
from spoold.sinks.ledger import Counts, Ledger
from spoold.sinks.merging import Merging
from spoold.sinks.postgres import RowsSettings
from spoold.sinks.sink import Delivery
from spoold.sinks.staging import Staging
from spoold.sinks.target import Target, find_target

_CODES: Final = Codes(errors.SINK_AWAY, errors.SINK_REFUSED, errors.SINK_REFUSED)
# Others merge the same rows meanwhile, this job's own attempt before perhaps: what they have
# committed is then seen.
_TRIES: Final = 3


def plan_rows(settings: RowsSettings, database: DatabaseSettings, delivery: Delivery) -> "RowPlan":
    """Merge a delivery's rows as far as the COMMIT.

    Raises rows-invalid, rows-conflict, rows-too-many, sink-away, sink-refused or config-invalid;
    nothing has changed then.
    """
    connection = sessions.connect(
        settings.database,
        database,
        _CODES,
        isolation=psycopg.IsolationLevel.REPEATABLE_READ,
    )
    try:
        plan = RowPlan(settings, database, delivery, connection)
        with sessions.database_errors(settings.database, _CODES):
            plan.make()
    except BaseException:
        sessions.end(connection)
        raise
    return plan


class RowPlan:
    """A merge that waits for its COMMIT."""

    def __init__(
        self,
        settings: RowsSettings,
        database: DatabaseSettings,
        delivery: Delivery,
        connection: Connection,
    ) -> None:
        self._settings = settings
        self._database = database
        self._delivery = delivery
        self._connection = connection
        self._ledger = Ledger(connection, delivery.job_id, settings.name)
        self._counts = Counts(0, 0, 0, 0)
        self._staging: Staging | None = None

    @property
    def report(self) -> Document:
        """The counts of rows, and the first ones in conflict."""
        counts = self._counts
        rows: dict[str, Json] = {
            "inserted": counts.inserted,
            "skipped": counts.skipped,
            "conflicting": counts.conflicting,
        }
        if self._settings.on_conflict == "update":
            rows["updated"] = counts.updated
        report: dict[str, Json] = {"table": self._settings.table, "rows": rows}
        if counts.conflicts:
            report["conflicts"] = list(counts.conflicts)
        return report

    def make(self) -> None:
        """Do everything but the COMMIT."""
        for left in reversed(range(_TRIES)):
            try:
                self._make()
                return
            except psycopg.errors.SerializationFailure:
                if not left:
                    raise
            self._begin_anew()

    def apply(self) -> None:
        """COMMIT; or report what another attempt at the same job has committed meanwhile."""
        if self._staging is None:
            return
        with sessions.database_errors(self._settings.database, _CODES):
            if self._ledger.write(
                self._counts,
                self._staging.counts(),
                bundle_id=self._delivery.bundle_id,
                manifest_sha256=self._delivery.manifest_sha256,
                site=self._delivery.site,
                target=self._settings.table,
            ):
                # A role or database may have it off: then a crash of the server would undo a COMMIT
                # that the job's answer relies on.
                self._connection.execute(
                    "select pg_catalog.set_config('synchronous_commit', 'on', true)"
                    " where pg_catalog.current_setting('synchronous_commit') = 'off'"
                )
                self._connection.commit()
                points.reached("sink.applied")
            else:
                self._begin_anew()
                self._counts = self._found()
        self._staging = None

    def close(self) -> None:
        """Roll back what was not applied."""
        sessions.end(self._connection)

    def _make(self) -> None:
        connection, settings, delivery = self._connection, self._settings, self._delivery
        if (done := self._ledger.find()) is not None:
            self._counts = done
            return
        target = find_target(connection, settings.table, settings.key)
        _check_mapping(settings, target)
        staging = Staging(
            connection, target, settings.columns, delivery, max_rows=settings.max_rows
        )
        staging.load()
        merging = Merging(
            connection, target, staging, delivery.check, list_conflicts=settings.list_conflicts
        )
        self._counts = merging.merge(settings.on_conflict)
        self._staging = staging

    def _begin_anew(self) -> None:
        self._connection.rollback()
        sessions.begin(self._connection, self._database)

    def _found(self) -> Counts:
        found = self._ledger.find()
        assert found is not None, "a key is taken that nobody has"
        return found


def _check_mapping(settings: RowsSettings, target: Target) -> None:
    """Raise sink-refused where `columns` does not fit the table."""
    mapped = settings.columns.values()
    if unknown := [name for name in mapped if name not in target.columns]:
        what, hint = f"it has no column {', '.join(unknown)}", "correct `columns` in [[sinks]]"
    elif mapped and (keys := [key.name for key in target.key if key.name not in mapped]):
        what, hint = (
            f"no column of a bundle goes into {', '.join(keys)}, of its key",
            ("name one in `columns` of [[sinks]]"),
        )
    else:
        return
    raise SpooldError(errors.SINK_REFUSED, f"table {target.title}: {what}", hint=hint)
