from hypothesis import given, settings
from hypothesis import strategies as st

from collector.kraken.pairs import Instrument
from collector.kraken.simulator.book import FullBook
from tests.kraken.naive_book import NaiveBook, read_digits

# Few prices and few levels, so that levels are pushed out, come back and go within one message.
CHANGES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=8)
MESSAGES = st.lists(CHANGES, max_size=30)
DEPTH = 10


def apply(book: FullBook, model: dict[int, int], changes: list[tuple[int, int]]) -> tuple[list, list]:
    """Make the changes that make sense; what must be published of them, and what may be beside it."""
    must, may = [], []
    pushed_out: set[int] = set()
    for price, lots in changes:
        if not lots and price not in model:
            continue
        before = set(sorted(model)[:DEPTH])
        book.asks.set(price, lots)
        if lots:
            model[price] = lots
        else:
            del model[price]
        after = set(sorted(model)[:DEPTH])
        if price in before | after:
            must.append((price, lots))
        elif not lots and price in pushed_out:
            may.append((price, lots))
        must += [(entrant, model[entrant]) for entrant in after - before if entrant != price]
        pushed_out |= {gone for gone in before - after if gone in model}
    return must, may


@settings(max_examples=300)
@given(messages=MESSAGES, eager=st.booleans())
def test_a_subscriber_is_told_what_it_needs_and_nothing_else(messages: list, eager: bool) -> None:
    """A level that was pushed out and then cancelled within one message stays in a client's book for ever."""
    book = FullBook(Instrument("THIN/USD", 0, 0), [DEPTH])
    client, model = NaiveBook(DEPTH, eager=eager), {}
    assert client.apply(book.snapshot(DEPTH, 0))
    for changes in messages:
        must, may = apply(book, model, changes)
        frames = book.updates(0)
        assert bool(must) == bool(frames)
        if frames:
            entries = read_digits(frames[DEPTH])["data"][0]["asks"]
            published = [(int(entry["price"]), int(entry["qty"])) for entry in entries]
            assert [entry for entry in published if entry not in may or entry in must] == must
            assert client.apply(frames[DEPTH])
        assert client.best("asks") == [(str(price), str(lots)) for price, lots in sorted(model.items())[:DEPTH]]


def test_a_level_that_is_pushed_out_and_cancelled_at_once_is_removed() -> None:
    """A client that cuts once a message keeps the level, and brings it back when the book gets thinner."""
    book, client = FullBook(Instrument("THIN/USD", 0, 0), [DEPTH]), NaiveBook(DEPTH)
    for price in range(11, 21):
        book.asks.set(price, 1)
    book.updates(0)
    client.apply(book.snapshot(DEPTH, 0))
    for price, lots in ((1, 1), (20, 0), (11, 0)):
        book.asks.set(price, lots)
    assert client.apply(book.updates(0)[DEPTH])
    assert client.best("asks") == [(str(price), "1") for price in (1, *range(12, 20))]


def test_an_empty_book_has_a_snapshot() -> None:
    """A pair that nobody trades cannot be subscribed."""
    book = FullBook(Instrument("THIN/USD", 0, 0), [DEPTH])
    assert read_digits(book.snapshot(DEPTH, 0))["data"] == [
        {"symbol": "THIN/USD", "bids": [], "asks": [], "checksum": "0", "timestamp": "1970-01-01T00:00:00.000000Z"}
    ]
