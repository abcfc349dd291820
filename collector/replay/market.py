"""What is stored of a market in a range of time: which pairs, at which depths, and when each was watched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from collector.kraken.pairs import BOOK_DEPTHS, Instrument
from collector.replay.moments import nanoseconds
from collector.replay.stretches import Stretch, book_stretches, trade_stretches
from collector.storage.database import Connection
from collector.storage.stored_rows import BookShape, book_shapes
from collector.storage.stored_runs import stored_runs
from collector.storage.stored_trades import trades_before
from collector.verification.checks import StoredRun

SAMPLE_TRADES = 100  # of a pair without books, whose decimals only its trades show
HIGHEST_ID = 2**63 - 1


@dataclass(frozen=True)
class StoredMarket:
    """Pairs that were watched between two times (nanoseconds, the second one exclusive)."""

    since: int
    until: int
    instruments: Mapping[str, Instrument]
    depths: Mapping[str, Sequence[int]]
    runs: Mapping[tuple[str, str], Sequence[StoredRun]]  # by channel and pair

    @property
    def start(self) -> int:
        """When the first of it was watched."""
        return min(of_topic[0].start for of_topic in self._all_stretches())

    @property
    def end(self) -> int:
        """Up to before when the last of it was watched."""
        return max(of_topic[-1].end for of_topic in self._all_stretches())

    def _all_stretches(self) -> list[list[Stretch]]:
        return [self.stretches(*topic, depth=min(BOOK_DEPTHS)) for topic in self.runs]

    def stretches(self, channel: str, symbol: str, depth: int) -> list[Stretch]:
        """What can be shown of a topic, in order."""
        runs = self.runs.get((channel, symbol), ())
        if channel == "book":
            return book_stretches(runs, self.since, self.until, depth)
        return trade_stretches(runs, self.since, self.until)


def read_market(
    connection: Connection, pairs: Sequence[str] | None, since: datetime, until: datetime
) -> StoredMarket | None:
    """Read what was watched of some pairs (None: of all) from `since` up to before `until`; None where nothing was."""
    begin, end = nanoseconds(since), nanoseconds(until)
    runs: dict[tuple[str, str], list[StoredRun]] = {}
    for run in stored_runs(connection, pairs, since, until):
        if trade_stretches([run], begin, end):  # for either channel: whether a part of it can be shown
            runs.setdefault((run.channel, run.pair), []).append(run)
    if not runs:
        return None
    books = [
        (run.pair, run.chain, run.dropped_before or run.started_at, run.last_at)
        for (channel, _), of_pair in runs.items()
        if channel == "book"
        for run in of_pair
    ]
    shapes: dict[str, list[BookShape]] = {}
    for shape in book_shapes(connection, books):
        shapes.setdefault(shape.pair, []).append(shape)
    symbols = sorted({symbol for _, symbol in runs})
    return StoredMarket(
        begin,
        end,
        {symbol: _instrument(connection, symbol, shapes.get(symbol, [])) for symbol in symbols},
        {symbol: _depths(shapes.get(symbol, [])) for symbol in symbols},
        runs,
    )


def _depths(shapes: Sequence[BookShape]) -> list[int]:
    """The depths that every book of a pair can be shown at.

    The depth of a book is not stored. A side with exactly that many levels shows it. A book that never had as many was
    seen as a whole, and so is right at any depth.
    """
    stored = [shape.levels if shape.levels in BOOK_DEPTHS else max(BOOK_DEPTHS) for shape in shapes]
    return [depth for depth in BOOK_DEPTHS if depth <= min(stored, default=0)]


def _instrument(connection: Connection, symbol: str, shapes: Sequence[BookShape]) -> Instrument:
    price = [shape.price_decimals for shape in shapes if shape.price_decimals is not None]
    size = [shape.size_decimals for shape in shapes if shape.size_decimals is not None]
    if not price or not size:
        trades = trades_before(connection, symbol, HIGHEST_ID, SAMPLE_TRADES)
        price, size = [_decimals(trade.price) for trade in trades], [_decimals(trade.volume) for trade in trades]
    return Instrument(symbol, max(price, default=0), max(size, default=0))


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])
