"""One pair's order book, kept as Kraken's documentation asks (book guide and checksum guide of the v2 WebSocket).

Pure: no clock, no I/O. The rules: entries of a message apply in their order, a quantity of 0 removes, and after the
whole message each side is cut to the subscribed depth, since Kraken announces no removal for a level that it pushed
out of range. The checksum covers the ten best levels of each side.
"""

import zlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from collector.errors import MalformedMessage
from collector.kraken.digits import MAX_DECIMALS, plain_digits

CHECKSUM_LEVELS = 10  # of each side, whatever the depth


class Level(msgspec.Struct, frozen=True, gc=False):
    """An entry of a book message: all that is kept at `price` from now on is `size`.

    `rank` is the price in units of 10**-18, so that 100.0 and 100.00 are one level; `token` is what the checksum
    takes of it, or None where a size of 0 removes the level.
    """

    rank: int
    price: bytes
    size: bytes
    token: bytes | None


def parse_level(price: bytes, size: bytes) -> Level:
    """Read an entry from its two JSON tokens.

    Raises:
        MalformedMessage: one is not a number, the price is not above 0 or the size is below 0.

    """
    rank, price, price_token = _parse_price(price)
    size_digits = size.replace(b".", b"")
    if not size_digits.isdigit() or len(size) > MAX_DECIMALS:
        size = plain_digits(size)
        size_digits = size.replace(b".", b"")
    size_token = size_digits.lstrip(b"0")
    return Level(rank, price, size, price_token + size_token if size_token else None)


@lru_cache(maxsize=2**14)  # prices come again and again: this halves the time that an entry takes
def _parse_price(price: bytes) -> tuple[int, bytes, bytes]:
    """The rank of a price, its plain digits, and what the checksum takes of it."""
    # A JSON number is plain when nothing but digits is left of it without its point, and one that is no longer than
    # the decimals allowed is not too fine: the quick way for nearly all.
    digits = price.replace(b".", b"")
    if not digits.isdigit() or len(price) > MAX_DECIMALS:
        price = plain_digits(price)
        digits = price.replace(b".", b"")
    token = digits.lstrip(b"0")
    if not token:
        raise MalformedMessage("a price of 0")
    point = price.find(b".")
    decimals = len(price) - point - 1 if point >= 0 else 0
    return int(digits) * _UNITS[decimals], price, token


_UNITS = [10 ** (MAX_DECIMALS - decimals) for decimals in range(MAX_DECIMALS + 1)]


class BookSide:
    """The levels of one side, best first.

    `sign` is 1 for asks and -1 for bids: `keys`, for reading only, are signed ranks, so that on both sides the best is
    the smallest and comes first.
    """

    __slots__ = ("_checksum_text", "_last_covered", "_levels", "_sign", "keys")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.keys: list[int] = []
        self._levels: dict[int, Level] = {}
        # Most messages leave the ten best levels of a side as they are. What the checksum takes of them is kept until
        # a key changes that is not behind the last of the ten (None while there are fewer: any change counts then).
        self._checksum_text: bytes | None = None
        self._last_covered: int | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def best_price(self) -> bytes:
        """The best price, in the digits that Kraken sent. The side must not be empty."""
        return self._levels[self.keys[0]].price

    def best(self, count: int) -> list[Level]:
        """The best levels, at most `count`, best first."""
        levels = self._levels
        return [levels[key] for key in self.keys[:count]]

    def clear(self) -> None:
        """Forget every level."""
        self.keys.clear()
        self._levels.clear()
        self._checksum_text = None

    def apply(self, changes: Iterable[Level]) -> None:
        """Set or remove levels, in order; removing one that is not there changes nothing."""
        keys, levels, sign, last_covered = self.keys, self._levels, self._sign, self._last_covered
        for level in changes:
            key = level.rank * sign
            if last_covered is None or key <= last_covered:
                self._checksum_text = None
            if level.token is not None:
                if key not in levels:
                    insort(keys, key)
                levels[key] = level
            elif levels.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]

    def cut(self, depth: int) -> list[bytes]:
        """Keep the best `depth` levels; return the prices of those that fell out, best first."""
        keys = self.keys
        if len(keys) <= depth:
            return []
        if self._last_covered is None or keys[depth] <= self._last_covered:
            self._checksum_text = None
        evicted = [self._levels.pop(key).price for key in keys[depth:]]
        del keys[depth:]
        return evicted

    def checksum_text(self) -> bytes:
        """What this side contributes to the checksum."""
        text = self._checksum_text
        if text is None:
            levels, covered = self._levels, self.keys[:CHECKSUM_LEVELS]
            self._last_covered = covered[-1] if len(covered) == CHECKSUM_LEVELS else None
            self._checksum_text = text = b"".join([levels[key].token or b"" for key in covered])
        return text


Evicted = tuple[list[bytes], list[bytes]]  # prices that the cut removed: of bids, of asks


class OrderBook:
    """The book of one pair at one subscribed depth."""

    __slots__ = ("asks", "bids", "depth")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.bids = BookSide(-1)
        self.asks = BookSide(1)

    def replace(self, bids: Sequence[Level], asks: Sequence[Level]) -> Evicted:
        """Take a snapshot: what was there before is gone."""
        self.bids.clear()
        self.asks.clear()
        return self.apply(bids, asks)

    def apply(self, bids: Sequence[Level], asks: Sequence[Level]) -> Evicted:
        """Take one whole message, then cut each side to the depth."""
        return self._apply_side(self.bids, bids), self._apply_side(self.asks, asks)

    def _apply_side(self, side: BookSide, changes: Sequence[Level]) -> list[bytes]:
        if not changes:  # of every other message one side
            return []
        side.apply(changes)
        return side.cut(self.depth)

    def checksum(self) -> int:
        """CRC-32 over the digits of the ten best asks, then of the ten best bids, points and leading zeros dropped."""
        return zlib.crc32(self.asks.checksum_text() + self.bids.checksum_text())

    def is_crossed(self) -> bool:
        """Whether the best bid reaches the best ask, which on a whole message means that the book is wrong."""
        bids, asks = self.bids.keys, self.asks.keys
        return bool(bids and asks and -bids[0] >= asks[0])
