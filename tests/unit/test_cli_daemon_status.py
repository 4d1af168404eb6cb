"""`status` without a name: what it prints of a daemon's document."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from spoold import trust
from spoold.cli import cli
from spoold.daemon_status import NAME, DaemonState, DaemonStatus, InboxStatus
from spoold.spool import Folder, Spool
from spoold.status import Host

NOW: Final = datetime.now(UTC)
STATUS: Final = DaemonStatus(
    state=DaemonState.RUNNING,
    spool=uuid.UUID(int=0),
    pid=1,
    started_at=NOW,
    renewed_at=NOW,
    expires_at=NOW + timedelta(days=1),
    mode="events",
    inbox=InboxStatus(missing=False, waiting={}, strays=0, unfinished=0, last_scan_at=NOW),
    backlog={},
    oldest_wait_seconds=0,
    workers_alive=2,
    workers_configured=2,
    database_away_since=None,
    last_error=None,
    free_bytes=2**30,
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    place = tmp_path / "spool"
    made = CliRunner().invoke(
        cli, ["init", str(place), "--algorithm", "ed25519", "--site", "site-a"]
    )
    assert made.exit_code == 0, made.output
    return Spool.at(place)


def said(spool: Spool, status: DaemonStatus) -> dict[str, str]:
    """What is printed, by the name of each fact."""
    signer = trust.load_signer(spool.root / ".spoold/keys/signing.pem", "site-a")
    document = status.document(Host("site-a", "host-a"))
    (spool.folder(Folder.STATUS) / NAME).write_bytes(trust.sign_document(document, signer))
    done = CliRunner().invoke(cli, ["status", "--spool", str(spool.root)])
    assert done.exit_code == 0, done.output
    pairs = [line.strip().partition("  ") for line in done.stdout.splitlines()[1:]]
    return {name: fact.strip() for name, _, fact in pairs}


def test_a_daemon_with_nothing_to_do_says_so(spool: Spool) -> None:
    facts = said(spool, STATUS)
    assert facts["jobs"] == "none unfinished"
    assert facts["oldest waits"] == "0 s"
    assert facts["database"] == "up"


def test_how_long_a_drop_waits_is_told_while_the_database_is_away(spool: Spool) -> None:
    away = replace(
        STATUS,
        inbox=replace(STATUS.inbox, waiting={"database": 3}),
        backlog=None,
        database_away_since=NOW,
    )
    facts = said(spool, replace(away, oldest_wait_seconds=42))
    assert facts["waiting"] == "3 database"
    assert facts["jobs"] == "unknown"
    assert facts["oldest waits"] == "42 s"
    assert facts["database"].startswith("away since ")
    assert "oldest waits" not in said(spool, replace(away, oldest_wait_seconds=None))
