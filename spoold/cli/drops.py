"""`submit` and `status`: the inbox and the status files, without a daemon or a database."""

import os
from collections.abc import Iterator
from pathlib import Path

import click

from spoold import client, errors, units
from spoold.cli import options, output
from spoold.client import Answer
from spoold.errors import CODES, Exit, SpooldError
from spoold.status import TYPE, show_name

_EXIT_OF_STATE = {
    "succeeded": Exit.DONE,
    "duplicate": Exit.DUPLICATE,
    "cancelled": Exit.CANCELLED,
    "rejected": Exit.REJECTED,
}


@click.command()
@click.argument("file", type=options.EXISTING)
@click.option("--as", "name", metavar="NAME", help="The drop's name, if not the file's own.")
@click.option("--wait", is_flag=True, help="Wait until the job is final and print the outcome.")
@click.option(
    "--timeout",
    type=options.SECONDS,
    metavar="S",
    help="Wait at most so many seconds (implies --wait).",
)
@options.spool_option
@options.json_option
def submit(
    file: Path,
    name: str | None,
    wait: bool,
    timeout: float | None,
    place: options.Place,
    as_json: bool,
) -> int:
    """Put FILE into the inbox: whole or not at all, and never over another drop.

    With --wait the exit status is that of the job; with --json its final status file is printed,
    as it stands.

    \b
    Example: spoold submit request-demo.json --wait --timeout 600
    Exit status: 0 succeeded (without --wait: dropped) · 1 failed · 2 not a drop's name
      3 not trusted · 4 rejected · 5 duplicate · 6 broken · 7 not final in time · 8 cancelled
      75 a drop of that name waits in the inbox · 78 no spool
    """
    here = place.spool.require_folders()
    raw = os.fsencode(name) if name is not None else os.fsencode(file.name)
    if b"/" in raw:
        raise click.BadParameter(f"{name!r} is a path, not a name", param_hint="--as")
    shown = show_name(raw)[0]
    with output.Progress(shown, quiet=as_json) as progress:
        dropped = client.drop(
            here,
            file,
            raw,
            lambda done, total: progress.update("copy", done, total),
            options.handlers_for(place, raw),
        )
        if not wait and timeout is None:
            answer = None
        else:
            answer = _follow(client.follow(here, dropped, timeout, _nobody), progress)
    if answer is None:
        if as_json:
            output.document({"drop": shown, "inbox": str(here.root / "inbox")})
        else:
            output.line(f"dropped {shown}; its status: spoold status {shown}")
        return Exit.DONE
    if as_json:
        output.raw(answer.raw)
    else:
        _print(answer)
    return _exit_status(answer)


@click.command()
@click.argument("name", metavar="[NAME|JOB]", required=False)
@click.option("--verify", is_flag=True, help="Check the signature and say who made it.")
@options.spool_option
@options.json_option
def status(name: str | None, verify: bool, place: options.Place, as_json: bool) -> int:
    """How a drop fares, by its name, or a job, by its id or the last 12 digits of that.

    Reads the status file only: no daemon and no database are needed. --json prints it as it stands.
    Without a name it is the daemon that is asked for; its signature is always checked.

    \b
    Example: until spoold status request-demo.json --json | jq -e .final; do sleep 1; done
    Exit status: 0 there is one, the daemon lives · 1 there is none · 3 not trusted
      6 signature broken · 69 no daemon lives · 78 no spool
    """
    here = place.spool.require_folders()
    if name is None:
        from spoold.cli import daemon_status

        return daemon_status.show(place, as_json=as_json)
    answer = client.find(here, name)
    signer = _verify(place, answer) if verify else None
    if as_json:
        output.raw(answer.raw)
    else:
        _print(answer)
    if signer is not None:
        output.note(f"signature good: {signer}")
    return Exit.DONE


def _follow(answers: Iterator[Answer], progress: output.Progress) -> Answer:
    latest: Answer | None = None
    for latest in answers:
        document = latest.document
        shown = latest.state
        if reason := document.get("reason"):
            shown += f" ({reason})"
        done = document.get("progress")
        if latest.state == "running" and isinstance(done, dict):
            progress.update(f"{shown}: {_phase(done)}", *_bytes(done))
        else:
            progress.update(shown)
    assert latest is not None  # the last one is final, or there was an error
    return latest


def _nobody() -> None:
    output.note("nothing has taken it yet: is `spoold run` running on this spool?")


def _bytes(progress: dict[str, object]) -> tuple[int, int | None]:
    done, total = progress.get("bytes_done"), progress.get("bytes_total")
    return done if isinstance(done, int) else 0, total if isinstance(total, int) else None


def _exit_status(answer: Answer) -> int:
    code = CODES.get(answer.error_code or "")
    if answer.state in {"failed", "rejected"} and code is not None:
        return code.exit_status
    return _EXIT_OF_STATE.get(answer.state, Exit.FAILED)


def _print(answer: Answer) -> None:
    document = answer.document
    attempt = f"attempt {document.get('attempt')} of {document.get('max_attempts')}"
    head = f"{document.get('drop')}: {answer.state}"
    if reason := document.get("reason"):
        head += f" ({reason})"
    output.line(head)
    result = document.get("result")
    files = document.get("files")
    error = document.get("error")
    output.facts(
        {
            "job": answer.job_id,
            "action": _text(document.get("action")),
            "attempt": attempt if document.get("attempt") else None,
            "progress": _progress(document.get("progress")) if not answer.final else None,
            "next attempt": _text(document.get("next_attempt_at")),
            "finished": _text(document.get("finished_at")),
            **{
                key.replace("_", " "): _text(value)
                for key, value in (result.items() if isinstance(result, dict) else ())
            },
            **{
                f"file: {key}": _text(value)
                for key, value in (files.items() if isinstance(files, dict) else ())
            },
        }
    )
    if isinstance(error, dict):
        output.line(f"  error: {error.get('code')}: {error.get('message')}")
        if error.get("at"):
            output.line(f"    at: {error['at']}")
        output.line(f"    fix: {error.get('hint')}")
    warnings = document.get("warnings")
    for warning in warnings if isinstance(warnings, list) else ():
        output.line(f"  warning: {warning}")


def _text(value: object) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return "".join(f"\n    {item}" for item in value) or None
    return None if value is None else str(value)


def _progress(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    done, total = _bytes(value)
    share = f" of {total}" if total is not None else ""
    return f"{_phase(value)}, {done}{share} bytes, {value.get('entries_done')} entries"


def _phase(progress: dict[str, object]) -> str:
    """What goes on, with what, and how fast."""
    shown = str(progress.get("phase"))
    if source := progress.get("source"):
        shown += f" {source}"
    if rows := progress.get("rows_done"):
        shown += f", {rows} rows"
    rate = progress.get("bytes_per_second")
    return shown + (f", {units.show_size(rate)}/s" if isinstance(rate, int) and rate else "")


def _verify(place: options.Place, answer: Answer) -> str:
    """Who signed a final status, in words."""
    from spoold.cli.trusting import signer_of

    if not answer.final:
        raise SpooldError(
            errors.SIGNATURE_MISSING,
            f"the job is {answer.state}: only final statuses are signed",
            hint="ask again when it is final",
        )
    return signer_of(place, answer, TYPE)
