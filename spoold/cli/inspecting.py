"""`inspect`: what the head of a bundle says, and who says so."""

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from spoold import units
from spoold.cli import options, output, trusting
from spoold.errors import Exit, SpooldError
from spoold.trust import short_key_id

if TYPE_CHECKING:
    from spoold.bundle.head import Head
    from spoold.bundle.manifest import Manifest
    from spoold.bundle.signatures import Signature


@click.command()
@click.argument("bundle", type=trusting.BUNDLE_FILE)
@trusting.threshold_option
@trusting.key_options
@options.json_option
def inspect(
    bundle: Path,
    threshold: int | None,
    choice: trusting.KeyChoice,
    as_json: bool,
) -> int:
    """What a bundle says of itself: from whom, for whom, when, what, how big; and who signed it.

    Reads the head only (- reads it from the standard input) and believes nothing: the last lines
    say whether it would be believed here, which key is missing, and how to trust it.

    \b
    Example: spoold inspect demo-5f21c09a77d1.tar.zst --json | jq .manifest
    Exit status: 0 shown, believed or not · 1 unreadable · 2 usage · 4 not a bundle · 6 broken
    """
    from spoold.bundle import reader
    from spoold.bundle.signatures import signatures

    with trusting.opened(bundle) as file:
        head, size = reader.inspect(file), _size(file)
    manifest = head.claims()
    keyring, verdict = _verdict(head, bundle, threshold, choice)
    found = list(signatures(head, manifest, keyring.trust))
    missing = _missing(manifest, found, choice.place)
    if as_json:
        output.document(
            {
                "manifest": manifest.document(),
                "manifest_sha256": head.manifest_sha256,
                "bytes": size,
                "signature": verdict,
                "signatures": [
                    {
                        "key_id": each.key_id,
                        "site": each.site,
                        "standing": each.standing.value,
                        "first": each.first,
                    }
                    for each in found
                ],
                "missing_key": missing,
            }
        )
        return Exit.DONE
    output.line(f"{bundle}: bundle {manifest.bundle_id}")
    output.facts(_claims(manifest, head.manifest_sha256, size))
    for each in found:
        whose = f"{each.standing}, {each.site}" if each.site else each.standing.value
        output.line(f"  {'signed by' if each.first else 'also by  '}  {each.key_id}: {whose}")
    if verdict["trusted"]:
        output.line(
            f"  signature good: {verdict['site']}, key {short_key_id(str(verdict['key_id']))}"
        )
        return Exit.DONE
    output.line(f"  not believed here: {verdict['code']}: {verdict['message']}")
    if missing is None:
        output.line(f"    fix: {verdict['hint']}")
    else:
        output.line(f"    missing: key {missing['key_id']}, which says it is {missing['site']}'s")
        output.line(f"    fix: get it from there (`spoold keys show > {missing['site']}.pub`),")
        output.line("         compare the key id by another channel, and if it is the same:")
        output.line(f"         {missing['command']}")
    return Exit.DONE


def _verdict(
    head: "Head",
    bundle: Path,
    threshold: int | None,
    choice: trusting.KeyChoice,
) -> tuple[trusting.Keyring, dict[str, object]]:
    """Whom this site believes, and whether it would believe the head, or why not."""
    from spoold import trust
    from spoold.bundle.reader import verify_head

    keyring = trusting.Keyring(trust.Trust([]))
    try:
        keyring = choice.keyring()
        verified = verify_head(head, keyring.trust, keyring.policy(bundle, threshold))
    except SpooldError as error:
        return keyring, {"trusted": False, **output.error_document(error)}
    return keyring, {
        "trusted": True,
        "site": verified.signed_by.site,
        "key_id": verified.signed_by.key_id,
        "algorithm": verified.signed_by.algorithm.value,
    }


def _missing(
    manifest: "Manifest", found: list["Signature"], place: options.Place
) -> dict[str, str] | None:
    """The sender's key, where nobody here knows it."""
    from spoold.bundle.signatures import Standing
    from spoold.trust import SITE_NAME

    # Nobody has vouched for this name yet, and the command is there to be copied into a shell.
    if found[0].standing is not Standing.UNKNOWN or not SITE_NAME.fullmatch(manifest.site):
        return None
    where = "" if place.named is None else f" --spool {shlex.quote(str(place.named))}"
    trust = f"spoold keys trust {manifest.site}.pub --site {manifest.site} --role bundle"
    return {
        "key_id": manifest.key_id,
        "site": manifest.site,
        "command": trust + where,
    }


def _claims(manifest: "Manifest", digest: str, size: int | None) -> dict[str, str | None]:
    skipped = f"{manifest.skipped_count} entries were left out" if manifest.skipped_count else None
    totals = manifest.totals
    return {
        "name": manifest.name,
        "from": manifest.site,
        "to": ", ".join(manifest.to) or "anyone who trusts the key",
        "created": manifest.created_at,
        "not after": manifest.not_after,
        "labels": ", ".join(f"{name}={value}" for name, value in sorted(manifest.labels.items())),
        "correlation": manifest.correlation_id,
        "request": manifest.request_sha256,
        "content": f"{manifest.entries.count} entries, {totals.files} files, "
        f"{units.show_size(totals.bytes)}, {manifest.frames.count} frames",
        "skipped": skipped,
        "file": None if size is None else units.show_size(size),
        "codec": f"{manifest.compression.codec} {manifest.compression.level}",
        "made by": manifest.producer,
        "manifest": digest,
    }


def _size(file: BinaryIO) -> int | None:
    try:
        status = os.fstat(file.fileno())
    except OSError:  # no file at all
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
