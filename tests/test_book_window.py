"""Whole books against snapshots of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import book_window
from collector.book_window import MAX_DIFFERENCES, BookWindow
from collector.kraken.messages import BookMessage
from collector.kraken.orderbook import OrderBook, parse_level
from collector.records import Difference

DEPTH = 1000
SHALLOW = 5

# Few prices and sizes, so that levels come and go, fall out of the depth and come back.
changes = st.dictionaries(st.integers(1, 12).map(str), st.sampled_from(["0", "1.0", "1.00", "2.5"]), max_size=4)
updates = st.lists(st.tuples(changes, changes), max_size=12)


def message(bids: dict[str, str], asks: dict[str, str], book: OrderBook | None = None) -> BookMessage:
    """A message of these levels; with `book` its checksum is what that book then has."""
    levels = [[parse_level(price.encode(), size.encode()) for price, size in side.items()] for side in (bids, asks)]
    if book is not None:
        book.apply(*levels)
    return BookMessage("BTC/USD", "update", *levels, 0 if book is None else book.checksum(), None)


def snapshot(book: OrderBook) -> BookMessage:
    bids, asks = book.bids.best(DEPTH), book.asks.best(DEPTH)
    return BookMessage("BTC/USD", "snapshot", bids, asks, book.checksum(), None)


def deep_book(levels: int = 600) -> OrderBook:
    book = OrderBook(DEPTH)
    bids = {str(10_000 - number): "1.00" for number in range(levels)}
    asks = {str(10_001 + number): "1.00" for number in range(levels)}
    message(bids, asks, book)
    return book


def differing(ours: OrderBook, theirs: OrderBook) -> int:
    """How many levels of two books differ, compared as a whole."""
    count = 0
    for one, other in ((ours.bids, theirs.bids), (ours.asks, theirs.asks)):
        sizes, other_sizes = ({level.rank: level.size for level in side.best(SHALLOW)} for side in (one, other))
        count += sum(sizes.get(rank) != other_sizes.get(rank) for rank in {*sizes, *other_sizes})
    return count


@given(before=updates, during=updates, elsewhere=updates, looks=st.sets(st.integers(0, 12)))
def test_the_search_is_what_comparing_every_state_is(
    before: list[tuple[dict[str, str], dict[str, str]]],
    during: list[tuple[dict[str, str], dict[str, str]]],
    elsewhere: list[tuple[dict[str, str], dict[str, str]]],
    looks: set[int],
) -> None:
    """Prevents a count of differing levels that drifts away from the books, above all where levels fall out of them."""
    ours, theirs = OrderBook(SHALLOW), OrderBook(SHALLOW)
    for bids, asks in before:
        message(bids, asks, ours)
    for bids, asks in elsewhere:
        message(bids, asks, theirs)
    window = BookWindow(ours)
    wanted = snapshot(theirs)
    search = window.search(wanted)
    distances = [differing(ours, theirs)]
    for number, (bids, asks) in enumerate(during):
        if number in looks:
            assert search.finds(window.updates()) == (0 in distances)
        window.add(message(bids, asks, ours))
        distances.append(differing(ours, theirs))
    assert search.finds(window.updates()) == (0 in distances)
    assert len(search.differences(window.updates())) == min(distances)


def test_a_state_of_the_window_is_enough() -> None:
    """Prevents a book that moved on while its snapshot was on its way from being taken for a wrong one."""
    ours, theirs = deep_book(), deep_book()
    window = BookWindow(ours)
    taken = [snapshot(deep_book())]
    for size in range(5):
        bids, asks = {"9500": str(size)}, {"10500.0": str(size)}
        window.add(message(bids, asks, ours))
        message(bids, asks, theirs)
        taken.append(snapshot(theirs))
    for one in taken:
        search = window.search(one)
        assert search.finds(window.updates())
        assert search.differences(window.updates()) == []


def test_a_difference_below_the_checksum_is_seen() -> None:
    """Prevents an audit that sees no more than the checksum does: each of these books has the same one."""
    ours, theirs = deep_book(), deep_book()
    message({"9500": "2.50", "9450": "0"}, {"10499.5": "0.10"}, theirs)
    assert ours.checksum() == theirs.checksum()
    search = BookWindow(ours).search(snapshot(theirs))
    assert not search.finds(())
    assert search.differences(()) == [
        Difference("bid", "9450", "1.00", None),
        Difference("bid", "9500", "1.00", "2.50"),
        Difference("ask", "10499.5", None, "0.10"),
    ]


def test_a_record_of_differences_is_bounded() -> None:
    """Prevents a book that is wrong throughout from filling the database."""
    search = BookWindow(deep_book()).search(snapshot(OrderBook(DEPTH)))
    assert len(search.differences(())) == MAX_DIFFERENCES


def test_a_window_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an audit during a storm of updates from taking all memory, or from being judged by a part of them."""
    monkeypatch.setattr(book_window, "MAX_WINDOW", 3)
    book = deep_book()
    window = BookWindow(book)
    fullness = []
    for number in range(5):
        window.add(message({"9500": str(number)}, {}, book))
        fullness.append(window.is_full)
    assert fullness == [False, False, False, True, True]
    assert len(window.updates()) == 3
