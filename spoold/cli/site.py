"""`init`, `config` and `doctor`: a site's own things."""

import os
import secrets
import sys

import click

from spoold import config, errors, trust
from spoold.cli import options, output, trusting
from spoold.config import Config
from spoold.errors import Exit, SpooldError
from spoold.initialise import initialise
from spoold.spool import Spool


@click.command()
@options.spool_argument
@click.option("--site", type=options.SITE, metavar="NAME", help="This site's name: a-z, 0-9 and -.")
@trusting.algorithm_option("Of the signing key: RSA-3072 or Ed25519.")
@options.json_option
def init(place: options.Place, site: str | None, algorithm: trust.Algorithm, as_json: bool) -> int:
    """Make a spool: the tree, its id, a signing key and a commented configuration.

    Run again, it makes what is missing and changes nothing else.

    \b
    Example: spoold init /srv/spool --site site-a
    Exit status: 0 done · 2 usage · 3 key not usable · 78 another site, or the place cannot be used
    """
    here = place.spool
    found = config.load(here)
    name, where = _site(found, site)
    made = initialise(found, name, algorithm)
    if as_json:
        output.document(
            {
                "spool": str(here.root),
                "site": name,
                "key_id": made.signer.key_id,
                "configuration": str(made.configuration),
                "done": list(made.done),
            }
        )
        return Exit.DONE
    for line in made.done or ["nothing to do: everything is there"]:
        output.line(line)
    output.facts(
        {
            "spool": str(here.root),
            "site": f"{name} ({where})",
            "key": f"{made.signer.algorithm.value} {trust.short_key_id(made.signer.key_id)}",
        }
    )
    if made.done:
        _print_next(here, name)
    return Exit.DONE


def _site(found: Config, wanted: str | None) -> tuple[str, str]:
    """The site's name, and where it is from."""
    origin = found.origins["site"]
    if origin.kind != "default":
        if wanted not in (None, found.site):
            raise SpooldError(
                errors.CONFIG_INVALID,
                f"this is site {found.site} ({origin}), not {wanted}",
                at="site",
                hint=f"leave --site out; or change `site` there, and have every other site trust "
                f"this one's key again as {wanted}; or make another spool",
            )
        return found.site, str(origin)
    if found.path is not None:
        if wanted is not None:
            raise SpooldError(
                errors.CONFIG_INVALID,
                f"{found.path} is the configuration in force, and names no site",
                at="site",
                hint=f'write site = "{wanted}" into it',
            )
        return found.site, str(origin)
    if wanted is not None:
        return wanted, "as asked"
    if sys.stdin.isatty() and sys.stderr.isatty():
        typed = click.prompt(
            "Name of this site (no two sites may share one)",
            default=config.host_site(),
            value_proc=lambda text: options.SITE(text.strip()),
            err=True,
        )
        return str(typed), "as typed"
    # Two hosts of one name must not become two sites of one name.
    made_up = f"{config.host_site()[:58]}-{secrets.token_hex(2)}"
    return made_up, "made up from the host's name; --site NAME chooses"


def _print_next(here: Spool, site: str) -> None:
    output.line("next:")
    other_user = {f"chown -R USER: {here.root}": "if the daemon is to run as another user"}
    output.facts(
        {
            **(other_user if os.geteuid() == here.root.stat().st_uid == 0 else {}),
            f"spoold doctor {here.root}": "check it",
            f"spoold run {here.root}": "start the daemon",
            f"cp request-….json {here.root}/inbox/": "drop a request",
            f"spoold keys show --spool {here.root} > {site}.pub": "carry it to the other site",
            f"spoold keys trust {site}.pub --site {site}": "there, after comparing the key id",
        }
    )


@click.command("config")
@options.spool_argument
@options.config_options
@options.json_option
def show_config(
    place: options.Place,
    as_json: bool,
) -> int:
    """Show what is in force and where each value came from. Passwords are not shown.

    \b
    Example: spoold config --json | jq -r '.values["workers.count"].value'
    Exit status: 0 valid · 2 usage · 78 not valid: every mistake is told; or no spool
    """
    here = place.spool.require_folders()
    loaded = place.config()
    values = config.values(loaded)
    if as_json:
        output.document(
            {
                "spool": str(here.root),
                "file": str(loaded.path) if loaded.path else None,
                "values": {
                    key: {
                        "value": value,
                        "origin": {
                            "kind": loaded.origins[key].kind,
                            "where": loaded.origins[key].where,
                        },
                    }
                    for key, value in values.items()
                },
                "warnings": list(loaded.warnings),
            }
        )
        return Exit.DONE
    output.table(
        ("KEY", "VALUE", "FROM"),
        [
            (key, config.toml_value(key, value), str(loaded.origins[key]))
            for key, value in values.items()
        ],
    )
    for warning in loaded.warnings:
        output.note(f"warning: {warning}")
    return Exit.DONE


@click.command()
@options.spool_argument
@options.config_options
@options.json_option
def doctor(
    place: options.Place,
    as_json: bool,
) -> int:
    """Check everything a spool needs; each fault comes with its fix.

    Warnings are marked WARN and leave the exit status at 0.

    \b
    Example: spoold doctor /srv/spool
    Exit status: 0 all is well · 1 something is wrong · 2 usage
    """
    from spoold import doctor as checks

    here = place.spool
    findings = list(checks.examine(here, place.config))
    healthy = all(finding.level is not checks.Level.FAIL for finding in findings)
    if as_json:
        output.document(
            {
                "spool": str(here.root),
                "ok": healthy,
                "checks": [
                    {
                        "level": finding.level.value,
                        "check": finding.check,
                        "detail": finding.detail,
                        "fix": finding.fix or None,
                    }
                    for finding in findings
                ],
            }
        )
    else:
        for finding in findings:
            output.line(f"{finding.level.value.upper():4}  {finding.check}: {finding.detail}")
            if finding.fix:
                output.line(f"      fix: {finding.fix}")
    return Exit.DONE if healthy else Exit.FAILED
