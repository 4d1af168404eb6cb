"""A verified bundle, restored in scratch, goes to the sinks that take some of it.

All sinks plan before the first one applies: what one of them refuses, none has taken. Plans are
applied one after the other; after a crash between two, the next attempt applies the rest.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from spoold.actions.context import Context
from spoold.actions.part import Part
from spoold.actions.progress import Meter
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.reader import Index
from spoold.canonical import Document, Json
from spoold.sinks.sink import Delivery, Plan, SinkSettings, open_sink
from spoold.sources.globs import Globs


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
        for settings in context.settings.sinks:
            globs = Globs(settings.entries)
            taken = _Taken(index, globs, part)
            if (settings.sites and manifest.site not in settings.sites) or not taken:
                continue
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
            plans.append((settings, plan))
        for settings, plan in plans:
            if not dry_run:
                context.check()
                meter.begin("apply", settings.name)
                plan.apply()
        return [{"name": each.name, "kind": each.kind, **plan.report} for each, plan in plans]


def rows(reports: list[Document]) -> dict[str, Json]:
    """The rows of all sinks together: the status's `result.rows`."""
    sums = {"inserted": 0, "skipped": 0, "conflicting": 0}
    for report in reports:
        counts = report.get("rows")
        if isinstance(counts, Mapping):
            for name in sums:
                sums[name] += int(str(counts[name]))
    return dict(sums)


class _Taken:
    """The files of a bundle whose paths match."""

    def __init__(self, index: Index, globs: Globs, part: Part | None) -> None:
        self._index = index
        self._globs = globs
        self._part = part

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def __iter__(self) -> Iterator[Entry]:
        for entry in self._index.entries():
            text = entry.path.decode("utf-8", "surrogateescape")
            if entry.kind is not Kind.FILE or not self._globs.match(text, folder=False):
                continue
            if self._part is None or self._part.takes(entry):
                yield entry
