"""A whole order book in ticks and lots, and what a subscriber at each depth is told of its changes.

Pure: no clock, no randomness. The rules are Kraken's: a message carries absolute quantities, 0 removes; a level that
is pushed out of a depth is not removed; one that comes back into it is published again, behind the removal that made
the room. So a client that cuts its book to its depth, after each entry or after each message, holds the best levels.
"""

import zlib
from bisect import bisect_left
from collections.abc import Iterable

from collector.kraken.pairs import Instrument
from collector.kraken.server.source import format_nanoseconds

CHECKSUM_LEVELS = 10


class FullSide:
    """One side, best first. `sign` is 1 for asks and -1 for bids, so that the best key (signed ticks) is the least.

    `published` holds, for each depth, the (ticks, lots) that a subscriber has yet to be told, 0 lots for a removal.
    """

    __slots__ = ("_checksum_part", "_pushed_out", "keys", "lots", "published", "sign")

    def __init__(self, sign: int, depths: Iterable[int]) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.lots: dict[int, int] = {}
        self.published: dict[int, list[tuple[int, int]]] = {depth: [] for depth in depths}
        self._pushed_out: dict[int, set[int]] = {depth: set() for depth in self.published}
        self._checksum_part: str | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def best_ticks(self) -> int:
        """The best price. The side must not be empty."""
        return self.keys[0] * self.sign

    def set(self, ticks: int, lots: int) -> None:
        """Let `lots` be all that is offered at this price, 0 to remove it, and publish that."""
        key = ticks * self.sign
        position = bisect_left(self.keys, key)
        if position < CHECKSUM_LEVELS:
            self._checksum_part = None
        if lots:
            self._offer(key, position, ticks, lots)
        else:
            self._remove(key, position, ticks)

    def _offer(self, key: int, position: int, ticks: int, lots: int) -> None:
        keys = self.keys
        is_new = key not in self.lots
        if is_new:
            keys.insert(position, key)
        self.lots[key] = lots
        for depth, published in self.published.items():
            if position < depth:
                published.append((ticks, lots))
                if is_new and len(keys) > depth:
                    self._pushed_out[depth].add(keys[depth])

    def _remove(self, key: int, position: int, ticks: int) -> None:
        keys = self.keys
        del self.lots[key]
        del keys[position]
        for depth, published in self.published.items():
            if position < depth:
                published.append((ticks, 0))
                if len(keys) >= depth:
                    fallen_in = keys[depth - 1]
                    published.append((fallen_in * self.sign, self.lots[fallen_in]))
            elif key in self._pushed_out[depth]:
                # Out of range since a moment ago, so who cuts once a message, not after each entry, still holds it.
                published.append((ticks, 0))

    def best(self, count: int) -> list[tuple[int, int]]:
        """The best levels as (ticks, lots), at most `count`."""
        return [(key * self.sign, self.lots[key]) for key in self.keys[:count]]

    def take(self, depth: int) -> list[tuple[int, int]]:
        """What a subscriber at this depth has yet to be told."""
        published = self.published[depth]
        if published:
            self.published[depth] = []
            self._pushed_out[depth].clear()
        return published

    def checksum_part(self) -> str:
        """What this side adds to the checksum's text: ticks and lots are the digits without point and leading zeros."""
        if self._checksum_part is None:
            self._checksum_part = "".join([f"{ticks}{lots}" for ticks, lots in self.best(CHECKSUM_LEVELS)])
        return self._checksum_part


class FullBook:
    """Both sides of one pair, and the frames that tell subscribers of them."""

    def __init__(self, instrument: Instrument, depths: Iterable[int]) -> None:
        self.depths = tuple(depths)
        self.bids = FullSide(-1, self.depths)
        self.asks = FullSide(1, self.depths)
        self._symbol = instrument.symbol
        price, qty = number_template(instrument.price_precision), number_template(instrument.qty_precision)
        self._entry_template = f'{{"price":{price},"qty":{qty}}}'
        self._price_scale = 10**instrument.price_precision
        self._qty_scale = 10**instrument.qty_precision

    def updates(self, time: int) -> dict[int, bytes]:
        """The update of each depth that the changes since the last call concern."""
        frames = {}
        for depth in self.depths:
            bids, asks = self.bids.take(depth), self.asks.take(depth)
            if bids or asks:
                frames[depth] = self._frame("update", bids, asks, time)
        return frames

    def snapshot(self, depth: int, time: int) -> bytes:
        """The snapshot of one depth. Changes must not be pending."""
        return self._frame("snapshot", self.bids.best(depth), self.asks.best(depth), time)

    def _frame(self, kind: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]], time: int) -> bytes:
        checksum = zlib.crc32((self.asks.checksum_part() + self.bids.checksum_part()).encode())
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{self._symbol}","bids":[{self._entries(bids)}],'
            f'"asks":[{self._entries(asks)}],"checksum":{checksum},"timestamp":"{format_nanoseconds(time)}"}}]}}'
        ).encode()

    def _entries(self, levels: list[tuple[int, int]]) -> str:
        template, price_scale, qty_scale = self._entry_template, self._price_scale, self._qty_scale
        return ",".join([template % (*divmod(ticks, price_scale), *divmod(lots, qty_scale)) for ticks, lots in levels])


def number_template(precision: int) -> str:
    """A %-template that writes `divmod(units, 10**precision)` with exactly `precision` decimals."""
    return f"%d.%0{precision}d" if precision else "%d%.0s"
