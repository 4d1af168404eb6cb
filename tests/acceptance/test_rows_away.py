"""A database that is away, then refuses, then answers: what the status says, and no secret."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.conftest import wait_until
from tests.integration.rows import Rows, rows_in
from tests.sites import Site, spoold

MakeSite = Callable[..., Site]

CONFIGURATION = """
[databases.soc]
url_file = "soc.url"

[queries.alerts]
database = "soc"
sql = "select * from alert where incident = %(incident_id)s order by id"
parameters = { incident_id = "text" }
key = ["id"]
"""
REQUEST = {
    "type": "spoold.request/1",
    "action": "bundle",
    "sources": [{"kind": "postgres", "query": "alerts", "parameters": {"incident_id": "INC-7"}}],
    "max_attempts": 1000,
}


@pytest.fixture
def rows(module_conninfo: str) -> Iterator[Rows]:
    with rows_in(module_conninfo) as rows:
        rows.execute("create table alert (id int primary key, incident text, note text)")
        rows.execute(
            "insert into alert select n, 'INC-' || n % 10, 'x' from generate_series(1, 1000) n"
        )
        yield rows


def test_a_database_that_comes_back_is_asked_again(
    make_site: MakeSite, rows: Rows, tmp_path: Path
) -> None:
    site = make_site(retry_base_seconds="0.2", retry_cap_seconds="0.5")
    with open(site.root / "spoold.toml", "a") as file:
        file.write(CONFIGURATION)
    url = site.root / "soc.url"
    password = str(conninfo_to_dict(rows.conninfo)["password"])
    url.touch(0o600)
    url.write_text(make_conninfo(rows.conninfo, host=str(tmp_path)))
    site.start()
    site.drop("request-rows.json", REQUEST)

    def live() -> str:
        path = site.status_path("request-rows.json")
        return path.read_text() if path.exists() else ""

    wait_until(lambda: '"source-away"' in live(), 60)
    assert password not in live()
    url.write_text(f"{rows.conninfo}\n")
    status = site.final("request-rows.json")
    assert status["state"] == "succeeded", status
    assert status["attempt"] > 1
    bundle = site.root / "processed" / status["result"]["bundle"]
    listed = subprocess.run(["tar", "-tf", bundle], capture_output=True, text=True, check=True)
    assert "data/rows/alerts.jsonl" in listed.stdout
    spoold("verify", bundle, "--spool", site.root)

    url.write_text(make_conninfo(rows.conninfo, password="wr0ng-s3cret"))
    site.drop("request-refused.json", REQUEST)
    refused = site.final("request-refused.json")
    assert refused["state"] == "failed"
    assert refused["error"]["code"] == "source-refused"
    assert refused["attempt"] == 1
    told = site.log + live() + site.status_path("request-refused.json").read_text()
    assert password not in told
    assert "wr0ng" not in told
