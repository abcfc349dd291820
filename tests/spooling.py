"""Spools for tests, and what is read back of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collector.storage.segments import Segment
from collector.storage.spool import Spool


@contextmanager
def opened(directory: Path) -> Iterator[Spool]:
    """A spool that is closed at the end of the block, as by the end of its process."""
    spool = Spool.open(directory)
    try:
        yield spool
    finally:
        spool.close()


def seal(spool: Spool) -> None:
    """Seal and sync, as the flush task does."""
    file = spool.seal()
    assert file is not None
    spool.sync(file)


def segments(spool: Spool) -> list[Segment | None]:
    """Everything that waits to be shipped."""
    return [spool.read(number) for number in spool.sealed]


def lines(found: list[Segment | None]) -> tuple[bytes, bytes]:
    """The book rows and the trades of some segments."""
    present = [segment for segment in found if segment is not None]
    return (
        b"".join(block for segment in present for block in segment.book),
        b"".join(block for segment in present for block in segment.trades),
    )
