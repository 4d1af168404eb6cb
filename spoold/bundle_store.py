"""What an operator does with the bundles of a spool: look at one, remove some, prune by limits."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from spoold import errors
from spoold.config import Config
from spoold.daemon.wiring import retention_settings
from spoold.errors import SpooldError
from spoold.publish.plan import shown, target_path
from spoold.queue.catalogue import Catalogue
from spoold.queue.placed import Hold, Places
from spoold.queue.store import Store
from spoold.queue.tree_rows import Area, Bundle
from spoold.retention import Limits, Retention, removing
from spoold.retention.remover import Found, look

_PATIENCE_SECONDS = 30.0
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Pruned:
    """Bundles that limits leave no place for, and why those that stay do."""

    going: list[Bundle]
    held: list[tuple[Bundle, Hold]]


def is_there(config: Config, store: Store, bundle: Bundle) -> bool:
    """Whether the file that was published stands where it was published."""
    placed = Places(store).of([bundle.job], [Area.BUNDLES])
    return any(look(config.spool, one)[0] is Found.OURS for one in placed)


def has_file(config: Config, bundle: Bundle) -> bool:
    """Whether anything has the bundle's name."""
    return os.path.lexists(target_path(config.spool, bundle.folder, bundle.name))


def delete(config: Config, store: Store, bundle: Bundle) -> bool:
    """Remove a bundle's file, durably; False where what has its name is not that, and stays.

    Raises bundle-pinned, bundle-needed, bundle-unknown or retention-busy.
    """
    if bundle.removed_at is not None:
        raise SpooldError(
            errors.BUNDLE_UNKNOWN,
            f"{bundle.bundle_id} was removed at {bundle.removed_at.isoformat()}",
            hint="there is nothing left to do",
        )
    with removing(config.spool, _PATIENCE_SECONDS):
        removed, held = _retention(config, store).remove_bundles([bundle])
    if bundle.job in held:
        raise _refusal(bundle, held[bundle.job])
    if removed.failed:
        where = shown(bundle.folder, bundle.name)
        raise SpooldError(errors.DISK_ERROR, f"{where} could not be removed: see the message above")
    return not removed.foreign


def pin(config: Config, store: Store, bundle: Bundle, *, pinned: bool) -> None:
    """Keep a bundle whatever the rules say, or no longer. Raises bundle-unknown, retention-busy."""
    with removing(config.spool, _PATIENCE_SECONDS):  # else it may be on its way out
        if not Catalogue(store).pin(bundle, pinned=pinned):
            raise SpooldError(errors.BUNDLE_UNKNOWN, f"{bundle.bundle_id} was removed")


def prune(config: Config, store: Store, limits: Limits, *, dry_run: bool) -> Pruned:
    """Remove the bundles that limits leave no place for, the newest of them first."""
    retention = _retention(config, store)
    going: list[Bundle] = []
    held: list[tuple[Bundle, Hold]] = []
    with removing(config.spool, _PATIENCE_SECONDS):
        if not dry_run:
            retention.give_up_fetched()
        for batch in _batches(retention.beyond(limits)):
            if dry_run:
                holds = retention.held_bundles(batch)
            else:
                _, holds = retention.remove_bundles(batch)
            going += [bundle for bundle in batch if bundle.job not in holds]
            held += [(bundle, holds[bundle.job]) for bundle in batch if bundle.job in holds]
    return Pruned(going, held)


def _retention(config: Config, store: Store) -> Retention:
    return Retention(config.spool, store, retention_settings(config), config.connections)


def _refusal(bundle: Bundle, hold: Hold) -> SpooldError:
    if hold is Hold.PINNED:
        return SpooldError(errors.BUNDLE_PINNED, f"{bundle.bundle_id} is pinned")
    return SpooldError(
        errors.BUNDLE_NEEDED, f"{bundle.bundle_id} is needed by a job that is not final"
    )


def _batches(bundles: Iterator[Bundle]) -> Iterator[Sequence[Bundle]]:
    while batch := list(islice(bundles, _BATCH)):
        yield batch
