"""What every source must hold to. Derive a class from SourceContract; its fixtures say which."""

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from spoold import canonical
from spoold.bundle.entry import Kind, SourceEntry, clamp_mtime
from spoold.bundle.order import PathOrder
from spoold.bundle.paths import path_fault
from spoold.connections import NO_CONNECTIONS, Connections
from spoold.errors import SpooldError
from spoold.sources.source import Gathering, Problem, Source, SourceKind, raise_it

Open = Callable[..., Source]

LABEL = "the label"
_PIECE = 64 * 1024


def take(entry: SourceEntry) -> int:
    """Read an entry's content to its end, as the engine does, and close it; its bytes."""
    content, size = entry.content, 0
    if isinstance(content, int):
        while piece := os.read(content, _PIECE):
            size += len(piece)
        os.close(content)
    elif content is not None:
        while piece := content.read(_PIECE):
            assert len(piece) <= _PIECE
            size += len(piece)
        content.close()
    return size


def take_all(source: Source, on_problem: Problem = raise_it) -> list[bytes]:
    """Read a source to its end; the paths of its entries."""
    paths = []
    for entry in source.entries(on_problem):
        take(entry)
        paths.append(entry.path)
    return paths


class SourceContract:
    """Tests of one kind of source; `spec` is what a request writes to have more than one entry."""

    kind: ClassVar[SourceKind]
    max_bytes: ClassVar[int] = 32 * 1024 * 1024  # of Python's memory, whatever is read

    def descriptors(self) -> int:
        """How many descriptors this process has; a test's own server may have to be left out."""
        return len(os.listdir("/proc/self/fd"))

    @pytest.fixture
    def spec(self) -> dict[str, Any]:
        """A source of several entries."""
        raise NotImplementedError

    @pytest.fixture
    def connections(self) -> Connections:
        """What it names."""
        return NO_CONNECTIONS

    @pytest.fixture
    def missing(self) -> dict[str, Any] | None:
        """One whose whole cannot be read."""
        return None

    @pytest.fixture
    def flawed(self) -> dict[str, Any] | None:
        """One of several entries, some of which cannot be read."""
        return None

    @pytest.fixture
    def large(self) -> dict[str, Any] | None:
        """One of at least three times `max_bytes`."""
        return None

    @pytest.fixture
    def gathering(self, connections: Connections) -> Iterator[Gathering]:
        with Gathering(connections) as gathering:
            yield gathering

    @pytest.fixture
    def open_(self, gathering: Gathering) -> Open:
        """Open a source as a request asks for it."""

        def open_(spec: dict[str, Any], gathering: Gathering = gathering) -> Source:
            return self.kind.open(self.kind.Spec.model_validate(spec), gathering, LABEL)

        return open_

    def test_a_spec_has_a_kind_a_title_and_a_name(self, spec: dict[str, Any]) -> None:
        model = self.kind.Spec.model_validate(spec)
        assert model.kind == spec["kind"]
        assert model.title().startswith(model.kind)
        assert model.name()
        with pytest.raises(ValueError, match="no_such_field"):
            self.kind.Spec.model_validate({**spec, "no_such_field": 1})

    def test_entries_come_in_order_and_can_stand_in_a_bundle(
        self, open_: Open, spec: dict[str, Any]
    ) -> None:
        order, count = PathOrder(), 0
        for entry in open_(spec).entries(raise_it):
            assert path_fault(entry.path) is None
            order.add(entry.path, entry.kind, entry.source)
            assert entry.source == LABEL
            assert 0 <= entry.mode <= 0o777
            assert clamp_mtime(entry.mtime_ns) == entry.mtime_ns
            assert (entry.content is not None) is (entry.kind is Kind.FILE)
            assert (entry.target is not None) is (entry.kind is Kind.SYMLINK)
            if entry.media_type is not None:
                assert canonical.text(entry.media_type) == entry.media_type
            size = take(entry)
            assert entry.size in {None, size}
            count += 1
        assert count > 1

    def test_opening_connects_to_nothing_and_a_measure_leaves_nothing_open(
        self, open_: Open, spec: dict[str, Any]
    ) -> None:
        before = self.descriptors()
        source = open_(spec)
        assert self.descriptors() == before
        measured = source.measure()
        assert measured is None or measured >= 0
        assert self.descriptors() == before

    def test_a_walk_that_is_given_up_leaves_nothing_open(
        self, connections: Connections, open_: Open, spec: dict[str, Any]
    ) -> None:
        before = self.descriptors()
        with Gathering(connections) as gathering:
            walk = open_(spec, gathering).entries(raise_it)
            take(next(walk))
            walk.close()  # type: ignore[attr-defined]  # a generator, as every source's
        gc.collect()
        assert self.descriptors() == before

    def test_content_that_is_not_read_to_its_end_is_closed_by_who_took_it(
        self, connections: Connections, open_: Open, spec: dict[str, Any]
    ) -> None:
        before = self.descriptors()
        with Gathering(connections) as gathering:
            walk = open_(spec, gathering).entries(raise_it)
            entry = next(entry for entry in walk if entry.content is not None)
            if isinstance(entry.content, int):
                os.close(entry.content)
            else:
                assert entry.content is not None
                entry.content.read(1)
                entry.content.close()
            walk.close()  # type: ignore[attr-defined]  # a generator
        gc.collect()
        assert self.descriptors() == before

    def test_warnings_are_sentences_for_a_status(self, open_: Open, spec: dict[str, Any]) -> None:
        source = open_(spec)
        take_all(source)
        assert [canonical.text(each) for each in source.warnings] == list(source.warnings)

    def test_what_cannot_be_read_is_an_error_with_a_code_and_a_fix(
        self, open_: Open, missing: dict[str, Any] | None
    ) -> None:
        if missing is None:
            pytest.skip("it is never missing")
        with pytest.raises(SpooldError) as caught:
            take_all(open_(missing))
        assert caught.value.hint

    def test_a_flaw_of_one_entry_is_told_by_its_path(
        self, open_: Open, flawed: dict[str, Any] | None
    ) -> None:
        if flawed is None:
            pytest.skip("it is read as a whole")
        told: list[tuple[bytes, SpooldError]] = []
        found = take_all(open_(flawed), lambda path, error: told.append((path, error)))
        assert found
        assert told
        assert not {path for path, _ in told} & set(found)
        with pytest.raises(SpooldError):
            take_all(open_(flawed))

    def test_memory_is_bounded(self, open_: Open, large: dict[str, Any] | None) -> None:
        if large is None:
            pytest.skip("it is never large")
        size = 0
        tracemalloc.start()
        try:
            for entry in open_(large).entries(raise_it):
                size += take(entry)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert size >= 3 * self.max_bytes
        assert peak <= self.max_bytes
