"""A verified bundle, restored in scratch, goes to the sinks that take some of it.

All sinks plan before the first one applies: what one of them refuses, none has taken. Plans are
applied one after the other; after a crash between two, the next attempt applies the rest.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from spoold import canonical, errors
from spoold.actions.context import Context
from spoold.actions.part import Part
from spoold.actions.progress import Meter
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.reader import Index
from spoold.canonical import Document, Json
from spoold.errors import SpooldError
from spoold.sinks.sink import Delivery, Plan, SinkSettings, open_sink
from spoold.sources.globs import Globs

_CHECKED_ENTRIES: Final = 10_000


def deliver(
    context: Context,
    index: Index,
    tree: Path,
    meter: Meter,
    *,
    dry_run: bool,
    part: Part | None = None,
) -> list[Document]:
    """What each sink has done, or would do: the status's `result.sinks`.

    Of a bundle that was restored in part they get that part.
    """
    manifest = index.head.manifest
    plans: list[tuple[SinkSettings, Plan]] = []
    with ExitStack() as stack:
        sinks = [
            each for each in context.settings.sinks if not each.sites or manifest.site in each.sites
        ]
        for settings, taken in _wanting(context, index, sinks, part):
            meter.begin("plan", settings.name)
            delivery = Delivery(
                bundle_id=manifest.bundle_id,
                site=manifest.site,
                manifest_sha256=index.head.manifest_sha256,
                job_id=context.job_id,
                tree=tree,
                scratch=context.scratch,
                entries=taken.__iter__,
                connections=context.settings.connections,
                check=context.check,
                count=meter.count,
            )
            plan = open_sink(settings, context.settings.connections).plan(delivery)
            stack.callback(plan.close)
            _report(settings, plan)  # a fault in it is found before anything is applied
            plans.append((settings, plan))
        for settings, plan in plans:
            if not dry_run:
                context.check()
                meter.begin("apply", settings.name)
                plan.apply()
        return [_report(each, plan) for each, plan in plans]


def rows(reports: list[Document]) -> dict[str, Json]:
    """The rows of all sinks together: the status's `result.rows`."""
    sums = {"inserted": 0, "skipped": 0, "conflicting": 0}
    for report in reports:
        counts = report.get("rows")
        if isinstance(counts, Mapping):
            for name in sums:
                count = counts.get(name, 0)
                sums[name] += count if isinstance(count, int) else 0
    return dict(sums)


def _report(settings: SinkSettings, plan: Plan) -> Document:
    """What a sink says. Raises sink-refused where that cannot stand in a status."""
    report: Document = {"name": settings.name, "kind": settings.kind, **plan.report}
    try:
        canonical.encode({"result": {"sinks": [report]}})
    except (canonical.NotCanonicalError, TypeError) as error:  # a TypeError is the encoder's own
        what = str(error).removeprefix("$.result.sinks[0].")
        raise SpooldError(
            errors.SINK_REFUSED,
            f"sink {settings.name}: its report cannot stand in a status: {what}",
            hint=f"have the package corrected that sinks of kind {settings.kind} come from",
        ) from error
    return report


def _wanting(
    context: Context, index: Index, sinks: Sequence[SinkSettings], part: Part | None
) -> Iterator[tuple[SinkSettings, "_Taken"]]:
    """The sinks that take something; entries are gone through once, however many sinks do not."""
    waiting = {
        number: _Taken(index, Globs(each.entries), part) for number, each in enumerate(sinks)
    }
    found: dict[int, _Taken] = {}
    for count, entry in enumerate(index.entries()):
        if not waiting:
            break
        if count % _CHECKED_ENTRIES == 0:
            context.check()
        for number in [number for number, taken in waiting.items() if taken.takes(entry)]:
            found[number] = waiting.pop(number)
    return ((sinks[number], found[number]) for number in sorted(found))


class _Taken:
    """The files of a bundle whose paths match."""

    def __init__(self, index: Index, globs: Globs, part: Part | None) -> None:
        self._index = index
        self._globs = globs
        self._part = part

    def takes(self, entry: Entry) -> bool:
        """Whether it is a file that was restored and matches."""
        text = entry.path.decode("utf-8", "surrogateescape")
        if entry.kind is not Kind.FILE or not self._globs.match(text, folder=False):
            return False
        return self._part is None or self._part.takes(entry)

    def __iter__(self) -> Iterator[Entry]:
        return filter(self.takes, self._index.entries())
