"""`jobs`, `retry` and `cancel` on a real queue whose daemon and workers are played by hand."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from spoold import errors
from spoold.canonical import error_document
from spoold.cli import cli
from spoold.errors import Code, SpooldError
from spoold.intake.complete import Wait
from spoold.intake.settings import Reason
from spoold.intake.statuses import Statuses
from spoold.queue.answers import Begun
from spoold.queue.binding import bind
from spoold.queue.job import Job, Move, State
from spoold.queue.store import Store
from spoold.spool import Folder, Spool
from spoold.status import Host
from spoold.trust import sign_document
from tests.bundles import signer
from tests.integration.queue_drops import begin_publishing, drop, finish, publication, worker
from tests.sites import request

CONTENT = json.dumps(request()).encode()

Run = Callable[..., Result]


@pytest.fixture
def run(store: Store, spool: Spool, conninfo: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command on that spool; `status` is the exit status it must have."""
    bind(store.database, spool, "site-a")
    monkeypatch.setenv("SPOOLD_DATABASE_URL", conninfo)
    monkeypatch.setenv("SPOOLD_SPOOL", str(spool.root))

    def command(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(cli, list(arguments))
        assert result.exit_code == status, result.output
        return result

    return command


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def ended(
    store: Store,
    spool: Spool,
    name: str,
    state: State = State.FAILED,
    code: Code = errors.NO_SPACE,
    content: bytes = CONTENT,
) -> Job:
    """A job that ended so, its drop in its place."""
    store.admit([drop(name, drop_sha256=hashlib.sha256(content).digest())])
    [claim] = store.claim(worker(store))
    folder = Folder.PROCESSED if state is State.SUCCEEDED else Folder.FAILED
    path = spool.folder(folder) / f"{name}.{claim.job.short_id}"
    path.write_bytes(content)
    error = None if state is State.SUCCEEDED else error_document(SpooldError(code))
    planned = publication(claim, state, name=os.fsencode(path.name))
    planned = replace(
        planned,
        outcome={**planned.outcome, "error": error},
        sources=(Move("drop", "", folder, os.fsencode(path.name), 1, 2, 3),),
    )
    assert begin_publishing(store, claim, planned) is Begun.BEGUN
    assert finish(store, claim)
    return get(store, claim.id)


def get(store: Store, job: uuid.UUID) -> Job:
    found = store.get(job)
    assert found is not None
    return found


# --- retry ---------------------------------------------------------------------------------------


def test_all_that_ended_with_a_code_are_retried_once(run: Run, store: Store, spool: Spool) -> None:
    wanted = [ended(store, spool, f"request-{number}.json") for number in range(3)]
    ended(store, spool, "request-late.json", code=errors.TIMEOUT)
    ended(store, spool, "request-good.json", State.SUCCEEDED)
    dry = document(run("retry", "--code", "no-space", "--dry-run", "--json"))["would_retry"]
    assert [each["job_id"] for each in dry] == [str(job.id) for job in wanted]
    assert {each["error"]["code"] for each in dry} == {"no-space"}
    assert store.unfinished() == 0

    done = document(run("retry", "--state", "failed", "--code", "no-space", "--json"))
    assert [each["retry_of"] for each in done["retried"]] == [str(job.id) for job in wanted]
    assert done["refused"] == []
    new = [get(store, uuid.UUID(each["job_id"])) for each in done["retried"]]
    assert [job.retry_of for job in new] == [job.id for job in wanted]
    assert {job.state for job in new} == {State.QUEUED}
    for job in new:
        claimed = spool.folder(Folder.CLAIMED) / f"{job.id}.{job.drop_name.decode()}"
        assert claimed.read_bytes() == CONTENT
    assert document(run("retry", "--code", "no-space", "--json"))["retried"] == []


def test_only_the_newest_job_of_a_name_is_retried(run: Run, store: Store, spool: Spool) -> None:
    ended(store, spool, "request-a.json")
    ended(store, spool, "request-a.json", State.SUCCEEDED)  # dropped again, and done
    ended(store, spool, "request-b.json")
    newest = ended(store, spool, "request-b.json")
    done = document(run("retry", "--state", "failed", "--json"))["retried"]
    assert [each["retry_of"] for each in done] == [str(newest.id)]


def test_only_what_ended_long_ago_is_retried(run: Run, store: Store, spool: Spool) -> None:
    old = ended(store, spool, "request-old.json")
    ended(store, spool, "request-new.json")
    store.database.connection.execute(
        "update spoold.job set finished_at = finished_at - interval '1 hour' where id = %s",
        (old.id,),
    )
    options = ("--state", "failed", "--older-than", "30m")
    done = document(run("retry", *options, "--json"))["retried"]
    assert [each["retry_of"] for each in done] == [str(old.id)]


def test_what_stands_against_one_retry_stops_no_other(run: Run, store: Store, spool: Spool) -> None:
    gone, good = (ended(store, spool, f"request-{name}.json") for name in ("a", "b"))
    (spool.root / gone.sources[0].folder / os.fsdecode(gone.sources[0].name)).unlink()
    done = document(run("retry", gone.short_id, good.short_id, "--json", status=1))
    assert [each["retry_of"] for each in done["retried"]] == [str(good.id)]
    [refused] = done["refused"]
    assert refused["job_id"] == str(gone.id)
    assert refused["refused"]["code"] == "drop-missing"


def test_another_drop_in_the_place_of_a_jobs_own_is_not_run_for_it(
    run: Run, store: Store, spool: Spool
) -> None:
    old = ended(store, spool, "request-a.json")
    path = spool.root / old.sources[0].folder / os.fsdecode(old.sources[0].name)
    path.write_bytes(json.dumps(request("another")).encode())
    said = json.loads(run("retry", old.short_id, "--json", status=1).stdout)
    assert said["error"]["code"] == "drop-missing"
    assert os.listdir(spool.folder(Folder.CLAIMED)) == []
    assert store.unfinished() == 0


def test_many_jobs_are_read_in_parts(run: Run, store: Store, spool: Spool) -> None:
    last = ended(store, spool, "request-0.json")
    store.database.connection.execute(
        # Rows like that one, of other names: more than one reading holds.
        "insert into spoold.job select (jsonb_populate_record(job, jsonb_build_object("
        " 'id', gen_random_uuid(), 'drop_name', '\\x' || encode(n::text::bytea, 'hex')))).*"
        " from spoold.job, generate_series(1, 1200) as n where job.id = %s",
        (last.id,),
    )
    dry = document(run("retry", "--state", "failed", "--dry-run", "--json"))["would_retry"]
    assert len({each["job_id"] for each in dry}) == 1201


# --- jobs ----------------------------------------------------------------------------------------


def test_jobs_tell_the_last_error_and_the_next_attempt(
    run: Run, store: Store, spool: Spool
) -> None:
    failed = ended(store, spool, "request-failed.json")
    refusal = error_document(SpooldError(errors.DROP_EMPTY))
    rejected = drop("request-bad.json", action=None, error=refusal)
    store.admit([rejected])
    store.admit([drop("request-again.json")])
    [claim] = store.claim(worker(store))
    assert store.retry(claim, error_document(SpooldError(errors.DISK_ERROR)), 600)

    told = {each["drop"]: each for each in document(run("jobs", "--json"))["jobs"]}
    assert told["request-failed.json"]["error"]["code"] == "no-space"
    assert told["request-failed.json"]["job_id"] == str(failed.id)
    assert told["request-bad.json"]["error"]["code"] == "drop-empty"
    again = told["request-again.json"]
    assert (again["state"], again["attempt"]) == ("scheduled", 1)
    assert again["error"]["code"] == "disk-error"
    assert again["next_attempt_at"] == get(store, claim.id).due_at.isoformat()

    [line] = [line for line in run("jobs").stdout.splitlines() if "request-again.json" in line]
    assert "disk-error" in line
    assert f"{get(store, claim.id).due_at:%Y-%m-%d %H:%M:%S}" in line


# --- cancel --------------------------------------------------------------------------------------


def test_queued_scheduled_and_waiting_jobs_are_cancelled(run: Run, store: Store) -> None:
    key = b"k" * 32
    holder = drop("request-holder.json", dedup_key=key)
    waits = drop("request-waits.json", dedup_key=key, request_sha256=holder.request_sha256)
    later = drop("request-later.json")
    for each in (holder, waits, later):
        store.admit([each])
    assert get(store, waits.id).waits_for == holder.id
    later_claim = next(
        claim for claim in store.claim(worker(store), limit=5) if claim.id == later.id
    )
    assert store.retry(later_claim, {"code": "x"}, 600)
    for name in ("request-waits.json", "request-later.json", "request-holder.json"):
        assert document(run("cancel", name, "--json"))["state"] == "cancelled"
        job = store.find_name(name.encode())
        assert job is not None
        assert job.state is State.PUBLISHING
        assert job.outcome is not None
        assert job.outcome["state"] == "cancelled"
        run("cancel", name, status=1)


def test_a_drop_in_the_inbox_is_no_job_and_the_way_out_is_told(
    run: Run, store: Store, spool: Spool
) -> None:
    path = spool.folder(Folder.INBOX) / "request-a b.json"
    path.write_bytes(CONTENT)
    said = run("cancel", path.name, status=1).stderr
    assert "waits in the inbox and is no job yet" in said
    assert f"rm '{path}'" in said
    # The finished job of that name is not the one that is meant.
    ended(store, spool, path.name)
    assert "waits in the inbox" in run("cancel", path.name, status=1).stderr
    path.unlink()
    assert "job-state" in run("cancel", path.name, status=1).stderr


def test_a_drop_that_was_only_just_taken_is_no_job_yet(
    run: Run, store: Store, spool: Spool
) -> None:
    statuses = Statuses(spool, store, Host("site-a", "host"))
    statuses.waiting(b"request-a.json", Wait(Reason.WRITER_OPEN), uuid.uuid4())
    said = run("cancel", "request-a.json", status=1).stderr
    assert "is no job yet: waiting, writer-open" in said


def test_a_job_is_found_by_its_name_as_status_files_show_it(run: Run, store: Store) -> None:
    admission = replace(drop(), drop_name=b"request-\xff.json")
    store.admit([admission])
    assert document(run("cancel", "request-\\xff.json", "--json"))["job_id"] == str(admission.id)


def test_a_signed_drop_is_not_retried_while_the_trust_store_cannot_be_believed(
    run: Run, store: Store, spool: Spool
) -> None:
    run("init", str(spool.root), "--site", "site-a")
    content = sign_document(request(), signer("site-a"))
    job = ended(store, spool, "request-a.json", content=content)
    spool.folder(Folder.TRUST).chmod(0o777)
    said = run("retry", str(job.id), status=3)
    assert "key-unusable" in said.stderr
    assert not list(spool.folder(Folder.CLAIMED).iterdir())
    spool.folder(Folder.TRUST).chmod(0o700)
    run("retry", str(job.id))  # a job that is rejected: nobody trusts that key
    assert store.find_name(b"request-a.json") != job
