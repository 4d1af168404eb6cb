"""Which frames of the payload hold the members of some entries. Reads the index only."""

from collections.abc import Callable

from spoold.bundle.entry import Entry, Kind
from spoold.bundle.index import Index
from spoold.bundle.unpacking import Places


def choose(index: Index, wanted: Callable[[Entry], bool]) -> tuple[bytearray, int]:
    """A flag for each PAYLOAD frame, 1 where a wanted entry needs it; and their tar bytes."""
    chosen = bytearray(len(index.frames))
    places = Places()
    for entry in index.entries():
        stand = [places.add(size) for size in member_sizes(entry)]
        if stand and wanted(entry):
            end = stand[-1].frame + stand[-1].frames
            chosen[stand[0].frame : end] = b"\x01" * (end - stand[0].frame)
    return chosen, sum(
        frame.raw for frame, needed in zip(index.frames, chosen, strict=True) if needed
    )


def member_sizes(entry: Entry) -> list[int]:
    """The content bytes of an entry's members, in order; only files have any."""
    if entry.kind is not Kind.FILE:
        return []
    return [chunk.size for chunk in entry.chunks] or [entry.size]
