"""`inspect`, `verify`, `restore`: bundles, without a daemon or a database."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from spoold import errors, units
from spoold.cli import options, output
from spoold.errors import Exit, SpooldError

if TYPE_CHECKING:
    from spoold.bundle.manifest import Manifest
    from spoold.bundle.reader import Head, VerifiedHead
    from spoold.trust import Trust

_FILE = click.Path(path_type=Path, allow_dash=True)


def _key_options(command: Callable[..., int]) -> Callable[..., int]:
    key = click.option(
        "--key",
        "keys",
        multiple=True,
        type=options.EXISTING,
        metavar="PEM",
        help="Believe this public key instead of the spool's trust store; repeatable.",
    )
    site = click.option("--site", metavar="NAME", help="The site whose keys --key names.")
    return key(site(options.spool_option(command)))


@click.command()
@click.argument("bundle", type=options.EXISTING)
@_key_options
@options.json_option
def inspect(
    bundle: Path, keys: tuple[Path, ...], site: str | None, spool_path: Path | None, as_json: bool
) -> int:
    """What a bundle says of itself: from whom, for whom, when, what, how big.

    Reads the head only and believes nothing: the last line says whether the signature is one that
    would be believed here.

    \b
    Example: spoold inspect demo-5f21c09a77d1.tar.zst --json | jq .manifest
    Exit status: 0 shown, believed or not · 4 not a bundle · 6 broken
    """
    from spoold.bundle import reader

    with reader.open_bundle(bundle) as file:
        head = reader.inspect(file)
    manifest = head.claims()
    verdict = _head_verdict(head, keys, site, spool_path)
    if as_json:
        document = manifest.document()
        output.document(
            {
                "manifest": document,
                "manifest_sha256": head.manifest_sha256,
                "bytes": bundle.stat().st_size,
                "signature": verdict,
            }
        )
        return Exit.DONE
    output.line(f"{bundle}: bundle {manifest.bundle_id}")
    output.facts(_claims(manifest, head.manifest_sha256, bundle.stat().st_size))
    if verdict["trusted"]:
        output.line(f"  signature good: {verdict['site']}, key {str(verdict['key_id'])[:16]}")
    else:
        output.line(f"  not believed here: {verdict['code']}: {verdict['message']}")
        output.line(f"    fix: {verdict['hint']}")
    return Exit.DONE


@click.command()
@click.argument("bundle", type=_FILE)
@_key_options
@options.json_option
def verify(
    bundle: Path, keys: tuple[Path, ...], site: str | None, spool_path: Path | None, as_json: bool
) -> int:
    """Check a bundle (- reads the standard input): signature first, then every byte.

    Needs no spool: name the sender's key with --key and its site with --site. Else the spool's
    trust store and its own key are believed.

    \b
    Example: spoold verify demo-5f21c09a77d1.tar.zst --key site-a.pub --site site-a
    Exit status: 0 good · 1 unreadable · 2 usage · 3 not trusted · 4 not a bundle · 6 broken
    """
    from spoold.bundle import reader

    keyring, own_site = _keyring(keys, site, spool_path)
    policy = reader.Policy(site=own_site, now=datetime.now(UTC), codec=reader.named_codec(bundle))
    with (
        _opened(bundle) as file,
        output.Progress(str(bundle), quiet=as_json) as progress,
    ):
        head = reader.verify(
            file,
            keyring,
            policy,
            report=lambda phase, done, total, _: progress.update(phase, done, total),
        )
    if as_json:
        output.document({"verdict": "good", **_verified(head)})
        return Exit.DONE
    output.line(f"good: {bundle}")
    output.facts(_signed(head))
    return Exit.DONE


@click.command()
@click.argument("bundle", type=_FILE)
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to make of it; it must not exist, or be empty.",
)
@click.option("--dry-run", is_flag=True, help="Verify all and list what would be restored.")
@click.option("--only", metavar="GLOB", help="Restore only entries whose path matches.")
@click.option(
    "--links",
    type=click.Choice(["inside", "skip", "any"]),
    default="inside",
    show_default=True,
    help="Symbolic links that may lead out of DIR: refuse the bundle, leave them out, or make any.",
)
@_key_options
@options.json_option
def restore(
    bundle: Path,
    folder: Path,
    dry_run: bool,
    only: str | None,
    links: str,
    keys: tuple[Path, ...],
    site: str | None,
    spool_path: Path | None,
    as_json: bool,
) -> int:
    """Verify a bundle (- reads the standard input) and restore its files as DIR.

    DIR appears when every byte has been verified, also with --only, and not otherwise.

    \b
    Example: spoold restore demo-5f21c09a77d1.tar.zst --to /srv/demo --only 'artifacts/**'
    Exit status: 0 restored · 1 DIR is in the way, disk · 2 usage · 3 not trusted
      4 not a bundle · 6 broken
    """
    from spoold.bundle import reader
    from spoold.restore import Restorer
    from spoold.sinks.files import LinkPolicy
    from spoold.sources import globs

    if only is not None and (wrong := globs.fault(only)):
        raise click.BadParameter(f"{only!r} {wrong}", param_hint="--only")
    keyring, own_site = _keyring(keys, site, spool_path)
    policy = reader.Policy(site=own_site, now=datetime.now(UTC), codec=reader.named_codec(bundle))
    restorer = Restorer(folder, only, LinkPolicy(links))
    with (
        _opened(bundle) as file,
        output.Progress(str(bundle), quiet=as_json) as progress,
    ):

        def report(phase: str, done: int, total: int | None, _: int) -> None:
            progress.update(phase, done, total)

        if dry_run:
            show = None if as_json else output.line
            head = restorer.rehearse(file, keyring, policy, report, show)
        else:
            head = restorer.restore(file, keyring, policy, report)
    if as_json:
        output.document(
            {
                **_verified(head),
                "restored": None if dry_run else str(folder),
                "dry_run": dry_run,
                "matched": restorer.matched,
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
    output.facts(_signed(head))
    return Exit.DONE


@contextmanager
def _opened(bundle: Path) -> Iterator[BinaryIO]:
    from spoold.bundle import reader

    if str(bundle) == "-":
        yield sys.stdin.buffer
        return
    with reader.open_bundle(bundle) as file:
        yield file


def _keyring(
    keys: tuple[Path, ...], site: str | None, spool_path: Path | None
) -> tuple["Trust", str | None]:
    """The keys to believe, and this site's name where there is a spool."""
    from spoold.cli.trusting import trust_in, trust_of

    if keys:
        if site is None:
            raise click.UsageError("--key needs --site: a key is believed as that of one site")
        return trust_in(keys, site), None
    if site is not None:
        raise click.UsageError("--site names the site of --key: give both")
    here = options.resolve_spool(option=spool_path)
    try:
        options.require_folders(here)
    except SpooldError as error:
        raise SpooldError(
            errors.SPOOL_MISSING,
            f"{error.message}, and no key is named",
            hint="believe a key with --key PEM --site NAME, or name a spool with --spool",
        ) from error
    return trust_of(here), options.load_config(here).site


def _head_verdict(
    head: "Head", keys: tuple[Path, ...], site: str | None, spool_path: Path | None
) -> dict[str, object]:
    """Whether the head would be believed here, and why not."""
    from spoold.bundle import reader

    try:
        keyring, own_site = _keyring(keys, site, spool_path)
        policy = reader.Policy(site=own_site, now=datetime.now(UTC))
        verified = reader.verify_head(head, keyring, policy)
    except SpooldError as error:
        return {"trusted": False, **output.error_document(error)}
    return {
        "trusted": True,
        "site": verified.signed_by.site,
        "key_id": verified.signed_by.key_id,
        "algorithm": verified.signed_by.algorithm.value,
    }


def _claims(manifest: "Manifest", digest: str, size: int) -> dict[str, str | None]:
    return {
        "name": manifest.name,
        "from": manifest.site,
        "to": ", ".join(manifest.to) or "anyone who trusts the key",
        "created": manifest.created_at,
        "not after": manifest.not_after,
        "content": f"{manifest.totals.files} files, {units.show_size(manifest.totals.bytes)}",
        "file": units.show_size(size),
        "made by": manifest.producer,
        "key": manifest.key_id[:16],
        "manifest": digest,
    }


def _verified(head: "VerifiedHead") -> dict[str, object]:
    manifest = head.manifest
    return {
        "bundle_id": manifest.bundle_id,
        "from": manifest.site,
        "created_at": manifest.created_at,
        "manifest_sha256": head.manifest_sha256,
        "entries": manifest.entries.count,
        "bytes": manifest.totals.bytes,
        "signed_by": {"site": head.signed_by.site, "key_id": head.signed_by.key_id},
        "also_signed_by": [{"site": key.site, "key_id": key.key_id} for key in head.also_signed_by],
    }


def _signed(head: "VerifiedHead") -> dict[str, str | None]:
    manifest = head.manifest
    return {
        "bundle": manifest.bundle_id,
        "from": f"{head.signed_by.site}, key {head.signed_by.key_id[:16]}",
        "created": manifest.created_at,
        "content": f"{manifest.entries.count} entries, {units.show_size(manifest.totals.bytes)}",
        "manifest": head.manifest_sha256,
    }
