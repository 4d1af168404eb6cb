"""The catalogue: every bundle that was made or restored here, and what became of its file.

A row is made in the transaction in which its job becomes final, and outlives the job's own.
"""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from spoold import canonical, errors
from spoold.errors import SpooldError
from spoold.queue.store import Store
from spoold.queue.tree_rows import Bundle

_PAGE: Final = 500
_MOST_SHOWN: Final = 5
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_LAST_JOB: Final = uuid.UUID(int=(1 << 128) - 1)


class Catalogue:
    """The bundles of one spool."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest(self, site: str | None = None) -> Iterator[Bundle]:
        """Those whose files were not removed, the newest first; of one site, or of all."""
        statement = "bundles" if site is None else "bundles_from"
        before, job = _LATEST, _LAST_JOB
        while True:
            found = self._ask(statement, site=site, before=before, job=job, limit=_PAGE)
            yield from found
            if len(found) < _PAGE:
                return
            before, job = found[-1].created_at, found[-1].job

    def find(self, text: str) -> Bundle:
        """The bundle of an id, of the last 12 digits or the beginning of one, or of a job's id.

        Where some of those were removed, one that stands is meant. Raises bundle-unknown.
        """
        found = self._matches(text)
        standing = [bundle for bundle in found if bundle.removed_at is None]
        if len(standing) > 1:
            named = ", ".join(f"{each.bundle_id} of job {each.job}" for each in standing)
            raise SpooldError(
                errors.BUNDLE_UNKNOWN,
                f"{canonical.text(text)} is not one bundle: {named}",
                hint="write more of its id, or the id of its job",
            )
        if not found:
            raise SpooldError(
                errors.BUNDLE_UNKNOWN, f"there is no bundle {canonical.text(text)} in this spool"
            )
        return (standing or found)[0]

    def pin(self, bundle: Bundle, *, pinned: bool) -> bool:
        """Keep a bundle whatever the rules say, or no longer; False where it was removed."""
        parameters = {"spool": self._store.spool, "job": bundle.job, "pinned": pinned}
        return self._store.database.row("pin", parameters) is not None

    def standing(self) -> tuple[int, int]:
        """How many there are that nobody has pinned, and their bytes."""
        row = self._store.database.row("standing_bundles", {"spool": self._store.spool})
        assert row is not None
        return int(row[0]), int(row[1])

    def _matches(self, text: str) -> list[Bundle]:
        try:
            job = uuid.UUID(text) if len(text) == 36 else None
        except ValueError:
            job = None
        if "\0" in text or not text:
            return []
        most = _MOST_SHOWN
        # Beyond every id that begins so: the ids are ASCII, and compared by bytes.
        return (
            self._ask("bundles_called", text=text, job=job, limit=most)
            or (self._ask("bundles_ending", text=text, limit=most) if len(text) == 12 else [])
            or self._ask("bundles_beginning", text=text, beyond=f"{text}\U0010ffff", limit=most)
        )

    def _ask(self, statement: str, **parameters: object) -> list[Bundle]:
        rows = self._store.database.rows(statement, {"spool": self._store.spool, **parameters})
        return [Bundle.of(row) for row in rows]
