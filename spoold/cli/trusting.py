"""The keys that a command believes: the spool's trust store and its own, or those named."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from spoold import errors, site_keys, trust, trust_store, units
from spoold.cli import options
from spoold.client import Answer
from spoold.errors import SpooldError
from spoold.spool import Spool

if TYPE_CHECKING:
    from spoold.bundle.reader import Policy, VerifiedHead
    from spoold.config import Config

BUNDLE_FILE = options.NamedPath(path_type=Path, allow_dash=True)
_ALGORITHMS = {"rsa": trust.Algorithm.RSA, "ed25519": trust.Algorithm.ED25519}
_MAX_THRESHOLD = 17  # the primary signature and sixteen further ones


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """Whom a command is told to believe: the keys of a site, or a spool's trust store."""

    keys: tuple[Path, ...]
    site: str  # of the keys
    place: options.Place

    def keyring(self, config: "Config | None" = None) -> "Keyring":
        """The keys named, else those of the spool. Raises spool-missing where there is neither.

        `config` is the spool's configuration, where that has been read.
        """
        if self.keys:
            return Keyring(trust_in(self.keys, self.site))
        try:
            here = self.place.spool.require_folders()
        except SpooldError as error:
            raise SpooldError(
                errors.SPOOL_MISSING,
                f"{error.message}, and no key is named",
                hint="believe a key with --key PEM --site NAME, or name a spool with --spool",
            ) from error
        config = config or self.place.config()
        return Keyring(trust_of(here, config.site), config.site, config.trust.bundle_threshold)


def key_options(command: options.Command) -> options.Command:
    """`--key`, `--site` and `--spool`; the command is given a KeyChoice."""

    @functools.wraps(command)
    def chosen(
        *, keys: tuple[Path, ...], site: str | None, place: options.Place, **given: object
    ) -> int:
        if keys and site is None:
            raise click.UsageError("--key needs --site: a key is believed as that of one site")
        if site is not None and not keys:
            raise click.UsageError("--site names the site of --key: give both")
        return command(choice=KeyChoice(keys, site or "", place), **given)

    key = click.option(
        "--key",
        "keys",
        multiple=True,
        type=options.EXISTING,
        metavar="PEM",
        help="Believe this public key instead of the spool's trust store; repeatable.",
    )
    site = click.option("--site", metavar="NAME", help="The site whose keys --key names.")
    return key(site(options.spool_option(chosen)))


def threshold_option(command: options.Command) -> options.Command:
    """`--threshold`."""
    return click.option(
        "--threshold",
        type=click.IntRange(1, _MAX_THRESHOLD),
        metavar="N",
        help="How many different trusted keys must have signed; else [trust] bundle_threshold.",
    )(command)


def algorithm_option(help_: str | None = None) -> Callable[[options.Command], options.Command]:
    """`--algorithm`; the command is given an Algorithm."""
    return click.option(
        "--algorithm",
        type=click.Choice(list(_ALGORITHMS)),
        default="rsa",
        show_default=True,
        callback=lambda _, __, name: _ALGORITHMS[name],
        help=help_,
    )


@dataclass(frozen=True, slots=True)
class Keyring:
    """Whom to believe, as which site, and how many of them must agree."""

    trust: trust.Trust
    site: str | None = None  # this site; None where no spool is asked
    threshold: int = 1

    def policy(self, bundle: Path, threshold: int | None = None) -> "Policy":
        """What is asked of a bundle now."""
        from datetime import UTC, datetime

        from spoold.bundle.reader import Policy, named_codec

        return Policy(
            site=self.site,
            now=datetime.now(UTC),
            threshold=threshold or self.threshold,
            codec=named_codec(bundle),
        )


@contextmanager
def opened(bundle: Path) -> Iterator[BinaryIO]:
    """The bundle, or the standard input for `-`."""
    from spoold.bundle import reader

    if str(bundle) == "-":
        yield sys.stdin.buffer
        return
    with reader.open_bundle(bundle) as file:
        yield file


def trust_of(spool: Spool, site: str) -> trust.Trust:
    """The spool's trust store and its own public key, that of `site`; no private key is read."""
    try:
        keys = list(trust_store.load_trust(spool))
    except PermissionError:  # a dropper: the site's own key is for everybody
        keys = []
    return trust.with_own(keys, site_keys.own(spool, site))


def signer_of(place: options.Place, answer: Answer, type_: str) -> str:
    """Who signed a status document of this site, in words. Raises what is wrong with that."""
    claimed = answer.document.get("site")
    try:
        site = place.config().site
    except SpooldError:  # a dropper may not read it: the name must then be the one in the document
        site = str(claimed)
    verified = trust_of(place.spool, site).verify_document(answer.raw, type_, trust.Role.STATUS)
    if verified.document.get("site") != verified.signed_by.site:
        raise SpooldError(
            errors.SITE_MISMATCH,
            f"it says {claimed}, and the key is that of {verified.signed_by.site}",
        )
    return f"{verified.signed_by.site}, key {trust.short_key_id(verified.signed_by.key_id)}"


def trust_in(files: tuple[Path, ...], site: str) -> trust.Trust:
    """Keys named on the command line, all of one site."""
    return trust.Trust([trust.trusted_key(read_key(file), site, str(file)) for file in files])


def read_key(file: Path) -> bytes:
    """A public key's PEM, from the standard input for `-`; no more of it than a key has."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(trust.MAX_KEY_FILE_BYTES)
        with open(file, "rb") as stream:
            return stream.read(trust.MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise SpooldError(
            errors.KEY_UNUSABLE, f"{file}: {error.strerror}", hint="name a readable PEM file"
        ) from error


def document(head: "VerifiedHead") -> dict[str, object]:
    """A verified head, for `--json`."""
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


def facts(head: "VerifiedHead") -> dict[str, str | None]:
    """A verified head, for people."""
    manifest = head.manifest
    others = ", ".join(
        f"{key.site} ({trust.short_key_id(key.key_id)})" for key in head.also_signed_by
    )
    return {
        "bundle": manifest.bundle_id,
        "from": f"{head.signed_by.site}, key {trust.short_key_id(head.signed_by.key_id)}",
        "also by": others or None,
        "created": manifest.created_at,
        "content": f"{manifest.entries.count} entries, {units.show_size(manifest.totals.bytes)}",
        "manifest": head.manifest_sha256,
    }
