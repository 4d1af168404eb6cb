"""Sink `postgres`: rows of a bundle into a table, each once; see `row_plan` for how.

The table and the columns are the operator's; a bundle brings values.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from spoold import errors
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings, table_path
from spoold.errors import SpooldError
from spoold.section import Count, Name
from spoold.sinks.sink import Delivery, Plan, SinkSettings


def _table(text: str) -> str:
    if len(table_path(text)) != 2:
        raise ValueError('write it with its schema: "public.alert"')
    return text


def _column(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("a column has a name")
    return text


Column = Annotated[str, AfterValidator(_column)]


class RowsSettings(SinkSettings):
    """A table that rows are merged into."""

    kind: Literal["postgres"]
    database: Name = Field(description="a key of [databases]")
    table: Annotated[str, AfterValidator(_table)] = Field(description='"schema.name"')
    columns: dict[Column, Column] = Field(
        default_factory=dict,
        description='{ name_in_the_bundle = "column" }; empty: the same names',
    )
    key: Annotated[list[Column], Field(max_length=32)] = Field(
        default_factory=list,
        description="columns of a unique index; empty: those of the primary key",
    )
    on_conflict: Literal["skip", "update", "refuse"] = Field(
        default="skip", description="what to do with other content under the same key"
    )
    max_rows: Count = Field(
        default=0, description="a bundle with more of them is refused; 0: no limit"
    )
    list_conflicts: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=20, description="how many rows in conflict the status names"
    )

    @field_validator("columns")
    @classmethod
    def _each_once(cls, columns: dict[str, str]) -> dict[str, str]:
        if len(set(columns.values())) != len(columns):
            raise ValueError("two of the bundle's columns go into one of the table")
        return columns


class RowsSink:
    """Rows into a table."""

    Settings = RowsSettings

    def __init__(self, settings: RowsSettings, database: DatabaseSettings) -> None:
        self._settings = settings
        self._database = database

    @classmethod
    def open(cls, settings: RowsSettings, connections: Connections) -> "RowsSink":
        """The sink that a section describes."""
        database = connections.databases.get(settings.database)
        if database is None:
            raise SpooldError(
                errors.CONFIG_INVALID,
                f"there is no [databases.{settings.database}]",
                at=f"sinks.{settings.name}.database",
            )
        return cls(settings, database)

    def plan(self, delivery: Delivery) -> Plan:
        """Merge the rows in a transaction that is left open.

        Raises rows-invalid, rows-conflict, rows-too-many, sink-away, sink-refused, config-invalid.
        """
        # The driver takes longer to load than most commands take.
        from spoold.sinks.row_plan import plan_rows  # noqa: PLC0415

        return plan_rows(self._settings, self._database, delivery)
