"""`jobs`, `jobs prune`, `cancel`, `forget`: the operator's side of the queue, in the database."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spoold import errors
from spoold.cli import options, output
from spoold.errors import Exit, SpooldError
from spoold.queue.job import State

if TYPE_CHECKING:
    from spoold.config import Config
    from spoold.queue.job import Job
    from spoold.queue.store import Store


@contextmanager
def queue(command: str, place: options.Place) -> Iterator[tuple["Store", "Config"]]:
    """The queue of the spool that the options name, for one command."""
    from spoold import log, operate

    config = place.require_config()
    log.configure("warning", "text")
    with operate.open_store(config, command) as store:
        yield store, config


def queue_options(command: options.Command) -> options.Command:
    """`--spool`, `--config`, `--set` and `--json`."""
    return options.spool_option(options.config_options(options.json_option(command)))


@click.group(invoke_without_command=True)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State]),
    help="Only these; repeatable.",
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@queue_options
@click.pass_context
def jobs(
    context: click.Context,
    states: tuple[str, ...],
    limit: int,
    place: options.Place,
    as_json: bool,
) -> int:
    """List jobs, the newest first; or `prune` the rows of those that ended long ago.

    \b
    Example: spoold jobs --state failed --state rejected --json | jq -r '.jobs[].job_id'
    Exit status: 0 done · 69 no database: no daemon runs · 78 no spool, bad configuration
    """
    if context.invoked_subcommand is not None:
        return Exit.DONE
    with queue("jobs", place) as (store, _):
        found = store.jobs([State(state) for state in states], limit)
    if as_json:
        output.document({"jobs": [_document(job) for job in found]})
        return Exit.DONE
    output.table(
        ("JOB", "STATE", "ATTEMPT", "NEXT", "ERROR", "ACTION", "ADMITTED", "DROP"),
        [_row(job) for job in found],
    )
    return Exit.DONE


@jobs.command()
@click.option(
    "--older-than",
    type=options.AGE,
    required=True,
    help='What ended so long ago: "12h", "30d", "8w".',
)
@click.option("--dry-run", is_flag=True, help="Only tell how many that are.")
@queue_options
def prune(
    older_than: int,
    dry_run: bool,
    place: options.Place,
    as_json: bool,
) -> int:
    """Delete the rows of finished jobs that ended long ago, some thousand at a time.

    Files stay: drops, bundles and status files. So do the keys of what succeeded: a request or a
    bundle that was done once is still a duplicate. A pruned job cannot be retried.

    \b
    Example: spoold jobs prune --older-than 90d
    Exit status: 0 done · 69 no database: no daemon runs · 78 no spool, bad configuration
    """
    from spoold.retention import prune_jobs

    with queue("jobs prune", place) as (store, config):
        count = store.prunable(older_than) if dry_run else 0
        # Each batch is a commit of its own: vacuum can follow, and claims go on in between.
        while not dry_run and (deleted := prune_jobs(config.spool, store, older_than)):
            count += deleted
    if as_json:
        output.document({"would_prune" if dry_run else "pruned": count})
    else:
        output.line(f"{count} would be pruned" if dry_run else f"pruned {count}")
    return Exit.DONE


@click.command()
@click.argument("job")
@queue_options
def cancel(
    job: str,
    place: options.Place,
    as_json: bool,
) -> int:
    """Stop a job that is not final and not being published yet.

    JOB is its id, the last 12 digits of that, or the drop's name.

    \b
    Example: spoold cancel request-demo.json
    Exit status: 0 cancelled · 1 no such job, or too late · 69 no database
    """
    from spoold import operate

    with queue("cancel", place) as (store, config):
        found = operate.cancel(store, config.spool, job)
    if as_json:
        output.document({"job_id": str(found.id), "state": "cancelled"})
    else:
        output.line(f"cancelled {found.id}; its status follows")
    return Exit.DONE


@click.command()
@click.argument("bundle")
@queue_options
def forget(
    bundle: str,
    place: options.Place,
    as_json: bool,
) -> int:
    """Let a bundle that was restored here be restored again, instead of being a duplicate.

    BUNDLE is the file, its manifest_sha256, or the job that restored it.

    \b
    Example: spoold forget demo-5f21c09a77d1.tar.zst
    Exit status: 0 forgotten · 1 it was not known · 4 not a bundle · 69 no database
    """
    from spoold import operate
    from spoold.actions import rehydrate

    digest = _manifest_sha256(bundle)
    with queue("forget", place) as (store, config):
        if digest is not None:
            job_id = store.forget(rehydrate.key(digest))
        else:
            found = operate.find(store, config.spool, bundle)
            job_id = found.id if store.forget_job(found.id) else None
    if job_id is None:
        raise SpooldError(
            errors.JOB_UNKNOWN,
            f"nothing is remembered of {bundle}",
            hint="it was never restored here, or has been forgotten already",
        )
    if as_json:
        output.document({"job_id": str(job_id)})
    else:
        output.line(f"forgotten; job {job_id} had restored it")
    return Exit.DONE


def _manifest_sha256(text: str) -> bytes | None:
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return bytes.fromhex(text)
    if Path(text).is_file():
        from spoold.bundle import reader

        with reader.open_bundle(Path(text)) as file:
            return bytes.fromhex(reader.inspect(file).manifest_sha256)
    return None


def _row(job: "Job") -> tuple[str, ...]:
    from spoold.status import show_name

    return (
        str(job.id),
        job.state.value,
        f"{job.attempt}/{job.max_attempts}",
        f"{next_at:%Y-%m-%d %H:%M:%S}" if (next_at := job.next_attempt_at) else "-",
        str(error["code"]) if (error := job.last_error) else "-",
        job.action or "-",
        f"{job.admitted_at:%Y-%m-%d %H:%M:%S}",
        show_name(job.drop_name)[0],
    )


def _document(job: "Job") -> dict[str, object]:
    from spoold.status import show_name

    return {
        "job_id": str(job.id),
        "drop": show_name(job.drop_name)[0],
        "action": job.action,
        "state": job.state.value,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "priority": job.priority,
        "correlation_id": job.correlation_id,
        "admitted_at": job.admitted_at.isoformat(),
        "next_attempt_at": next_at.isoformat() if (next_at := job.next_attempt_at) else None,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "waits_for": str(job.waits_for) if job.waits_for else None,
        "retry_of": str(job.retry_of) if job.retry_of else None,
        "error": job.last_error,
    }
