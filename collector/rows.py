"""The rows of one pair: what its book and its trades become, with the coverage that they prove.

Pure: no clock, no I/O; monotonic times are passed in as seconds. A run is one unbroken stretch of verified data of
one channel. Within a book run `seq` counts its rows from 0 without holes.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from collector.book_window import BookWindow
from collector.errors import BookDesync
from collector.kraken.messages import BookMessage
from collector.kraken.orderbook import Evicted, Level, OrderBook
from collector.kraken.requests import Channel
from collector.kraken.times import format_time, read_time
from collector.records import BookRow, Coverage, Trade

# Updates after which the collector writes a checkpoint of its own, so that no reader has to apply more than these.
CHECKPOINT_UPDATES = 10_000
# How far an update's time may lie before the one before it. Readers find a run's rows by time with as much to spare.
MAX_STEP_BACK = timedelta(seconds=5)
_DATE_WIDTH = len("2026-08-24")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ChainNumbers:
    """Gives each run its number: the clock in microseconds, pushed above any number given before.

    The numbers of a spool only ever increase, also when the wall clock steps back: `last` is the highest that the
    spool has seen.
    """

    def __init__(self, now: Callable[[], datetime], last: int) -> None:
        self._now = now
        self._last = last

    def next(self) -> int:
        """A number for a new run."""
        microseconds = (self._now() - _EPOCH) // timedelta(microseconds=1)
        self._last = max(microseconds, self._last + 1)
        return self._last


class Run:
    """One unbroken run of a pair's channel.

    Its times are Kraken's: the last timestamp seen, to which `coverage` adds the monotonic time since, for as long as
    the connection was known to be alive. `last_seen` is the monotonic time of its last message.
    """

    def __init__(self, pair: str, channel: Channel, chain: int, started_at: str, now: float) -> None:
        self.pair = pair
        self.channel = channel
        self.chain = chain
        self.started_at = started_at
        self.updates = 0
        self.rows = 0
        self._last_at = started_at
        self.last_seen = now

    def see(self, timestamp: str, now: float) -> None:
        """Note a timestamp of Kraken's that arrived now."""
        self._last_at = max(self._last_at, timestamp)
        self.last_seen = now

    def coverage(self, alive_at: float, end_reason: str | None = None) -> Coverage:
        """The run as it stands; `alive_at` is when its connection was last known to be alive."""
        silence = alive_at - self.last_seen
        last_at = self._last_at
        if silence > 0:
            last_at = format_time(read_time(last_at) + timedelta(seconds=silence))
        return Coverage(
            self.pair,
            self.channel,
            self.chain,
            self.started_at,
            last_at,
            self.updates,
            self.rows,
            None if end_reason is None else last_at,
            end_reason,
        )


class BookRows:
    """A pair's book, verified message by message and turned into rows.

    `subscribed` opens it for the snapshot that follows that answer; until then, and from a desync on, every message
    is ignored, since it belongs to a book that is not held any more.
    """

    def __init__(self, pair: str, depth: int, checkpoint_interval: float, numbers: ChainNumbers) -> None:
        self.book = OrderBook(depth)
        self.run: Run | None = None
        self.pair = pair
        self._interval = timedelta(seconds=checkpoint_interval)
        self._numbers = numbers
        self._expects_snapshot = False
        # A snapshot without a time waits for the first update, to take its time.
        self._undated: tuple[BookMessage, Evicted] | None = None
        self._window: BookWindow | None = None
        self._last_time = ""
        self._checkpoint_at = ""
        self._updates_since_checkpoint = 0

    def open_window(self) -> BookWindow:
        """Keep the states of the book from now on, for whoever compares them, until `close_window`."""
        self._window = BookWindow(self.book)
        return self._window

    def close_window(self) -> None:
        """Keep the states of the book no longer."""
        self._window = None

    @property
    def is_listening(self) -> bool:
        """Whether the next message matters: a book is held, or its snapshot is due."""
        return self.run is not None or self._undated is not None or self._expects_snapshot

    def subscribed(self) -> None:
        """The pair's subscription was acknowledged: its snapshot comes next."""
        self._expects_snapshot = True

    def end(self, reason: str, alive_at: float | None = None) -> list[Coverage]:
        """Hold no book any more; the run that ends by this, if there is one.

        It ends when its connection was last known to be alive, or, without `alive_at`, with its last row.
        """
        run = self.run
        ended = [] if run is None else [run.coverage(run.last_seen if alive_at is None else alive_at, reason)]
        self.run = None
        self._undated = None
        self._expects_snapshot = False
        self._last_time = ""
        return ended

    def take(self, message: BookMessage, now: float) -> list[BookRow]:
        """Apply a message that arrived now; return the rows that it makes, none while no book is held.

        Raises:
            BookDesync: the book is not what Kraken says it is. No row of this message exists; call `end`.

        """
        if message.type == "snapshot":
            return self._take_snapshot(message, now)
        if self.run is None and self._undated is None:
            return []
        if message.timestamp is None:
            raise BookDesync("update_without_time")
        return self._take_update(message, message.timestamp, now)

    def _take_snapshot(self, message: BookMessage, now: float) -> list[BookRow]:
        if self.run is not None or self._undated is not None:
            raise BookDesync("unasked_snapshot")  # what came between the two books is not known
        if not self._expects_snapshot:
            return []
        self._expects_snapshot = False
        evicted = self.book.replace(message.bids, message.asks)
        self._verify(message)
        if message.timestamp is None:
            self._undated = (message, evicted)
            return []
        run = self._start(message.timestamp, now)
        return [_row(run, message.timestamp, message, evicted)]

    def _take_update(self, message: BookMessage, timestamp: str, now: float) -> list[BookRow]:
        if timestamp < self._last_time and read_time(self._last_time) - read_time(timestamp) > MAX_STEP_BACK:
            raise BookDesync("time_stepped_back")
        day = timestamp[:_DATE_WIDTH]
        entered = self._held(timestamp) if self.run is not None and day > self._last_time[:_DATE_WIDTH] else None
        evicted = self.book.apply(message.bids, message.asks)
        self._verify(message)
        rows: list[BookRow] = []
        run = self.run or self._start(timestamp, now)
        if self._undated is not None:
            snapshot, snapshot_evicted = self._undated
            self._undated = None
            rows.append(_row(run, timestamp, snapshot, snapshot_evicted))
        if entered is not None:
            # Each day stands alone, so that whole days can be dropped: the book as it entered this one. Now that the
            # update fits it, it is known that nothing was missed since.
            rows.append(self._checkpoint(run, f"{day}T00:00:00.000000Z", entered))
        if self._window is not None:
            self._window.add(message)
        run.see(timestamp, now)
        run.updates += 1
        self._last_time = timestamp
        self._updates_since_checkpoint += 1
        rows.append(_row(run, timestamp, message, evicted))
        if self._updates_since_checkpoint >= CHECKPOINT_UPDATES or timestamp >= self._checkpoint_at:
            rows.append(self._checkpoint(run, timestamp, self._held(timestamp)))
        return rows

    def _start(self, timestamp: str, now: float) -> Run:
        self.run = run = Run(self.pair, "book", self._numbers.next(), timestamp, now)
        self._last_time = timestamp
        self._expect_checkpoint(timestamp)
        return run

    def _verify(self, message: BookMessage) -> None:
        """Hold the book against the message that it has just taken."""
        if self.book.checksum() != message.checksum:
            raise BookDesync("checksum")
        if self.book.is_crossed():
            raise BookDesync("crossed")

    def _held(self, timestamp: str) -> BookMessage:
        """The book as it is now, as a snapshot."""
        bids, asks = (side.best(self.book.depth) for side in (self.book.bids, self.book.asks))
        return BookMessage(self.pair, "snapshot", bids, asks, self.book.checksum(), timestamp)

    def _checkpoint(self, run: Run, timestamp: str, held: BookMessage) -> BookRow:
        """A snapshot row of the collector's own."""
        self._expect_checkpoint(timestamp)
        return _row(run, timestamp, held, ([], []))

    def _expect_checkpoint(self, timestamp: str) -> None:
        self._updates_since_checkpoint = 0
        self._checkpoint_at = format_time(read_time(timestamp) + self._interval)


def _row(run: Run, timestamp: str, message: BookMessage, evicted: Evicted) -> BookRow:
    """The next row of a book run."""
    seq = run.rows
    run.rows += 1
    return BookRow(
        timestamp,
        run.pair,
        levels_json(message.bids),
        levels_json(message.asks),
        message.type,
        message.checksum,
        run.chain,
        seq,
        _evicted_json(evicted) if evicted[0] or evicted[1] else None,
    )


class TradeRows:
    """The run of a pair's trades: open from its subscription's answer to the end of the connection."""

    def __init__(self, pair: str, numbers: ChainNumbers) -> None:
        self.run: Run | None = None
        self.pair = pair
        self._numbers = numbers

    def subscribed(self, time: str, now: float) -> None:
        """The pair's subscription was acknowledged at Kraken's `time`."""
        self.run = Run(self.pair, "trade", self._numbers.next(), time, now)

    def end(self, reason: str, alive_at: float) -> list[Coverage]:
        """The run that ends by this, if there is one."""
        ended = [] if self.run is None else [self.run.coverage(alive_at, reason)]
        self.run = None
        return ended

    def take(self, trade: Trade, now: float) -> None:
        """Note a trade that arrived now. Those of a snapshot may be older than the run; they count all the same."""
        if self.run is not None:
            self.run.see(trade.event_time, now)
            self.run.updates += 1
            self.run.rows += 1


def levels_json(levels: Sequence[Level]) -> bytes:
    """Levels as a JSON array of `[price, size]`, with the digits as sent."""
    if not levels:
        return b"[]"
    return b"[" + b",".join([b"[%b,%b]" % (level.price, level.size) for level in levels]) + b"]"


def _evicted_json(evicted: Evicted) -> bytes:
    bids, asks = evicted
    return b'{"bids":[%b],"asks":[%b]}' % (b",".join(bids), b",".join(asks))
