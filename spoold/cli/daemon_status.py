"""`status` without a name: what the daemon says of itself, and whether that still counts."""

from collections.abc import Mapping
from datetime import UTC, datetime

from spoold import client, errors, units
from spoold.cli import options, output, trusting
from spoold.daemon_status import TYPE, is_alive
from spoold.errors import Exit, SpooldError


def show(place: options.Place, *, as_json: bool) -> int:
    """Print the daemon's status. Raises daemon-away, or what is wrong with its signature."""
    answer = client.read_daemon(place.spool)
    if answer is None:
        raise SpooldError(errors.DAEMON_AWAY, f"no daemon has run on {place.spool.root} yet")
    signer = trusting.signer_of(place, answer, TYPE)
    alive = is_alive(answer.document, datetime.now(UTC))
    if as_json:
        output.raw(answer.raw)
        return Exit.DONE if alive else Exit.UNAVAILABLE
    output.line(_head(answer.document, alive=alive))
    output.facts(_facts(answer.document))
    output.note(f"signature good: {signer}")
    return Exit.DONE if alive else Exit.UNAVAILABLE


def _head(document: Mapping[str, object], *, alive: bool) -> str:
    state = document.get("state")
    if alive:
        return f"{document.get('site')}: {state}, process {document.get('pid')}"
    when = document.get("renewed_at")
    if state == "stopped":
        return f"{document.get('site')}: stopped at {when}"
    return f"{document.get('site')}: no sign of life since {when}"


def _facts(document: Mapping[str, object]) -> dict[str, str | None]:
    inbox, workers = _part(document, "inbox"), _part(document, "workers")
    database, error = _part(document, "database"), _part(document, "last_error")
    free, known = document.get("free_bytes"), document.get("backlog") is not None
    waits = document.get("oldest_wait_seconds")
    away = f"away since {database.get('since')}"
    return {
        "host": f"{document.get('host')}, spoold {document.get('spoold')}",
        "started": str(document.get("started_at")),
        "counts until": str(document.get("expires_at")),
        "mode": str(document.get("mode") or "not watching yet"),
        "inbox": "missing" if inbox.get("missing") else None,
        "waiting": _counts(_part(inbox, "waiting")),
        "strays": str(inbox.get("strays")) if inbox.get("strays") else None,
        "last scan": str(inbox.get("last_scan_at")),
        "jobs": _counts(_part(document, "backlog")) or ("none unfinished" if known else "unknown"),
        "oldest waits": f"{waits} s" if waits is not None else None,
        "workers": f"{workers.get('alive')} of {workers.get('configured')}",
        "database": "up" if database.get("state") == "up" else away,
        "last error": f"{error.get('code')}: {error.get('sentence')}, at {error.get('at')}"
        if error
        else None,
        "free": units.show_size(free) if isinstance(free, int) else None,
    }


def _part(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _counts(counts: Mapping[str, object]) -> str | None:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or None
