"""`selftest`: prove on the user's own machine and database what must hold there."""

from typing import TYPE_CHECKING

import click

from spoold.cli import options, output
from spoold.errors import Exit

if TYPE_CHECKING:
    from spoold.selftest import Fence


@click.group()
def selftest() -> None:
    """Prove on this machine, with this spool's database, what must hold there."""


@selftest.command()
@options.spool_argument
@click.option(
    "--jobs",
    type=click.IntRange(20, 100_000),
    default=600,
    show_default=True,
    help="How many jobs: more take longer, and prove more.",
)
@options.config_options
@options.json_option
def fence(
    place: options.Place,
    jobs: int,
    as_json: bool,
) -> int:
    """Prove that a worker which has lost a job can report nothing and publish nothing.

    Workers that stall, under leases of 15 ms (longer on slow disks), lose jobs to each other, and
    then try every write and every rename all the same. It happens in the spool's own database and
    on its own disk, but beside its jobs: none is touched, and everything is removed at the end. The
    daemon may run.

    \b
    Example: spoold selftest fence /srv/spool
    Exit status: 0 the fence holds · 1 it does not, or too little was tried to say so
      69 no database · 78 no spool, bad configuration
    """
    from spoold import selftest as tests

    done = tests.fence(place.require_config(), jobs, None if as_json else _say)
    if as_json:
        output.document(_document(done))
    else:
        _print(done)
    return Exit.DONE if done.holds else Exit.FAILED


def _say(begun: "Fence") -> None:
    lease = round(1000 * begun.lease_seconds)
    output.note(f"{begun.jobs} jobs under leases of {lease} ms; none of yours is touched")


def _print(done: "Fence") -> None:
    tried, accepted = sum(done.tried.values()), sum(done.accepted.values())
    output.facts(
        {
            "claims": f"{done.claims}, of which {done.lost} lost their lease",
            "stale writes": f"{tried} of {len(done.tried)} kinds tried, {accepted} accepted",
            "stale renames": f"{done.renames_tried} tried, {done.renames_done} done",
            "results": f"{done.results} of {done.jobs} jobs have the one that their row records",
            "time": f"{done.seconds:.1f} s",
        }
    )
    for problem in done.problems:
        output.line(f"  wrong: {problem}")
    output.line("the fence holds" if done.holds else "the fence does NOT hold")


def _document(done: "Fence") -> dict[str, object]:
    return {
        "holds": done.holds,
        "jobs": done.jobs,
        "lease_seconds": done.lease_seconds,
        "seconds": done.seconds,
        "claims": done.claims,
        "lost": done.lost,
        "writes": {
            verb: {"tried": count, "accepted": done.accepted[verb]}
            for verb, count in sorted(done.tried.items())
        },
        "renames": {"tried": done.renames_tried, "done": done.renames_done},
        "results": done.results,
        "problems": done.problems,
    }
