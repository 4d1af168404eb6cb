"""`restore`: a bundle into a folder, without a daemon or a database."""

from pathlib import Path

import click

from spoold.cli import options, output, trusting
from spoold.errors import Exit


@click.command()
@click.argument("bundle", type=trusting.BUNDLE_FILE)
@click.option(
    "--to",
    "folder",
    required=True,
    type=options.PATH,
    metavar="DIR",
    help="The folder to make of it; it must not exist or be empty, but for --conflict.",
)
@click.option("--dry-run", is_flag=True, help="Verify all and list what would be restored.")
@click.option("--only", metavar="GLOB", help="Restore, and of a file read, only what matches.")
@click.option(
    "--strip",
    type=click.IntRange(0, 127),
    default=0,
    metavar="N",
    help="Leave out the first N folders of each path.",
)
@click.option(
    "--conflict",
    type=click.Choice(["refuse", "skip", "replace"]),
    default="refuse",
    show_default=True,
    help="If DIR has content: refuse, keep what stands there, or replace single files.",
)
@click.option(
    "--links",
    type=click.Choice(["inside", "skip", "any"]),
    default="inside",
    show_default=True,
    help="Symbolic links that may lead out of DIR: refuse the bundle, leave them out, or make any.",
)
@click.option("--owners", is_flag=True, help="Restore user and group ids too; wants root.")
@trusting.threshold_option
@trusting.key_options
@options.json_option
def restore(
    bundle: Path,
    folder: Path,
    dry_run: bool,
    only: str | None,
    strip: int,
    conflict: str,
    links: str,
    owners: bool,
    threshold: int | None,
    choice: trusting.KeyChoice,
    as_json: bool,
) -> int:
    """Verify a bundle (- reads the standard input) and restore its files as DIR.

    With --only, signature and index are verified in full, but of the content no more than is wanted
    is read, unless it comes through a pipe: then "verified" is "partial".

    Nothing appears before all that is wanted has been verified. A new DIR then appears at once; one
    that has content is filled file by file, never through a symbolic link that stands in it. Modes
    and times are restored; owners with --owners.

    \b
    Example: spoold restore demo-5f21c09a77d1.tar.zst --to /srv/demo --only 'artifacts/**'
    Exit status: 0 restored · 1 DIR is in the way, nothing matches, disk · 2 usage · 3 not trusted
      4 not a bundle · 6 broken · 78 neither spool nor key
    """
    from spoold.restore import Restorer, Selection
    from spoold.sinks.merge import Conflict
    from spoold.sinks.tree import LinkPolicy
    from spoold.sources import globs

    if only is not None and (wrong := globs.fault(only)):
        raise click.BadParameter(f"{only!r} {wrong}", param_hint="--only")
    keyring = choice.keyring()
    policy = keyring.policy(bundle, threshold)
    restorer = Restorer(
        folder,
        Selection(None if only is None else globs.Globs([only]), strip),
        LinkPolicy(links),
        Conflict(conflict),
        owners,
    )
    with (
        trusting.opened(bundle) as file,
        output.Progress(str(bundle), quiet=as_json) as progress,
    ):

        def report(phase: str, done: int, total: int | None, _: int) -> None:
            progress.update(phase, done, total)

        if dry_run:
            show = None if as_json else output.line
            head = restorer.rehearse(file, keyring.trust, policy, report, show)
        else:
            head = restorer.restore(file, keyring.trust, policy, report)
    if as_json:
        output.document(
            {
                **trusting.document(head),
                "restored": None if dry_run else str(folder),
                "dry_run": dry_run,
                "verified": "partial" if restorer.partial else "all",
                "matched": restorer.matched,
                "kept": restorer.kept,
                "replaced": restorer.replaced,
                "warnings": list(restorer.warnings),
            }
        )
        return Exit.DONE
    for warning in restorer.warnings:
        output.note(f"warning: {warning}")
    output.line(
        f"{'would restore' if dry_run else 'restored'} {restorer.matched} of "
        f"{head.manifest.entries.count} entries {'to' if dry_run else 'as'} {folder}"
    )
    if restorer.partial:
        output.line("  verified: these only; `spoold verify` reads the rest")
    output.facts(trusting.facts(head))
    return Exit.DONE
