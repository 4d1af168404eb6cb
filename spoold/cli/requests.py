"""`check` and `build`: requests, without a daemon or a database."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spoold import errors, units
from spoold.cli import options, output
from spoold.errors import Exit, SpooldError

if TYPE_CHECKING:
    from spoold.intake.request import ParsedRequest

_FILE = click.Path(path_type=Path, allow_dash=True)
_MAX_REQUEST_BYTES = 1024 * 1024


@click.command()
@click.argument("file", type=_FILE)
@options.json_option
def check(file: Path, as_json: bool) -> int:
    """Validate a request (- reads the standard input); all its mistakes are told at once.

    \b
    Example: spoold check request-demo.json && cp request-demo.json spool/inbox/
    Exit status: 0 valid · 1 unreadable · 4 not valid
    """
    parsed = _parse(_read_request(file))
    if as_json:
        output.document(
            {
                "valid": True,
                "action": parsed.envelope.action,
                "request_sha256": parsed.sha256.hex(),
            }
        )
    else:
        output.line(f"{file}: a valid request for action {parsed.envelope.action}")
    return Exit.DONE


@click.command()
@click.argument("request", type=_FILE)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder for the bundle; it is made if missing.",
)
@options.spool_option
@options.config_options
@options.json_option
def build(
    request: Path,
    folder: Path,
    spool_path: Path | None,
    config_path: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    """Build the bundle that a request asks for, now and without the queue, into DIR.

    Roots and the signing key are those of the spool. The bundle appears whole or not at all.

    \b
    Example: spoold build request-demo.json -o /media/usb
    Exit status: 0 built · 1 a source failed · 3 no usable key · 4 request not valid · 78 no spool
    """
    from spoold import build

    here = options.require(options.resolve_spool(option=spool_path))
    config = options.load_config(here, config_path, settings)
    parsed = _parse(_read_request(request, config.intake.max_request_bytes))
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


def _read_request(file: Path, limit: int = _MAX_REQUEST_BYTES) -> bytes:
    if str(file) == "-":
        content = sys.stdin.buffer.read(limit + 1)
    else:
        try:
            with open(file, "rb") as stream:
                content = stream.read(limit + 1)
        except OSError as error:
            raise output.of_os_error(error) from error
    if len(content) > limit:
        raise SpooldError(errors.REQUEST_TOO_LARGE, f"it is larger than {units.show_size(limit)}")
    return content


def _parse(content: bytes) -> "ParsedRequest":
    from spoold.actions import MODELS
    from spoold.intake.request import parse

    return parse(content, MODELS)
