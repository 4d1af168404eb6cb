"""`check` and `build`: requests, without a daemon or a database."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spoold import errors, units
from spoold.cli import options, output, trusting
from spoold.errors import Exit, SpooldError
from spoold.trust import nobody, short_key_id

if TYPE_CHECKING:
    from spoold.handlers import Handler
    from spoold.intake.request import ParsedRequest
    from spoold.spool import Spool

_FILE = options.NamedPath(path_type=Path, allow_dash=True)


@click.command()
@click.argument("file", type=_FILE)
@trusting.key_options
@options.json_option
def check(file: Path, choice: trusting.KeyChoice, as_json: bool) -> int:
    """Validate a request (- reads the standard input); all its mistakes are told at once.

    A signature is checked against the spool's trust store where there is one to be read, or against
    the keys that --key names; that a signature is missing, only where the spool requires one.

    What the request names, roots, queries, endpoints, stores and recipes with their parameters, is
    held against the spool's configuration where that can be read; nothing is connected to.

    A file whose name is for one of the spool's handlers is held against that one's limits and
    schema.

    \b
    Example: spoold check request-demo.json && cp request-demo.json spool/inbox/
    Exit status: 0 valid · 1 unreadable, or names what is not configured · 2 usage · 3 not trusted ·
    4 not valid · 6 signature broken
    """
    from datetime import UTC, datetime

    from spoold.actions import ACTIONS
    from spoold.intake.access import require_access

    name = os.fsencode(file.name)
    place = choice.place
    if handler := options.handlers_for(place, name).of_drop(name):
        return _check_handled(file, name, handler, as_json=as_json)
    config = place.config() if _is_open(place.spool) else None
    limit = None if config is None else config.intake.max_request_bytes
    parsed = parse_request(read_request(file, limit))
    if config is None and place.named is not None:  # what is in the way of that spool is told now
        config = place.config()
    known = config is not None or choice.keys
    believed = choice.keyring(config).trust if known else None
    unchecked = believed is None and bool(parsed.envelope.signatures)
    signer = None
    if not unchecked:
        trust = believed or nobody()
        required = config is not None and not choice.keys and config.intake.require_signed
        signer = require_access(parsed, lambda: trust, datetime.now(UTC), signed=required)
    if config is not None:
        ACTIONS[parsed.envelope.action].check(parsed.envelope, config.connections)
    if as_json:
        output.document(
            {
                "valid": True,
                "configured": config is not None,
                "action": parsed.envelope.action,
                "request_sha256": parsed.sha256.hex(),
                "signed_by": signer and {"site": signer.site, "key_id": signer.key_id},
            }
        )
        return Exit.DONE
    output.line(f"{file}: a valid request for action {parsed.envelope.action}")
    if signer is not None:
        output.line(f"signed by {signer.site}, key {short_key_id(signer.key_id)}")
    elif unchecked:
        output.note("its signature is not checked: name --key and --site, or --spool")
    if config is None:
        output.note("whether what it names is configured is not checked: name --spool")
    return Exit.DONE


def _is_open(here: "Spool") -> bool:
    """Whether there is a spool whose configuration and trust store this user may read."""
    try:
        return here.exists()
    except PermissionError:  # a dropper: the daemon will say
        return False


def _check_handled(file: Path, name: bytes, handler: "Handler", *, as_json: bool) -> int:
    from spoold.actions import command

    command.check(handler, name, _read(file, handler.max_bytes))
    if as_json:
        output.document({"valid": True, "action": command.NAME, "handler": handler.name})
    else:
        output.line(f"{file}: a valid drop for handler {handler.name}")
    return Exit.DONE


@click.command()
@click.argument("request", type=_FILE)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=options.NamedPath(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder for the bundle; it is made if missing.",
)
@options.spool_option
@options.config_options
@options.json_option
def build(
    request: Path,
    folder: Path,
    place: options.Place,
    as_json: bool,
) -> int:
    """Build the bundle that a request asks for, now and without the queue, into DIR.

    Roots and the signing key are those of the spool. The bundle appears whole or not at all.

    \b
    Example: spoold build request-demo.json -o /media/usb
    Exit status: 0 built · 1 a source failed · 3 no usable key · 4 request not valid · 78 no spool
    """
    from spoold import build

    config = place.require_config()
    parsed = parse_request(read_request(request, config.intake.max_request_bytes))
    with output.Progress(str(request), quiet=as_json) as progress:
        target, outcome = build.build(
            config,
            parsed,
            request,
            folder,
            lambda done: progress.update(done.phase, done.bytes_done, done.bytes_total),
        )
    if as_json:
        output.document({"path": str(target), **outcome.result, "warnings": list(outcome.warnings)})
        return Exit.DONE
    for warning in outcome.warnings:
        output.note(f"warning: {warning}")
    output.line(str(target))
    output.facts({key.replace("_", " "): str(value) for key, value in outcome.result.items()})
    return Exit.DONE


def read_request(file: Path, limit: int | None = None) -> bytes:
    """A request's bytes, from the standard input for `-`. Raises request-too-large.

    `limit` is [intake] max_request_bytes; its default where no configuration can be read.
    """
    if limit is None:
        from spoold.config.sections import Intake

        limit = Intake().max_request_bytes
    content = _read(file, limit)
    if len(content) > limit:
        raise SpooldError(errors.REQUEST_TOO_LARGE, f"it is larger than {units.show_size(limit)}")
    return content


def _read(file: Path, limit: int) -> bytes:
    """A file's content; of one that is larger a byte more than the limit."""
    if str(file) == "-":
        return sys.stdin.buffer.read(limit + 1)
    try:
        with open(file, "rb") as stream:
            return stream.read(limit + 1)
    except OSError as error:
        raise errors.of_os_error(error, errors.FIX_PATH) from error


def parse_request(content: bytes) -> "ParsedRequest":
    """The request, checked."""
    from spoold.actions import MODELS
    from spoold.intake.request import parse

    return parse(content, MODELS)
