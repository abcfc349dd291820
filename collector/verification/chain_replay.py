"""One chain of a book, replayed from what is stored: every row must follow from the rows before it.

Pure. A row is its fields as PostgreSQL writes them, in the order of `BOOK_COLUMNS`. The depth of a chain is not
stored, but any row that tells of an eviction shows it: what is left of that side is the depth.
"""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from collector.kraken.orderbook import Level, OrderBook, parse_level
from collector.kraken.pairs import BOOK_DEPTHS
from collector.verification.findings import Finding, Findings, Kind, counted

StoredRow: TypeAlias = Sequence[bytes]

# Rows are read window by window of their times, and Kraken's times need not rise with every message: a row may come
# after some that follow it. More than these have never been overtaken: then the row is missing.
OVERTAKEN_ROWS = 1000

_NULL = b"\\N"
_NO_LEVELS = b"[]"


class _Evicted(msgspec.Struct):
    bids: list[msgspec.Raw]
    asks: list[msgspec.Raw]


_evicted_decoder = msgspec.json.Decoder(_Evicted)


class ChainReplay:
    """A chain that is being replayed.

    Attributes:
        next: the seq that comes next; None until the first row where any row may be the first.
        rows: rows that were replayed.
        updates: those of them that Kraken sent as updates.
        first_time: when the first row happened.
        last_time: the latest time of any row.
        is_whole: whether no row was missing so far.

    """

    def __init__(self, pair: str, chain: int, start: int | None, findings: Findings) -> None:
        self.next = start
        self.rows = 0
        self.updates = 0
        self.first_time = b""
        self.last_time = b""
        self.is_whole = True
        self._pair = pair
        self._chain = chain
        self._start = start
        self._findings = findings
        self._ahead: dict[int, StoredRow] = {}
        self._book = OrderBook(max(BOOK_DEPTHS))
        self._has_book = False
        self._depth: int | None = None
        self._last_checksum = -1
        self._largest = 0  # levels of a side, while the depth is not known
        # A fault of one row makes those after it wrong until the next snapshot: they are one finding.
        self._streaks: dict[Kind, tuple[Finding, int]] = {}

    def take(self, row: StoredRow) -> None:
        """Take the next row that is read; rows may be missing, come again, or come late."""
        seq = int(row[7])
        if seq == self.next or self.next is None:
            self._replay(seq, row)
            self.next = seq + 1
            if self._ahead:
                self._catch_up()
        elif seq > self.next and seq not in self._ahead:
            self._ahead[seq] = row
            if len(self._ahead) > OVERTAKEN_ROWS:
                self._skip_hole()
        elif self._start is None or seq >= self._start:
            self._tell("seq_repeat", seq, row[0], "this row is stored more than once")

    def finish(self) -> None:
        """No row comes any more."""
        while self._ahead:
            self._skip_hole()
        self._end_streaks()
        self._book.replace([], [])  # its levels are most of the memory

    def _catch_up(self) -> None:
        while (row := self._ahead.pop(self.next or 0, None)) is not None:
            seq = self.next or 0
            self._replay(seq, row)
            self.next = seq + 1

    def _skip_hole(self) -> None:
        first, after = self.next or 0, min(self._ahead)
        missing = after - first
        what = f"{missing} rows are missing, seq {first} to {after - 1}" if missing > 1 else "this row is missing"
        self._tell("seq_hole", first, self._ahead[after][0], what)
        self.is_whole = False
        self.next = after
        self._catch_up()

    def _replay(self, seq: int, row: StoredRow) -> None:
        time = row[0]
        self.rows += 1
        if time > self.last_time:  # noqa: PLR1730 - max() takes twice as long
            self.last_time = time
        if not self.first_time:
            self.first_time = time
        try:
            if not self._apply(seq, row):
                return
            self._cut(seq, row)
            said = int(row[5])
        except ValueError as error:
            self._fault("unreadable", seq, row, f"it is not what the collector writes: {error}")
            return
        book = self._book
        found = book.checksum()
        if found != said:
            self._fault("checksum", seq, row, f"the book gives {found}, the row says {said}")
        if found != self._last_checksum:  # else the best levels are those that they were
            self._last_checksum = found
            if book.is_crossed():
                best_bid, best_ask = book.bids.best_price.decode(), book.asks.best_price.decode()
                self._fault("crossed", seq, row, f"the best bid {best_bid} reaches the best ask {best_ask}")

    def _apply(self, seq: int, row: StoredRow) -> bool:
        """Bring the book to what it was after a row, as yet uncut; return whether there is a book."""
        bids, asks, kind = row[2], row[3], row[4]
        if kind == b"update":
            self.updates += 1
            if self._has_book:
                if bids != _NO_LEVELS:  # most updates are of one side
                    self._book.bids.apply(read_levels(bids))
                if asks != _NO_LEVELS:
                    self._book.asks.apply(read_levels(asks))
            else:
                self._fault("no_snapshot", seq, row, "no snapshot of this chain is stored before it")
        elif kind == b"snapshot":
            self._take_snapshot(seq, row)
        else:
            raise ValueError(f"the type {kind.decode()} is neither snapshot nor update")
        return self._has_book

    def _take_snapshot(self, seq: int, row: StoredRow) -> None:
        self._end_streaks()
        book, bids, asks = self._book, row[2], row[3]
        if self._has_book:
            if (levels_text(book.bids.best(len(book.bids))), levels_text(book.asks.best(len(book.asks)))) == (
                bids,
                asks,
            ):
                return
            self._fault("checkpoint", seq, row, "the snapshot is not the book that the rows before it make")
        self._has_book = True
        book.replace(read_levels(bids), read_levels(asks))

    def _cut(self, seq: int, row: StoredRow) -> None:
        """Cut the book to the depth, and hold what that removes against what the row says that it removed."""
        book, depth, evicted = self._book, self._depth, row[8]
        if depth is None:
            size = max(len(book.bids), len(book.asks))
            if evicted == _NULL:
                self._largest = max(self._largest, size)
                return
            depth = self._depth = self._infer_depth(evicted, size)
            if self._largest > depth:
                self._fault("evicted", seq, row, f"cut to {depth} levels, of which a side had {self._largest} before")
        bids, asks = book.bids.cut(depth), book.asks.cut(depth)
        expected = evicted_text(bids, asks) if bids or asks else _NULL
        if expected != evicted:
            what = f"the cut to {depth} levels removes {_or_nothing(expected)}, the row says {_or_nothing(evicted)}"
            self._fault("evicted", seq, row, what)

    def _infer_depth(self, evicted: bytes, size: int) -> int:
        gone = _evicted_decoder.decode(evicted)
        sides = (self._book.bids, gone.bids), (self._book.asks, gone.asks)
        left = {len(side) - len(prices) for side, prices in sides if prices}
        likely = left & set(BOOK_DEPTHS)
        if len(left) == 1 and likely:
            return likely.pop()
        # It can't be right, as the comparison that follows will say: go on with the depth that the book has outgrown.
        return max([depth for depth in BOOK_DEPTHS if depth <= size], default=min(BOOK_DEPTHS))

    def _fault(self, kind: Kind, seq: int, row: StoredRow, what: str) -> None:
        finding, rows = self._streaks.get(kind) or (self._finding(kind, seq, row[0], what), 0)
        self._streaks[kind] = finding, rows + 1

    def _end_streaks(self) -> None:
        for finding, rows in self._streaks.values():
            more = f"; likewise {counted(rows - 1, 'row')} up to the next snapshot" if rows > 1 else ""
            self._findings.add(msgspec.structs.replace(finding, what=finding.what + more), rows)
        self._streaks.clear()

    def _tell(self, kind: Kind, seq: int, time: bytes, what: str) -> None:
        self._findings.add(self._finding(kind, seq, time, what))

    def _finding(self, kind: Kind, seq: int, time: bytes, what: str) -> Finding:
        return Finding(kind, self._pair, self._chain, seq, time.decode(), what)


def read_levels(text: bytes) -> list[Level]:
    """Read an array of `[price, size]` as PostgreSQL writes JSONB.

    Raises:
        ValueError: it is something else.

    """
    if text == _NO_LEVELS:
        return []
    if not (text.startswith(b"[[") and text.endswith(b"]]")):
        raise ValueError("no array of [price, size]")
    return [parse_level(price, size) for entry in text[2:-2].split(b"], [") for price, size in [entry.split(b", ")]]


def levels_text(levels: Sequence[Level]) -> bytes:
    """Levels as PostgreSQL writes them from JSONB."""
    return b"[" + b", ".join([b"[%b, %b]" % (level.price, level.size) for level in levels]) + b"]"


def evicted_text(bids: Sequence[bytes], asks: Sequence[bytes]) -> bytes:
    """Evicted prices as PostgreSQL writes them from JSONB, which puts its keys in order."""
    return b'{"asks": [%b], "bids": [%b]}' % (b", ".join(asks), b", ".join(bids))


def _or_nothing(evicted: bytes) -> str:
    return "nothing" if evicted == _NULL else evicted.decode()
