"""A book of some depth, seen at another: what a subscriber makes of what it is told is what it should see."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from collector.kraken.orderbook import Level, OrderBook, parse_level
from collector.replay.book_view import BookChange, BookView
from collector.verification.chain_replay import evicted_text, levels_text

STORED_DEPTH = 4
PRICES = st.integers(1, 9)
SIZES = st.integers(0, 3)
# Removals come first, as Kraken sends them: who cuts after each entry has room for what follows.
ENTRIES = st.lists(st.tuples(PRICES, SIZES), max_size=5).map(
    lambda entries: sorted(entries, key=lambda entry: bool(entry[1]))
)
ROWS = st.lists(st.tuples(ENTRIES, ENTRIES), min_size=1, max_size=12)


def levels(entries: list[tuple[int, int]], above: int) -> list[Level]:
    return [parse_level(b"%d.50" % (above + price), b"%d.00" % size) for price, size in entries]


def stored(book: OrderBook, bids: list[Level], asks: list[Level]) -> BookChange:
    """The row that the collector stores of a message."""
    gone = book.apply(bids, asks)
    return BookChange(levels_text(bids), levels_text(asks), evicted_text(*gone) if any(gone) else None)


class Subscriber:
    """Keeps one side as Kraken's guide says: entries in order, and a cut after each message or after each entry."""

    def __init__(self, depth: int, *, best_is_highest: bool, eager: bool) -> None:
        self.depth, self.best_is_highest, self.eager = depth, best_is_highest, eager
        self.sizes: dict[Decimal, bytes] = {}

    def take(self, told: list[Level]) -> None:
        for level in told:
            price = Decimal(level.price.decode())
            self.sizes.pop(price, None)
            if Decimal(level.size.decode()):
                self.sizes[price] = level.size
            if self.eager:
                self.cut()
        self.cut()

    def cut(self) -> None:
        kept = sorted(self.sizes, reverse=self.best_is_highest)[: self.depth]
        self.sizes = {price: self.sizes[price] for price in kept}


@given(rows=ROWS, depth=st.integers(1, 6), eager=st.booleans())
def test_a_subscriber_of_any_depth_sees_the_best_levels(
    rows: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]], depth: int, eager: bool
) -> None:
    """Prevents a level that stays in a subscriber's book, or that it never hears of, at any depth below the stored one.

    Of a depth above the stored one, it sees what is stored.
    """
    book, view = OrderBook(STORED_DEPTH), BookView(depth)
    bids = Subscriber(depth, best_is_highest=True, eager=eager)
    asks = Subscriber(depth, best_is_highest=False, eager=eager)
    for number, (bid_entries, ask_entries) in enumerate(rows):
        change = stored(book, levels(bid_entries, 0), levels(ask_entries, 10))
        if number == 0:
            view.replace(change)
            told = view.levels()
        else:
            told = view.take(change)
        if told is not None:
            bids.take(told[0])
            asks.take(told[1])
        for subscriber, side in ((bids, book.bids), (asks, book.asks)):
            expected = [(Decimal(level.price.decode()), level.size) for level in side.best(depth)]
            assert list(subscriber.sizes.items()) == expected


@given(rows=ROWS)
def test_a_subscriber_of_the_stored_depth_is_told_what_was_sent(
    rows: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]],
) -> None:
    """Prevents a replay at the depth that was collected from being another sequence of messages."""
    book, view = OrderBook(STORED_DEPTH), BookView(STORED_DEPTH)
    view.replace(stored(book, levels([(price, 1) for price in range(1, 5)], 0), levels([(1, 1)], 10)))
    for bid_entries, ask_entries in rows:
        bids, asks = levels(bid_entries, 0), levels(ask_entries, 10)
        told = view.take(stored(book, bids, asks))
        assert told == (bids, asks)


def test_a_removal_has_as_many_decimals_as_the_size_that_goes() -> None:
    """Prevents zeros in another form than Kraken's."""
    view = BookView(1)
    view.replace(BookChange(b"[[3.5, 0.10], [2.5, 0.20]]", b"[]", None))
    told = view.take(BookChange(b"[[3.5, 0.00]]", b"[]", None))
    assert told is not None
    assert [(level.price, level.size) for level in told[0]] == [(b"3.5", b"0.00"), (b"2.5", b"0.20")]


def test_what_is_out_of_sight_is_not_told() -> None:
    """Prevents messages without a change, which Kraken does not send."""
    view = BookView(1)
    view.replace(BookChange(b"[[3.5, 0.10], [2.5, 0.20]]", b"[]", None))
    assert view.take(BookChange(b"[[2.5, 0.00]]", b"[]", None)) is None
    assert view.take(BookChange(b"[]", b"[]", None)) == ([], [])
