"""Comparing a whole book with a fresh snapshot of it, level by level.

The checksum covers the ten best levels of a side; what lies deeper is otherwise taken on faith. Pure: no clock, no
I/O. A snapshot does not name the message after which it was taken, by its time or by its checksum: many updates change
nothing near the top. So every state that the book had around that time is a candidate, and one equal state is enough.

Comparing each of them throughout takes a second for a deep book and many updates. So the states are gone through once,
in order, and only what an update changes is compared: what is known of each state is how many levels differ in it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from collector.kraken.messages import BookMessage
from collector.kraken.orderbook import Level, OrderBook, parse_level
from collector.records import Difference

MAX_DIFFERENCES = 50  # levels that a record of a difference holds; the first of them tell what is wrong
# Updates that are kept for a comparison, some 20 MB: a thousand a second, more than Kraken was ever seen to send of a
# pair, for all the time that a snapshot may take.
MAX_WINDOW = 20_000


class BookWindow:
    """The states of a book from one moment on: a copy of its levels then, and every update since.

    Attributes:
        is_full: more than `MAX_WINDOW` updates came; the last ones are not kept.

    """

    def __init__(self, book: OrderBook) -> None:
        self.is_full = False
        self._beginning = _Levels(book.depth, book.bids.best(book.depth), book.asks.best(book.depth))
        self._updates: list[BookMessage] = []

    def add(self, update: BookMessage) -> None:
        """Note an update that the book has taken."""
        if len(self._updates) < MAX_WINDOW:
            self._updates.append(update)
        else:
            self.is_full = True

    def updates(self) -> tuple[BookMessage, ...]:
        """The updates until now: a copy, which a worker thread can read while more are added."""
        return tuple(self._updates)

    def search(self, snapshot: BookMessage) -> "SnapshotSearch":
        """A search for a snapshot among the states, which begins with the first."""
        return SnapshotSearch(self._beginning, snapshot)


class _Levels(NamedTuple):
    """The levels of a book of some depth, best first."""

    depth: int
    bids: list[Level]
    asks: list[Level]

    def book(self) -> OrderBook:
        book = OrderBook(self.depth)
        book.replace(self.bids, self.asks)
        return book


class SnapshotSearch:
    """The search for a snapshot among the states of a window, each of which is worked through once."""

    def __init__(self, beginning: _Levels, snapshot: BookMessage) -> None:
        self._beginning = beginning
        self._snapshot = snapshot
        self._book = beginning.book()
        self._bids = _SideDistance(beginning.bids, snapshot.bids)
        self._asks = _SideDistance(beginning.asks, snapshot.asks)
        self._done = 0  # updates that were worked through
        self._nearest = 0  # and how many of them make the nearest state
        self._distance = self._bids.levels + self._asks.levels  # of the nearest state

    def finds(self, updates: Sequence[BookMessage]) -> bool:
        """Whether any state until now equals the snapshot on every level; `updates` are all since the beginning."""
        while self._distance and self._done < len(updates):
            update = updates[self._done]
            self._done += 1
            evicted_bids, evicted_asks = self._book.apply(update.bids, update.asks)
            self._bids.apply(update.bids, evicted_bids)
            self._asks.apply(update.asks, evicted_asks)
            distance = self._bids.levels + self._asks.levels
            if distance < self._distance:
                self._nearest, self._distance = self._done, distance
        return not self._distance

    def differences(self, updates: Sequence[BookMessage]) -> list[Difference]:
        """The levels, at most `MAX_DIFFERENCES`, on which the nearest state that was found differs from the snapshot.

        `updates` are those that the search has been through.
        """
        book = self._beginning.book()
        for update in updates[: self._nearest]:
            book.apply(update.bids, update.asks)
        found = [
            *_side_differences("bid", book.bids.best(book.depth), self._snapshot.bids),
            *_side_differences("ask", book.asks.best(book.depth), self._snapshot.asks),
        ]
        return found[:MAX_DIFFERENCES]


class _SideDistance:
    """How many levels of one side differ from a snapshot's, kept up to date.

    Attributes:
        levels: prices at which only one of the two has a level, or the sizes are not the same digits.

    """

    def __init__(self, ours: Iterable[Level], theirs: Iterable[Level]) -> None:
        self._ours = _sizes(ours)
        self._theirs = _sizes(theirs)
        ranks = self._ours.keys() | self._theirs.keys()
        self.levels = sum(self._ours.get(rank) != self._theirs.get(rank) for rank in ranks)

    def apply(self, changes: Iterable[Level], evicted: Iterable[bytes]) -> None:
        """Take the changes of an update, and the prices that the book lost by them at its end."""
        for level in changes:
            self._set(level.rank, None if level.token is None else level.size)
        for price in evicted:
            self._set(parse_level(price, b"0").rank, None)

    def _set(self, rank: int, size: bytes | None) -> None:
        theirs, before = self._theirs.get(rank), self._ours.pop(rank, None)
        if size is not None:
            self._ours[rank] = size
        self.levels += (size != theirs) - (before != theirs)


def _sizes(levels: Iterable[Level]) -> dict[int, bytes]:
    return {level.rank: level.size for level in levels}


def _side_differences(side: Literal["bid", "ask"], ours: list[Level], theirs: list[Level]) -> Iterator[Difference]:
    """The levels of a side that differ, from the lowest price up."""
    our_sizes, their_sizes = _sizes(ours), _sizes(theirs)
    prices = {level.rank: level.price.decode() for level in (*ours, *theirs)}
    for rank in sorted(prices):
        our_size, their_size = our_sizes.get(rank), their_sizes.get(rank)
        if our_size != their_size:
            yield Difference(side, prices[rank], _text(our_size), _text(their_size))


def _text(size: bytes | None) -> str | None:
    return None if size is None else size.decode()
