"""`retry`: finished jobs run again, by name or as many as ended in one way."""

import difflib
from typing import TYPE_CHECKING

import click

from spoold import errors
from spoold.cli import options, output
from spoold.cli.jobs import queue, queue_options
from spoold.errors import CODES, Exit, SpooldError
from spoold.queue.job import State
from spoold.status import show_name

if TYPE_CHECKING:
    from spoold.config import Config
    from spoold.queue.job import Job
    from spoold.queue.store import Store

_STATES = (State.FAILED, State.REJECTED, State.CANCELLED)


def _known(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value not in CODES:
        near = difflib.get_close_matches(value, CODES, 1)
        also = f"; did you mean {near[0]}?" if near else ""
        raise click.BadParameter(f"{value!r} is no error code{also}")
    return value


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in _STATES]),
    help="All that ended so; repeatable. With --code alone: any of them.",
)
@click.option("--code", callback=_known, help="All that ended with this error code.")
@click.option(
    "--older-than",
    type=options.AGE,
    default="0s",
    help='Of these, only what ended so long ago: "90s", "30m", "12h", "7d".',
)
@click.option("--dry-run", is_flag=True, help="Only tell which jobs those are.")
@queue_options
def retry(
    jobs: tuple[str, ...],
    states: tuple[str, ...],
    code: str | None,
    older_than: int,
    dry_run: bool,
    place: options.Place,
    as_json: bool,
) -> int:
    """Run the drops of finished jobs again, as new jobs. The old answers stay.

    JOB is its id, the last 12 digits of that, or the drop's name. With --state or --code it is all
    jobs that ended so, but those whose drop's name has a newer job: called again, it retries no job
    twice.

    \b
    Example: spoold retry --state failed --code no-space --older-than 10m
    Exit status: 0 all admitted · 1 one was not: no such job, not finished, its drop is gone
      69 no database
    """
    from spoold import again, operate

    if bool(jobs) == bool(states or code):
        raise click.UsageError("name jobs, or choose them with --state or --code")
    wanted = [State(state) for state in states] or _STATES
    with queue("retry", place) as (store, config):
        if jobs:
            chosen = [operate.find(store, config.spool, job) for job in jobs]
        else:
            chosen = list(store.to_retry(wanted, code, older_than))
        if dry_run:
            return _tell(chosen, as_json=as_json)
        if len(jobs) == 1:
            [old] = chosen
            new = again.retry(store, config, old)
            if as_json:
                output.document({"job_id": str(new), "retry_of": str(old.id)})
            else:
                output.line(f"job {new} runs the drop of {old.id} again")
            return Exit.DONE
        return _retry_all(store, config, chosen, as_json=as_json)


def _tell(chosen: list["Job"], *, as_json: bool) -> int:
    if as_json:
        output.document({"would_retry": [_shown(job) for job in chosen]})
        return Exit.DONE
    for job in chosen:
        error = job.last_error
        output.line(f"{job.id} {job.state} {error['code'] if error else '-'} {_drop(job)}")
    output.line(f"{len(chosen)} would be retried")
    return Exit.DONE


def _retry_all(store: "Store", config: "Config", chosen: list["Job"], *, as_json: bool) -> int:
    """One after the other: what stands against one stops no other."""
    from spoold import again

    retried: list[dict[str, object]] = []
    refused: list[dict[str, object]] = []
    for old in chosen:
        try:
            new = again.retry(store, config, old)
        except SpooldError as error:
            if error.code is errors.DATABASE_AWAY:
                raise
            refused.append({**_shown(old), "refused": output.error_document(error)})
            if not as_json:
                output.note(f"{old.id} {_drop(old)}: {error}")
        else:
            retried.append({"job_id": str(new), "retry_of": str(old.id), "drop": _drop(old)})
            if not as_json:
                output.line(f"job {new} runs the drop of {old.id} again: {_drop(old)}")
    if as_json:
        output.document({"retried": retried, "refused": refused})
    else:
        output.line(f"{len(retried)} retried, {len(refused)} refused")
    return Exit.FAILED if refused else Exit.DONE


def _shown(job: "Job") -> dict[str, object]:
    return {
        "job_id": str(job.id),
        "drop": _drop(job),
        "state": job.state.value,
        "finished_at": job.finished_at.isoformat() if job.finished_at else None,
        "error": job.last_error,
    }


def _drop(job: "Job") -> str:
    return show_name(job.drop_name)[0]
