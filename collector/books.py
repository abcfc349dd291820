"""Every pair's book and trades on the connections of the moment: events in, records out.

No clock and no I/O of its own: what it asks of others (numbers for runs, resyncs, the wall clock) is passed in.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
import structlog

from collector.errors import BookDesync
from collector.feed import Alive, Connected, Disconnected, Doubts, FeedEvent, ResyncRequests, Subscribed, Unsubscribed
from collector.kraken.messages import BookMessage, Malformed, TradeMessage
from collector.kraken.orderbook import OrderBook
from collector.kraken.times import format_time
from collector.records import Record
from collector.rows import BookRows, ChainNumbers, Run, TradeRows
from collector.settings import Settings
from collector.statistics import PairStatistics, Statistics

COVERAGE_INTERVAL = 5.0  # seconds between reports that a quiet run is still being watched
# Seconds between two looks at a connection that count as watched at most: twice the heartbeat's interval.
MAX_SILENCE = 2.0
# The first tells a person what is wrong, a flood of them nothing more; at DEBUG each is told, for a diagnosis.
MALFORMED_LOGGED_EVERY = 1000

PairRows: TypeAlias = BookRows | TradeRows

log = structlog.get_logger()


@dataclass(slots=True)
class _Watch:
    """For how long a connection was watched, in seconds, which stands still while nothing comes on it.

    A process that was frozen, or kept from reading, finds old frames and the present time. Frames come each second at
    least, so between two looks no more than `MAX_SILENCE` counts as watched.
    """

    connection: int
    looked_at: float
    seconds: float = 0.0
    reported_at: float = 0.0

    def look(self, now: float) -> float:
        """Note that something of it was read now; return how long it was watched until then."""
        if now > self.looked_at:
            self.seconds += min(now - self.looked_at, MAX_SILENCE)
            self.looked_at = now
        return self.seconds

    def alive_until(self, last_frame_at: float) -> float:
        """How long it was watched until its last frame."""
        return self.seconds + min(last_frame_at - self.looked_at, MAX_SILENCE)


@dataclass(slots=True)
class _Batch:
    """Events that are worked through together: when, the records so far, and whose coverage they moved."""

    now: float
    records: list[Record] = field(default_factory=list)
    touched: set[PairRows] = field(default_factory=set)


class Books:
    """The books and trade runs of every pair."""

    def __init__(
        self,
        settings: Settings,
        resyncs: ResyncRequests,
        doubts: Doubts,
        numbers: ChainNumbers,
        statistics: Statistics,
        now: Callable[[], datetime],
    ) -> None:
        self._selection = settings.selection
        self._checkpoint_interval = settings.snapshot_interval
        self._resyncs = resyncs
        self._doubts = doubts
        self._numbers = numbers
        self._statistics = statistics
        self._now = now
        self._connections: dict[int, _Watch] = {}
        self._watches: dict[str, _Watch] = {}  # of the connection that each pair is, or was last, subscribed on
        self._books: dict[str, BookRows] = {}
        self._trades: dict[str, TradeRows] = {}
        self._takers: dict[type, Callable[[Any, _Batch], None]] = {
            BookMessage: self._take_book,
            TradeMessage: self._take_trades,
            Malformed: self._take_malformed,
            Connected: self._take_connected,
            Alive: self._take_alive,
            Subscribed: self._take_subscribed,
            Unsubscribed: self._take_unsubscribed,
            Disconnected: self._take_disconnected,
        }

    def take(self, events: Sequence[FeedEvent], now: float) -> list[Record]:
        """The records of a batch of events, at least one; rows first, then the coverage that they prove."""
        batch = _Batch(now)
        for pair, (chain, reason) in self._doubts.take().items():
            rows = self._books.get(pair)
            if rows is not None and rows.run is not None and rows.run.chain == chain:
                self._desync(pair, reason, batch)
        for event in events:
            self._takers[type(event)](event, batch)
        for touched in batch.touched:
            if touched.run is not None:
                batch.records.append(touched.run.coverage(self._watches[touched.pair].seconds))
                if isinstance(touched, BookRows):
                    self._show(touched.pair, touched.book)
        self._statistics.under_way.read(made_records=bool(batch.records))
        return batch.records

    def shut_down(self) -> list[Record]:
        """End every run with what was last seen of its connection: nobody knows whether that lived since."""
        records: list[Record] = []
        for watch in self._connections.values():
            for rows in self._rows_on(watch):
                records += rows.end("shutdown", watch.seconds)
        return records

    def held(self) -> list[BookRows]:
        """The books that are held."""
        return [rows for rows in self._books.values() if rows.run is not None]

    def collected(self) -> frozenset[str]:
        """The pairs of which both the book and the trades run."""
        return frozenset(
            rows.pair for rows in self.held() if (trades := self._trades.get(rows.pair)) and trades.run is not None
        )

    def runs(self) -> list[Run]:
        """The open runs of books and of trades."""
        return [rows.run for rows in self._all_rows() if rows.run is not None]

    def silence(self, run: Run) -> float:
        """The seconds for which a run had no message while its connection was watched."""
        return self._watches[run.pair].seconds - run.last_seen

    def quiet_for(self, seconds: float) -> list[BookRows]:
        """The books that are held and have had no message for some time while their connection was watched."""
        return [rows for rows in self.held() if rows.run is not None and self.silence(rows.run) > seconds]

    def _take_book(self, message: BookMessage, batch: _Batch) -> None:
        rows = self._books.get(message.pair)
        if rows is None:
            return
        try:
            batch.records += rows.take(message, self._watches[message.pair].look(batch.now))
        except BookDesync as error:
            self._desync(message.pair, str(error), batch)
            return
        batch.touched.add(rows)

    def _show(self, pair: str, book: OrderBook) -> None:
        state = self._statistics.pairs[pair]
        if book.bids and book.asks:
            state.best_bid, state.best_ask = book.bids.best_price, book.asks.best_price

    def _take_trades(self, message: TradeMessage, batch: _Batch) -> None:
        for trade in sorted(message.trades, key=lambda trade: trade.trade_id):
            rows = self._trades.get(trade.pair)
            if rows is not None:
                rows.take(trade, self._watches[trade.pair].look(batch.now))
                batch.records.append(trade)
                batch.touched.add(rows)
                self._statistics.pairs[trade.pair].last_trade = trade.price

    def _take_alive(self, event: Alive, batch: _Batch) -> None:
        watch = self._connections[event.connection]
        if watch.look(batch.now) - watch.reported_at >= COVERAGE_INTERVAL:
            watch.reported_at = watch.seconds
            batch.touched.update(self._rows_on(watch))

    def _take_malformed(self, event: Malformed, batch: _Batch) -> None:
        statistics = self._statistics
        kind = event.channel or "frame"
        statistics.malformed[kind] += 1
        count = statistics.malformed[kind]
        level = logging.WARNING if count % MALFORMED_LOGGED_EVERY == 1 else logging.DEBUG
        log.log(level, "malformed_message", count=count, **msgspec.structs.asdict(event))
        rows = self._books.get(event.pair) if event.channel == "book" and event.pair is not None else None
        if rows is not None and rows.is_listening:  # one resync a desync: what comes while it is under way is ignored
            self._desync(rows.pair, "malformed", batch)

    def _take_connected(self, event: Connected, batch: _Batch) -> None:
        self._connections[event.connection] = _Watch(event.connection, batch.now)

    def _take_subscribed(self, event: Subscribed, batch: _Batch) -> None:
        pair = event.pair
        self._watches[pair] = watch = self._connections[event.connection]
        self._statistics.pairs.setdefault(pair, PairStatistics())
        if event.channel == "book":
            if pair not in self._books:
                depth = self._selection.depth(pair)
                self._books[pair] = BookRows(pair, depth, self._checkpoint_interval, self._numbers)
            self._books[pair].subscribed()
        else:
            trades = self._trades.setdefault(pair, TradeRows(pair, self._numbers))
            trades.subscribed(event.time or format_time(self._now()), watch.look(batch.now))

    def _take_unsubscribed(self, event: Unsubscribed, batch: _Batch) -> None:
        """End a run. What is held of the pair goes, too: it may be another process's from now on."""
        rows = self._books.pop(event.pair, None) if event.channel == "book" else self._trades.pop(event.pair, None)
        if rows is not None:
            batch.records += rows.end(event.reason, self._watches[event.pair].look(batch.now))

    def _take_disconnected(self, event: Disconnected, batch: _Batch) -> None:
        watch = self._connections.pop(event.connection, None)
        if watch is None:  # it failed before it was one
            return
        for rows in self._rows_on(watch):
            batch.records += rows.end(event.reason, watch.alive_until(event.last_frame_at))

    def _desync(self, pair: str, reason: str, batch: _Batch) -> None:
        """End the run with its last good row and ask for a new snapshot; what comes until then is of no use."""
        self._statistics.pairs[pair].desyncs[reason] += 1
        log.warning("book_desync", pair=pair, reason=reason)
        batch.records += self._books[pair].end(reason)
        self._resyncs.add(self._watches[pair].connection, pair)

    def _rows_on(self, watch: _Watch) -> list[PairRows]:
        """The rows of the pairs that are subscribed on a connection."""
        return [rows for rows in self._all_rows() if self._watches[rows.pair] is watch]

    def _all_rows(self) -> list[PairRows]:
        return [*self._books.values(), *self._trades.values()]
