"""A simulated exchange of many pairs in a process of its own, which remembers what it sent in a few bytes a message.

Of a book message it keeps the time and the checksum. At depth 10 the checksum covers the whole book, so that rows
with the same times and checksums, whose books `verify` finds to follow from them, are the rows that were sent.
"""

import re
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import trio

from collector.kraken.server.faults import Faults
from collector.kraken.server.serving import Address, serve
from collector.kraken.simulator.simulation import SimulatedSource, Simulation

DEPTH = 10
LEVELS = 60  # of a side: several times the depth, and 700 books are made in seconds
# Of the steps of such a market, how many show in ten levels or are trades. Measured: 0.69.
VISIBLE_SHARE = 0.69
WATCH_INTERVAL = 0.05  # seconds between looks at which connections are gone
# Seconds before a connection broke within which a frame may have been sent and yet not been read: what is on its way
# is lost with the connection. Wide, since all of this shares one busy machine.
UNREAD = 5.0

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOOK = re.compile(rb'"type":"(\w+)","data":\[\{"symbol":"([^"]+)".*"checksum":(\d+),"timestamp":"([^"]+)"')
_TRADE = re.compile(rb'"symbol":"([^"]+)".*?"trade_id":(\d+)')


class Order(NamedTuple):
    """What exchange is asked for: `rate` is how many messages a second all of its pairs shall have together."""

    pairs: int
    rate: float
    seed: int


@dataclass
class SentBook:
    """One book as sent on a connection, a snapshot and what followed it.

    `times` are in microseconds since 1970, `moments` in monotonic seconds.
    """

    connection: int
    times: "array[int]" = field(default_factory=partial(array, "q"))
    checksums: "array[int]" = field(default_factory=partial(array, "L"))
    moments: "array[float]" = field(default_factory=partial(array, "d"))


@dataclass
class Sent:
    """Everything that was sent: books by pair, ids of trades by pair, and when connections were seen to be gone."""

    messages: int = 0
    books: dict[str, list[SentBook]] = field(default_factory=dict)
    trades: dict[str, set[int]] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    connections: set[int] = field(default_factory=set)
    _open: dict[tuple[int, bytes], SentBook] = field(default_factory=dict)

    def note(self, connection: int, frame: bytes) -> None:
        """Take a frame that is handed to a socket."""
        if frame.startswith(b'{"channel":"instrument"'):
            return
        self.messages += 1
        self.connections.add(connection)
        if frame.startswith(b'{"channel":"trade"'):
            for symbol, trade_id in _TRADE.findall(frame):
                self.trades.setdefault(symbol.decode(), set()).add(int(trade_id))
            return
        found = _BOOK.search(frame)
        if found is None:
            raise ValueError(frame)
        kind, symbol, checksum, timestamp = found.groups()
        key = connection, symbol
        if kind == b"snapshot":
            self._open[key] = SentBook(connection)
            self.books.setdefault(symbol.decode(), []).append(self._open[key])
        book = self._open[key]
        book.times.append((datetime.fromisoformat(timestamp.decode()) - EPOCH) // timedelta(microseconds=1))
        book.checksums.append(int(checksum))
        book.moments.append(time.monotonic())

    def due(self, book: SentBook) -> int:
        """How many rows of a book must be stored: all, but for what was on its way on a connection that broke."""
        if book.connection not in self.ended:
            return len(book.times)
        until = self.ended[book.connection] - UNREAD
        return sum(moment <= until for moment in book.moments)


def names(count: int) -> Iterator[str]:
    """So many symbols, in four quote currencies."""
    quotes = ("USD", "EUR", "GBP", "BTC")
    for number in range(count):
        yield f"A{number // len(quotes)}/{quotes[number % len(quotes)]}"


def run_exchange(order: Order, pipe: Connection) -> None:
    """Serve, and send the address; then answer what is asked, until the other side goes away.

    `count` asks how many messages were sent, `halt` too, but ends the market first (not the connections, nor REST),
    and `sent` asks for all that is remembered.
    """
    trio.run(_run, order, pipe)


async def _run(order: Order, pipe: Connection) -> None:
    weights = sum(1 / rank for rank in range(1, order.pairs + 1))
    simulation = Simulation(
        list(names(order.pairs)),
        seed=order.seed,
        start=time.time_ns(),
        rate=order.rate / VISIBLE_SHARE / weights,
        depths=[DEPTH],
        levels=LEVELS,
    )
    source, faults, sent, market = SimulatedSource(simulation), Faults(), Sent(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        address: Address = await nursery.start(partial(serve, source, faults=faults, on_sent=sent.note))
        nursery.start_soon(_watch, faults, sent)
        nursery.start_soon(_run_market, source, market)
        pipe.send(address)
        while (question := await trio.to_thread.run_sync(_next_question, pipe)) is not None:
            if question == "halt":
                market.cancel()
            pipe.send(sent if question == "sent" else sent.messages)
        nursery.cancel_scope.cancel()


async def _run_market(source: SimulatedSource, until: trio.CancelScope) -> None:
    with until:
        await source.run()


def _next_question(pipe: Connection) -> str | None:
    try:
        question: str = pipe.recv()
    except EOFError:
        return None
    return question


async def _watch(faults: Faults, sent: Sent) -> None:
    while True:
        for connection in sent.connections - {connection.number for connection in faults.connections}:
            sent.ended.setdefault(connection, time.monotonic())
        await trio.sleep(WATCH_INTERVAL)
