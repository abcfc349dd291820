"""Book rows read back from the lines in which a segment holds them, as far as runs can be told by them. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Run: TypeAlias = tuple[bytes, int]  # a book run: its pair as COPY text has it, and its chain


@dataclass(frozen=True, slots=True)
class BookLine:
    """A line of kraken_orderbook, and what it says of its row."""

    line: bytes
    event_time: str
    run: Run
    type: str
    seq: int

    @classmethod
    def parse(cls, line: bytes) -> "BookLine":
        """Read a line in the order of `BOOK_COLUMNS`."""
        event_time, pair, _, _, row_type, _, chain, seq, _ = line.split(b"\t")
        return cls(line, event_time.decode(), (pair, int(chain)), row_type.decode(), int(seq))


def split_lines(blocks: Iterable[bytes]) -> list[bytes]:
    """The lines of some blocks, each with its end."""
    return b"".join(blocks).splitlines(keepends=True)
