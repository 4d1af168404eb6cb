"""`[databases]` and `[queries]`: the PostgreSQL servers that rows are read from and merged into."""

from typing import Annotated

from pydantic import Field, model_validator

from spoold.connections.parameters import Declaration
from spoold.section import Count, FilePath, Name, Section


class DatabaseSettings(Section):
    """A PostgreSQL database that queries read and sinks write."""

    url: str = Field(default="", description="a libpq URL; a password is better kept in url_file")
    url_file: FilePath | None = Field(default=None, description="a file that holds the URL")

    @model_validator(mode="after")
    def _one_of_them(self) -> "DatabaseSettings":
        if bool(self.url) == (self.url_file is not None):
            raise ValueError("write url or url_file, one of them")
        return self


class QuerySettings(Section):
    """What a request may ask of a database: it names this and gives values, never SQL."""

    database: Name = Field(description="a key of [databases]")
    sql: str = Field(default="", description="a SELECT with %(name)s for each parameter")
    table: str = Field(default="", description='or a whole table: "schema.name"')
    parameters: Declaration = Field(
        default_factory=dict, description='name = "text", integer, numeric, boolean, …'
    )
    key: Annotated[list[str], Field(max_length=32)] = Field(
        default_factory=list, description="columns that identify a row, for whoever merges them"
    )
    max_rows: Count = Field(default=0, description="more are refused; 0: no limit")

    @model_validator(mode="after")
    def _one_of_them(self) -> "QuerySettings":
        if bool(self.sql) == bool(self.table):
            raise ValueError("write sql or table, one of them")
        return self
