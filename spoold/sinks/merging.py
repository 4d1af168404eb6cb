"""From the staging table into the target, and what became of each row.

A row is skipped where the target holds the same content under its key, and in conflict where it
holds other content: compared are the columns that came, as the very bytes and, where these differ,
by their text, with what stood there before anything was inserted: triggers may change new rows, and
old ones meanwhile. The transaction must see one snapshot (REPEATABLE READ): then the counts are
exact, and what another session commits meanwhile under the same keys ends it with a serialization
failure.
"""

from collections.abc import Callable
from typing import Final, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from spoold import canonical, errors
from spoold.canonical import Json
from spoold.connections import sessions
from spoold.connections.sessions import Connection
from spoold.errors import SpooldError
from spoold.sinks.ledger import Counts
from spoold.sinks.staging import LINE, TABLE, Place, Staging, staged
from spoold.sinks.target import Target

_NOTED: Final = sql.Identifier("pg_temp", "spoold_noted")
_CONFLICTS: Final = sql.SQL("(select * from {} where not missing)").format(_NOTED)
_MISSING: Final = sql.SQL("(select * from {} where missing)").format(_NOTED)
_MAX_SHOWN: Final = 200
# Of a statement that a row has ended: a value, a constraint, a check option, a trigger's own word,
# row level security.
_OF_ROWS: Final = ("22", "23", "42501", "44", "P0")


Statement = Callable[[range | None], int]
"""Something done to all staged rows, or to those of some lines; returns how many it has changed."""


class Listed(NamedTuple):
    """A row in conflict, and the text of its key's values."""

    place: Place
    key: list[str]


class Merging:
    """One delivery's rows, staged, on their way into the target."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        staging: Staging,
        check: Callable[[], None],
        *,
        list_conflicts: int,
    ) -> None:
        self._connection = connection
        self._target = target
        self._staging = staging
        self._check = check
        self._list = list_conflicts

    def merge(self, on_conflict: str) -> Counts:
        """Insert what is new; `on_conflict` is "skip", "update" or "refuse".

        Raises SpooldError, psycopg.Error.
        """
        if not self._staging.rows:
            return Counts(0, 0, 0, 0)
        inserted = self._insert_if_all_are_new()
        updated = conflicting = 0
        conflicts: list[Listed] = []
        if not inserted:
            conflicting, missing = self._compare()
            if missing:
                inserted = self._insert_missing(missing)
        if conflicting:
            self._refuse_contradictions(_CONFLICTS)
            if on_conflict == "refuse":
                self._refuse_conflict(conflicting)
            conflicts = self._conflicts(self._list)
            if on_conflict == "update":
                updated = self._whole(self._update)
                if updated < conflicting:
                    self._require_updated(updated)
                conflicting = 0
        self._check_constraints()
        skipped = self._staging.rows - inserted - updated - conflicting
        listed: list[Json] = [
            {"entry": place.entry, "line": place.line, "key": key} for place, key in conflicts
        ]
        return Counts(inserted, updated, skipped, conflicting, listed)

    def _run(self, statement: sql.Composable) -> int:
        """Run a statement that may take long; returns how many rows it has changed."""
        result = sessions.run(self._connection, statement.as_string(self._connection), self._check)
        return result.command_tuples or 0

    def _whole(self, statement: Statement) -> int:
        """Run a statement over all staged rows; where a row is at fault, name it."""
        try:
            with self._connection.transaction():
                return statement(None)
        except psycopg.Error as error:
            if not _is_of_rows(error):
                raise
            raise self._refusal(error, self._first_bad(statement, error)) from error

    def _insert_if_all_are_new(self) -> int:
        """Insert all staged rows, or none; returns how many.

        To look first which keys stand would cost those who bring new rows only, as most do.
        """
        with self._connection.transaction() as inserting:
            inserted = self._whole(self._insert)
            if inserted < self._staging.rows:
                inserted = 0
                raise psycopg.Rollback(inserting)
        return inserted

    def _insert_missing(self, missing: int) -> int:
        """Insert the rows whose keys the target lacked; returns how many that were."""
        which = sql.SQL("s.{0} in (select {0} from {1} m)").format(LINE, _MISSING)
        inserted = self._whole(lambda lines: self._insert(lines, which))
        if inserted < missing:  # the bundle has some twice, or something keeps them away
            self._require_inserted()
            self._refuse_contradictions(_MISSING)
        return inserted

    def _insert(self, lines: range | None, which: sql.Composable | None = None) -> int:
        """Insert the staged rows, all or those of some lines."""
        columns = self._staging.columns
        return self._run(
            sql.SQL(
                "insert into {} ({}) select {} from {} s where {} and {}"
                " on conflict ({}) do nothing"
            ).format(
                self._target.relation,
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join(staged(name, columns) for name in columns),
                TABLE,
                _among(lines),
                which or sql.SQL("true"),
                sql.SQL(", ").join(sql.Identifier(key.name) for key in self._target.key),
            )
        )

    def _refusal(self, error: psycopg.Error, row: int | None) -> SpooldError:
        said = f"{self._target.title}: {sessions.sentence(error)}"
        if isinstance(error, psycopg.errors.ForeignKeyViolation) and error.diag.message_detail:
            said += f" ({error.diag.message_detail})"
        shown = canonical.text(said)
        if row is None:
            hint = "nothing was merged: correct the rows where they come from, or the table"
            return SpooldError(errors.SINK_REFUSED, shown, hint=hint)
        place = self._staging.place(row)
        return SpooldError(
            errors.SINK_REFUSED,
            f"{place}: {shown}",
            hint="nothing was merged: correct the row where it comes from, or the table",
            at=str(place),
        )

    def _first_bad(self, statement: Statement, error: psycopg.Error) -> int | None:
        """The first row that the statement fails at, found by halves; None: it is no row's fault.

        Nor can be told whose it is where rows may refer to later ones.
        """
        if isinstance(error, psycopg.errors.ForeignKeyViolation) and self._target.refers_to_itself:
            return None
        if self._fails(statement, range(1, 1)):
            return None
        low, high = 1, self._staging.rows + 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._fails(statement, range(low, middle)):
                high = middle
            else:
                low = middle
        return low

    def _fails(self, statement: Statement, lines: range) -> bool:
        """Whether some rows fail; else they are in, for the search."""
        try:
            with self._connection.transaction():
                statement(lines)
        except psycopg.Error as error:
            if not _is_of_rows(error):
                raise
            return True
        return False

    def _check_constraints(self) -> None:
        """What is deferred must hold before anybody relies on the plan."""
        try:
            self._run(sql.SQL("set constraints all immediate"))
        except psycopg.Error as error:
            if not _is_of_rows(error):
                raise
            raise self._refusal(error, None) from error

    def _compare(self) -> tuple[int, int]:
        """Note the rows that conflict with the target's, and those that it lacks; their counts."""
        self._run(sql.SQL("analyze {}").format(TABLE))
        key = sql.Identifier("t", self._target.key[0].name)
        self._run(
            sql.SQL(
                "create temporary table spoold_noted on commit drop as"
                " select s.{line}, {key} is null as missing"
                " from {staging} s left join {target} t on {same_key}"
                " where {key} is null or {differs}"
            ).format(
                line=LINE,
                key=key,
                staging=TABLE,
                target=self._target.itself,
                same_key=self._same_key(),
                differs=_differ(self._target_values("t"), self._staged_values("s")),
            )
        )
        row = self._connection.execute(
            sql.SQL(
                "select count(*) filter (where not missing), count(*) filter (where missing)"
                " from {}"
            ).format(_NOTED)
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    def _require_inserted(self) -> None:
        """Refuse all where rows that were missing still are."""
        lost = self._count(
            "select count(*) from {missing} m join {staging} s using ({line})"
            " where not exists (select from {target} t where {same_key})"
        )
        if lost:
            raise self._lost(lost, "not in")

    def _require_updated(self, updated: int) -> None:
        """Refuse all where a row is as it was; several lines of the bundle may be one row."""
        standing = self._count(
            "select count(*) from (select distinct t.tableoid, t.ctid from {conflicts} c"
            " join {staging} s using ({line}) join {target} t on {same_key}) as standing"
        )
        if updated < standing:
            raise self._lost(standing - updated, "not updated in")

    def _count(self, query: LiteralString) -> int:
        """What a query of one number says of the rows that were noted."""
        row = self._connection.execute(
            sql.SQL(query).format(
                conflicts=_CONFLICTS,
                missing=_MISSING,
                staging=TABLE,
                line=LINE,
                target=self._target.itself,
                same_key=self._same_key(),
            )
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _lost(self, count: int, where: str) -> SpooldError:
        return SpooldError(
            errors.SINK_REFUSED,
            f"{count:,} rows are {where} {self._target.title} though nothing has refused them",
            hint="nothing was merged: a trigger or rule sends them elsewhere, or row level "
            "security hides them from this user",
        )

    def _refuse_contradictions(self, among: sql.Composable) -> None:
        """Refuse a bundle that has two contents under the key of one of these rows."""
        names = self._staging.columns
        row = self._connection.execute(
            sql.SQL(
                "select a.{line}, b.{line} from {conflicts} c"
                " join {staging} a on a.{line} = c.{line}"
                " join {staging} b on {same_key} and {differs} order by 1, 2 limit 1"
            ).format(
                line=LINE,
                conflicts=among,
                staging=TABLE,
                same_key=sql.SQL(" and ").join(
                    sql.SQL("a.{0} {1} b.{0}").format(staged(key.name, names), key.equal)
                    for key in self._target.key
                ),
                differs=_differ(self._staged_values("a"), self._staged_values("b")),
            )
        ).fetchone()
        if row is not None:
            first, second = sorted(row)
            raise self._staging.place(second).refusal(
                f"{self._staging.place(first)} has the same key and other content"
            )

    def _conflicts(self, limit: int) -> list[Listed]:
        """The first rows in conflict, with the text of their keys."""
        names = self._staging.columns
        keys = sql.SQL(", ").join(
            sql.SQL("s.{}::pg_catalog.text").format(staged(key.name, names))
            for key in self._target.key
        )
        found = self._connection.execute(
            sql.SQL(
                "select s.{line}, array[{keys}] from {conflicts} c join {staging} s using ({line})"
                " order by 1 limit {limit}"
            ).format(
                line=LINE,
                keys=keys,
                conflicts=_CONFLICTS,
                staging=TABLE,
                limit=sql.Literal(limit),
            )
        ).fetchall()
        places = self._staging.places(row for row, _ in found)
        return [
            Listed(place, [canonical.text(text[:_MAX_SHOWN]) for text in key])
            for place, (_, key) in zip(places, found, strict=True)
        ]

    def _refuse_conflict(self, conflicting: int) -> None:
        place, key = self._conflicts(1)[0]
        more = f", and {conflicting - 1:,} more rows" if conflicting > 1 else ""
        raise SpooldError(
            errors.ROWS_CONFLICT,
            f"{place}{more}: {self._target.title} has other content under the key "
            f"({', '.join(key)})",
            at=str(place),
        )

    def _update(self, lines: range | None) -> int:
        """Make the rows in conflict what the bundle says."""
        names = self._staging.columns
        return self._run(
            sql.SQL(
                "update {target} t set {values} from {conflicts} c"
                " join {staging} s using ({line}) where {same_key} and {among}"
            ).format(
                target=self._target.itself,
                values=sql.SQL(", ").join(
                    sql.SQL("{} = s.{}").format(sql.Identifier(name), staged(name, names))
                    for name in names
                ),
                conflicts=_CONFLICTS,
                staging=TABLE,
                line=LINE,
                same_key=self._same_key(),
                among=_among(lines),
            )
        )

    def _same_key(self) -> sql.Composable:
        """Whether `t`, of the target, and `s`, staged, have one key."""
        return sql.SQL(" and ").join(
            sql.SQL("{} {} s.{}").format(
                sql.Identifier("t", key.name), key.equal, staged(key.name, self._staging.columns)
            )
            for key in self._target.key
        )

    def _target_values(self, table: str) -> list[sql.Composable]:
        return [sql.Identifier(table, name) for name in self._staging.columns]

    def _staged_values(self, table: str) -> list[sql.Composable]:
        names = self._staging.columns
        return [
            sql.SQL("{}.{}").format(sql.Identifier(table), staged(name, names)) for name in names
        ]


def _differ(left: list[sql.Composable], right: list[sql.Composable]) -> sql.Composable:
    """Whether two rows differ: types need no equality of their own for that."""
    comma = sql.SQL(", ")
    texts = [
        comma.join(sql.SQL("{}::pg_catalog.text").format(each) for each in side)
        for side in (left, right)
    ]
    return sql.SQL(
        "row({})::pg_catalog.record operator(pg_catalog.*<>) row({})::pg_catalog.record"
        " and row({})::pg_catalog.record operator(pg_catalog.*<>) row({})::pg_catalog.record"
    ).format(comma.join(left), comma.join(right), *texts)


def _among(lines: range | None) -> sql.Composable:
    if lines is None:
        return sql.SQL("true")
    return sql.SQL("s.{0} >= {1} and s.{0} < {2}").format(
        LINE, sql.Literal(lines.start), sql.Literal(lines.stop)
    )


def _is_of_rows(error: psycopg.Error) -> bool:
    return (error.sqlstate or "").startswith(_OF_ROWS)
