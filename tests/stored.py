"""What the database holds, read back and checked in ways of its own: with none of the collector's code."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from heapq import nlargest, nsmallest
from itertools import groupby
from typing import NamedTuple

import psycopg

TIME = """to_char(event_time, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
BOOK = f"SELECT {TIME}, pair, bids::text, asks::text, type, checksum, chain, seq, evicted::text FROM kraken_orderbook"
TRADES = f"SELECT {TIME}, pair, price::text, volume::text, side, order_type, trade_id FROM kraken_trades"
TEN = 10  # the levels of a side that a checksum covers


class BookEntry(NamedTuple):
    """A book message, as sent or as stored; `bids` and `asks` are JSON texts with the digits as they are."""

    event_time: str
    pair: str
    bids: str
    asks: str
    type: str
    checksum: int


class StoredRow(NamedTuple):
    """A row of kraken_orderbook."""

    entry: BookEntry
    chain: int
    seq: int
    evicted: str | None

    @property
    def is_checkpoint(self) -> bool:
        """Whether the collector made it, and Kraken did not send it."""
        return self.entry.type == "snapshot" and self.seq > 0


class TradeEntry(NamedTuple):
    """A trade, as sent or as stored."""

    event_time: str
    pair: str
    price: str
    volume: str
    side: str
    order_type: str
    trade_id: int


def read_digits(text: str | bytes) -> object:
    """JSON with each number as the text that it was written in."""
    return json.loads(text, parse_float=str, parse_int=str)


def levels_text(levels: Iterable[Mapping[str, str]]) -> str:
    """Levels of a message in the form in which PostgreSQL writes JSONB."""
    return "[" + ", ".join(f"[{level['price']}, {level['qty']}]" for level in levels) + "]"


def sent_books(frames: Iterable[bytes]) -> dict[str, list[BookEntry]]:
    """The book messages among frames, by pair; a snapshot without a time takes that of the update behind it."""
    books: dict[str, list[BookEntry]] = {}
    for frame in frames:
        message = read_digits(frame)
        if message["channel"] != "book":
            continue
        for data in message["data"]:
            bids, asks = levels_text(data["bids"]), levels_text(data["asks"])
            entries = books.setdefault(data["symbol"], [])
            entry = BookEntry(
                data.get("timestamp", ""), data["symbol"], bids, asks, message["type"], int(data["checksum"])
            )
            if entries and not entries[-1].event_time:
                entries[-1] = entries[-1]._replace(event_time=entry.event_time)
            entries.append(entry)
    return books


def sent_trades(frames: Iterable[bytes]) -> list[TradeEntry]:
    """The trades among frames, in order."""
    messages = [message for message in map(read_digits, frames) if message["channel"] == "trade"]
    return [
        TradeEntry(
            trade["timestamp"],
            trade["symbol"],
            trade["price"],
            trade["qty"],
            trade["side"],
            trade["ord_type"],
            int(trade["trade_id"]),
        )
        for message in messages
        for trade in message["data"]
    ]


def read_chains(url: str) -> dict[tuple[str, int], list[StoredRow]]:
    """The rows of kraken_orderbook by pair and chain, as they are."""
    with psycopg.connect(url) as connection:
        rows = [
            StoredRow(BookEntry(*row[:6]), *row[6:])
            for row in connection.execute(f"{BOOK} ORDER BY pair, chain, seq").fetchall()
        ]
    return {key: list(group) for key, group in groupby(rows, lambda row: (row.entry.pair, row.chain))}


def stored_books(url: str) -> dict[tuple[str, int], list[StoredRow]]:
    """The rows of kraken_orderbook by pair and chain; in each chain they are numbered from 0 without holes."""
    chains = read_chains(url)
    for chain, group in chains.items():
        numbers = [row.seq for row in group]
        assert numbers == list(range(len(group))), f"{chain} has holes or repetitions"
    return chains


def stored_trades(url: str) -> list[TradeEntry]:
    """The rows of kraken_trades."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(f"{TRADES} ORDER BY pair, trade_id").fetchall()
    return [TradeEntry(*row) for row in rows]


def entries(rows: Iterable[StoredRow]) -> list[BookEntry]:
    """What Kraken sent of these rows."""
    return [row.entry for row in rows if not row.is_checkpoint]


def assert_same(stored: Sequence[object], sent: Sequence[object]) -> None:
    """Equality of long lists, that shows the first difference and not all of both."""
    if stored == sent:
        return
    for place, (one, other) in enumerate(zip(stored, sent, strict=False)):
        assert one == other, f"the first difference is at {place}"
    assert len(stored) == len(sent)


def assert_prefixes(chains: Mapping[tuple[str, int], list[StoredRow]], sent: Mapping[int, list[bytes]]) -> None:
    """Each chain is a beginning of what was sent of its pair on one connection, and no two are of the same."""
    books = {connection: sent_books(frames) for connection, frames in sent.items()}
    left = [(connection, pair) for connection in sorted(books) for pair in books[connection]]
    for (pair, _), rows in sorted(chains.items(), key=lambda item: item[0][1]):
        stored = entries(rows)
        of_its_connection = next(
            (key for key in left if key[1] == pair and books[key[0]][pair][: len(stored)] == stored), None
        )
        assert of_its_connection is not None, f"{pair}: a chain of {len(stored)} rows that was not sent so"
        left.remove(of_its_connection)


def verify_checksums(rows: Iterable[StoredRow]) -> int:
    """Replay a chain plainly and recompute every checksum; returns the number of rows.

    The last row of a price wins, a size of 0 and an evicted price are gone; nothing is cut to any depth.
    """
    bids: dict[Decimal, tuple[str, str]] = {}
    asks: dict[Decimal, tuple[str, str]] = {}
    verified = 0
    for row in rows:
        if row.entry.type == "snapshot":
            before = (dict(bids), dict(asks))
            bids.clear()
            asks.clear()
        for side, levels in ((bids, row.entry.bids), (asks, row.entry.asks)):
            for price, size in read_digits(levels):
                side[Decimal(price)] = price, size
                if not Decimal(size):
                    del side[Decimal(price)]
        if row.evicted is not None:
            evicted = read_digits(row.evicted)
            for side, prices in ((bids, evicted["bids"]), (asks, evicted["asks"])):
                for price in prices:
                    del side[Decimal(price)]
        assert row.entry.checksum == _checksum(bids, asks), row
        assert not row.is_checkpoint or (bids, asks) == before, row
        verified += 1
    return verified


def _checksum(bids: Mapping[Decimal, tuple[str, str]], asks: Mapping[Decimal, tuple[str, str]]) -> int:
    best = [asks[price] for price in nsmallest(TEN, asks)] + [bids[price] for price in nlargest(TEN, bids)]
    return zlib.crc32("".join(digits.replace(".", "").lstrip("0") for level in best for digits in level).encode())


class Run(NamedTuple):
    """A row of kraken_coverage."""

    pair: str
    channel: str
    chain: int
    updates: int
    rows: int
    started_at: datetime
    ended_at: datetime | None
    end_reason: str | None

    @property
    def is_ended(self) -> bool:
        """Whether it goes on no more."""
        return self.ended_at is not None


def coverage(url: str, channel: str = "book") -> list[Run]:
    """The runs of a channel, in the order in which they began."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT pair, channel, chain, updates, rows, started_at, ended_at, end_reason FROM kraken_coverage"
            " WHERE channel = %s ORDER BY chain",
            [channel],
        ).fetchall()
    return [Run(*row) for row in rows]
