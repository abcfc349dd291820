"""A pair's book, followed through the rows that are stored of it, with its recent spread and number of messages.

Pure: no clock, no I/O. Every row must be the one that follows, and its checksum must hold: what is shown is the book
that was verified, or none.
"""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from collector.errors import BookDesync, MalformedMessage
from collector.kraken.orderbook import Level, OrderBook, parse_level
from collector.kraken.pairs import BOOK_DEPTHS
from collector.verification.chain_replay import read_levels

HISTORY = 600  # seconds of spread and rate that are kept: what a chart shows
RANKS_PER_UNIT = 10**18  # a level's rank is its price in these


class BookRow(NamedTuple):
    """A row of kraken_orderbook; levels and evicted prices are JSON as PostgreSQL writes it."""

    event_time: datetime
    seq: int
    type: str
    bids: str
    asks: str
    checksum: int
    evicted: str | None


class Sample(NamedTuple):
    """One second of a book: when it began (seconds since 1970), the spread at its end, and the updates in it.

    The spread is for a picture, hence a float; None while a side is empty.
    """

    second: int
    spread: float | None
    updates: int


class _Evicted(msgspec.Struct):
    bids: list[msgspec.Raw]
    asks: list[msgspec.Raw]


_evicted_decoder = msgspec.json.Decoder(_Evicted)


class LiveBook:
    """The book of one chain, from a snapshot on.

    Attributes:
        chain: the run that it follows.
        next: the seq that comes next.
        time: the latest time of any row; None before the first.

    """

    def __init__(self, chain: int, first: int, samples: deque[Sample]) -> None:
        self.chain = chain
        self.next = first
        self.time: datetime | None = None
        # The depth is not stored, and need not be known: what a row cut off is stored with it.
        self._book = OrderBook(max(BOOK_DEPTHS))
        self._samples = samples
        self._second: int | None = None
        self._updates = 0

    def take(self, row: BookRow) -> None:
        """Take the row that follows.

        Raises:
            BookDesync: it is not the one that follows, or the book is not what the row says.

        """
        if row.seq != self.next:
            raise BookDesync(f"row {self.next} of the run {self.chain} is missing")
        self._enter_second(row.event_time)
        try:
            self._apply(row)
        except (MalformedMessage, ValueError, msgspec.DecodeError) as error:
            raise BookDesync(f"row {row.seq} of the run {self.chain} cannot be read: {error}") from error
        if self._book.checksum() != row.checksum:
            raise BookDesync(f"the checksum of row {row.seq} of the run {self.chain} does not hold")
        self._updates += row.type == "update"
        self.next += 1
        self.time = row.event_time if self.time is None else max(self.time, row.event_time)

    def levels(self) -> tuple[Sequence[Level], Sequence[Level]]:
        """All bids and all asks, best first."""
        bids, asks = self._book.bids, self._book.asks
        return bids.best(len(bids)), asks.best(len(asks))

    def _apply(self, row: BookRow) -> None:
        bids, asks = read_levels(row.bids.encode()), read_levels(row.asks.encode())
        if row.type == "snapshot":
            self._book.replace(bids, asks)
        elif self.time is None:
            raise BookDesync(f"the run {self.chain} has no snapshot at row {row.seq}")
        else:
            self._book.apply(bids, asks)
        if row.evicted is not None:
            evicted = _evicted_decoder.decode(row.evicted)
            for side, prices in (self._book.bids, evicted.bids), (self._book.asks, evicted.asks):
                side.apply([parse_level(bytes(price), b"0") for price in prices])

    def _enter_second(self, event_time: datetime) -> None:
        """Sample the book at the end of each second before that of a row; rows may come somewhat out of order."""
        second = int(event_time.replace(tzinfo=UTC).timestamp())
        if self._second is None:
            self._second = second
        elif second > self._second:
            self._sample(self._second, self._updates)
            for quiet in range(max(self._second + 1, second - HISTORY), second):
                self._sample(quiet, 0)
            self._second, self._updates = second, 0

    def _sample(self, second: int, updates: int) -> None:
        # A book that is begun again, from a checkpoint, goes through seconds that were sampled already.
        if not self._samples or second > self._samples[-1].second:
            book = self._book
            # The keys of bids are negative.
            spread = (book.asks.keys[0] + book.bids.keys[0]) / RANKS_PER_UNIT if book.bids and book.asks else None
            self._samples.append(Sample(second, spread, updates))
