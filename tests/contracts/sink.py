"""What every sink must hold to. Derive a class from SinkContract; its fixtures say which sink."""

import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from spoold import canonical
from spoold.bundle.entry import Entry, Kind
from spoold.bundle.lines import as_text
from spoold.connections import NO_CONNECTIONS, Connections
from spoold.errors import SpooldError
from spoold.sinks.sink import Delivery, Sink

BUNDLE_ID = "demo-0123456789ab"


class LostError(Exception):
    """What `check` raises where an attempt has lost its job."""


def entry_of(path: str | bytes, content: bytes, mode: int = 0o644, mtime_ns: int = 0) -> Entry:
    """A file's entry in the index."""
    raw = os.fsencode(path)
    digest = hashlib.sha256(content).hexdigest()
    member = "data/" + (as_text(raw) or f"_x/{hashlib.sha256(raw).hexdigest()}")
    return Entry(raw, Kind.FILE, mode, mtime_ns, 0, 0, "test", len(content), digest, member)


def deliver(
    folder: Path,
    files: Mapping[Any, bytes],
    *,
    bundle_id: str = BUNDLE_ID,
    site: str = "site-a",
    manifest_sha256: str = "ab" * 32,
    job_id: str = "",
    mode: int = 0o644,
    mtime_ns: int = 0,
    connections: Connections = NO_CONNECTIONS,
    check: Callable[[], None] = lambda: None,
    count: Callable[[int, int], None] = lambda _bytes, _rows: None,
) -> Delivery:
    """A bundle of these files, as if it had been verified and restored in a folder of its own."""
    place = folder / f"attempt-{uuid.uuid4().hex}"
    tree = place / "restored"
    tree.mkdir(parents=True)
    entries = []
    for path, content in sorted((os.fsencode(path), content) for path, content in files.items()):
        target = os.path.join(os.fsencode(tree), path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content)
        os.chmod(target, mode)
        entries.append(entry_of(path, content, mode, mtime_ns))
    return Delivery(
        bundle_id=bundle_id,
        site=site,
        manifest_sha256=manifest_sha256,
        job_id=job_id or str(uuid.uuid4()),
        tree=tree,
        scratch=place,
        entries=lambda: iter(entries),
        connections=connections,
        check=check,
        count=count,
    )


def listing(tree: Path) -> dict[str, tuple[int, bytes]]:
    """The files of a tree: their modes and contents."""
    return {
        str(path.relative_to(tree)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


class SinkContract:
    """Tests of one sink; `files` is a bundle that it takes, `refused` one that it refuses."""

    files: ClassVar[Mapping[str, bytes]]
    refused: ClassVar[Mapping[str, bytes] | None] = None

    @pytest.fixture
    def sink(self, tmp_path: Path) -> Sink:
        """The sink, with a place of its own to write to."""
        raise NotImplementedError

    @pytest.fixture
    def state(self, tmp_path: Path) -> Callable[[], object]:
        """What others see of that place: a function whose results can be compared."""
        raise NotImplementedError

    @pytest.fixture
    def connections(self) -> Connections:
        """What the sink's settings name."""
        return NO_CONNECTIONS

    @pytest.fixture
    def make(self, tmp_path: Path, connections: Connections) -> Callable[..., Delivery]:
        """Deliveries of `files`, or of others."""

        def make(files: Mapping[str, bytes] | None = None, **fields: Any) -> Delivery:
            found = self.files if files is None else files
            return deliver(tmp_path / "deliveries", found, connections=connections, **fields)

        return make

    def test_a_plan_tells_what_it_would_do_and_changes_nothing(
        self, sink: Sink, state: Callable[[], object], make: Callable[..., Delivery]
    ) -> None:
        before = state()
        delivery = make()
        restored = listing(delivery.tree)
        plan = sink.plan(delivery)
        report = dict(plan.report)
        assert state() == before
        plan.close()
        assert state() == before
        assert listing(delivery.tree) == restored
        assert canonical.decode(canonical.encode(report)) == report
        assert not {"name", "kind"} & set(report)

    def test_what_was_planned_is_applied_and_reported(
        self, sink: Sink, state: Callable[[], object], make: Callable[..., Delivery]
    ) -> None:
        before = state()
        delivery = make()
        restored = listing(delivery.tree)
        plan = sink.plan(delivery)
        planned = dict(plan.report)
        plan.apply()
        assert plan.report == planned
        plan.close()
        assert state() != before
        assert listing(delivery.tree) == restored

    def test_what_was_applied_once_stays_as_it_is(
        self, sink: Sink, state: Callable[[], object], make: Callable[..., Delivery]
    ) -> None:
        job = str(uuid.uuid4())
        apply(sink, make(job_id=job))
        after = state()
        apply(sink, make(job_id=job))
        assert state() == after
        apply(sink, make(job_id=str(uuid.uuid4())))
        assert state() == after

    def test_a_refusal_is_an_error_with_a_code_and_changes_nothing(
        self, sink: Sink, state: Callable[[], object], make: Callable[..., Delivery]
    ) -> None:
        if self.refused is None:
            pytest.skip("it refuses nothing")
        before = state()
        with pytest.raises(SpooldError) as caught:
            sink.plan(make(self.refused))
        assert caught.value.hint
        assert state() == before

    def test_an_attempt_that_has_lost_its_job_stops_and_the_next_one_finishes(
        self,
        sink: Sink,
        state: Callable[[], object],
        make: Callable[..., Delivery],
    ) -> None:
        before, job = state(), str(uuid.uuid4())
        try:
            apply(sink, make(job_id=job, check=_lose))
        except LostError:  # what is done at once need not ask
            assert state() == before
        apply(sink, make(job_id=job))
        assert state() != before

    def test_progress_is_counted(self, sink: Sink, make: Callable[..., Delivery]) -> None:
        counted: list[tuple[int, int]] = []
        apply(sink, make(count=lambda more, rows: counted.append((more, rows))))
        assert sum(more for more, _ in counted) > 0
        assert all(more >= 0 and rows >= 0 for more, rows in counted)


def apply(sink: Sink, delivery: Delivery) -> Mapping[str, Any]:
    """Plan and apply; the report."""
    plan = sink.plan(delivery)
    try:
        plan.apply()
        return plan.report
    finally:
        plan.close()


def lose_after(calls: int) -> Callable[[], None]:
    """A `check` that raises when it has been called so often."""
    left = iter(range(calls))

    def check() -> None:
        if next(left, None) is None:
            raise LostError

    return check


def _lose() -> None:
    raise LostError
