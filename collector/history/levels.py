"""Flat books: the changes of single levels, and samples of the best ones. Pure; rows come chain by chain, by seq."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from collector.history.book_rows import Effect, apply_row, evicted_levels, new_book
from collector.kraken.orderbook import BookSide, Level
from collector.records import BookRow
from collector.verification.chain_replay import read_levels

_GONE = b"0"


class LevelChange(NamedTuple):
    """All that is on offer at a price from a row on, in the digits that Kraken sent; size 0: nothing any more."""

    row: BookRow
    side: Literal["bid", "ask"]
    price: bytes
    size: bytes


class Sample(NamedTuple):
    """The best levels of each side at a time, in microseconds since 1970."""

    at: int
    bids: list[Level]
    asks: list[Level]


def level_changes(rows: Iterable[BookRow]) -> Iterator[LevelChange]:
    """Every change of a level; each chain begins with an empty book.

    A snapshot is told by what it changes: at the beginning of a chain all of its levels, later nothing, since it is
    the book that the rows before it make.
    """
    chain: int | None = None
    book = new_book()
    for row in rows:
        if row.chain != chain:
            chain, book = row.chain, new_book()
        bids, asks = read_levels(row.bids), read_levels(row.asks)
        if row.type == "snapshot":
            bids, asks = [*_difference(book.bids, bids)], [*_difference(book.asks, asks)]
        if row.evicted is not None:
            gone_bids, gone_asks = evicted_levels(row.evicted)
            bids, asks = bids + gone_bids, asks + gone_asks
        book.bids.apply(bids)
        book.asks.apply(asks)
        for level in bids:
            yield LevelChange(row, "bid", level.price, _GONE if level.token is None else level.size)
        for level in asks:
            yield LevelChange(row, "ask", level.price, _GONE if level.token is None else level.size)


def _difference(side: BookSide, levels: list[Level]) -> Iterator[Level]:
    """The entries that make `levels` of a side: first what is gone, then what is new or of another size."""
    before = {level.rank: level for level in side.best(len(side))}
    left = {level.rank for level in levels}
    for rank, level in before.items():
        if rank not in left:
            yield Level(rank, level.price, _GONE, None)
    for level in levels:
        if before.get(level.rank) != level:
            yield level


def top_samples(effects: Iterable[Effect], first: int, until: int, every: int, levels: int) -> Iterator[Sample]:
    """The best levels of one chain's book at `first` and each `every` microseconds after it, before `until`.

    Times before the chain's first snapshot have no sample.
    """
    book = new_book()
    at, has_book = first, False
    for effect in effects:
        if effect.at > at and not has_book:
            at += -(-(effect.at - at) // every) * every
        while at < effect.at and at < until:
            yield Sample(at, book.bids.best(levels), book.asks.best(levels))
            at += every
        if at >= until:
            return
        apply_row(book, effect.row)
        has_book = True
    while has_book and at < until:
        yield Sample(at, book.bids.best(levels), book.asks.best(levels))
        at += every
