"""Rows as lines of PostgreSQL's COPY text format.

Prices, sizes and JSON of levels hold nothing that COPY treats as special; text that Kraken chose is escaped. A time in
RFC 3339 is read by TIMESTAMP as it is: without a zone of its own the type passes over the Z.
"""

from functools import lru_cache

from collector.records import BookRow, Trade

BOOK_COLUMNS = "event_time, pair, bids, asks, type, checksum, chain, seq, evicted"
TRADE_COLUMNS = "event_time, pair, price, volume, side, order_type, trade_id"

_SPECIAL = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@lru_cache(maxsize=4096)  # pairs and order types: a few thousand texts at most, repeated in every row
def escape(text: str) -> bytes:
    """A text as COPY takes it."""
    return text.translate(_SPECIAL).encode()


def book_line(row: BookRow) -> bytes:
    """A row of kraken_orderbook, in the order of BOOK_COLUMNS."""
    return b"%b\t%b\t%b\t%b\t%b\t%d\t%d\t%d\t%b\n" % (
        row.event_time.encode(),
        escape(row.pair),
        row.bids,
        row.asks,
        row.type.encode(),
        row.checksum,
        row.chain,
        row.seq,
        b"\\N" if row.evicted is None else row.evicted,
    )


def trade_line(trade: Trade) -> bytes:
    """A row of kraken_trades, in the order of TRADE_COLUMNS."""
    return b"%b\t%b\t%b\t%b\t%b\t%b\t%d\n" % (
        trade.event_time.encode(),
        escape(trade.pair),
        trade.price,
        trade.volume,
        trade.side.encode(),
        escape(trade.order_type),
        trade.trade_id,
    )
