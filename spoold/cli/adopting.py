"""`adopt`: a spool that was moved or restored, or whose database is gone."""

import click

from spoold.cli import options, output
from spoold.errors import Exit


@click.command()
@options.spool_argument
@click.option(
    "--new-database",
    is_flag=True,
    help="Also accept that its database is gone: take the one there is, or an empty one.",
)
@options.config_options
@options.json_option
def adopt(
    place: options.Place,
    new_database: bool,
    as_json: bool,
) -> int:
    """Accept a spool that was moved to another disk or restored: no other copy of it is left.

    With --new-database, unfinished drops are taken in again, and what has been answered stays
    answered; idempotency keys, which bundles were restored, and jobs of the past are forgotten.

    \b
    Example: spoold adopt /srv/spool
    Exit status: 0 accepted, or nothing to accept · 69 database away · 75 a daemon runs
      78 no spool, bad configuration, database gone (without --new-database)
    """
    from spoold import adopt as moved
    from spoold import log

    config = place.require_config()
    log.configure("warning", "text")
    accepted = moved.adopt(config, new_database=new_database)
    if as_json:
        output.document({"spool": str(config.spool.root), "accepted": accepted})
        return Exit.DONE
    for sentence in accepted:
        output.line(f"accepted: {sentence}")
    if not accepted:
        output.line("nothing to accept: spool and database know each other")
    return Exit.DONE
