"""The postgres source: the rows of a configured query as JSON lines, with their schema beside them.

A request names a query and gives values; SQL, tables and databases are the operator's. All queries
of an attempt on one database see one snapshot. Entries are `<into>/<query>.jsonl`, one object a
row (see `connections.row_types`), and `<into>/<query>.schema.json`.
"""

import io
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from spoold import canonical, errors
from spoold.bundle.entry import ByteStream, SourceEntry
from spoold.connections.databases import DatabaseSettings, QuerySettings
from spoold.connections.parameters import Given, bind
from spoold.connections.row_types import (
    ROWS_MEDIA_TYPE,
    ROWS_SUFFIX,
    SCHEMA_MEDIA_TYPE,
    SCHEMA_SUFFIX,
)
from spoold.errors import SpooldError
from spoold.section import Name
from spoold.sources.fields import Into
from spoold.sources.source import Gathering, Problem, SourceSpec, made_up, raise_it


class PostgresSpec(SourceSpec):
    """A request's source of kind `postgres`."""

    kind: Literal["postgres"]
    query: Name = Field(description="a key of [queries] in the configuration")
    parameters: Given = Field(default_factory=dict, description="a value for each that it declares")
    into: Into = Field(default="rows", description="the folder in the bundle")

    def title(self) -> str:
        """Kind and query."""
        return f"postgres:{self.query}"

    def name(self) -> str:
        """The query."""
        return self.query


class PostgresSource:
    """Reads what one spec names."""

    Spec: ClassVar[type[PostgresSpec]] = PostgresSpec

    def __init__(
        self,
        spec: PostgresSpec,
        query: QuerySettings,
        database: DatabaseSettings,
        gathering: Gathering,
        label: str,
    ) -> None:
        self._spec, self._query, self._database = spec, query, database
        self._values = bind(query.parameters, spec.parameters, at="parameters")
        self._gathering = gathering
        self.label = label
        self.warnings: list[str] = []

    @classmethod
    def open(cls, spec: PostgresSpec, gathering: Gathering, label: str) -> "PostgresSource":
        """The source that a spec names. Raises query-unknown or parameters-invalid."""
        connections = gathering.connections
        query = connections.queries.get(spec.query)
        if query is None:
            shown = canonical.text(spec.query)
            raise SpooldError(errors.QUERY_UNKNOWN, f"there is no [queries.{shown}]", at="query")
        return cls(spec, query, connections.databases[query.database], gathering, label)

    def measure(self) -> int | None:
        """Nobody knows: a planner's estimate may be wrong by any factor."""
        return None

    def entries(self, on_problem: Problem = raise_it) -> Iterator[SourceEntry]:
        """Yield the rows, then their schema.

        Raises source-away, source-refused, query-failed, rows-too-many or config-invalid.
        """
        # The driver takes longer to load than most commands take.
        from spoold.sources.snapshot import Snapshot  # noqa: PLC0415

        name = self._query.database
        snapshot = self._gathering.shared(
            ("postgres", name), lambda: Snapshot.open(name, self._database)
        )
        rows = snapshot.rows(self._spec.query, self._query, self._values, self._gathering)
        yield self._entry(ROWS_SUFFIX, ROWS_MEDIA_TYPE, snapshot.taken_ns, None, rows)
        schema = rows.schema().encode()
        content = io.BytesIO(schema)
        yield self._entry(SCHEMA_SUFFIX, SCHEMA_MEDIA_TYPE, snapshot.taken_ns, len(schema), content)

    def _entry(
        self, suffix: str, media_type: str, mtime_ns: int, size: int | None, content: ByteStream
    ) -> SourceEntry:
        path = f"{self._spec.into}/{self._spec.query}{suffix}".encode()
        return made_up(
            path, self.label, content, mtime_ns=mtime_ns, size=size, media_type=media_type
        )
