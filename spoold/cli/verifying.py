"""`verify` and `resign`: bundles, without a daemon or a database."""

import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spoold import canonical, errors
from spoold.cli import options, output, trusting
from spoold.errors import Exit, SpooldError
from spoold.trust import short_key_id

if TYPE_CHECKING:
    from spoold.bundle.verification import Verification


@click.command()
@click.argument("bundle", type=trusting.BUNDLE_FILE)
@click.option(
    "--report",
    "report_path",
    type=options.PATH,
    metavar="FILE",
    help="Write a report of the verdict there, signed by the spool's key.",
)
@trusting.threshold_option
@trusting.key_options
@options.json_option
def verify(
    bundle: Path,
    report_path: Path | None,
    threshold: int | None,
    choice: trusting.KeyChoice,
    as_json: bool,
) -> int:
    """Check a bundle (- reads the standard input): signature first, then every byte.

    The first line is the verdict: good, not trusted, not a bundle, or broken. Needs no spool: name
    the sender's key with --key and its site with --site. Else the spool's trust store and its own
    key are believed.

    \b
    Example: spoold verify demo-5f21c09a77d1.tar.zst --key site-a.pub --site site-a
    Exit status: 0 good · 1 unreadable · 2 usage · 3 not trusted · 4 not a bundle · 6 broken
      78 neither spool nor key
    """
    from spoold.bundle.verification import check

    keyring = choice.keyring()
    write = None if report_path is None else _Reporter(choice.place, report_path, bundle)
    policy = keyring.policy(bundle, threshold)
    try:
        with (
            trusting.opened(bundle) as file,
            output.Progress(str(bundle), quiet=as_json) as progress,
        ):
            done = check(
                file,
                keyring.trust,
                policy,
                report=lambda phase, bytes_done, total, _: progress.update(
                    phase, bytes_done, total
                ),
            )
    except SpooldError as error:
        done = _refused(error)
    if write is not None:
        write.report(bundle, done)
    if as_json:
        found = {} if done.head is None else trusting.document(done.head)
        refusal = {} if done.error is None else {"error": output.error_document(done.error)}
        output.document({"verdict": done.verdict.value, **found, **refusal})
        return done.verdict.exit_status
    output.line(f"{done.verdict}: {bundle}")
    if done.error is not None:
        output.error(done.error, as_json=False)
    elif done.head is not None:
        output.facts(trusting.facts(done.head))
    return done.verdict.exit_status


def _refused(error: SpooldError) -> "Verification":
    """The verdict on what cannot even be opened as a bundle: a link, a folder, a FIFO."""
    from spoold.bundle.verification import Verdict, Verification

    if error.code is not errors.NOT_A_BUNDLE:
        raise error
    return Verification(Verdict.NOT_A_BUNDLE, None, None, error)


class _Reporter:
    """Signs reports; without a key there is none, and that is said before anything is read."""

    def __init__(self, place: options.Place, path: Path, bundle: Path) -> None:
        from spoold import trust

        config = place.require_config()
        self._signer = trust.load_signer(config.signing_key, config.site)
        self._path = path.absolute()
        if self._path.is_dir():
            raise click.BadParameter(f"{path} is a folder", param_hint="--report")
        if os.path.lexists(self._path) and not stat.S_ISREG(self._path.lstat().st_mode):
            # A rename would put a file in the place of the device or the link itself.
            raise click.BadParameter(f"{path} is no regular file", param_hint="--report")
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise click.BadParameter(
                f"{self._path.parent} is no folder to write to", param_hint="--report"
            )
        if self._path.exists() and bundle.exists() and self._path.samefile(bundle):
            raise click.BadParameter(f"{path} is the bundle itself", param_hint="--report")

    def report(self, bundle: Path, done: "Verification") -> None:
        """Write the report, replacing an older one."""
        from spoold import trust
        from spoold.bundle.manifest import format_time
        from spoold.disk import write_durable

        document = done.document(
            file=canonical.text(bundle.name),
            site=self._signer.site,
            checked_at=format_time(datetime.now(UTC).replace(microsecond=0)),
            error=None if done.error is None else output.error_document(done.error),
        )
        write_durable(self._path, trust.sign_document(document, self._signer))


@click.command()
@click.argument("bundle", type=options.NamedPath(path_type=Path, dir_okay=False))
@click.option(
    "--key",
    "key",
    type=options.EXISTING,
    metavar="PEM",
    help="Sign with this private key instead of the spool's.",
)
@click.option(
    "-o",
    "--output",
    "target",
    type=options.NamedPath(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write this new file; without it the bundle itself is replaced.",
)
@click.option(
    "--untrusted",
    is_flag=True,
    help="Sign it though nobody trusted here has, or its time has passed.",
)
@options.spool_option
@options.json_option
def resign(
    bundle: Path,
    key: Path | None,
    target: Path | None,
    untrusted: bool,
    place: options.Place,
    as_json: bool,
) -> int:
    """Add this site's signature to a bundle that others have signed.

    The head alone is made anew; content and identity stay, and so do the signatures it has. Checks
    the signatures and the index, not the content: `spoold verify` does that, and should come first.

    \b
    Example: spoold verify demo-5f21c09a77d1.tar.zst && spoold resign demo-5f21c09a77d1.tar.zst
    Exit status: 0 signed · 1 signed by this key already, FILE exists, disk · 2 usage
      3 not trusted, no usable key · 4 not a bundle · 6 broken · 78 no spool
    """
    from spoold import trust
    from spoold.bundle import resign as engine
    from spoold.bundle.reader import Policy, named_codec

    if key is not None and untrusted:  # then no spool is asked for anything
        signer, believed = trust.load_signer(key, ""), None
    else:
        config = place.require_config()
        signer = trust.load_signer(key or config.signing_key, config.site)
        believed = None if untrusted else trusting.trust_of(config.spool, config.site)
    # Whoever it is addressed to, and however many must sign in the end: this is one of them.
    policy = Policy(now=datetime.now(UTC), codec=named_codec(target or bundle))
    done = engine.resign(bundle, signer, believed, policy, target)
    if as_json:
        output.document(
            {
                "path": str(done.path),
                "bundle_id": done.manifest.bundle_id,
                "manifest_sha256": done.manifest_sha256,
                "key_id": signer.key_id,
                "algorithm": signer.algorithm.value,
                "signatures": done.signatures,
            }
        )
        return Exit.DONE
    output.line(f"signed {done.path} with {short_key_id(signer.key_id)}")
    output.facts(
        {
            "bundle": done.manifest.bundle_id,
            "from": done.manifest.site,
            "signatures": str(done.signatures),
            "manifest": done.manifest_sha256,
        }
    )
    return Exit.DONE
