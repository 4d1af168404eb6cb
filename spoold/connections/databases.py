"""`[databases]` and `[queries]`: the PostgreSQL servers that rows are read from and merged into."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from spoold.connections.parameters import Declaration
from spoold.connections.secrets import read_secret, scrubbed, unusable
from spoold.section import Count, FilePath, Name, Seconds, Section

_PLACEHOLDER: Final = re.compile(r"%(?:%|\(([A-Za-z_][A-Za-z0-9_]*)\)[sbt])")
# What opens a comment, a string or a quoted name; within a name a `$` opens nothing.
_OPENING: Final = re.compile(
    r"""--|/\*|(?<![\w$])[eE]'|['"]|(?<![\w$])\$(?:[^\W\d]\w*)?\$""",
)
_ESCAPED: Final = re.compile(r"(?:[^'\\]|\\.)*", re.DOTALL)
_COMMENT_MARK: Final = re.compile(r"/\*|\*/")


class DatabaseSettings(Section):
    """A PostgreSQL database that queries read and sinks write."""

    url: str = Field(default="", description="a libpq URL; a password is better kept in url_file")
    url_file: FilePath | None = Field(default=None, description="a file that holds the URL")
    statement_timeout_seconds: Seconds = Field(
        default=0, description="the longest that one statement may take; 0: no limit"
    )
    lock_timeout_seconds: Seconds = Field(
        default=30, description="the longest to wait for somebody's lock; 0: no limit"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> "DatabaseSettings":
        if bool(self.url) == (self.url_file is not None):
            raise ValueError("write url or url_file, one of them")
        return self

    def address(self, name: str) -> str:
        """The URL, read anew: a password may change while the daemon runs. Raises config-invalid.

        `name` is that of the section, for the message.
        """
        if self.url_file is None:
            return self.url
        at = f"databases.{name}.url_file"
        try:
            return read_secret(self.url_file, at=at, is_secret=_has_password).decode().strip()
        except UnicodeDecodeError as error:
            raise unusable(self.url_file, "it is not UTF-8", at=at) from error


def _has_password(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    return scrubbed(text) != text


def table_path(text: str) -> tuple[str, ...]:
    """The parts of "name" or "schema.name", each to be quoted as it stands. Raises ValueError."""
    parts = tuple(text.split("."))
    if len(parts) > 2 or not all(parts) or "\0" in text:
        raise ValueError('a table is written "schema.name", without quotes')
    return parts


def _table(text: str) -> str:
    if text:
        table_path(text)
    return text


Table = Annotated[str, AfterValidator(_table)]


def _quoted_names(sql: str) -> list[str]:
    """Parameters that stand where their values could end what they stand in.

    A value is written as a literal, with quotes of its own: within other quotes, or after a line
    feed in a comment, what it says would be SQL.
    """
    found: list[str] = []
    position = 0
    while (opening := _OPENING.search(sql, position)) is not None:
        position = _closed(sql, opening)
        inside = _PLACEHOLDER.finditer(sql[opening.end() : position])
        found += [match[1] for match in inside if match[1] is not None]
    return found


def _closed(sql: str, opening: re.Match[str]) -> int:
    """Where a comment, string or quoted name ends; one that is left open, at the end."""
    mark, begin = opening[0], opening.end()
    match mark:
        case "--":
            end = sql.find("\n", begin)
            mark = "\n"
        case "/*":
            return _comment_end(sql, begin)
        case "e'" | "E'":
            escaped = _ESCAPED.match(sql, begin)
            assert escaped is not None
            end = escaped.end()
            mark = "'"
        case _:
            end = sql.find(mark, begin)
    return len(sql) if end < 0 else end + len(mark)


def _comment_end(sql: str, begin: int) -> int:
    depth = 1
    for mark in _COMMENT_MARK.finditer(sql, begin):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(sql)


class QuerySettings(Section):
    """What a request may ask of a database: it names this and gives values, never SQL."""

    database: Name = Field(description="a key of [databases]")
    sql: str = Field(default="", description="a SELECT with %(name)s for each parameter")
    table: Table = Field(default="", description='or a whole table: "schema.name"')
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
        if self.table and self.parameters:
            raise ValueError("parameters are those of sql; a table is taken whole")
        used = {match[1] for match in _PLACEHOLDER.finditer(self.sql) if match[1]}
        if differing := ", ".join(sorted(used ^ set(self.parameters))):
            raise ValueError(f"sql and parameters do not name the same: {differing}")
        if self.parameters and "%" in _PLACEHOLDER.sub("", self.sql):
            raise ValueError("beside %(name)s, write %% for a percent sign in sql")
        if self.parameters and (quoted := _quoted_names(self.sql)):
            raise ValueError(
                f"%({quoted[0]})s stands in quotes or a comment of sql: write it bare, values are "
                "quoted where they are filled in"
            )
        return self
