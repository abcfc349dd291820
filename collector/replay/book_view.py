"""A stored book as a subscriber of some depth sees it, row by row.

Pure. What is stored is the whole book of the depth that was collected. A subscriber of that depth, or of a deeper one,
is told each row as it was stored. One of a lower depth is told what Kraken would tell: the levels that it sees, those
that come into its sight when others go, and no removal of those that others push out of it. The checksum is that of the
row at any depth, since it covers no more than the ten best levels.
"""

from typing import NamedTuple

import msgspec

from collector.kraken.orderbook import BookSide, Level, parse_level
from collector.verification.chain_replay import read_levels

NO_LEVELS = b"[]"
_NO_SIZE = b"0"


class BookChange(NamedTuple):
    """A stored row: levels as PostgreSQL writes them, and the prices that it pushed out of the collected depth."""

    bids: bytes
    asks: bytes
    evicted: bytes | None


class _Evicted(msgspec.Struct):
    bids: list[msgspec.Raw]
    asks: list[msgspec.Raw]


_decode_evicted = msgspec.json.Decoder(_Evicted).decode


class BookView:
    """The book of one chain; `has_book` from its first snapshot on."""

    def __init__(self, depth: int) -> None:
        self.has_book = False
        self._bids = _SideView(-1, depth)
        self._asks = _SideView(1, depth)

    def clear(self) -> None:
        """Forget the book: what comes next does not follow from it."""
        self.has_book = False

    def replace(self, snapshot: BookChange) -> None:
        """Take a snapshot."""
        self.has_book = True
        self._bids.clear()
        self._asks.clear()
        self.take(snapshot)

    def take(self, change: BookChange) -> tuple[list[Level], list[Level]] | None:
        """Take a row; return the bids and asks that the subscriber is told of it, None where it sees nothing of it."""
        gone_bids, gone_asks = _evicted(change.evicted)
        bids = self._bids.take(read_levels(change.bids), gone_bids)
        asks = self._asks.take(read_levels(change.asks), gone_asks)
        if not bids and not asks and not change.bids == change.asks == NO_LEVELS:
            return None
        return bids, asks

    def levels(self) -> tuple[list[Level], list[Level]]:
        """The bids and asks that the subscriber sees now, best first."""
        return self._bids.levels(), self._asks.levels()


class _SideView:
    """One side: every level that is stored, and, where those are more than `depth`, the ones that are seen."""

    def __init__(self, sign: int, depth: int) -> None:
        self._side = BookSide(sign)
        self._depth = depth
        self._seen: dict[int, Level] = {}

    def clear(self) -> None:
        self._side.clear()
        self._seen = {}

    def levels(self) -> list[Level]:
        return self._side.best(self._depth)

    def take(self, levels: list[Level], evicted: list[Level]) -> list[Level]:
        side, depth = self._side, self._depth
        if not levels and not evicted:
            return []
        was_whole = len(side) <= depth
        side.apply(levels)
        side.apply(evicted)
        if was_whole and len(side) <= depth:
            # A book of the subscriber's depth is cut by whoever keeps it. Of a deeper one, it has to be told.
            return levels if len(side) == depth else [*levels, *evicted]
        before, self._seen = self._seen, {level.rank: level for level in side.best(depth)}
        seen = self._seen
        if was_whole:  # all was seen until now, and nothing has come into sight from beyond
            last = {level.rank: level for level in levels}
            told = [level for level in last.values() if level.token is None or level.rank in seen]
            return sorted(told, key=lambda level: level.token is not None)  # what makes room comes first
        removed = {level.rank for level in levels if level.token is None}
        told = [
            level_removed(level)
            for rank, level in before.items()
            if rank not in seen and (rank in removed or len(seen) < depth)
        ]
        told += [level for rank, level in seen.items() if rank not in before or before[rank].size != level.size]
        if len(side) <= depth:
            self._seen = {}
        return told


def level_removed(level: Level) -> Level:
    """The entry that removes a level, its size written with as many decimals."""
    decimals = len(level.size.partition(b".")[2])
    return Level(level.rank, level.price, b"0." + b"0" * decimals if decimals else _NO_SIZE, None)


def _evicted(text: bytes | None) -> tuple[list[Level], list[Level]]:
    if text is None:
        return [], []
    prices = _decode_evicted(text)
    bids, asks = ([parse_level(bytes(price), _NO_SIZE) for price in side] for side in (prices.bids, prices.asks))
    return bids, asks
