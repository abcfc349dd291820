"""A source over recorded frames.

Prices and sizes are sent as the digits that were recorded; the frames are sent byte for byte.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from collector.kraken.orderbook import Level, OrderBook, parse_level
from collector.kraken.pairs import BOOK_DEPTHS, Instrument
from collector.kraken.server.source import (
    FRAMES_A_BATCH,
    NANOSECONDS,
    TRADE_SNAPSHOT_ROWS,
    DepthRow,
    PublicTrade,
    Session,
    format_nanoseconds,
    parse_nanoseconds,
)


class _Entry(msgspec.Struct):
    price: msgspec.Raw
    qty: msgspec.Raw


class _BookData(msgspec.Struct):
    symbol: str
    bids: list[_Entry]
    asks: list[_Entry]
    timestamp: str | None = None


class _TradeData(msgspec.Struct):
    symbol: str
    side: str
    price: msgspec.Raw
    qty: msgspec.Raw
    ord_type: str
    trade_id: int
    timestamp: str


class _Message(msgspec.Struct):
    channel: str = ""
    type: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_books = msgspec.json.Decoder(list[_BookData]).decode
_decode_trades = msgspec.json.Decoder(list[_TradeData]).decode


class _Track:
    """The frames of one channel of one pair, with the time of each (0 where it carries none)."""

    def __init__(self, *, begins_with_snapshot: bool) -> None:
        self.frames: list[bytes] = []
        self.times: list[int] = []
        self.begins_with_snapshot = begins_with_snapshot


class TapeSource:
    """Recorded v2 frames, sent byte for byte as fast as the client takes them.

    Every connection begins at the start of the tape, each pair and channel with a position of its own, and a second
    subscribe goes on from there with a snapshot of the book as it stood. With `resume` a connection takes over the
    positions of the one before instead, so that a tape can be followed through reconnects; at one connection at a
    time. Frames that are neither book nor trade are not sent: the server makes its own.

    REST shows the trades of the whole tape, and the books where the latest connection has come to.

    Raises:
        ValueError: there is no book and no trade on the tape, or a book that does not begin with a snapshot.
        msgspec.ValidationError: a frame is not a v2 message.

    """

    def __init__(self, frames: Iterable[bytes], *, resume: bool = False) -> None:
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._trades: dict[str, list[PublicTrade]] = {}
        self._start = 0
        self._resume = resume
        deepest = 1
        instruments: dict[str, Instrument] = {}
        for frame in frames:
            message = _decode_message(frame)
            if message.channel == "book":
                book = _decode_books(message.data)[0]
                track = self._add(message, book.symbol, frame, book.timestamp)
                if len(track.frames) == 1:
                    if not track.begins_with_snapshot:
                        raise ValueError(f"the book of {book.symbol} does not begin with a snapshot")
                    instruments[book.symbol] = _instrument(book.symbol, [*book.bids, *book.asks])
                if message.type == "snapshot":
                    deepest = max(deepest, len(book.bids), len(book.asks))
            elif message.channel == "trade":
                trades = _decode_trades(message.data)
                if not trades:
                    continue  # a snapshot of nothing does not say of which pair
                self._add(message, trades[0].symbol, frame, trades[-1].timestamp)
                for trade in trades:
                    self._trades.setdefault(trade.symbol, []).append(_public_trade(trade))
                instruments.setdefault(trades[0].symbol, _instrument(trades[0].symbol, trades))
        if not instruments:
            raise ValueError("neither a book nor a trade is on the tape")
        self.instruments: Mapping[str, Instrument] = instruments
        # Its frames fit one depth only. The deepest snapshot tells which, since most books are deeper than asked for.
        self._depth = next(depth for depth in BOOK_DEPTHS if depth >= deepest)
        self.depths: Mapping[str, Sequence[int]] = {symbol: [self._depth] for symbol in instruments}
        self._session = _TapeSession(self._tracks, self._depth, self._start)

    def _add(self, message: _Message, symbol: str, frame: bytes, timestamp: str | None) -> _Track:
        name = message.channel, symbol
        if (track := self._tracks.get(name)) is None:
            track = self._tracks[name] = _Track(begins_with_snapshot=message.type == "snapshot")
        time = parse_nanoseconds(timestamp) if timestamp else 0
        track.frames.append(frame)
        track.times.append(time)
        self._start = self._start or time
        return track

    def now(self) -> int:
        """The time of the newest frame that the latest connection has been sent."""
        return self._session.now()

    @asynccontextmanager
    async def open_session(self) -> AsyncGenerator[Session, None]:
        """Begin at the start, or where the connection before stopped."""
        if not self._resume:
            self._session = _TapeSession(self._tracks, self._depth, self._start)
        yield self._session

    async def trades_page(self, symbol: str, since: int | None, count: int) -> Sequence[PublicTrade]:
        """Trades of the whole tape."""
        trades = self._trades.get(symbol, [])
        if since is None:
            return trades[-count:]
        return [trade for trade in trades if trade.time >= since][:count]

    async def depth_page(self, symbol: str, count: int) -> tuple[Sequence[DepthRow], Sequence[DepthRow]]:
        """The book where the latest connection has come to."""
        if ("book", symbol) not in self._tracks:
            return [], []
        book, seconds = self._session.book_now(symbol), self.now() // NANOSECONDS
        bids, asks = (
            [DepthRow(level.price.decode(), level.size.decode(), seconds) for level in side.best(count)]
            for side in (book.bids, book.asks)
        )
        return bids, asks


class _TapeSession:
    """Positions on the tape: of each track, how many frames have been sent."""

    def __init__(self, tracks: dict[tuple[str, str], _Track], depth: int, start: int) -> None:
        self._tracks = tracks
        self._depth = depth
        self._now = start
        self._positions = dict.fromkeys(tracks, 0)
        self._books: dict[str, tuple[int, OrderBook]] = {}

    def now(self) -> int:
        return self._now

    def book(self, symbol: str, depth: int, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        if depth != self._depth:
            raise ValueError(f"the tape was not recorded at depth {depth}")
        return self._follow(("book", symbol), snapshot, self._book_snapshot)

    def trades(self, symbol: str, *, snapshot: bool) -> AsyncGenerator[Sequence[bytes], None]:
        return self._follow(("trade", symbol), snapshot, self._trade_snapshot)

    async def _follow(
        self, name: tuple[str, str], snapshot: bool, take_snapshot: Callable[[str, int], bytes]
    ) -> AsyncGenerator[Sequence[bytes], None]:
        if (track := self._tracks.get(name)) is None:
            return
        position = self._positions[name]
        begins_with_snapshot = position == 0 and track.begins_with_snapshot
        if snapshot and not begins_with_snapshot:
            yield [take_snapshot(name[1], position)]
        elif not snapshot and begins_with_snapshot:
            self._positions[name] = 1
        while batch := track.frames[self._positions[name] : self._positions[name] + FRAMES_A_BATCH]:
            yield batch
            self._positions[name] += len(batch)
            self._now = max(self._now, track.times[self._positions[name] - 1])

    def book_now(self, symbol: str) -> OrderBook:
        """The book after the frames sent so far, at least after its first snapshot."""
        done, book = self._books.get(symbol, (0, OrderBook(self._depth)))
        position = max(self._positions["book", symbol], 1)
        for frame in self._tracks["book", symbol].frames[done:position]:
            message = _decode_message(frame)
            for data in _decode_books(message.data):
                apply = book.replace if message.type == "snapshot" else book.apply
                apply(_levels(data.bids), _levels(data.asks))
        self._books[symbol] = position, book
        return book

    def _book_snapshot(self, symbol: str, position: int) -> bytes:
        book = self.book_now(symbol)
        time = self._tracks["book", symbol].times[position - 1]
        timestamp = f',"timestamp":"{format_nanoseconds(time)}"' if time else ""
        bids, asks = (
            ",".join(
                f'{{"price":{level.price.decode()},"qty":{level.size.decode()}}}' for level in side.best(self._depth)
            )
            for side in (book.bids, book.asks)
        )
        return (
            f'{{"channel":"book","type":"snapshot","data":[{{"symbol":"{symbol}","bids":[{bids}],"asks":[{asks}],'
            f'"checksum":{book.checksum()}{timestamp}}}]}}'
        ).encode()

    def _trade_snapshot(self, symbol: str, position: int) -> bytes:
        rows = [
            bytes(row)
            for frame in self._tracks["trade", symbol].frames[max(position - TRADE_SNAPSHOT_ROWS, 0) : position]
            for row in msgspec.json.decode(_decode_message(frame).data, type=list[msgspec.Raw])
        ]
        return b'{"channel":"trade","type":"snapshot","data":[' + b",".join(rows[-TRADE_SNAPSHOT_ROWS:]) + b"]}"


def _levels(entries: Iterable[_Entry]) -> list[Level]:
    return [parse_level(bytes(entry.price), bytes(entry.qty)) for entry in entries]


def _instrument(symbol: str, rows: Iterable[Any]) -> Instrument:
    """What the digits of some entries or trades of a pair show of its precisions."""
    prices, sizes = zip(*((bytes(row.price), bytes(row.qty)) for row in rows), strict=True)
    return Instrument(symbol, _decimals(prices), _decimals(sizes))


def _decimals(tokens: Iterable[bytes]) -> int:
    return max(len(token.partition(b".")[2]) for token in tokens)


def _public_trade(trade: _TradeData) -> PublicTrade:
    return PublicTrade(
        trade.trade_id,
        parse_nanoseconds(trade.timestamp),
        bytes(trade.price).decode(),
        bytes(trade.qty).decode(),
        trade.side,
        trade.ord_type,
    )
