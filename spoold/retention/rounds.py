"""A round of retention: what is due, without what is held; in batches, each complete in itself."""

import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Final, TypeVar

from spoold import points
from spoold.connections import Connections
from spoold.publish.plan import target_path
from spoold.queue.catalogue import Catalogue
from spoold.queue.placed import Hold, Places
from spoold.queue.store import Store
from spoold.queue.tree_rows import Area, Bundle, Placed
from spoold.retention.lock import removing
from spoold.retention.needs import Identity, Needed, folders_above, gather
from spoold.retention.remover import Removed, Remover, is_gone
from spoold.retention.rules import Limits, RetentionSettings, Rule, beyond, rules_of
from spoold.spool import Spool

T = TypeVar("T")

_MOST_A_ROUND: Final = 2000  # jobs; then others have their turn
_MOST_ROWS_A_ROUND: Final = 20_000
_BATCH: Final = 100
_NEEDS_COUNT_SECONDS: Final = 5.0
_RESULTS: Final = frozenset({Area.PROCESSED, Area.BUNDLES})


@dataclass(slots=True)
class Round:
    """What a round did. `held`: jobs whose files are due and stay, by reason."""

    removed: Removed = field(default_factory=Removed)
    held: Counter[Hold] = field(default_factory=Counter)
    rows: int = 0
    more: bool = False
    """There is more that is due: it need not be waited for."""


class Retention:
    """Removes what is due in one spool. For one thread.

    `stopped` is asked before each batch, and may take its time.
    """

    def __init__(
        self,
        tree: Spool,
        store: Store,
        settings: RetentionSettings,
        connections: Connections,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tree = tree
        self._store = store
        self._settings = settings
        self._connections = connections
        self._stopped = stopped
        self._places = Places(store)
        self._catalogue = Catalogue(store)
        self._remover = Remover(tree, self._places)
        self._needed = Needed()
        self._needed_at = float("-inf")
        self._folders: dict[str, list[Identity]] = {}

    def round(self) -> Round:
        """Remove what is due, up to a limit. Raises retention-busy, database-away and OSError."""
        done = Round()
        with removing(self._tree):
            self._folders.clear()
            for rule in rules_of(self._settings):
                self._apply(rule, done)
            self._apply_limits(done)
            self._prune(done)
        return done

    def remove_bundles(self, bundles: Sequence[Bundle]) -> tuple[Removed, dict[uuid.UUID, Hold]]:
        """Remove the files of bundles but those that are held; who those are, and why.

        To be used under the lock `removing`.
        """
        jobs = [bundle.job for bundle in bundles]
        held = dict(self._places.held(jobs, 0))
        going = self._places.of([job for job in jobs if job not in held], [Area.BUNDLES])
        going, named = self._without_needed(going)
        held |= dict.fromkeys(named, Hold.NEEDED)
        return self._remover.remove(going), held

    def held_bundles(self, bundles: Sequence[Bundle]) -> dict[uuid.UUID, Hold]:
        """Who of these would be held."""
        jobs = [bundle.job for bundle in bundles]
        _, named = self._without_needed(self._places.of(jobs, [Area.BUNDLES]))
        return {**dict.fromkeys(named, Hold.NEEDED), **self._places.held(jobs, 0)}

    def beyond(self, limits: Limits) -> Iterator[Bundle]:
        """The bundles that limits leave no place for, the newest first.

        What is not there any more, because somebody has fetched it, fills no place.
        """
        return beyond(self._present(), limits, self._store.now())

    def give_up_fetched(self) -> None:
        """Mark the bundles whose files somebody has taken away, and free their names."""
        for bundles in _batches(self._catalogue.newest()):
            if self._stopped():
                return
            places = self._places.of([bundle.job for bundle in bundles], [Area.BUNDLES])
            self._places.give_up([one for one in places if is_gone(self._tree, one)])

    # --- rules ------------------------------------------------------------------------------------

    def _apply(self, rule: Rule, done: Round) -> None:
        left = _MOST_A_ROUND
        for page in self._places.due(rule.area, rule.seconds):
            for jobs in _batches(page):
                if left <= 0 or self._stopped():
                    done.more = True
                    return
                left -= self._remove(jobs, rule, done)

    def _remove(self, jobs: Collection[uuid.UUID], rule: Rule, done: Round) -> int:
        """Returns for how many jobs something was done."""
        held = dict(
            self._places.held(
                jobs,
                rule.seconds if rule.names_results else 0,
                pins=rule.area in _RESULTS,
            )
        )
        going = self._places.of([job for job in jobs if job not in held], rule.goes)
        going, named = self._without_needed(going)
        held |= dict.fromkeys(named, Hold.NEEDED)
        done.held.update(held.values())
        done.removed.add(self._remover.remove(going))
        return len(jobs) - len(held)

    def _apply_limits(self, done: Round) -> None:
        limits = self._settings.limits
        count, total = self._catalogue.standing()
        if not (limits.keep and count > limits.keep) and not (
            limits.max_bytes and total > limits.max_bytes
        ):
            return
        self.give_up_fetched()
        for bundles in _batches(islice(self.beyond(limits), _MOST_A_ROUND)):
            if self._stopped():
                done.more = True
                return
            removed, held = self.remove_bundles(bundles)
            done.removed.add(removed)
            done.held.update(held.values())

    def _present(self) -> Iterator[Bundle]:
        for bundles in _batches(self._catalogue.newest()):
            places = self._places.of([bundle.job for bundle in bundles], [Area.BUNDLES])
            gone = {one.job for one in places if is_gone(self._tree, one)}
            yield from (bundle for bundle in bundles if bundle.job not in gone)

    def _prune(self, done: Round) -> None:
        seconds = self._settings.jobs
        while seconds and not self._stopped():
            if done.rows >= _MOST_ROWS_A_ROUND:
                done.more = True
                return
            pruned = prune_jobs(self._tree, self._store, seconds)
            done.rows += pruned
            if not pruned:
                return

    # --- what unfinished jobs name ----------------------------------------------------------------

    def _without_needed(self, going: Sequence[Placed]) -> tuple[list[Placed], set[uuid.UUID]]:
        """What may go, and the jobs of which nothing may, because a file of theirs is named."""
        if time.monotonic() - self._needed_at > _NEEDS_COUNT_SECONDS:
            self._needed = gather(self._tree, self._places, self._connections)
            self._needed_at = time.monotonic()
        free: list[Placed] = []
        named: set[uuid.UUID] = set()
        for job, files in groupby(going, key=lambda one: one.job):
            listed = list(files)
            if any(self._is_needed(one) for one in listed):
                named.add(job)
            else:
                free += listed
        return free, named

    def _is_needed(self, one: Placed) -> bool:
        try:
            status = os.lstat(target_path(self._tree, one.folder, one.name))
        except OSError:
            return False
        if one.folder not in self._folders:
            self._folders[one.folder] = folders_above(self._tree.root / one.folder)
        return self._needed.holds((status.st_dev, status.st_ino), self._folders[one.folder])


def prune_jobs(tree: Spool, store: Store, seconds: float, limit: int = 5000) -> int:
    """Delete the rows of jobs that ended so long ago, and the names whose files are gone.

    What still stands keeps its name, and goes by its own rule. Call again while it deletes.
    """
    places = Places(store)
    jobs = store.next_to_prune(seconds, limit)
    for some in _batches(jobs):
        places.give_up([one for one in places.of(some, list(Area)) if is_gone(tree, one)])
    points.reached("retain.rows")
    return store.prune(jobs) if jobs else 0


def _batches(given: Iterable[T]) -> Iterator[list[T]]:
    one_by_one = iter(given)
    while batch := list(islice(one_by_one, _BATCH)):
        yield batch
