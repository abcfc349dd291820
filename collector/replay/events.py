"""History read page by page and turned into the messages of one topic, each with the time at which it is due.

Blocking: a page is read in a worker thread. Each page is a statement of its own and about `PAGE_ROWS` rows, so that no
more is in memory, and no snapshot of the database is held while a client is waited for.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple, Protocol

from collector.kraken.orderbook import Level
from collector.kraken.server.source import TRADE_SNAPSHOT_ROWS
from collector.replay.book_view import BookChange, BookView
from collector.replay.frames import book_frame, trade_frame
from collector.replay.moments import moment, nanoseconds, read_nanoseconds
from collector.replay.stretches import Stretch
from collector.rows import MAX_STEP_BACK
from collector.storage.database import Connection
from collector.storage.stored_rows import Window, book_rows, last_snapshots
from collector.storage.stored_trades import StoredTrade, trade_span, trades_before, trades_from

PAGE_ROWS = 5000  # some 100 seconds of a busy book, and a few megabytes
FIRST_PAGE = timedelta(seconds=10)  # of the market; the next ones are as long as makes them the size that is wanted
SHORTEST_PAGE, LONGEST_PAGE = timedelta(milliseconds=10), timedelta(hours=1)
FASTEST_GROWTH = 4  # a quiet minute does not tell that the next one is

_NULL = b"\\N"


class Event(NamedTuple):
    """A message, or None where the rows behind it are missing; `time` never falls from one event to the next."""

    time: int
    frame: bytes | None


class Reader(Protocol):
    """The events of one topic in one stretch."""

    def next_page(self, connection: Connection) -> Sequence[Event] | None:
        """Some more events, perhaps none; None when there are no more.

        Raises:
            StorageUnavailable: the database was lost.

        """


class BookReader:
    """A pair's book at a depth from `place` on: a snapshot if wanted, then each of Kraken's updates.

    The snapshot is the chain's own where the chain begins at `place` or later; else it is built as of `place`.
    """

    def __init__(self, pair: str, depth: int, stretch: Stretch, place: int, *, snapshot: bool) -> None:
        self._pair = pair
        self._chain = b"%d" % stretch.chain
        self._place = place
        self._stretch = stretch
        self._end = moment(stretch.end)
        self._view = BookView(depth)
        self._wants_snapshot = snapshot
        self._has_begun = False
        self._checksum, self._time = b"", 0  # of the last row before the place
        self._reached = 0  # the latest time of any row so far
        self._next_seq: int | None = None  # None until the first snapshot: any may be the first
        self._ahead: dict[int, Sequence[bytes]] = {}  # rows that came before one that they follow
        self._from: datetime | None = None
        self._length = FIRST_PAGE

    def next_page(self, connection: Connection) -> Sequence[Event] | None:
        """See `Reader`."""
        since = self._find_beginning(connection) if self._from is None else self._from
        if since >= self._end:
            return None
        self._from = until = min(since + self._length, self._end)
        events: list[Event] = []
        count = 0
        for row in book_rows(connection, Window(since, until), [self._pair]):
            if row[6] == self._chain:
                self._take(row, events)
                count += 1
        while self._ahead and (until >= self._end or self._is_overdue(until)):
            self._skip_hole(events)
        if not self._has_begun and not self._ahead and nanoseconds(until) > self._place:
            self._begin(events)
        self._pace(count)
        return events

    def _find_beginning(self, connection: Connection) -> datetime:
        begun = (self._pair, self._stretch.chain, str(moment(self._stretch.began)))
        for snapshot in last_snapshots(connection, [begun], moment(self._place)):
            self._next_seq = snapshot.seq
            return snapshot.event_time - MAX_STEP_BACK
        return moment(max(self._stretch.began, self._place))

    def _pace(self, count: int) -> None:
        factor = min(PAGE_ROWS / max(count, 1), FASTEST_GROWTH)
        self._length = min(max(self._length * factor, SHORTEST_PAGE), LONGEST_PAGE)

    def _take(self, row: Sequence[bytes], events: list[Event]) -> None:
        """Take a row as it is read: by its time, which may be before that of one that it follows."""
        seq = int(row[7])
        if self._next_seq is None and row[4] == b"snapshot":
            self._next_seq = seq
        if self._next_seq is None or seq < self._next_seq:
            return
        self._ahead[seq] = row
        while (following := self._ahead.pop(self._next_seq, None)) is not None:
            self._next_seq += 1
            self._follow(following, events)

    def _is_overdue(self, until: datetime) -> bool:
        """Whether what is missing in front of the rows ahead would have been read by now."""
        first = self._ahead[min(self._ahead)]
        return moment(read_nanoseconds(first[0].decode())) + MAX_STEP_BACK < until

    def _skip_hole(self, events: list[Event]) -> None:
        """Go on behind rows that are missing: with the next snapshot."""
        self._next_seq = min(self._ahead)
        self._view.clear()
        if self._has_begun:
            time = read_nanoseconds(self._ahead[self._next_seq][0].decode())
            events.append(Event(max(self._reached, time), None))
        while (following := self._ahead.pop(self._next_seq, None)) is not None:
            self._next_seq += 1
            self._follow(following, events)

    def _follow(self, row: Sequence[bytes], events: list[Event]) -> None:
        """Take a row in its turn."""
        time = read_nanoseconds(row[0].decode())
        self._reached = max(self._reached, time)
        if self._reached >= self._stretch.end:
            return
        view, is_snapshot = self._view, row[4] == b"snapshot"
        change = BookChange(row[2], row[3], None if row[8] == _NULL else row[8])
        if not self._has_begun and self._reached >= self._place and view.has_book:
            self._begin(events)
        if is_snapshot and not view.has_book:
            view.replace(change)
            if self._reached >= self._place:
                self._checksum, self._time = row[5], time
                self._begin(events)
        elif not is_snapshot and view.has_book:  # a snapshot on the way is the collector's own, and tells nothing
            told = view.take(change)
            if self._has_begun and told is not None:
                events.append(Event(self._reached, self._frame("update", told, row[5], time)))
        if not self._has_begun:
            self._checksum, self._time = row[5], time

    def _begin(self, events: list[Event]) -> None:
        """The place is reached: show the book."""
        if not self._view.has_book:
            return
        self._has_begun = True
        if self._wants_snapshot:
            due = max(self._place, self._time)
            events.append(Event(due, self._frame("snapshot", self._view.levels(), self._checksum, self._time)))

    def _frame(self, kind: str, levels: tuple[list[Level], list[Level]], checksum: bytes, time: int) -> bytes:
        return book_frame(self._pair, kind, *levels, checksum=checksum, time=time)


class TradeReader:
    """A pair's trades from `place` on: if wanted the last 50 before it, then each one, those of one time together."""

    def __init__(self, pair: str, stretch: Stretch, place: int, *, snapshot: bool) -> None:
        self._pair = pair
        self._place = max(place, stretch.start)
        self._end = stretch.end
        self._wants_snapshot = snapshot
        self._ids: tuple[int, int] | None = None  # from which one up to before which one
        self._reached = 0

    def next_page(self, connection: Connection) -> Sequence[Event] | None:
        """See `Reader`."""
        events: list[Event] = []
        if self._ids is None:
            span = trade_span(connection, self._pair, moment(self._place), moment(self._end))
            self._ids = (0, 0) if span is None else (span.first, span.end)
            if self._wants_snapshot:
                latest = trades_before(connection, self._pair, self._ids[0], TRADE_SNAPSHOT_ROWS)
                events.append(Event(self._place, trade_frame("snapshot", [*map(_timed, latest)])))
        first, end = self._ids
        if first >= end:
            return events or None
        trades = trades_from(connection, self._pair, first, end, PAGE_ROWS)
        self._ids = (trades[-1].trade_id + 1 if len(trades) == PAGE_ROWS else end), end
        for time, group in groupby(map(_timed, trades), key=lambda timed: timed[0]):
            self._reached = max(self._reached, time)
            events.append(Event(self._reached, trade_frame("update", list(group))))
        return events


def _timed(trade: StoredTrade) -> tuple[int, StoredTrade]:
    return read_nanoseconds(trade.event_time), trade
