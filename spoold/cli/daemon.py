"""`run`, `worker` and `demo`: what goes on by itself."""

import os
import signal
from typing import Any

import click

from spoold.cli import options, output


@click.command()
@options.spool_argument
@click.option("--once", is_flag=True, help="Take what is there, run until nothing is left, end.")
@click.option("--workers", type=click.IntRange(0, 1024), help="workers.count; 0: one a core.")
@click.option("--listen", metavar="HOST:PORT", help='http.listen; "" for no metrics and health.')
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="log.level."
)
@click.option(
    "--log-format", type=click.Choice(["auto", "text", "journal", "json"]), help="log.format."
)
@options.config_options
def run(
    place: options.Place,
    once: bool,
    workers: int | None,
    listen: str | None,
    log_level: str | None,
    log_format: str | None,
) -> int:
    """Run the daemon of a spool: embedded database, intake, workers, publishing, metrics.

    SIGTERM or SIGINT drains: running attempts end within workers.drain_seconds, the rest is given
    back. A second one stops now.

    \b
    Example: spoold run /srv/spool --once
    Exit status: 0 stopped, or with --once all succeeded · 1 with --once: some failed
      69 database away · 75 with --once: something is left for later · 78 bad configuration
    """
    before = _let_sigterm_end_at_once()
    from spoold.daemon.run import run as run_daemon

    given = {
        "workers.count": None if workers is None else str(workers),
        "http.listen": listen,
        "log.level": log_level,
        "log.format": log_format,
    }
    flags = {key: value for key, value in given.items() if value is not None}
    config = place.require_config(flags)
    signal.signal(signal.SIGTERM, before)  # from here on there is something to tidy up
    return run_daemon(config, once=once)


@click.command()
@options.spool_argument
@options.config_options
def worker(place: options.Place) -> int:
    """Run one worker process. `spoold run` starts its own; this is for more of them.

    \b
    Example: spoold worker /srv/spool
    Exit status: 0 stopped · 69 database away · 78 bad configuration
    """
    _let_sigterm_end_at_once()
    from spoold.daemon.work import work

    return work(place.require_config())


def _let_sigterm_end_at_once() -> Any:
    """End the process in the handler; returns the handler of before.

    What is loading has nothing to tidy up, and what a handler raises can be lost in a library: the
    daemon would then wait all of drain_seconds for a worker that has heard nothing.
    """
    return signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


@click.command()
@click.option("--keep", is_flag=True, help="Leave the folder with both sites behind.")
def demo(keep: bool) -> int:
    """Two sites in a temporary folder: drop, bundle, carry, restore, compare. Under a minute.

    \b
    Example: spoold demo --keep
    Exit status: 0 all of it held · 1 something did not
    """
    from spoold import demo as two_sites

    return two_sites.run(output.line, keep=keep)
