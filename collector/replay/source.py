"""The source of a replay: every connection has its own clock over the stored market, from the beginning of the range.

A hole in what is stored is what it was, a closed connection. The place behind it is left to whoever connects next, for
a while: Kraken's protocol does not tell who comes back. Nothing is waited for in between.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC
from functools import partial
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

import trio

from collector.errors import StorageUnavailable
from collector.kraken.server.rest import RestError
from collector.kraken.server.source import (
    FRAMES_A_BATCH,
    NANOSECONDS,
    TRY_AGAIN_LATER,
    ConnectionEnds,
    DepthRow,
    PublicTrade,
    Session,
    format_nanoseconds,
)
from collector.replay.clock import MarketClock
from collector.replay.events import BookReader, Event, Reader, TradeReader
from collector.replay.market import StoredMarket
from collector.replay.moments import MICROSECOND, moment, read_nanoseconds
from collector.replay.readers import Readers
from collector.replay.stretches import PROVED_DEPTH, Stretch, ahead_of, close_time, next_place
from collector.storage.database import Connection
from collector.storage.history import NoBook, PriceLevel, book_at
from collector.storage.stored_trades import StoredTrade, trade_span, trades_before, trades_from

# Seconds for which the place behind a hole is kept: longer than the usual backoff of a client that was disconnected.
PLACE_KEPT = 60.0
GOING_AWAY = 1001  # the close code of a server that restarts, which is how most of Kraken's connections end
UNAVAILABLE = "EService:Unavailable"  # Kraken's word over REST

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class ReplaySource:
    """The stored market as a source, `speed` times as fast as it was, or with None as fast as clients read.

    With `loop` a connection that has come to the end of the range is closed, and the next one begins again; without,
    it stays, and is silent.
    """

    def __init__(self, market: StoredMarket, readers: Readers, speed: float | None, *, loop: bool) -> None:
        self.instruments = market.instruments
        self.depths: Mapping[str, Sequence[int]] = market.depths
        self.market = market
        self.readers = readers
        self.loop = loop
        self._speed = speed
        self._start = self._last = market.start
        self.end = market.end
        self._clocks: list[MarketClock] = []
        self._left: deque[tuple[float, int]] = deque()  # places, and until when each is kept, on trio's clock

    def now(self) -> int:
        """How far the connection has come that is the furthest."""
        return max((clock.now() for clock in self._clocks), default=self._last)

    @asynccontextmanager
    async def open_session(self) -> AsyncGenerator[Session, None]:
        """Begin at the start, or at a place that was left."""
        clock = MarketClock(self._take_place(), self.end, self._speed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            self._clocks.append(clock)
            try:
                yield _ReplaySession(self, clock, nursery)
            finally:
                self._clocks.remove(clock)
                self._last = clock.now()
            nursery.cancel_scope.cancel()

    def leave(self, place: int | None) -> None:
        """Leave a place for whoever connects next; None is the start."""
        self._left.append((trio.current_time() + PLACE_KEPT, self._start if place is None else place))

    def _take_place(self) -> int:
        while self._left:
            kept_until, place = self._left.popleft()
            if trio.current_time() < kept_until:
                return place
        return self._start

    async def trades_page(self, symbol: str, since: int | None, count: int) -> Sequence[PublicTrade]:
        """Stored trades up to now, those of holes among them, and those from before the range."""
        first = None if since is None else -(-since // MICROSECOND) * MICROSECOND
        trades = await self._read(_trades_page, symbol, first, self.now() + MICROSECOND, count)
        return [
            PublicTrade(
                trade.trade_id,
                read_nanoseconds(trade.event_time),
                trade.price,
                trade.volume,
                trade.side,
                trade.order_type,
            )
            for trade in trades
        ]

    async def depth_page(self, symbol: str, count: int) -> tuple[Sequence[DepthRow], Sequence[DepthRow]]:
        """The book now, or as it was last seen."""
        now = self.now()
        stretches = self.market.stretches("book", symbol, max(self.depths[symbol], default=PROVED_DEPTH))
        begun = [stretch for stretch in stretches if stretch.start <= now]
        if not begun:
            return [], []
        time = min(now, begun[-1].end - MICROSECOND)
        bids, asks = await self._read(_depth_page, symbol, time, count)
        return bids, asks

    async def _read(
        self,
        function: Callable[Concatenate[Connection, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        try:
            return await self.readers.call(function, *args, **kwargs)
        except StorageUnavailable:
            raise RestError(UNAVAILABLE) from None


class _ReplaySession:
    """One connection's replay."""

    def __init__(self, source: ReplaySource, clock: MarketClock, nursery: trio.Nursery) -> None:
        self._source = source
        self._market = source.market
        self._clock = clock
        self._nursery = nursery
        self._topics: dict[tuple[str, str, int], list[Stretch]] = {}  # the stretches from the present one on
        self._has_ended = False

    def now(self) -> int:
        return self._clock.now()

    def book(self, symbol: str, depth: int, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        return self._play("book", symbol, depth, partial(BookReader, symbol, depth, snapshot=snapshot))

    def trades(self, symbol: str, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        return self._play("trade", symbol, 0, partial(TradeReader, symbol, snapshot=snapshot))

    async def _play(
        self, channel: str, symbol: str, depth: int, open_reader: Callable[[Stretch, int], Reader]
    ) -> AsyncGenerator[Sequence[bytes], None]:
        """A topic from now on: to the end of its present stretch and of the connection, or to the end of the range."""
        with self._clock.stream():
            place, topic = self._clock.now(), (channel, symbol, depth)
            stretches = ahead_of(self._market.stretches(channel, symbol, depth), place)
            self._topics[topic] = stretches
            try:
                if stretches:
                    async with aclosing(self._paced(open_reader(stretches[0], place))) as batches:
                        async for batch in batches:
                            yield batch
                if len(stretches) > 1:
                    await self._end_at_hole(stretches)
                await self._clock.reach(self._source.end)
                if self._source.loop:
                    self._end(GOING_AWAY, "the end of the range: connect again to begin again", None)
            finally:
                del self._topics[topic]

    async def _paced(self, reader: Reader) -> AsyncGenerator[Sequence[bytes], None]:
        """The messages of a reader, each when it is due."""
        async with self._source.readers.open_pages(reader, self._nursery) as pages:
            async for page in pages:
                if isinstance(page, StorageUnavailable):
                    self._end(TRY_AGAIN_LATER, "Market data unavailable", self._clock.now())
                sent = 0
                while sent < len(page):
                    horizon = await self._clock.reach(page[sent].time)
                    batch = _due(page, sent, horizon)
                    if not batch:
                        self._end(GOING_AWAY, "rows are missing: connect again to go on behind them", page[sent].time)
                    yield batch
                    sent += len(batch)
                    self._clock.pass_to(page[sent - 1].time)

    async def _end_at_hole(self, stretches: Sequence[Stretch]) -> NoReturn:
        closed_at = close_time(stretches, self._topics.values())
        await self._clock.reach(closed_at)
        place = next_place(closed_at, self._topics.values())
        until = "the end" if place is None else format_nanoseconds(place)
        self._end(GOING_AWAY, f"{stretches[0].end_reason}: connect again to go on from {until}", place)

    def _end(self, code: int, reason: str, place: int | None) -> NoReturn:
        """End the connection; the first topic that does so leaves the place (None: the start)."""
        if not self._has_ended:
            self._has_ended = True
            self._source.leave(place)
        raise ConnectionEnds(code, reason)


def _due(page: Sequence[Event], first: int, horizon: int) -> list[bytes]:
    """The messages from the first one on that go out together; none where the first one is missing."""
    batch: list[bytes] = []
    for time, frame in page[first : first + FRAMES_A_BATCH]:
        if frame is None or time > horizon:
            break
        batch.append(frame)
    return batch


def _trades_page(connection: Connection, symbol: str, since: int | None, until: int, count: int) -> list[StoredTrade]:
    span = trade_span(connection, symbol, None if since is None else moment(since), moment(until))
    if span is None:
        return []
    if since is None:
        return trades_before(connection, symbol, span.end, count)
    return trades_from(connection, symbol, span.first, span.end, count)


def _depth_page(connection: Connection, symbol: str, time: int, count: int) -> tuple[list[DepthRow], list[DepthRow]]:
    try:
        book = book_at(connection, symbol, moment(time).replace(tzinfo=UTC), count)
    except NoBook:
        return [], []
    return _depth_rows(book.bids, time), _depth_rows(book.asks, time)


def _depth_rows(levels: Sequence[PriceLevel], time: int) -> list[DepthRow]:
    return [DepthRow(f"{level.price:f}", f"{level.size:f}", time // NANOSECONDS) for level in levels]
