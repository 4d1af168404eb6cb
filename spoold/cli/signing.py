"""`sign`: a partner's signature in a request, made without a daemon, a database or a spool."""

import stat
import sys
from pathlib import Path

import click

from spoold import errors, trust
from spoold.cli import options, output
from spoold.cli.requests import parse_request, read_request
from spoold.disk import write_durable, write_new
from spoold.errors import Exit, SpooldError

_FILE = options.NamedPath(path_type=Path, dir_okay=False, allow_dash=True)


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--key",
    type=options.EXISTING,
    metavar="PEM",
    help="Sign with this private key instead of the spool's; no spool is needed then.",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=_FILE,
    metavar="FILE",
    help="Write this new file (- is the standard output); without it FILE itself is replaced.",
)
@options.spool_option
@options.json_option
def sign(
    file: Path, key: Path | None, target: Path | None, place: options.Place, as_json: bool
) -> int:
    """Sign a request (- reads the standard input), so that a site knows from whom it comes.

    The request is checked, and written in canonical form with the signature inside. Signatures of
    other keys stay. The site that is to take it must trust the key for requests:
    `spoold keys trust FILE --site NAME --role request`.

    \b
    Example: spoold sign request-demo.json --key partner.pem -o signed/request-demo.json
    Exit status: 0 signed · 1 unreadable, FILE exists, disk · 2 usage · 3 key not usable
      4 not valid · 78 no spool
    """
    if key is not None:
        signer = trust.load_signer(key, "")
    else:
        config = place.require_config()
        signer = trust.load_signer(config.signing_key, config.site)
    parsed = parse_request(read_request(file))
    unsigned = {name: value for name, value in parsed.document.items() if name != "signatures"}
    others = [
        signature.model_dump()
        for signature in parsed.envelope.signatures
        if signature.key_id != signer.key_id
    ]
    content = trust.sign_document(unsigned, signer, others)
    target = target or file
    if str(target) == "-":
        if as_json:
            raise click.UsageError("--json and the request would both go to the standard output")
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return Exit.DONE
    try:
        _write(target, content, replace=target == file)
    except OSError as error:
        raise errors.of_os_error(error, errors.FIX_PATH) from error
    if as_json:
        output.document(
            {
                "path": str(target),
                "request_sha256": parsed.sha256.hex(),
                "key_id": signer.key_id,
                "algorithm": signer.algorithm.value,
                "signatures": len(others) + 1,
            }
        )
        return Exit.DONE
    output.line(f"signed {target} with {trust.short_key_id(signer.key_id)}")
    return Exit.DONE


def _write(target: Path, content: bytes, *, replace: bool) -> None:
    if replace:
        write_durable(target, content, mode=stat.S_IMODE(target.stat().st_mode))
        return
    try:
        write_new(target, content)
    except FileExistsError as error:
        raise SpooldError(errors.TARGET_EXISTS, f"{target} is there already") from error
