"""The rows of a bundle in a temporary table, each checked, before any of them is merged.

Guarantees: what stands in the table are the rows of all entries of one delivery, with values of the
target's own types; a line that is no such row refuses all, with its entry and its number.
Crash: the table ends with its transaction.
"""

import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import BinaryIO, Final, NamedTuple

import psycopg
from psycopg import sql

from spoold import canonical, errors
from spoold.bundle.entry import Entry
from spoold.connections import sessions
from spoold.connections.row_types import (
    MAX_SCHEMA_BYTES,
    ROWS_SUFFIX,
    SCHEMA_SUFFIX,
    Encoding,
    RowSchema,
)
from spoold.connections.sessions import Connection
from spoold.errors import SpooldError
from spoold.sinks.restored import open_restored
from spoold.sinks.row_lines import Block, RowFaultError, Rows, blocks, names_in
from spoold.sinks.sink import Delivery
from spoold.sinks.target import Target, TargetColumn

TABLE_NAME: Final = "spoold_staging"
TABLE: Final = sql.Identifier("pg_temp", TABLE_NAME)
LINE: Final = sql.Identifier("line")
_MAX_SHOWN: Final = 300
# The server tells the place of a value that it cannot read in words of its language.
_PLACE: Final = re.compile(rf"COPY {TABLE_NAME}\D*([0-9]+)")
_COLUMN: Final = re.compile(r"\bspoold_([0-9]+)\b")


# How types, and the checks of domains, refuse a value, besides data exceptions: a feature (xml), a
# limit, syntax (tsquery), a name that is not there (regclass), a word of their own.
_OF_VALUES: Final = ("0A", "42", "44", "54", "P0")


class Place(NamedTuple):
    """Where a row stands."""

    entry: str
    line: int

    def __str__(self) -> str:
        return f"{self.entry}, line {self.line}"

    def refusal(self, what: str, *, hint: str = "") -> SpooldError:
        """This row is what is wrong with the bundle."""
        return invalid(str(self), what, hint=hint)


def invalid(place: str, what: str, *, hint: str = "") -> SpooldError:
    """The error rows-invalid, short whatever the sender wrote."""
    shown = canonical.text(what)
    if len(shown) > _MAX_SHOWN:
        shown = f"{shown[:_MAX_SHOWN]} …"
    return SpooldError(errors.ROWS_INVALID, f"{place}: {shown}", hint=hint, at=place)


def staged(name: str, names: tuple[str, ...]) -> sql.Identifier:
    """The staging table's own name for a column of the target."""
    return sql.Identifier(f"spoold_{names.index(name) + 1}")


class Staging:
    """One delivery's rows; `columns` of the target are known when the first row is."""

    def __init__(
        self,
        connection: Connection,
        target: Target,
        mapping: Mapping[str, str],
        delivery: Delivery,
        *,
        max_rows: int,
    ) -> None:
        self._connection = connection
        self._target = target
        self._mapping = mapping
        self._delivery = delivery
        self._max_rows = max_rows
        self._ends = array("Q")  # of each entry, the rows up to its last one
        self.columns: tuple[str, ...] = ()
        self._first = ""
        self.rows = 0

    def load(self) -> None:
        """Read and check all entries. Raises SpooldError, psycopg.Error."""
        for entry in self._entries():
            path = canonical.text(entry.path)
            with _opened(self._delivery.tree, entry.path) as file:
                schema = self._schema(entry.path)
                try:
                    self._load(path, file, schema)
                except RowFaultError as fault:
                    raise Place(path, fault.line).refusal(fault.what) from fault
            before = self._ends[-1] if self._ends else 0
            if schema is not None and schema.rows not in {None, self.rows - before}:
                raise invalid(
                    path, f"it has {self.rows - before} rows, its schema says {schema.rows}"
                )
            self._ends.append(self.rows)

    def place(self, row: int) -> Place:
        """Where a row of the staging table stands; rows are counted from 1."""
        return next(self.places([row]))

    def places(self, rows: Iterable[int]) -> Iterator[Place]:
        """The same of several, in ascending order: entries are gone through once."""
        entries, passed = self._entries(), 0
        entry = next(entries)
        for row in rows:
            number = bisect_right(self._ends, row - 1)
            if number > passed:
                entry, passed = next(islice(entries, number - passed - 1, None)), number
            before = self._ends[number - 1] if number else 0
            yield Place(canonical.text(entry.path), row - before)

    def counts(self) -> Iterator[tuple[str, int]]:
        """Each entry and its rows."""
        before = 0
        for entry, end in zip(self._entries(), self._ends, strict=True):
            # Of a control character as of what it is shown as: the key of the ledger needs both.
            yield canonical.text(entry.path.replace(b"\\", b"\\\\")), end - before
            before = end

    def _entries(self) -> Iterator[Entry]:
        return (
            entry
            for entry in self._delivery.entries()
            if not entry.path.endswith(SCHEMA_SUFFIX.encode())
        )

    def _schema(self, path: bytes) -> RowSchema | None:
        """What the schema entry beside the rows says."""
        stem = path.removesuffix(ROWS_SUFFIX.encode())
        if stem == path:
            return None
        beside = stem + SCHEMA_SUFFIX.encode()
        try:
            with _opened(self._delivery.tree, beside) as file:
                return RowSchema.decode(file.read(MAX_SCHEMA_BYTES + 1))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise invalid(canonical.text(beside), str(error)) from error

    def _load(self, path: str, file: BinaryIO, schema: RowSchema | None) -> None:
        found = blocks(file)
        first = next(found, None)
        names = (
            names_in(first) if first else [each.name for each in schema.columns] if schema else []
        )
        if not names:
            if first:
                raise RowFaultError(1, "it has no columns")
            return
        encodings = _encodings(names, schema)
        columns = self._mapped(path, names)
        if first is None:
            return
        self._begin(path, tuple(each.name for each in columns.values()))
        rows = Rows({name: columns[name].form(encodings.get(name)) for name in names})
        statement = sql.SQL("copy {} ({}) from stdin").format(
            TABLE,
            sql.SQL(", ").join(staged(columns[name].name, self.columns) for name in names),
        )
        try:
            with self._connection.cursor().copy(statement) as copy:
                for block in _with_first(first, found):
                    self._count(path, block)
                    copy.write(rows.copied(block))
        except psycopg.Error as error:
            raise self._refusal(path, error, columns) or error from error

    def _count(self, path: str, block: Block) -> None:
        rows = block.data.count(b"\n")
        self.rows += rows
        if self._max_rows and self.rows > self._max_rows:
            raise SpooldError(
                errors.ROWS_TOO_MANY,
                f"{path} goes beyond the {self._max_rows:,} rows that the sink takes of a bundle",
                hint="raise max_rows in [[sinks]], or send less",
                at=path,
            )
        self._delivery.check()
        self._delivery.count(len(block.data), rows)

    def _mapped(self, path: str, names: list[str]) -> dict[str, TargetColumn]:
        """The table's column for each of an entry's."""
        target = self._target
        mapping = self._mapping or {name: name for name in target.columns}
        if extra := [name for name in names if name not in mapping]:
            raise invalid(
                path,
                f"column {', '.join(extra)}: {target.title} has none for it",
                hint="leave it out of the query that the rows come from, or name its column in "
                "`columns` of [[sinks]]",
            )
        columns = {name: target.columns[mapping[name]] for name in names}
        for name, column in columns.items():
            if column.unfit:
                raise SpooldError(
                    errors.SINK_REFUSED,
                    f"{path}: column {canonical.text(name)} of {target.title} takes no values",
                    hint=column.unfit,
                    at=path,
                )
        present = {column.name for column in columns.values()}
        missing = [name for name in self._mapping if name not in names]
        missing += [key.name for key in target.key if key.name not in present]
        missing += [
            each.name
            for each in target.columns.values()
            if each.not_null
            and not each.has_default
            and not each.unfit
            and each.name not in present
        ]
        if missing:
            raise invalid(path, f"columns are missing: {', '.join(dict.fromkeys(missing))}")
        return columns

    def _begin(self, path: str, columns: tuple[str, ...]) -> None:
        """Make the table for the first entry's columns; others have the same."""
        if not self.columns:
            self.columns, self._first = columns, path
            self._create()
        elif set(columns) != set(self.columns):
            raise invalid(
                path,
                f"it has other columns than {self._first}",
                hint="rows of one sink are alike: make a sink for each kind in [[sinks]]",
            )

    def _create(self) -> None:
        execute = self._connection.execute
        execute(
            sql.SQL(
                "create temporary table {} on commit drop as select {} from {} with no data"
            ).format(
                sql.Identifier(TABLE_NAME),
                sql.SQL(", ").join(
                    sql.SQL("{} as {}").format(sql.Identifier(name), staged(name, self.columns))
                    for name in self.columns
                ),
                self._target.relation,
            )
        )
        changes = [
            sql.SQL("alter {} set not null").format(staged(name, self.columns))
            for name in self.columns
            if self._target.columns[name].not_null or name in {key.name for key in self._target.key}
        ]
        # A cached sequence costs next to nothing, and a row keeps the number of its line.
        changes.append(
            sql.SQL("add {} bigint generated always as identity (cache 10000)").format(LINE)
        )
        execute(sql.SQL("alter table {} {}").format(TABLE, sql.SQL(", ").join(changes)))

    def _refusal(
        self, path: str, error: psycopg.Error, columns: Mapping[str, TargetColumn]
    ) -> SpooldError | None:
        """What the server says of a value, with its row; None where it speaks of something else."""
        context = error.diag.context or ""
        place = _PLACE.search(context)
        of_rows = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
        if not of_rows and (place is None or not (error.sqlstate or "").startswith(_OF_VALUES)):
            return None
        column = _COLUMN.search(error.diag.column_name or context[place.end() :] if place else "")
        said = sessions.sentence(error)
        if column is not None:
            name = self.columns[int(column[1]) - 1]
            said = f"column {next(key for key in columns if columns[key].name == name)}: {said}"
        if place is None:
            return invalid(path, said)
        return Place(path, int(place[1])).refusal(said)


def _encodings(names: list[str], schema: RowSchema | None) -> dict[str, Encoding]:
    if schema is None:
        return {}
    encodings = {each.name: each.encoding for each in schema.columns}
    if encodings.keys() != set(names):
        raise RowFaultError(1, "it has other columns than its schema says")
    return encodings


def _with_first(first: Block, rest: Iterator[Block]) -> Iterator[Block]:
    yield first
    yield from rest


@contextmanager
def _opened(tree: os.PathLike[str], path: bytes) -> Iterator[BinaryIO]:
    """A file of the restored tree. Raises FileNotFoundError."""
    with ExitStack() as stack:
        try:
            folder = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            descriptor = stack.enter_context(open_restored(folder, path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise errors.of_os_error(error) from error
        with open(descriptor, "rb", closefd=False) as file:
            yield file
