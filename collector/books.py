"""Every pair's book and trades on the connection of the moment: events in, records out.

No clock and no I/O of its own: what it asks of others (numbers for runs, resyncs, the wall clock) is passed in.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

import msgspec
import structlog

from collector.errors import BookDesync
from collector.feed import Connected, Disconnected, FeedEvent, ResyncRequests, Subscribed
from collector.kraken.messages import BookMessage, Heartbeat, Malformed, TradeMessage
from collector.kraken.times import format_time
from collector.records import Record
from collector.rows import BookRows, ChainNumbers, TradeRows
from collector.settings import Settings
from collector.statistics import PairStatistics, Statistics

COVERAGE_INTERVAL = 5.0  # seconds between reports that a quiet run is still being watched
MALFORMED_LOGGED_EVERY = 1000  # the first tells a person what is wrong, a flood of them nothing more

PairRows: TypeAlias = BookRows | TradeRows

log = structlog.get_logger()


class Books:
    """The books and trade runs of every pair."""

    def __init__(
        self,
        settings: Settings,
        resyncs: ResyncRequests,
        numbers: ChainNumbers,
        statistics: Statistics,
        now: Callable[[], datetime],
    ) -> None:
        self._resyncs = resyncs
        self._statistics = statistics
        self._now = now
        self._connection = 0
        self._reported_at = 0.0
        self._books = {
            pair: BookRows(pair, settings.book_depth, settings.snapshot_interval, numbers) for pair in settings.pairs
        }
        self._trades = {pair: TradeRows(pair, numbers) for pair in settings.pairs}
        for pair in settings.pairs:
            statistics.pairs.setdefault(pair, PairStatistics())

    def take(self, batch: list[FeedEvent], now: float) -> list[Record]:
        """The records of a batch of events; rows first, then the coverage that they prove."""
        records: list[Record] = []
        touched: set[PairRows] = set()
        for event in batch:
            self._take_event(event, now, records, touched)
        records += [rows.run.coverage(now) for rows in touched if rows.run is not None]
        return records

    def _take_event(self, event: FeedEvent, now: float, records: list[Record], touched: set[PairRows]) -> None:
        match event:
            case BookMessage():
                self._take_book(event, now, records, touched)
            case TradeMessage():
                self._take_trades(event, now, records, touched)
            case Heartbeat():
                if now - self._reported_at >= COVERAGE_INTERVAL:
                    self._reported_at = now
                    touched.update(self._all_rows())
            case Malformed():
                self._take_malformed(event, now, records)
            case Subscribed():
                self._take_subscribed(event, now)
            case Connected(connection=number):
                self._connection = number
            case Disconnected(reason=reason, last_frame_at=alive_at):
                for rows in self._all_rows():
                    records += rows.end(reason, alive_at)

    def _all_rows(self) -> list[PairRows]:
        return [*self._books.values(), *self._trades.values()]

    def _take_book(self, message: BookMessage, now: float, records: list[Record], touched: set[PairRows]) -> None:
        rows = self._books.get(message.pair)
        if rows is None:
            return
        try:
            records += rows.take(message, now)
        except BookDesync as error:
            self._desync(message.pair, rows, str(error), now, records)
            return
        touched.add(rows)
        book, state = rows.book, self._statistics.pairs[message.pair]
        if book.bids and book.asks:
            state.best_bid, state.best_ask = book.bids.best_price, book.asks.best_price

    def _take_trades(self, message: TradeMessage, now: float, records: list[Record], touched: set[PairRows]) -> None:
        for trade in sorted(message.trades, key=lambda trade: trade.trade_id):
            rows = self._trades.get(trade.pair)
            if rows is not None:
                rows.take(trade, now)
                records.append(trade)
                touched.add(rows)
                self._statistics.pairs[trade.pair].last_trade = trade.price

    def _take_subscribed(self, event: Subscribed, now: float) -> None:
        if event.channel == "book":
            self._books[event.pair].subscribed()
        else:
            self._trades[event.pair].subscribed(event.time or format_time(self._now()), now)

    def _take_malformed(self, event: Malformed, now: float, records: list[Record]) -> None:
        statistics = self._statistics
        statistics.malformed[event.channel or "frame"] += 1
        statistics.malformed_samples.append(event)
        if statistics.malformed.total() % MALFORMED_LOGGED_EVERY == 1:
            log.warning("malformed_message", count=statistics.malformed.total(), **msgspec.structs.asdict(event))
        rows = self._books.get(event.pair) if event.channel == "book" and event.pair is not None else None
        if rows is not None and rows.is_listening:  # one resync a desync: what comes while it is under way is ignored
            self._desync(rows.pair, rows, "malformed", now, records)

    def _desync(self, pair: str, rows: BookRows, reason: str, now: float, records: list[Record]) -> None:
        """End the run and ask for a new snapshot; what comes until then is of no use."""
        self._statistics.desyncs[reason] += 1
        log.warning("book_desync", pair=pair, reason=reason)
        records += rows.end(reason, now)
        self._resyncs.add(self._connection, pair)
