"""The rows of one chain of a book: put into order, cut at a time, and applied to a book.

Pure. Kraken's times need not rise with every message, while a cut is made by time: by the rule that the book at a time
T is every row up to the largest seq whose event_time is no later than T. So a row takes effect at the earliest time
that it or any row behind it carries, and every row is on one side of any cut.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from collector.kraken.orderbook import Level, OrderBook, parse_level
from collector.kraken.pairs import BOOK_DEPTHS
from collector.kraken.times import microseconds, read_time
from collector.records import BookRow
from collector.verification.chain_replay import OVERTAKEN_ROWS, levels_text, read_levels

# How far behind the times of rows before it a row's time may be, in microseconds; also what kraken_book_at looks at.
LATENESS = 5_000_000
OnMissing = Callable[[str], None]  # takes one line about rows that are missing


class Effect(NamedTuple):
    """A row, and when it takes effect, in microseconds since 1970."""

    at: int
    row: BookRow


class _Prices(msgspec.Struct):
    bids: list[msgspec.Raw]
    asks: list[msgspec.Raw]


_evicted_decoder = msgspec.json.Decoder(_Prices)


def new_book() -> OrderBook:
    """A book that is cut by what its rows say that they evicted, whatever its depth was."""
    return OrderBook(max(BOOK_DEPTHS))


def apply_row(book: OrderBook, row: BookRow) -> None:
    """Bring a book to what it was after a row."""
    bids, asks = read_levels(row.bids), read_levels(row.asks)
    if row.type == "snapshot":
        book.replace(bids, asks)
    else:
        book.apply(bids, asks)
    if row.evicted is not None:
        gone_bids, gone_asks = evicted_levels(row.evicted)
        book.bids.apply(gone_bids)
        book.asks.apply(gone_asks)


def evicted_levels(evicted: bytes) -> tuple[list[Level], list[Level]]:
    """What a row evicted of bids and of asks, as levels of size 0."""
    prices = _evicted_decoder.decode(evicted)
    bids, asks = ([parse_level(bytes(price), b"0") for price in side] for side in (prices.bids, prices.asks))
    return bids, asks


def snapshot_after(book: OrderBook, row: BookRow, time: str) -> BookRow:
    """The book after a row as a snapshot of a later `time`, until which nothing changed it."""
    bids, asks = (levels_text(side.best(len(side))) for side in (book.bids, book.asks))
    return msgspec.structs.replace(row, event_time=time, type="snapshot", bids=bids, asks=asks, evicted=None)


def in_order(rows: Iterable[BookRow], first: int | None, on_missing: OnMissing) -> Iterator[BookRow]:
    """The rows of a chain by seq, each once, from `first` (None: whichever comes first) on.

    Rows that follow no snapshot are left out: those behind a missing row, up to the next snapshot.
    """
    due, has_book = first, False
    for row in _by_seq(rows, first):
        if due is not None and row.seq != due:
            has_book = False
            on_missing(_missing(row, due))
        due = row.seq + 1
        has_book = has_book or row.type == "snapshot"
        if has_book:
            yield row


def _missing(row: BookRow, due: int) -> str:
    missing = f"row seq {due} is" if row.seq == due + 1 else f"rows seq {due} to {row.seq - 1} are"
    return f"{row.pair}, chain {row.chain}, before {row.event_time}: {missing} missing, left out up to a snapshot"


def _by_seq(rows: Iterable[BookRow], first: int | None) -> Iterator[BookRow]:
    """Put rows into order of seq, which are read window by window of their times, and may have overtaken others."""
    due = first
    ahead: dict[int, BookRow] = {}
    for row in rows:
        if due is None or row.seq == due:
            yield row
            due = row.seq + 1
        elif row.seq > due:
            ahead[row.seq] = row
            if len(ahead) > OVERTAKEN_ROWS:
                due = min(ahead)
        while ahead and due in ahead:
            yield ahead.pop(due)
            due += 1
    for seq in sorted(ahead):
        yield ahead[seq]


def effects(rows: Iterable[BookRow]) -> Iterator[Effect]:
    """When each row of a chain, which come by seq, takes effect; these times never fall."""
    waiting: deque[Effect] = deque()
    for row in rows:
        at = microseconds(read_time(row.event_time))
        late: list[BookRow] = [row]
        while waiting and waiting[-1].at > at:
            late.append(waiting.pop().row)
        waiting.extend(Effect(at, each) for each in reversed(late))
        while at - waiting[0].at >= LATENESS:
            yield waiting.popleft()
    yield from waiting
