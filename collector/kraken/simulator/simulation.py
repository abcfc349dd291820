"""A simulated exchange: several seeded markets on one clock, as a tape of frames or live as a source.

Every subscriber sees the same market, and REST agrees with the WebSocket. The markets themselves are pure; here time
passes: a simulation is `advance`d to a time, which the live source takes from trio's clock.
"""

import heapq
import random
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from collector.kraken.pairs import BOOK_DEPTHS, Instrument
from collector.kraken.server.source import (
    FRAMES_A_BATCH,
    NANOSECONDS,
    DepthRow,
    PublicTrade,
    Session,
    SubscriberTooSlow,
)
from collector.kraken.simulator.market import LEVELS, Market, Step

DEFAULT_RATE = 50.0  # steps a second of the busiest pair; BTC/USD at depth 100 was measured at 49.3
TAPE_START = 1_700_000_000 * NANOSECONDS  # 2023-11-14T22:13:20Z; a tape is the same whenever it is made
# By which the ids of a live market run ahead of its start: far more than are traded, those of its history included.
TRADE_IDS_A_SECOND = 1000
TICK = 0.01  # seconds between looks at the clock: well below the gap between two messages of a busy pair
SUBSCRIBER_LAG = 20_000  # frames, some minutes of a busy pair, that wait for a client before it is cut off

# Symbol: decimals of the price, price in ticks. Quantities have 8 decimals, as nearly everywhere on Kraken.
_LISTED = {
    "BTC/USD": (1, 623_456),
    "ETH/USD": (2, 341_218),
    "SOL/USD": (2, 14_872),
    "XRP/USD": (5, 58_214),
    "DOGE/USD": (7, 1_243_567),
    "ADA/USD": (6, 451_236),
    "BTC/EUR": (1, 575_321),
    "ETH/BTC": (5, 5_473),
}
DEFAULT_PAIRS = tuple(_LISTED)
QTY_PRECISION = 8


class Simulation:
    """Markets by symbol; the first is the busiest, the n-th has an n-th of its rate. `levels` are those of a side."""

    def __init__(
        self,
        symbols: Sequence[str] = DEFAULT_PAIRS,
        *,
        seed: int,
        start: int = TAPE_START,
        rate: float = DEFAULT_RATE,
        depths: Sequence[int] = BOOK_DEPTHS,
        levels: int = LEVELS,
        first_trade_id: int = 1,
    ) -> None:
        self.markets: dict[str, Market] = {}
        for rank, symbol in enumerate(symbols, 1):
            instrument, ticks = _listing(symbol)
            self.markets[symbol] = Market(
                instrument,
                ticks,
                seed=seed,
                time=start,
                rate=rate / rank,
                depths=depths,
                levels=levels,
                first_trade_id=first_trade_id,
            )
        self._agenda = [(market.next_time, symbol) for symbol, market in self.markets.items()]
        heapq.heapify(self._agenda)

    def advance(self, until: int) -> Iterator[tuple[str, Step]]:
        """Let everything happen up to a time, in order."""
        while self._agenda[0][0] <= until:
            yield self.next_step()

    def next_step(self) -> tuple[str, Step]:
        """Let the next thing happen, whenever it does."""
        _, symbol = self._agenda[0]
        market = self.markets[symbol]
        step = market.step()
        heapq.heapreplace(self._agenda, (market.next_time, symbol))
        return symbol, step


def _listing(symbol: str) -> tuple[Instrument, int]:
    """A listed pair's instrument and price in ticks; of a pair that is not listed, what its name makes of it."""
    if symbol in _LISTED:
        precision, ticks = _LISTED[symbol]
    else:
        invention = random.Random(symbol)  # noqa: S311 - it must repeat, not be secret
        precision, ticks = invention.randint(1, 8), invention.randint(10_000, 1_000_000)
    return Instrument(symbol, precision, QTY_PRECISION), ticks


def simulated_frames(symbols: Sequence[str], depth: int, seed: int, count: int) -> Iterator[bytes]:
    """A tape: a snapshot of each pair, then book updates and trades as they come, `count` frames in all."""
    simulation = Simulation(symbols, seed=seed, depths=[depth])
    made = 0
    for market in simulation.markets.values():
        if made < count:
            yield market.snapshot(depth)
            made += 1
    while made < count:
        _, step = simulation.next_step()
        for frame in (step.trades, step.books.get(depth)):
            if frame is not None and made < count:
                yield frame
                made += 1


@asynccontextmanager
async def open_simulation(
    symbols: Sequence[str] = DEFAULT_PAIRS,
    *,
    seed: int = 1,
    rate: float = DEFAULT_RATE,
    start: int | None = None,
) -> AsyncGenerator["SimulatedSource", None]:
    """Run a live simulation while the block is open; it starts now, or at a time in nanoseconds.

    One that starts now has higher trade ids than any that started before, as if it were the same market: a collector
    that knows those of the last one would else take the trades for known ones.
    """
    first_trade_id = 1
    if start is None:
        start = time.time_ns()
        first_trade_id += (start - TAPE_START) * TRADE_IDS_A_SECOND // NANOSECONDS
    source = SimulatedSource(Simulation(symbols, seed=seed, rate=rate, start=start, first_trade_id=first_trade_id))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        yield source
        nursery.cancel_scope.cancel()


class SimulatedSource:
    """A simulation in real time. All connections see one market; `open_simulation` makes one and keeps it going."""

    def __init__(self, simulation: Simulation) -> None:
        self.markets = simulation.markets
        self.instruments: Mapping[str, Instrument] = {
            symbol: market.instrument for symbol, market in self.markets.items()
        }
        self.depths: Mapping[str, Sequence[int]] = dict.fromkeys(self.markets, BOOK_DEPTHS)
        self._simulation = simulation
        self._start = next(iter(self.markets.values())).time - _trio_nanoseconds()
        # By pair and depth, 0 for its trades.
        self._subscribers: dict[tuple[str, int], set[trio.MemorySendChannel[bytes]]] = {}

    async def run(self) -> None:
        """Let time pass, until cancelled."""
        while True:
            for symbol, step in self._simulation.advance(self.now()):
                if step.trades is not None:
                    self._publish((symbol, 0), step.trades)
                for depth, frame in step.books.items():
                    self._publish((symbol, depth), frame)
            await trio.sleep(TICK)

    def _publish(self, topic: tuple[str, int], frame: bytes) -> None:
        for subscriber in list(self._subscribers.get(topic, ())):
            try:
                subscriber.send_nowait(frame)
            except trio.WouldBlock:
                self._subscribers[topic].remove(subscriber)
                subscriber.close()

    def now(self) -> int:
        """The start, and the time since on trio's clock."""
        return self._start + _trio_nanoseconds()

    @asynccontextmanager
    async def open_session(self) -> AsyncGenerator[Session, None]:
        """All connections share the market."""
        yield self

    def book(self, symbol: str, depth: int, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        """See `Session`."""
        market = self.markets[symbol]
        return self._follow((symbol, depth), partial(market.snapshot, depth) if snapshot else None)

    def trades(self, symbol: str, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        """See `Session`."""
        return self._follow((symbol, 0), self.markets[symbol].trade_snapshot if snapshot else None)

    async def _follow(
        self, topic: tuple[str, int], take_snapshot: Callable[[], bytes] | None
    ) -> AsyncGenerator[Sequence[bytes], None]:
        send, receive = trio.open_memory_channel[bytes](SUBSCRIBER_LAG)
        subscribers = self._subscribers.setdefault(topic, set())
        subscribers.add(send)
        try:
            if take_snapshot is not None:
                yield [take_snapshot()]
            async for frame in receive:
                yield [frame, *_waiting(receive, FRAMES_A_BATCH - 1)]
        finally:
            subscribers.discard(send)
            send.close()
            receive.close()
        raise SubscriberTooSlow(f"{SUBSCRIBER_LAG} frames were waiting for the client")

    async def trades_page(self, symbol: str, since: int | None, count: int) -> Sequence[PublicTrade]:
        """From the history before the start to now."""
        trades = self.markets[symbol].trades
        if since is None:
            return trades[-count:]
        first = bisect_left(trades, since, key=lambda trade: trade.time)
        return trades[first : first + count]

    async def depth_page(self, symbol: str, count: int) -> tuple[Sequence[DepthRow], Sequence[DepthRow]]:
        """The book now."""
        market = self.markets[symbol]
        return market.depth_rows(market.book.bids, count), market.depth_rows(market.book.asks, count)


def _waiting(receive: trio.MemoryReceiveChannel[bytes], limit: int) -> Iterator[bytes]:
    for _ in range(min(limit, receive.statistics().current_buffer_used)):
        yield receive.receive_nowait()


def _trio_nanoseconds() -> int:
    return round(trio.current_time() * NANOSECONDS)
