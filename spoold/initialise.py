"""What `init` makes of a spool: the tree, the signing key, a commented configuration.

What is there already stays as it is, so that it may be run again after a crash, or to complete a
spool.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from spoold import config, site_keys
from spoold.config import Config
from spoold.disk import write_durable
from spoold.ownership import hand_over
from spoold.spool import TREE, Spool
from spoold.trust import Algorithm, Signer, load_signer


@dataclass(frozen=True, slots=True)
class Initialised:
    """A spool that is complete."""

    signer: Signer
    configuration: Path
    done: tuple[str, ...]  # what there was to do, in words


def initialise(found: Config, site: str, algorithm: Algorithm) -> Initialised:
    """Make what is missing of a spool, whose configuration so far is `found`.

    Raises spool-invalid and key-unusable.
    """
    spool, key = found.spool, found.signing_key
    done = _make_tree(spool)
    if os.path.lexists(key):
        signer = load_signer(key, site)
    else:
        signer = site_keys.make(key, site, algorithm)
        done.append(f"made the signing key {key}")
    if site_keys.publish(signer, spool.public_key):
        done.append(f"wrote the public key {spool.public_key}")
    path = found.path or spool.root / "spoold.toml"
    if found.path is None:
        # It may come to hold a password: not for everybody.
        write_durable(path, config.template(site).encode(), mode=0o640)
        hand_over(path)
        done.append(f"wrote {path}")
    return Initialised(signer, path, tuple(done))


def _make_tree(spool: Spool) -> list[str]:
    # An operator's own modes stay: only what is missing is made.
    try:
        existed = spool.exists()
        if existed and all(spool.folder(node.folder).is_dir() for node in TREE):
            return []
    except PermissionError as error:
        raise spool.closed() from error
    spool.create()
    hand_over(*(spool.folder(node.folder) for node in TREE), spool.identity_file)
    return [f"{'completed' if existed else 'made'} the spool {spool.root}"]
