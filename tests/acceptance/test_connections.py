"""The embedded server has room for all workers that are configured, and for a second daemon's."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoold import config, postgres
from spoold.daemon.backend import CONNECTIONS_OF_A_DAEMON, database
from spoold.spool import Spool
from spoold.worker.settings import CONNECTIONS_OF_A_WORKER
from tests.conftest import wait_until
from tests.sites import Site, request

MakeSite = Callable[..., Site]

_OF_WORKERS = ("spoold worker", "spoold publish", "spoold beat", "spoold listen")


@pytest.fixture
def own_spool(spool: Spool) -> Iterator[Spool]:
    yield spool
    postgres.remove(spool)


def test_a_worker_holds_as_many_connections_as_are_reckoned_with(
    make_site: MakeSite, evidence: Path
) -> None:
    site = make_site(roots={"evidence": evidence}, embedded=True, workers_count=2)
    site.start()
    site.drop("request-demo.json", request())
    site.final("request-demo.json")
    with postgres.connect(postgres.find(Spool.at(site.root)), "tests") as connection:

        def held() -> dict[bool, int]:
            rows = connection.execute(
                "select application_name = any(%s), count(*) from pg_stat_activity"
                " where application_name like 'spoold %%' group by 1",
                [list(_OF_WORKERS)],
            ).fetchall()
            return dict(rows)

        # A worker that has published nothing yet has one less.
        wait_until(lambda: held().get(True, 0) >= 2 * CONNECTIONS_OF_A_WORKER - 1)
        assert held()[True] <= 2 * CONNECTIONS_OF_A_WORKER
        assert held()[False] <= CONNECTIONS_OF_A_DAEMON


def test_there_are_connections_for_every_worker_of_two_daemons(own_spool: Spool) -> None:
    settings = config.load(own_spool, None, {"workers.count": "50"}, {})
    with (
        database(settings) as backend,
        postgres.connect(backend.conninfo, "tests") as connection,
    ):
        row = connection.execute("select current_setting('max_connections')::int").fetchone()
    assert row is not None
    assert row[0] >= 2 * (50 * CONNECTIONS_OF_A_WORKER + CONNECTIONS_OF_A_DAEMON)
