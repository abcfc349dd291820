"""What a server sent: the frames of each connection with their times, split into the books that they make.

A book that was sent is verified here in a way of its own, with none of the collector's code: what fails its checksum,
or is no sound message, must end the run, and what follows it up to the next snapshot belongs to nobody.
"""

import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, NamedTuple

from stored import TEN, BookEntry, TradeEntry

from collector.kraken.server.source import format_nanoseconds
from collector.kraken.simulator.market import Market

DEPTH = 10
# Seconds before a connection broke within which a frame may have been sent and yet not been read: what is on its way
# is lost with the connection. Measured: 20 to 300 ms; wide, since collector and server share two busy cores.
UNREAD = 2.0


Levels = tuple[tuple[str, str], ...]


class Message(NamedTuple):
    """A sound book message: what of it is stored, and its levels for the book to be verified with."""

    entry: BookEntry
    bids: Levels
    asks: Levels


@dataclass
class Segment:
    """One book as sent: a snapshot and what followed it, as far as it is sound; `times` are monotonic seconds."""

    connection: int
    pair: str
    entries: list[BookEntry] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@dataclass
class SentLog:
    """Everything that one server sent, and how its connections ended.

    `markets` is what there was to be sent. `ended` holds when a connection was first seen to be gone (monotonic
    seconds); one that the server closed in good order (`whole`) has delivered all that was sent on it. What `broken`
    tells of goes before both: when the client was made to read, or to keep, no more of a connection. `given_up` is when
    it was made to give up one book of a connection, until that has a new snapshot.
    """

    frames: dict[int, list[tuple[float, bytes]]] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    broken: dict[int, float] = field(default_factory=dict)
    given_up: dict[tuple[int, str], float] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    markets: Mapping[str, Market] = field(default_factory=dict)

    def note(self, connection: int, frame: bytes) -> None:
        """Take a frame that is handed to a socket."""
        self.frames.setdefault(connection, []).append((time.monotonic(), frame))

    def gone(self, connections: Iterable[int]) -> None:
        """Note that connections are seen to be gone."""
        for connection in connections:
            self.ended.setdefault(connection, time.monotonic())

    def broke(self, connections: Iterable[int]) -> None:
        """Note that these connections, and those that have just ended, are not read to their end."""
        now = time.monotonic()
        just_ended = {connection for connection, ended in self.ended.items() if ended > now - UNREAD}
        for connection in just_ended.union(connections):
            self.broken.setdefault(connection, now)

    def count(self) -> int:
        """How many messages were sent."""
        return sum(len(frames) for frames in self.frames.values())

    def delivered_until(self, connection: int) -> float:
        """Until when what was sent on a connection must have been read, and kept."""
        if connection in self.broken:
            return self.broken[connection] - UNREAD
        if connection in self.whole or connection not in self.ended:
            return float("inf")
        return self.ended[connection] - UNREAD

    def due_until(self, segment: Segment) -> float:
        """Until when what was sent of a book must be stored."""
        until = self.delivered_until(segment.connection)
        given_up = self.given_up.get((segment.connection, segment.pair), float("inf"))
        return min(until, given_up) if segment.times[0] < given_up else until

    def segments(self) -> list[Segment]:
        """The books that were sent, each as far as it is sound."""
        return [segment for connection in self.frames for segment in _segments(connection, self.frames[connection])]

    def trades(self) -> Iterator[tuple[int, float, TradeEntry]]:
        """Every sound trade that was sent, with its connection and when."""
        for connection, frames in self.frames.items():
            for moment, frame in frames:
                for trade in _trades(frame):
                    yield connection, moment, trade

    def happened(self, pair: str, trade_id: int) -> TradeEntry | None:
        """A trade that the market still tells of, whether it was sent or not: REST tells it, too."""
        trades = self.markets[pair].trades
        number = trade_id - trades[0].trade_id
        if not 0 <= number < len(trades):
            return None
        told = trades[number]
        moment = format_nanoseconds(told.time)
        return TradeEntry(moment, pair, told.price, told.qty, told.side, told.order_type, told.trade_id)

    def last_times(self, connections: Iterable[int]) -> dict[str, str]:
        """By pair, the time of the last book message that was sent on some connections."""
        times: dict[str, str] = {}
        for connection in connections:
            for _, frame in self.frames.get(connection, []):
                message = parse_book(frame)
                if message is not None:
                    times[message.entry.pair] = message.entry.event_time
        return times


def _segments(connection: int, frames: Iterable[tuple[float, bytes]]) -> list[Segment]:
    segments: list[Segment] = []
    open_books: dict[str, tuple[Segment, _Book]] = {}
    for moment, frame in frames:
        message = parse_book(frame)
        if message is None:
            if (pair := _pair_of(frame)) is not None:
                open_books.pop(pair, None)
            continue
        if message.entry.type == "snapshot":
            open_books[message.entry.pair] = Segment(connection, message.entry.pair), _Book()
            segments.append(open_books[message.entry.pair][0])
        if message.entry.pair not in open_books:
            continue
        segment, book = open_books[message.entry.pair]
        if not book.takes(message):
            del open_books[message.entry.pair]
            continue
        segment.entries.append(message.entry)
        segment.times.append(moment)
    return [segment for segment in segments if segment.entries]


class _Book:
    """The levels of both sides, kept by the rules of Kraken's book guide."""

    def __init__(self) -> None:
        self._sides: tuple[dict[Decimal, tuple[str, str]], dict[Decimal, tuple[str, str]]] = ({}, {})

    def takes(self, message: Message) -> bool:
        """Apply a message; whether the book is then what its checksum says, and not crossed."""
        best = []
        for side, levels, is_bids in zip(self._sides, (message.bids, message.asks), (True, False), strict=True):
            for price, size in levels:
                if Decimal(size):
                    side[Decimal(price)] = price, size
                else:
                    side.pop(Decimal(price), None)
            prices = sorted(side, reverse=is_bids)
            for price in prices[DEPTH:]:
                del side[price]
            best.append(prices[:TEN])
        bids, asks = best
        text = "".join(
            _token(price) + _token(size)
            for side, prices in ((self._sides[1], asks), (self._sides[0], bids))
            for price, size in (side[price] for price in prices)
        )
        crossed = bool(bids and asks and bids[0] >= asks[0])
        return zlib.crc32(text.encode()) == message.entry.checksum and not crossed


def _token(digits: str) -> str:
    return digits.replace(".", "").lstrip("0")


def _read(frame: bytes) -> Any:
    try:
        return json.loads(frame, parse_float=str, parse_int=str)
    except ValueError:
        return None


@lru_cache(maxsize=50_000)  # the servers of one run send the same market
def parse_book(frame: bytes) -> Message | None:
    """A sound book message; None for whatever else it is."""
    message = _read(frame)
    if not isinstance(message, dict) or message.get("channel") != "book":
        return None
    try:
        (data,) = message["data"]
        bids, asks = _levels(data["bids"]), _levels(data["asks"])
        pair, checksum = data["symbol"], int(data["checksum"])
        return Message(
            BookEntry(data["timestamp"], pair, _text(bids), _text(asks), message["type"], checksum), bids, asks
        )
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return None


def _levels(entries: Iterable[dict[str, str]]) -> Levels:
    levels = tuple((f"{Decimal(entry['price']):f}", f"{Decimal(entry['qty']):f}") for entry in entries)
    if any(Decimal(price) <= 0 or size.startswith("-") for price, size in levels):  # a zero may be negative, too
        raise ValueError
    return levels


def _text(levels: Levels) -> str:
    return "[" + ", ".join(f"[{price}, {size}]" for price, size in levels) + "]"


def _pair_of(frame: bytes) -> str | None:
    message = _read(frame)
    if not isinstance(message, dict) or message.get("channel") != "book":
        return None
    data = message.get("data")
    return data[0].get("symbol") if isinstance(data, list) and data and isinstance(data[0], dict) else None


@lru_cache(maxsize=10_000)
def _trades(frame: bytes) -> list[TradeEntry]:
    message = _read(frame) if b'"trade"' in frame else None
    if not isinstance(message, dict) or message.get("channel") != "trade":
        return []
    return [
        TradeEntry(
            trade["timestamp"],
            trade["symbol"],
            f"{Decimal(trade['price']):f}",
            f"{Decimal(trade['qty']):f}",
            trade["side"],
            trade["ord_type"],
            int(trade["trade_id"]),
        )
        for trade in message["data"]
        if _is_sound(trade)
    ]


def _is_sound(trade: dict[str, Any]) -> bool:
    try:
        return Decimal(trade["price"]) > 0 and Decimal(trade["qty"]) > 0 and trade["trade_id"].isdecimal()
    except (KeyError, TypeError, AttributeError, InvalidOperation):
        return False
