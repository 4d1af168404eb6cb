"""`keys`: the site's own key, and the keys of sites it trusts."""

from dataclasses import replace
from pathlib import Path

import click

from spoold import errors, site_keys, trust, trust_store
from spoold.cli import options, output, trusting
from spoold.errors import Exit, SpooldError
from spoold.trust import SHOWN_DIGITS, short_key_id


@click.group()
def keys() -> None:
    """Show, make, trust and revoke keys.

    A key id is the SHA-256 of the public key; 16 digits are shown, compare them by another channel
    than the one the key came by.
    """


@keys.command()
@options.spool_option
@options.json_option
def show(place: options.Place, as_json: bool) -> int:
    """Print this site's public key, PEM, on the standard output, and its id on the standard error.

    \b
    Example: spoold keys show > site-a.pub
    Exit status: 0 done · 3 no usable key · 78 no spool
    """
    here = place.spool.require_folders()
    pem = site_keys.read_public(here)
    public, algorithm = trust.load_public(pem, str(here.public_key))
    key_id = trust.key_id(public)
    if as_json:
        output.document(
            {"key_id": key_id, "algorithm": algorithm.value, "public_key": pem.decode()}
        )
    else:
        output.note(f"key id {key_id} ({algorithm.value})")
        output.raw(pem)
    return Exit.DONE


@keys.command("trust")
@click.argument("file", type=options.NamedPath(path_type=Path, allow_dash=True))
@click.option(
    "--site", type=options.SITE, required=True, metavar="NAME", help="The site whose key this is."
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in trust.Role]),
    help="What it may sign; may be repeated. All of them unless given.",
)
@options.spool_option
@options.json_option
def trust_key(
    file: Path, site: str, roles: tuple[str, ...], place: options.Place, as_json: bool
) -> int:
    """Trust the public key in FILE (- reads it from the standard input) as that of a site.

    \b
    Example: spoold keys trust site-b.pub --site site-b --role bundle
    Exit status: 0 done · 1 unreadable · 2 usage · 3 key not usable · 78 no spool
    """
    here = place.spool.require()
    granted = frozenset(trust.Role(role) for role in roles) or trust.ALL_ROLES
    key = trust.trusted_key(trusting.read_key(file), site, str(file), granted)
    said = site_keys.remarks(here, _own(place), key)
    trust_store.store_trusted(here, key)
    if as_json:
        output.document({**_key_document(key), "remarks": said})
        return Exit.DONE
    for remark in said:
        output.note(remark)
    output.line(f"trusted {short_key_id(key.key_id)} as {site} for {', '.join(sorted(key.roles))}")
    output.note(f"compare the whole key id with the sender by another channel: {key.key_id}")
    return Exit.DONE


@keys.command("list")
@options.spool_option
@options.json_option
def list_keys(place: options.Place, as_json: bool) -> int:
    """List this site's own key and the keys it trusts.

    \b
    Example: spoold keys list --json | jq -r '.keys[].site'
    Exit status: 0 done · 3 a key is damaged · 78 no spool
    """
    here = place.spool.require()
    own = _own(place)
    found = sorted(trust_store.load_trust(here), key=lambda key: (key.site, key.key_id))
    if as_json:
        output.document(
            {
                "own": _key_document(own) if own else None,
                "keys": [_key_document(key) for key in found],
            }
        )
        return Exit.DONE
    rows = [(own, "this site")] if own else []
    rows += [(key, "revoked" if key.revoked else "trusted") for key in found]
    output.table(
        ("KEY ID", "SITE", "ALGORITHM", "MAY SIGN", "STATE"),
        [
            (
                short_key_id(key.key_id),
                key.site,
                key.algorithm.value,
                ", ".join(sorted(key.roles)),
                state,
            )
            for key, state in rows
        ],
    )
    return Exit.DONE


@keys.command()
@click.argument("key_id")
@click.option("--undo", is_flag=True, help="Trust the key again.")
@options.spool_option
@options.json_option
def revoke(key_id: str, undo: bool, place: options.Place, as_json: bool) -> int:
    """Refuse everything that a trusted key signs from now on, whenever it was signed.

    KEY_ID is 16 or more of its digits, as `keys list` shows them.

    \b
    Example: spoold keys revoke 1f0c5b7a9d3e2468
    Exit status: 0 done · 1 no such key · 2 usage · 78 no spool
    """
    here = place.spool.require()
    key = replace(_matching(place, key_id), revoked=not undo)
    trust_store.store_trusted(here, key)
    if as_json:
        output.document(_key_document(key))
        return Exit.DONE
    output.line(
        f"{short_key_id(key.key_id)} of {key.site} is {'trusted again' if undo else 'revoked'}"
    )
    return Exit.DONE


@keys.command()
@trusting.algorithm_option()
@click.option("--rotate", is_flag=True, help="Replace the key that is there; keep it beside.")
@click.option(
    "-o",
    "--output",
    "target",
    type=options.PATH,
    metavar="FILE",
    help="Make a key of its own instead, in FILE, and its public half in FILE with .pub; "
    "no spool is needed.",
)
@options.spool_option
@options.config_options
@options.json_option
def generate(
    algorithm: trust.Algorithm,
    rotate: bool,
    target: Path | None,
    place: options.Place,
    as_json: bool,
) -> int:
    """Make this site's signing key.

    With --rotate the old one is kept as signing.<key id>.pem, and what it signed stays trusted
    here; other sites must trust the new one. Restart the daemon afterwards. With --output it is a
    key for `spoold sign`, of whoever drops signed requests.

    \b
    Example: spoold keys generate --rotate --algorithm ed25519
    Exit status: 0 done · 1 there is one already · 2 usage · 78 no spool, bad configuration
    """
    if target is not None:
        if rotate:
            raise click.UsageError("--output makes a new key: there is nothing to rotate")
        return _generate_apart(target, algorithm, as_json=as_json)
    config = place.require_config()
    path = config.signing_key
    signer = site_keys.generate(config.spool, path, config.site, algorithm, rotate=rotate)
    if as_json:
        output.document({**_key_document(signer.trusted()), "file": str(path)})
        return Exit.DONE
    output.line(f"made {path}: {signer.algorithm.value} {short_key_id(signer.key_id)}")
    output.note("restart the daemon, and give the new public key to the other sites: keys show")
    return Exit.DONE


def _generate_apart(path: Path, algorithm: trust.Algorithm, *, as_json: bool) -> int:
    public = path.with_suffix(".pub")
    if path == public:
        raise click.BadParameter(f"{path} is to be the public half's name", param_hint="--output")
    signer = site_keys.generate_apart(path, public, algorithm)
    if as_json:
        output.document(
            {
                "key_id": signer.key_id,
                "algorithm": signer.algorithm.value,
                "file": str(path),
                "public_file": str(public),
            }
        )
        return Exit.DONE
    output.line(f"made {path}: {signer.algorithm.value} {short_key_id(signer.key_id)}")
    output.note(
        f"give {public} to the sites, and compare the whole key id by another channel: "
        f"{signer.key_id}"
    )
    return Exit.DONE


def _own(place: options.Place) -> trust.TrustedKey | None:
    return site_keys.own(place.spool, place.config().site)


def _matching(place: options.Place, text: str) -> trust.TrustedKey:
    wanted = text.strip().lower()
    if len(wanted) < SHOWN_DIGITS or not set(wanted) <= set("0123456789abcdef"):
        raise click.BadParameter(
            f"{text!r}: 16 or more digits of a key id, as `spoold keys list` shows them"
        )
    found = [key for key in trust_store.load_trust(place.spool) if key.key_id.startswith(wanted)]
    if len(found) != 1:
        own = _own(place)
        if not found and own is not None and own.key_id.startswith(wanted):
            raise SpooldError(
                errors.KEY_UNKNOWN,
                f"{text} is this site's own key",
                hint="`spoold keys generate --rotate` replaces it; then revoke it",
            )
        raise SpooldError(errors.KEY_UNKNOWN, f"{len(found)} keys begin with {text}")
    return found[0]


def _key_document(key: trust.TrustedKey) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "site": key.site,
        "algorithm": key.algorithm.value,
        "roles": sorted(key.roles),
        "revoked": key.revoked,
    }
