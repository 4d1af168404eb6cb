"""`bundles`: what was made and restored here, listed from the catalogue, kept or removed."""

from itertools import islice
from typing import TYPE_CHECKING

import click

from spoold import errors, units
from spoold.cli import options, output
from spoold.cli.jobs import queue, queue_options
from spoold.errors import Exit, SpooldError
from spoold.status import show_name

if TYPE_CHECKING:
    from spoold.queue.tree_rows import Bundle


@click.group()
def bundles() -> None:
    """List, show, delete, pin and prune the bundles that were made or restored here.

    ID is a bundle's id, its last 12 digits, the beginning of it, or the id of its job.

    \b
    Example: spoold bundles list --json | jq -r '.bundles[].bundle_id'
    Exit status: 0 done · 1 no such bundle, or it stays · 69 no database · 75 try again later
    """


@bundles.command("list")
@click.option("--from", "site", metavar="SITE", help="Only those that this site has made.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@queue_options
def list_(
    site: str | None,
    limit: int,
    place: options.Place,
    as_json: bool,
) -> int:
    """List bundles, the newest first; not those whose files were removed.

    One that somebody has fetched and removed is listed as gone until retention meets it.

    \b
    Example: spoold bundles list --from site-a --limit 10
    Exit status: 0 done · 69 no database: no daemon runs · 78 no spool, bad configuration
    """
    from spoold import bundle_store
    from spoold.queue.catalogue import Catalogue

    with queue("bundles list", place) as (store, config):
        found = list(islice(Catalogue(store).newest(site), limit))
    there = {bundle.job: bundle_store.has_file(config, bundle) for bundle in found}
    if as_json:
        listed = [_document(bundle, there=there[bundle.job]) for bundle in found]
        output.document({"bundles": listed})
        return Exit.DONE
    output.table(
        ("BUNDLE", "FROM", "MADE", "BYTES", "ENTRIES", "SINCE", "FILE"),
        [_row(bundle, there=there[bundle.job]) for bundle in found],
    )
    return Exit.DONE


@bundles.command()
@click.argument("bundle", metavar="ID")
@queue_options
def show(
    bundle: str,
    place: options.Place,
    as_json: bool,
) -> int:
    """Show what is known of a bundle, and whether its file is there; nothing of it is verified.

    \b
    Example: spoold bundles show 5f21c09a77d1
    Exit status: 0 shown · 1 there is none, or more than one · 69 no database
    """
    from spoold import bundle_store
    from spoold.queue.catalogue import Catalogue

    with queue("bundles show", place) as (store, config):
        found = Catalogue(store).find(bundle)
        there = found.removed_at is None and bundle_store.is_there(config, store, found)
    document = _document(found, there=there)
    if as_json:
        output.document(document)
        return Exit.DONE
    output.line(found.bundle_id)
    output.facts(
        {
            "from": found.from_site,
            "made": _origin(found),
            "file": f"{document['file']}" + ("" if there else " (not there)"),
            "bytes": f"{found.bytes:,}",
            "entries": f"{found.entries:,}",
            "manifest sha256": found.manifest_sha256.hex(),
            "job": str(found.job),
            "since": str(document["created_at"]),
            "pinned": "yes" if found.pinned else None,
            "removed": str(document["removed_at"]) if found.removed_at else None,
        }
    )
    return Exit.DONE


@bundles.command()
@click.argument("bundles", metavar="ID...", nargs=-1, required=True)
@queue_options
def delete(
    bundles: tuple[str, ...],
    place: options.Place,
    as_json: bool,
) -> int:
    """Remove the files of bundles, for good and without asking. Requests and answers stay.

    A pinned one stays, and so does one that an unfinished job needs. What stands under the name but
    is not the file that was published is nobody's to remove: it stays too.

    \b
    Example: spoold bundles delete 5f21c09a77d1
    Exit status: 0 all removed · 1 one was not: unknown, pinned, disk
      69 no database · 75 a job needs it, or files are being removed: try again later
    """
    from spoold import bundle_store
    from spoold.queue.catalogue import Catalogue

    removed: list[str] = []
    refused: list[tuple[str, SpooldError]] = []
    with queue("bundles delete", place) as (store, config):
        for text in bundles:
            try:
                found = Catalogue(store).find(text)
                ours = bundle_store.delete(config, store, found)
            except SpooldError as error:
                if error.code is errors.DATABASE_AWAY or len(bundles) == 1:
                    raise
                refused.append((text, error))
                if not as_json:
                    output.error(error, as_json=False)
            else:
                removed.append(found.bundle_id)
                if not as_json:
                    output.line(f"removed {found.bundle_id}")
                if not ours:
                    where = f"{found.folder}/{show_name(found.name)[0]}"
                    output.note(f"{where} stays: it is not the file that was published")
    if as_json:
        output.document(
            {
                "removed": removed,
                "refused": [
                    {"bundle": text, "error": output.error_document(error)}
                    for text, error in refused
                ],
            }
        )
    statuses = {error.code.exit_status for _, error in refused}
    return statuses.pop() if len(statuses) == 1 else Exit.FAILED if statuses else Exit.DONE


@bundles.command()
@click.argument("bundle", metavar="ID")
@queue_options
def pin(
    bundle: str,
    place: options.Place,
    as_json: bool,
) -> int:
    """Keep a bundle, with its request and its status, whatever the rules say.

    \b
    Example: spoold bundles pin demo-5f21c09a77d1
    Exit status: 0 pinned · 1 there is none, or more than one, or it was removed · 69 no database
    """
    return _pin(bundle, place, pinned=True, as_json=as_json)


@bundles.command()
@click.argument("bundle", metavar="ID")
@queue_options
def unpin(
    bundle: str,
    place: options.Place,
    as_json: bool,
) -> int:
    """Let the rules of retention have a bundle again.

    \b
    Example: spoold bundles unpin demo-5f21c09a77d1
    Exit status: 0 unpinned · 1 there is none, or more than one, or it was removed · 69 no database
    """
    return _pin(bundle, place, pinned=False, as_json=as_json)


@bundles.command()
@click.option("--older-than", type=options.AGE, help='What was made so long ago: "12h", "30d".')
@click.option("--keep", type=click.IntRange(1), help="All but so many, the newest.")
@click.option(
    "--max-bytes", type=options.SIZE, help='The oldest, until the rest is so large: "100GiB".'
)
@click.option("--dry-run", is_flag=True, help="Only tell which bundles those are.")
@queue_options
def prune(
    older_than: int | None,
    keep: int | None,
    max_bytes: int | None,
    dry_run: bool,
    place: options.Place,
    as_json: bool,
) -> int:
    """Remove the files of bundles that a limit leaves no place for; each limit counts alone.

    Pinned ones stay and are not counted; the newest is never too large. What an unfinished job
    needs stays for now. `[retention]` in spoold.toml does the same by itself.

    \b
    Example: spoold bundles prune --older-than 90d --max-bytes 100GiB --dry-run
    Exit status: 0 done · 2 no limit is given · 69 no database
      75 files are being removed: try again later
    """
    from spoold import bundle_store
    from spoold.retention import Limits

    limits = Limits(keep or 0, max_bytes or 0, older_than or 0)
    if limits == Limits():
        raise click.UsageError("say how much may stay: --older-than, --keep or --max-bytes")
    with queue("bundles prune", place) as (store, config):
        done = bundle_store.prune(config, store, limits, dry_run=dry_run)
    size = sum(bundle.bytes for bundle in done.going)
    if as_json:
        output.document(
            {
                "would_remove" if dry_run else "removed": [
                    _document(bundle, there=dry_run) for bundle in done.going
                ],
                "bytes": size,
                "held": [
                    {"bundle_id": bundle.bundle_id, "job_id": str(bundle.job), "reason": hold.value}
                    for bundle, hold in done.held
                ],
            }
        )
        return Exit.DONE
    for bundle in done.going:
        output.line(f"{'would remove' if dry_run else 'removed'} {bundle.bundle_id}")
    for bundle, hold in done.held:
        output.note(f"stays: {bundle.bundle_id}: {hold}")
    output.line(f"{len(done.going)} bundles, {units.show_size(size)}")
    return Exit.DONE


def _pin(
    text: str,
    place: options.Place,
    *,
    pinned: bool,
    as_json: bool,
) -> int:
    from spoold import bundle_store
    from spoold.queue.catalogue import Catalogue

    with queue("bundles pin", place) as (store, config):
        found = Catalogue(store).find(text)
        bundle_store.pin(config, store, found, pinned=pinned)
    if as_json:
        output.document({"bundle_id": found.bundle_id, "pinned": pinned})
    else:
        output.line(f"{'pinned' if pinned else 'unpinned'} {found.bundle_id}")
    return Exit.DONE


def _row(bundle: "Bundle", *, there: bool) -> tuple[str, ...]:
    return (
        bundle.bundle_id,
        bundle.from_site,
        _origin(bundle),
        f"{bundle.bytes:,}",
        f"{bundle.entries:,}",
        f"{bundle.created_at:%Y-%m-%d %H:%M:%S}",
        ("pinned" if bundle.pinned else "there") if there else "gone",
    )


def _origin(bundle: "Bundle") -> str:
    return "received" if bundle.received else "here"


def _document(bundle: "Bundle", *, there: bool) -> dict[str, object]:
    return {
        "bundle_id": bundle.bundle_id,
        "manifest_sha256": bundle.manifest_sha256.hex(),
        "from": bundle.from_site,
        "received": bundle.received,
        "file": f"{bundle.folder}/{show_name(bundle.name)[0]}",
        "there": there,
        "bytes": bundle.bytes,
        "entries": bundle.entries,
        "created_at": bundle.created_at.isoformat(),
        "job_id": str(bundle.job),
        "pinned": bundle.pinned,
        "removed_at": bundle.removed_at.isoformat() if bundle.removed_at else None,
    }
