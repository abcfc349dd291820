"""Records as the book task makes them, for tests that need some."""

from collector.records import BookRow, Coverage, Trade

TIME = "2026-08-24T22:21:58.345080Z"
LATER = "2026-08-24T22:22:03.000000Z"


def trade(trade_id: int = 1, **changes) -> Trade:
    """A trade."""
    values = {
        "event_time": TIME,
        "pair": "BTC/USD",
        "price": b"63000.10",
        "volume": b"0.00010000",
        "side": "buy",
        "order_type": "limit",
        "trade_id": trade_id,
    }
    return Trade(**(values | changes))


def book_row(seq: int = 0, **changes) -> BookRow:
    """A snapshot (`seq` 0) or an update of one level."""
    values = {
        "event_time": TIME,
        "pair": "BTC/USD",
        "bids": b"[[62999.90,1.50000000]]",
        "asks": b"[[63000.10,0.00000000]]" if seq else b"[[63000.10,2.00000000]]",
        "type": "update" if seq else "snapshot",
        "checksum": 2**32 - 1 - seq,
        "chain": 1,
        "seq": seq,
        "evicted": b'{"bids":[61000.10],"asks":[]}' if seq else None,
    }
    return BookRow(**(values | changes))


def run(rows: int = 1, **changes) -> Coverage:
    """A run of the book that is still going on."""
    values = {
        "pair": "BTC/USD",
        "channel": "book",
        "chain": 1,
        "started_at": TIME,
        "last_at": TIME,
        "updates": rows - 1,
        "rows": rows,
    }
    return Coverage(**(values | changes))


def batch(first: int, count: int) -> list:
    """What one append brings: book rows from `first` on, as many trades, and the coverage that they prove."""
    numbers = range(first, first + count)
    return [*map(book_row, numbers), *map(trade, numbers), run(first + count)]
