"""Holds what a fleet stored against what the exchange sent, in little memory: no row lost, none twice, none made up."""

from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import psycopg
from exchange import Sent, SentBook

# Checkpoints are of the collector's own making.
ROWS = """
SELECT pair, chain, seq, (extract(epoch FROM event_time) * 1000000)::bigint, checksum, type = 'snapshot' AND seq > 0
FROM kraken_orderbook ORDER BY pair, chain, seq
"""
BATCH = 20_000  # rows that are read ahead
TRADES = "SELECT pair, array_agg(trade_id), count(*) FROM kraken_trades GROUP BY pair"
HOLES = """
SELECT count(*), coalesce(extract(epoch FROM max(ended_at - started_at)), 0)::float8,
       coalesce(extract(epoch FROM sum(ended_at - started_at)), 0)::float8
FROM kraken_gaps WHERE channel = 'book'
"""


class Account(NamedTuple):
    """The result.

    `unread` counts messages that were on their way on connections that broke; `holes` are those on record in the
    books' coverage, `longest` and `total` their seconds.
    """

    sent: int
    stored: int
    lost: int
    duplicated: int
    unread: int
    holes: int
    longest: float
    total: float
    problems: list[str]


class _Chain(NamedTuple):
    """What is stored of a chain, without its checkpoints; `repeated` rows have a number that another has."""

    pair: str
    chain: int
    times: "array[int]"
    checksums: "array[int]"
    repeated: int
    has_holes: bool


def account(url: str, sent: Sent) -> Account:
    """Compare a database with what was sent to all of its collectors together."""
    stored = lost = duplicated = 0
    problems: list[str] = []
    kept: dict[int, int] = {}  # by the identity of a book that was sent, how many of its rows are stored
    with psycopg.connect(url) as connection:
        for chain in _chains(connection):
            stored += len(chain.times)
            duplicated += chain.repeated
            if chain.has_holes:
                problems.append(f"{chain.pair} {chain.chain}: seq has holes")
            origin = _origin(chain, (book for book in sent.books.get(chain.pair, []) if id(book) not in kept))
            if origin is None:
                problems.append(f"{chain.pair} {chain.chain}: its {len(chain.times)} rows are no beginning of a book")
                duplicated += any(_begins(book, chain) for book in sent.books.get(chain.pair, []))
            else:
                kept[id(origin)] = len(chain.times)
        unread = 0
        for pair, books in sent.books.items():
            for book in books:
                due, have = sent.due(book), kept.get(id(book), 0)
                unread += len(book.times) - max(due, have)
                if have < due:
                    lost += due - have
                    problems.append(f"{pair} on connection {book.connection}: {due - have} of {due} rows lost")
        for pair, ids, count in connection.execute(TRADES):
            stored += count
            duplicated += count - len(set(ids))
            if missing := sent.trades.get(pair, set()).difference(ids):
                lost += len(missing)
                problems.append(f"{pair}: {len(missing)} trades lost, such as {min(missing)}")
        holes, longest, total = connection.execute(HOLES).fetchone() or (0, 0.0, 0.0)
    return Account(sent.messages, stored, lost, duplicated, unread, holes, longest, total, problems)


def _chains(connection: psycopg.Connection[tuple[object, ...]]) -> Iterator[_Chain]:
    with connection.cursor(name="rows") as cursor:
        cursor.itersize = BATCH
        cursor.execute(ROWS)
        for (pair, chain), rows in groupby(cursor, itemgetter(0, 1)):
            times, checksums = array("q"), array("L")
            numbers: list[int] = []
            for _, _, number, time, checksum, is_checkpoint in rows:
                numbers.append(number)
                if not is_checkpoint:
                    times.append(time)
                    checksums.append(checksum)
            distinct = set(numbers)
            has_holes = distinct != set(range(len(distinct)))
            yield _Chain(str(pair), int(str(chain)), times, checksums, len(numbers) - len(distinct), has_holes)


def _origin(chain: _Chain, books: Iterable[SentBook]) -> SentBook | None:
    """The book that a chain is the beginning of: the shortest, since several of a quiet pair may begin alike."""
    return min((book for book in books if _begins(book, chain)), key=lambda book: len(book.times), default=None)


def _begins(book: SentBook, chain: _Chain) -> bool:
    """Whether a chain is the beginning of a book that was sent."""
    count = len(chain.times)
    return book.times[:count] == chain.times and book.checksums[:count] == chain.checksums
