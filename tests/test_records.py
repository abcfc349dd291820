"""The record types: what the tables have, in their order, and what a spool can hold."""

import msgspec
import pytest

from collector.records import BookRow, Coverage, Interrupted, Trade

TRADE = Trade("2026-08-24T22:21:58.345080Z", "BTC/USD", b"83744.30", b"0.00044780", "buy", "limit", 109116693)
BOOK = BookRow(TRADE.event_time, "BTC/USD", b"[[1.0,2.00]]", b"[]", "snapshot", 2**32 - 1, 1787523718345080, 0, None)


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (Trade, "event_time pair price volume side order_type trade_id"),
        (BookRow, "event_time pair bids asks type checksum chain seq evicted"),
    ],
)
def test_fields_are_the_columns_in_their_order(record: type[msgspec.Struct], columns: str) -> None:
    """Prevents a value from being copied into the column beside its own."""
    assert record.__struct_fields__ == tuple(columns.split())


@pytest.mark.parametrize("record", [TRADE, BOOK, Interrupted("crash")])
def test_records_do_not_change(record: msgspec.Struct) -> None:
    """Prevents one task from changing what it has handed to another."""
    with pytest.raises(AttributeError):
        setattr(record, record.__struct_fields__[0], "other")


@pytest.mark.parametrize(
    "record",
    [
        Coverage("BTC/USD", "book", 1787523718345080, TRADE.event_time, TRADE.event_time, 3, 4),
        Coverage("BTC/USD", "trade", 2**62, TRADE.event_time, TRADE.event_time, 0, 0, TRADE.event_time, "closed_1012"),
        Interrupted("process_ended"),
    ],
)
def test_what_is_no_row_is_told_apart_when_read_back(record: Coverage | Interrupted) -> None:
    """Prevents an interruption that was spooled from being read as coverage, or not at all."""
    assert msgspec.json.decode(msgspec.json.encode(record), type=Coverage | Interrupted) == record
