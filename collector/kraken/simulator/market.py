"""The seeded market of one pair: a full order book, and the orders that move it.

Pure: the same seed gives the same bytes, whoever subscribes to whichever depth, and time is the market's own: each
step happens at a time that the step before it fixed. Prices are ticks and quantities lots, whole numbers; randomness
picks among them. No order crosses the book: what is offered at or beyond the other side's best is a trade.
"""

import random
from collections.abc import Iterable
from typing import NamedTuple

from collector.kraken.pairs import BOOK_DEPTHS, Instrument
from collector.kraken.server.source import (
    NANOSECONDS,
    TRADE_SNAPSHOT_ROWS,
    DepthRow,
    PublicTrade,
    format_nanoseconds,
)
from collector.kraken.simulator.book import FullBook, FullSide, number_template

LEVELS = 1_300  # of a side: enough that the deepest subscription (1000) has levels beyond its reach
FEWEST_LEVELS = 1  # of a side: never empty, since its best price tells where the other side may begin
SPAN = 50_000  # levels are about 1/SPAN of the price apart, so that a side reaches 2 or 3 % from the middle
BULK_TRADES = 40  # the longest walk through the book of one order
HISTORY_TRADES = 1_200  # before the start: more than one page of REST
TRADES_KEPT = 100_000  # a pair: most of a day at the pace of BTC/USD

# Measured on BTC/USD: 50 messages a second at depth 100, of which half come within a millisecond of the one before.
BURST_SHARE = 0.5
BURST_GAP = 1_000_000  # nanoseconds, at most
TRADE_SHARE = 0.03  # of the steps: 1.5 orders a second that trade at 50 steps, as measured
REPLACE_BELOW, RESIZE_BELOW = 0.45, 0.75  # of a draw that shares out the steps; the rest adds or cancels

LARGEST_ORDER = 20_000  # in the quote currency
STRONGEST_PULL = 200  # in a thousand market orders: how many more go towards where the price began


class Step(NamedTuple):
    """What one step of the market tells its subscribers: an update for each depth that it concerns, and trades."""

    time: int
    books: dict[int, bytes]
    trades: bytes | None


class Market:
    """One pair, at a price of `ticks`, some of them, with `rate` steps a second from `time` (nanoseconds) on."""

    def __init__(
        self,
        instrument: Instrument,
        ticks: int,
        *,
        seed: int,
        time: int,
        rate: float,
        depths: Iterable[int] = BOOK_DEPTHS,
        levels: int = LEVELS,
        first_trade_id: int = 1,
    ) -> None:
        self.instrument = instrument
        self.time = time
        self.trades: list[PublicTrade] = []
        self._random = random.Random(f"{seed} {instrument.symbol}")  # noqa: S311 - it must repeat, not be secret
        self._levels = levels
        self._first_trade_id = first_trade_id
        self._fair = ticks
        self._spacing = max(1, ticks // SPAN)
        # Lots that are worth one unit of the quote currency.
        self._unit: int = max(1, 10 ** (instrument.price_precision + instrument.qty_precision) // ticks)
        self._mean_gap = round(NANOSECONDS / rate)
        self._price_template = number_template(instrument.price_precision)
        self._qty_template = number_template(instrument.qty_precision)
        self._price_scale = 10**instrument.price_precision
        self._qty_scale = 10**instrument.qty_precision
        self.book = FullBook(instrument, depths)
        for side in (self.book.bids, self.book.asks):
            price = ticks
            for _ in range(levels):
                price += side.sign * self._random.randint(1, 2 * self._spacing)
                if price > 0:
                    side.set(price, self._size())
        self.book.updates(time)
        self._write_history(time)
        self.next_time = self._later(time)

    def snapshot(self, depth: int) -> bytes:
        """The book now."""
        return self.book.snapshot(depth, self.time)

    def trade_snapshot(self) -> bytes:
        """The last 50 trades."""
        return self._trade_frame("snapshot", self.trades[-TRADE_SNAPSHOT_ROWS:])

    def depth_rows(self, side: FullSide, count: int) -> list[DepthRow]:
        """The best levels of a side, as REST gives them."""
        seconds = self.time // NANOSECONDS
        return [DepthRow(self._price(ticks), self._qty(lots), seconds) for ticks, lots in side.best(count)]

    def _price(self, ticks: int) -> str:
        return str(self._price_template % divmod(ticks, self._price_scale))

    def _qty(self, lots: int) -> str:
        return str(self._qty_template % divmod(lots, self._qty_scale))

    def step(self) -> Step:
        """Let the next thing happen, at `next_time`."""
        before, self.time = self.time, self.next_time
        draw = self._random.random()
        trades: list[PublicTrade] = []
        if draw < TRADE_SHARE:
            if self._chance(0.1):  # Kraken puts what happens at almost the same time into one message
                trades += self._market_order(max(before, self.time - self._random.randrange(BURST_GAP)))
            trades += self._market_order(self.time)
        elif draw < REPLACE_BELOW:
            self._replace()
        elif draw < RESIZE_BELOW:
            self._resize()
        else:
            self._add_or_cancel()
        self.next_time = self._later(self.time)
        frame = self._trade_frame("update", trades) if trades else None
        return Step(self.time, self.book.updates(self.time), frame)

    def _later(self, time: int) -> int:
        if self._chance(BURST_SHARE):
            return time + self._random.randrange(min(BURST_GAP, self._mean_gap))
        # The long gaps make up for the short ones, so that the mean is what was asked for.
        return time + self._random.randrange(round(2 * self._mean_gap / (1 - BURST_SHARE)))

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _skewed(self, limit: int) -> int:
        """A number below `limit`, small ones by far the likeliest: half are below an eighth of it."""
        draw = self._random.random()
        return int(draw * draw * draw * limit)

    def _side(self) -> FullSide:
        return self.book.bids if self._chance(0.5) else self.book.asks

    def _touched(self, side: FullSide) -> int:
        """The key of a level to change: most are near the top, one in ten lies anywhere."""
        return side.keys[self._skewed(len(side)) if self._chance(0.9) else self._random.randrange(len(side))]

    def _size(self) -> int:
        """A quantity, worth from about 1 of the quote currency up, a part of them round."""
        lots = self._unit * (1 + self._skewed(LARGEST_ORDER)) + self._random.randrange(self._unit)
        if self._chance(0.3):
            lots -= lots % int(10 ** (len(str(lots)) - 1))
        return lots

    def _part(self, lots: int) -> int:
        return self._random.randint(1, lots - 1)

    def _add(self, side: FullSide) -> None:
        """A new order on this side's side of the other's best price, most of them close to it."""
        other = self.book.asks if side is self.book.bids else self.book.bids
        ticks = other.best_ticks + side.sign * (1 + self._skewed(self._spacing * self._levels))
        if ticks > 0:
            side.set(ticks, side.lots.get(ticks * side.sign, 0) + self._size())

    def _cancel(self, side: FullSide) -> None:
        if len(side) > FEWEST_LEVELS:
            side.set(self._touched(side) * side.sign, 0)

    def _add_or_cancel(self) -> None:
        side = self._side()
        if len(side) < self._levels:
            self._add(side)
        else:
            self._cancel(side)

    def _replace(self) -> None:
        side = self._side()
        self._cancel(side)
        self._add(side)

    def _resize(self) -> None:
        side = self._side()
        key = self._touched(side)
        # An order joins the level, or a part of it goes.
        lots = side.lots[key]
        side.set(key * side.sign, lots + self._size() if lots == 1 or self._chance(0.5) else self._part(lots))

    def _market_order(self, time: int) -> list[PublicTrade]:
        """One order that takes the best offers of a side, each fill a trade; the level is told after every fill."""
        fills = 1 if self._chance(0.75) else BULK_TRADES if self._chance(0.04) else self._random.randint(2, 6)
        # The pull keeps the price of a long run within what is plausible.
        middle = (self.book.bids.best_ticks + self.book.asks.best_ticks) // 2
        pull = max(-STRONGEST_PULL, min(STRONGEST_PULL, (self._fair - middle) * 5_000 // self._fair))
        is_buy = self._random.randrange(1000) < 500 + pull
        side = self.book.asks if is_buy else self.book.bids
        order_type = "market" if self._chance(0.4) else "limit"
        trades = []
        for fill in range(fills):
            if len(side) <= FEWEST_LEVELS:
                break
            ticks = side.best_ticks
            lots = side.lots[side.keys[0]]
            # The order's last fill leaves a rest; the others take a level whole, or one of the makers that share it.
            whole = lots == 1 or (fill < fills - 1 and self._chance(0.7))
            filled = lots if whole else self._part(lots)
            side.set(ticks, lots - filled)
            trades.append(self._trade(time, ticks, filled, "buy" if is_buy else "sell", order_type))
        return trades

    def _trade(self, time: int, ticks: int, lots: int, side: str, order_type: str) -> PublicTrade:
        trade_id = self.trades[-1].trade_id + 1 if self.trades else self._first_trade_id
        trade = PublicTrade(trade_id, time, self._price(ticks), self._qty(lots), side, order_type)
        if len(self.trades) >= 2 * TRADES_KEPT:
            del self.trades[:TRADES_KEPT]
        self.trades.append(trade)
        return trade

    def _write_history(self, time: int) -> None:
        """The trades before the start: the pair's first ones, so that what REST has is complete."""
        gap = round(self._mean_gap / TRADE_SHARE)
        ticks = self._fair
        for past in range(HISTORY_TRADES, 0, -1):
            ticks = max(1, ticks + self._random.randint(-self._spacing, self._spacing))
            side = "buy" if self._chance(0.5) else "sell"
            moment = time - past * gap + self._random.randrange(gap)
            self._trade(moment, ticks, self._size(), side, "limit")

    def _trade_frame(self, kind: str, trades: list[PublicTrade]) -> bytes:
        rows = ",".join(
            [
                f'{{"symbol":"{self.instrument.symbol}","side":"{trade.side}","price":{trade.price},"qty":{trade.qty},'
                f'"ord_type":"{trade.order_type}","trade_id":{trade.trade_id},'
                f'"timestamp":"{format_nanoseconds(trade.time)}"}}'
                for trade in trades
            ]
        )
        return f'{{"channel":"trade","type":"{kind}","data":[{rows}]}}'.encode()
