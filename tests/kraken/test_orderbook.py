"""The order book against Kraken's worked example, vectors computed by hand, and a naive model."""

import zlib
from decimal import Decimal
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MalformedMessage
from collector.kraken.orderbook import Level, OrderBook, parse_level

Entry: TypeAlias = tuple[str, str]  # price and size as text

# The example of Kraken's checksum guide for the v2 WebSocket.
GUIDE_ASKS = """45285.2 0.00100000, 45286.4 1.54571953, 45286.6 1.54571109, 45289.6 1.54560911, 45290.2 0.15890660,
    45291.8 1.54553491, 45294.7 0.04454749, 45296.1 0.35380000, 45297.5 0.09945542, 45299.5 0.18772827"""
GUIDE_BIDS = """45283.5 0.10000000, 45283.4 1.54582015, 45282.1 0.10000000, 45281.0 0.10000000, 45280.3 1.54592586,
    45279.0 0.07990000, 45277.6 0.03310103, 45277.5 0.30000000, 45277.3 1.54602737, 45276.6 0.15445238"""

# Updates that follow on it at depth 10: bids, asks, checksum, and the prices that the cut removes.
GUIDE_UPDATES = [
    ("", "45284.0 0.50000000", 4032367108, ([], [b"45299.5"])),
    ("", "45285.2 0.00000000, 45301.0 0.07000000", 803100674, ([], [])),
    (
        "45283.5 0.30000000, 45283.5 0.00000000, 45276.5 0.00000001, 45283.5 0.10000001",
        "",
        471969073,
        ([b"45276.5"], []),
    ),
    ("45279.0 0.00000000, 45276.5 0.00000001", "", 1890153351, ([], [])),
]


def levels(text: str) -> list[Level]:
    """Read `price size, price size`."""
    return [parse_level(*entry.encode().split()) for entry in text.split(",") if entry.strip()]


def book_of(bids: str, asks: str, depth: int = 10) -> OrderBook:
    book = OrderBook(depth)
    book.replace(levels(bids), levels(asks))
    return book


def held(book: OrderBook) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    bids, asks = (side.best(len(side)) for side in (book.bids, book.asks))
    return [(level.price, level.size) for level in bids], [(level.price, level.size) for level in asks]


def test_worked_example_of_the_guide() -> None:
    """Prevents a checksum that differs from Kraken's own definition."""
    assert book_of(GUIDE_BIDS, GUIDE_ASKS).checksum() == 3310070434


def test_updates_that_follow_on_the_example() -> None:
    """Prevents errors of insertion, fall-in, repeated prices, the cut, and sizes such as 1E-8."""
    book = book_of(GUIDE_BIDS, GUIDE_ASKS)
    for bids, asks, checksum, evicted in GUIDE_UPDATES:
        assert book.apply(levels(bids), levels(asks)) == evicted
        assert book.checksum() == checksum


def test_without_the_cut_the_example_comes_out_wrong() -> None:
    """Prevents vectors that a book which never cuts would pass too."""
    book = book_of(GUIDE_BIDS, GUIDE_ASKS, depth=1000)
    checksums = []
    for bids, asks, _, _ in GUIDE_UPDATES[:2]:
        book.apply(levels(bids), levels(asks))
        checksums.append(book.checksum())
    assert checksums == [4032367108, 1601158852]


@pytest.mark.parametrize(
    ("bids", "asks", "checksum"),
    [
        (
            "0.0286 74198.19125726, 0.0030 143.33333334",
            "0.0288 32416.38964164, 0.0300 1740.00000000, 0.1150 67.55460411",
            2510359259,
        ),
        ("", "0.0288 32416.38964164, 0.0300 1740.00000000, 0.1150 67.55460411", 3376902783),
        (
            "62710.4 0.01000000, 62709.1 2.00000000",
            "62710.5 0.93111634, 62710.6 0.50000000, 62711.0 1.20000000",
            1396696505,
        ),
        ("", "", 0),
    ],
)
def test_thin_books(bids: str, asks: str, checksum: int) -> None:
    """Prevents an assumption that a side has ten levels, or any."""
    book = book_of(bids, asks)
    assert book.checksum() == checksum
    assert not book.is_crossed()


def test_snapshot_replaces_what_was_there() -> None:
    """Prevents levels of the book before from living on in the new one."""
    book = book_of("9 1, 8 1", "11 1")
    assert book.replace(levels("7 2, 6 2, 5 2"), levels("")) == ([], [])
    assert held(book) == ([(b"7", b"2"), (b"6", b"2"), (b"5", b"2")], [])
    book.depth = 2
    assert book.replace(levels("7 2, 6 2, 5 2"), levels("8 1")) == ([b"5"], [])


def test_removals_of_what_is_absent_change_nothing() -> None:
    """Prevents a crash, or a wrong level removed, when Kraken removes what we never held or have cut."""
    book = book_of("9 1, 8 1, 7 1", "11 1, 12 1", depth=2)
    before = held(book)
    assert book.apply(levels("7 0, 8.5 0.00, 1 0"), levels("10 0, 13 0, 11.5 0")) == ([], [])
    assert held(book) == before


def test_one_price_in_two_spellings_is_one_level() -> None:
    """Prevents a second level for 100.00 beside 100.0, and keeps the digits that came last."""
    book = book_of("99.0 1, 99.00 2", "100.0 1")
    assert held(book) == ([(b"99.00", b"2")], [(b"100.0", b"1")])
    book.apply(levels("99 0"), levels("100.00 3.5"))
    assert held(book) == ([], [(b"100.00", b"3.5")])
    assert book.asks.best_price == b"100.00"


def test_evicted_level_may_come_back() -> None:
    """Prevents a level that was cut from being shown, or from being refused when Kraken publishes it again."""
    book = book_of("9 1, 8 1", "", depth=2)
    assert book.apply(levels("10 1"), []) == ([b"8"], [])
    assert book.apply(levels("10 0, 8 1.00"), []) == ([], [])
    assert held(book) == ([(b"9", b"1"), (b"8", b"1.00")], [])


@pytest.mark.parametrize(("bid", "ask", "crossed"), [("10", "10.0", True), ("10.1", "10", True), ("9.9", "10", False)])
def test_crossed(bid: str, ask: str, crossed: bool) -> None:
    """Prevents a book whose sides touch from passing for a good one."""
    assert book_of(f"{bid} 1", f"{ask} 1").is_crossed() is crossed


@pytest.mark.parametrize(
    ("price", "size"), [("0", "1"), ("0.000", "1"), ("-1", "1"), ("1", "-1"), ("x", "1"), ("1", "")]
)
def test_levels_that_cannot_be(price: str, size: str) -> None:
    """Prevents a level at 0 or below it."""
    with pytest.raises(MalformedMessage):
        parse_level(price.encode(), size.encode())


@given(st.integers(1, 10**20), st.integers(0, 18), st.integers(0, 10**20), st.integers(0, 25), st.booleans())
def test_any_level_keeps_its_digits(units: int, places: int, size_units: int, size_places: int, quoted: bool) -> None:
    """Prevents the quick way of reading a level from disagreeing with the plain one."""
    price, size = f"{Decimal(units).scaleb(-places):f}", f"{Decimal(size_units).scaleb(-size_places):f}"
    wire = [f'"{text}"'.encode() if quoted else text.encode() for text in (price, size)]
    if size_places > 18:
        with pytest.raises(MalformedMessage):
            parse_level(*wire)
        return
    level = parse_level(*wire)
    assert (level.price, level.size) == (price.encode(), size.encode())
    assert level.rank == Decimal(price) * 10**18
    tokens = [text.replace(".", "").lstrip("0").encode() for text in (price, size)]
    assert level.token == (b"".join(tokens) if size_units else None)


# Few prices, so that they meet often, and each in several spellings.
entries = st.tuples(
    st.sampled_from(
        [f"{price}{zeros}" for price in ("0.9", "1.0", "9.5", "10.1", "11.0") for zeros in ("", "0", "00")]
    ),
    st.sampled_from(["0", "0.00000000", "0.00000001", "1.50000000", "123.00000000"]),
)
messages = st.lists(st.tuples(st.lists(entries, max_size=6), st.lists(entries, max_size=6)), max_size=12)


def read(side: list[Entry]) -> list[Level]:
    return [parse_level(price.encode(), size.encode()) for price, size in side]


class NaiveSide:
    """What the documentation says, word for word, sorted anew after each message."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.sizes: dict[Decimal, Entry] = {}

    def apply(self, side: list[Entry], depth: int) -> list[bytes]:
        for price, size in side:
            self.sizes.pop(Decimal(price), None)
            if Decimal(size):
                self.sizes[Decimal(price)] = (price, size)
        ranked = sorted(self.sizes, key=lambda price: price * self.sign)
        return [self.sizes.pop(price)[0].encode() for price in ranked[depth:]]

    def levels(self) -> list[Entry]:
        return [self.sizes[price] for price in sorted(self.sizes, key=lambda price: price * self.sign)]


@given(messages, st.integers(1, 4))
def test_book_equals_a_naive_model(stream: list[tuple[list[Entry], list[Entry]]], depth: int) -> None:
    """Prevents any order of insertions, removals, repeats and cuts from bringing the sorted keys out of step."""
    book, bids, asks = OrderBook(depth), NaiveSide(-1), NaiveSide(1)
    for bid_entries, ask_entries in stream:
        evicted = book.apply(read(bid_entries), read(ask_entries))
        assert evicted == (bids.apply(bid_entries, depth), asks.apply(ask_entries, depth))
        for side, naive in ((book.bids, bids), (book.asks, asks)):
            assert [(level.price.decode(), level.size.decode()) for level in side.best(depth)] == naive.levels()
            assert len(side) == len(naive.sizes) <= depth
        text = "".join(
            f"{part.replace('.', '').lstrip('0')}" for side in (asks, bids) for level in side.levels() for part in level
        )
        assert book.checksum() == zlib.crc32(text.encode())
        both = bool(bids.sizes and asks.sizes)
        assert book.is_crossed() == (both and max(bids.sizes) >= min(asks.sizes))


@given(messages, st.integers(1, 4))
def test_last_word_on_each_price_is_the_book(stream: list[tuple[list[Entry], list[Entry]]], depth: int) -> None:
    """Prevents rows from which plain SQL rebuilds another book: size 0 and evicted are gone, the last word counts."""
    book = OrderBook(depth)
    said: tuple[dict[Decimal, str], dict[Decimal, str]] = ({}, {})
    for message in stream:
        evicted = book.apply(*map(read, message))
        for words, side, gone in zip(said, message, evicted, strict=True):
            words.update({Decimal(price): size for price, size in side})
            words.update(dict.fromkeys([Decimal(price.decode()) for price in gone], "0"))
        for words, side in zip(said, (book.bids, book.asks), strict=True):
            rebuilt = {price: size for price, size in words.items() if Decimal(size)}
            assert rebuilt == {Decimal(level.price.decode()): level.size.decode() for level in side.best(depth)}
