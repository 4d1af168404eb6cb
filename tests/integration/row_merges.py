"""A bundle's rows, a table of a test's own, and the sink between them."""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from spoold.canonical import Document
from spoold.connections import Connections
from spoold.connections.databases import DatabaseSettings
from spoold.connections.row_types import Column, Encoding, RowSchema
from spoold.errors import SpooldError
from spoold.sinks.artifacts import ArtifactSettings
from spoold.sinks.postgres import RowsSettings, RowsSink
from spoold.sinks.sink import Delivery, Plan
from tests.contracts.sink import deliver

ALERTS = "(id bigint primary key, host text not null, severity int, seen timestamptz)"


def lines(*rows: Mapping[str, object]) -> bytes:
    """Rows as the source writes them."""
    return b"".join(
        json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for row in rows
    )


def alert(number: int, **changes: object) -> dict[str, object]:
    return {"id": number, "host": f"host-{number}", "severity": 3, "seen": None, **changes}


def alerts(count: int) -> bytes:
    return lines(*(alert(number) for number in range(1, count + 1)))


@dataclass
class Place:
    """A bundle's files, and a schema of the database that nobody else has."""

    folder: Path
    conninfo: str
    files: dict[str, bytes] = field(default_factory=dict)
    schema: str = field(default_factory=lambda: f"own_{uuid.uuid4().hex[:12]}")
    checks: Callable[[], None] = lambda: None
    counted: list[tuple[int, int]] = field(default_factory=list)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self.conninfo, autocommit=True, options=f"-c search_path={self.schema},public"
        )

    def run(self, statement: str, *parameters: object) -> list[Any]:
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters or None)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def write(self, path: str, content: bytes) -> None:
        self.files[path] = content

    def write_schema(
        self, path: str, columns: Mapping[str, Encoding], key: tuple[str, ...] = (), **more: Any
    ) -> None:
        described = tuple(Column(name, "any", each) for name, each in columns.items())
        self.write(path, RowSchema("q", described, key, **more).encode())

    def delivery(self, job: uuid.UUID | None = None) -> Delivery:
        return deliver(
            self.folder,
            self.files,
            job_id=str(job or uuid.uuid4()),
            site="site-b",
            check=self.checks,
            count=lambda size, rows: self.counted.append((size, rows)),
        )

    def sink(self, **settings: Any) -> RowsSink:
        conninfo = settings.pop("conninfo", self.conninfo)
        database = DatabaseSettings(url=conninfo, **settings.pop("database", {}))
        fields = {
            "name": "alerts",
            "kind": "postgres",
            "entries": ["**"],
            "database": "soc",
            "table": f"{self.schema}.{settings.pop('table', 'alert')}",
            **settings,
        }
        return RowsSink.open(RowsSettings(**fields), Connections(databases={"soc": database}))

    @contextmanager
    def plan(self, job: uuid.UUID | None = None, **settings: Any) -> Iterator[Plan]:
        with closing(self.sink(**settings).plan(self.delivery(job))) as plan:
            yield plan

    def merge(self, job: uuid.UUID | None = None, **settings: Any) -> Document:
        with self.plan(job, **settings) as plan:
            plan.apply()
            return plan.report

    def counts(self, job: uuid.UUID | None = None, **settings: Any) -> tuple[int, int, int]:
        rows: Any = self.merge(job, **settings)["rows"]
        return rows["inserted"], rows["skipped"], rows["conflicting"]

    def refusal(self, **settings: Any) -> SpooldError:
        """The error of a plan, which has changed nothing."""
        before = self.contents()
        with pytest.raises(SpooldError) as caught, self.plan(**settings):
            pass
        assert self.contents() == before
        return caught.value

    def contents(self) -> dict[str, list[Any]]:
        """All rows of all tables of the schema, as text."""
        with self.connect() as connection:
            tables = connection.execute(
                "select relname from pg_class where relnamespace = %s::regnamespace"
                " and relkind in ('r', 'p')",
                (self.schema,),
            ).fetchall()
            return {
                name: connection.execute(
                    sql.SQL("select t::text from {} t order by 1").format(sql.Identifier(name))
                ).fetchall()
                for (name,) in tables
            }


@contextmanager
def own_schema(folder: Path, conninfo: str) -> Iterator[Place]:
    """A place whose schema is gone afterwards."""
    place = Place(folder, conninfo)
    place.run(f"create schema {place.schema}")
    yield place
    place.run(f"drop schema {place.schema} cascade")


def both_sinks(place: Place, store: Path) -> tuple[RowsSettings, ArtifactSettings]:
    """Alerts into a place's table, artifacts into a folder."""
    rows = RowsSettings(
        name="alerts",
        kind="postgres",
        entries=["alerts/*.jsonl"],
        database="soc",
        table=f"{place.schema}.alert",
    )
    artifacts = ArtifactSettings.model_validate(
        {
            "name": "artifacts",
            "kind": "files",
            "entries": ["artifacts/**"],
            "store": str(store),
            "into": "",
        }
    )
    return rows, artifacts
