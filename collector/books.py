"""Every pair's book and trades on the connection of the moment: events in, records out.

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
from collector.feed import Connected, Disconnected, Doubts, FeedEvent, ResyncRequests, Subscribed, Unsubscribed
from collector.kraken.messages import BookMessage, Heartbeat, Malformed, TradeMessage
from collector.kraken.orderbook import OrderBook
from collector.kraken.times import format_time
from collector.records import Record
from collector.rows import BookRows, ChainNumbers, Run, TradeRows
from collector.settings import Settings
from collector.statistics import PairStatistics, Statistics

COVERAGE_INTERVAL = 5.0  # seconds between reports that a quiet run is still being watched
# Seconds between two batches that count as watched at most: twice the heartbeat's interval.
MAX_SILENCE = 2.0
# The first tells a person what is wrong, a flood of them nothing more; at DEBUG each is told, for a diagnosis.
MALFORMED_LOGGED_EVERY = 1000

PairRows: TypeAlias = BookRows | TradeRows

log = structlog.get_logger()


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
        self._resyncs = resyncs
        self._doubts = doubts
        self._statistics = statistics
        self._now = now
        self._connection = 0
        self._reported_at = 0.0
        self._taken_at = 0.0
        self._watched = 0.0
        self._books = {
            pair: BookRows(pair, settings.book_depth, settings.snapshot_interval, numbers) for pair in settings.pairs
        }
        self._trades = {pair: TradeRows(pair, numbers) for pair in settings.pairs}
        for pair in settings.pairs:
            statistics.pairs.setdefault(pair, PairStatistics())
        self._takers: dict[type, Callable[[Any, _Batch], None]] = {
            BookMessage: self._take_book,
            TradeMessage: self._take_trades,
            Heartbeat: self._take_heartbeat,
            Malformed: self._take_malformed,
            Connected: self._take_connected,
            Subscribed: self._take_subscribed,
            Unsubscribed: self._take_unsubscribed,
            Disconnected: self._take_disconnected,
        }

    def take(self, events: Sequence[FeedEvent], now: float) -> list[Record]:
        """The records of a batch of events, at least one; rows first, then the coverage that they prove."""
        batch = _Batch(self._advance(now, events))
        for pair, (chain, reason) in self._doubts.take().items():
            rows = self._books.get(pair)
            if rows is not None and rows.run is not None and rows.run.chain == chain:
                self._desync(pair, reason, batch)
        for event in events:
            self._takers[type(event)](event, batch)
        for touched in batch.touched:
            if touched.run is not None:
                batch.records.append(touched.run.coverage(batch.now))
                if isinstance(touched, BookRows):
                    self._show(touched.pair, touched.book)
        self._statistics.under_way.read(made_records=bool(batch.records))
        return batch.records

    def _advance(self, now: float, events: Sequence[FeedEvent]) -> float:
        """The time for which the feed was watched, which stands still while nothing comes.

        A process that was frozen, or kept from reading, finds old frames and the present time. Frames come each second
        at least, so between two batches no more than `MAX_SILENCE` counts as watched.
        """
        if events and not isinstance(events[0], Disconnected):
            self._watched += min(max(now - self._taken_at, 0.0), MAX_SILENCE)
            self._taken_at = now
        return self._watched

    def held(self) -> list[BookRows]:
        """The books that are held."""
        return [rows for rows in self._books.values() if rows.run is not None]

    def runs(self) -> list[Run]:
        """The open runs of books and of trades."""
        return [rows.run for rows in self._all_rows() if rows.run is not None]

    @property
    def watched_for(self) -> float:
        """The seconds for which the feed was watched: the clock of `Run.last_seen`."""
        return self._watched

    def quiet_for(self, seconds: float) -> list[BookRows]:
        """The books that are held and have had no message for some time while the feed was watched."""
        return [rows for rows in self.held() if rows.run and self._watched - rows.run.last_seen > seconds]

    def _take_book(self, message: BookMessage, batch: _Batch) -> None:
        rows = self._books.get(message.pair)
        if rows is None:
            return
        try:
            batch.records += rows.take(message, batch.now)
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
                rows.take(trade, batch.now)
                batch.records.append(trade)
                batch.touched.add(rows)
                self._statistics.pairs[trade.pair].last_trade = trade.price

    def _take_heartbeat(self, _: Heartbeat, batch: _Batch) -> None:
        if batch.now - self._reported_at >= COVERAGE_INTERVAL:
            self._reported_at = batch.now
            batch.touched.update(self._all_rows())

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

    def _take_connected(self, event: Connected, _: _Batch) -> None:
        self._connection = event.connection

    def _take_subscribed(self, event: Subscribed, batch: _Batch) -> None:
        if event.channel == "book":
            self._books[event.pair].subscribed()
        else:
            self._trades[event.pair].subscribed(event.time or format_time(self._now()), batch.now)

    def _take_unsubscribed(self, event: Unsubscribed, batch: _Batch) -> None:
        rows = self._books[event.pair] if event.channel == "book" else self._trades[event.pair]
        batch.records += rows.end(event.reason, batch.now)

    def _take_disconnected(self, event: Disconnected, batch: _Batch) -> None:
        alive_at = batch.now + min(event.last_frame_at - self._taken_at, MAX_SILENCE)
        for rows in self._all_rows():
            batch.records += rows.end(event.reason, alive_at)

    def _desync(self, pair: str, reason: str, batch: _Batch) -> None:
        """End the run with its last good row and ask for a new snapshot; what comes until then is of no use."""
        self._statistics.pairs[pair].desyncs[reason] += 1
        log.warning("book_desync", pair=pair, reason=reason)
        batch.records += self._books[pair].end(reason)
        self._resyncs.add(self._connection, pair)

    def _all_rows(self) -> list[PairRows]:
        return [*self._books.values(), *self._trades.values()]
