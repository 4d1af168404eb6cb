"""Build a bundle now, without the queue: the action `bundle` in a folder of the caller's choice.

Guarantees: the bundle appears by one rename, whole and durable.
Crash: `.spoold-build-<random>` may stay in the folder; nothing reads it.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from spoold import errors
from spoold.actions import ACTIONS
from spoold.actions.context import Context, Outcome
from spoold.config import Config
from spoold.daemon.wiring import action_settings
from spoold.disk import rename_new, sync_file, sync_folder
from spoold.errors import SpooldError
from spoold.intake.request import ParsedRequest
from spoold.sinks.remove import remove_tree
from spoold.status import Progress
from spoold.trust import Trust, load_signer


def build(
    config: Config,
    request: ParsedRequest,
    drop: Path,
    folder: Path,
    report: Callable[[Progress], None],
) -> tuple[Path, Outcome]:
    """Build what a request asks for into `folder`, which is made if missing.

    Roots and the signing key are the configuration's. Raises request-invalid for another action,
    key-unusable, and whatever the action may.
    """
    if request.envelope.action != "bundle":
        raise SpooldError(
            errors.REQUEST_INVALID,
            f'its action is "{request.envelope.action}": only "bundle" builds one',
            at="action",
            hint="a bundle is restored with `spoold restore`",
        )
    signer = load_signer(config.signing_key, config.site)
    folder.mkdir(parents=True, exist_ok=True)
    digits = secrets.token_hex(6)
    scratch = folder / f".spoold-build-{digits}"
    scratch.mkdir(mode=0o700)
    try:
        outcome = ACTIONS["bundle"].run(
            Context(
                request=request.document,
                request_sha256=request.sha256,
                digits=digits,
                drop=drop,
                scratch=scratch,
                settings=action_settings(config),
                signer=signer,
                trust=Trust([signer.trusted()]),
                report=report,
                take_key=lambda key, content: None,
            )
        )
        [bundle] = outcome.made
        target = folder / os.fsdecode(bundle.name)
        (scratch / bundle.source).chmod(0o644)
        sync_file(scratch / bundle.source)
        rename_new(scratch / bundle.source, target)
        sync_folder(folder)
    finally:
        remove_tree(scratch)
    return target, outcome
