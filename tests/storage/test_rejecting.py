"""Rows that PostgreSQL rejects: found among thousands, kept with the reason, and nothing else with them."""

import json
from collections.abc import Iterator
from datetime import date
from uuid import UUID

import pytest
from collecting import BOOK_COUNT, TRADE_COUNT, count
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import TIME, book_row, trade

from collector.records import BookRow, Trade
from collector.storage.copy_text import book_line, trade_line
from collector.storage.database import Connection, connect
from collector.storage.partitions import ensure_day
from collector.storage.rejecting import set_rejected_apart
from collector.storage.segments import Header, Segment
from collector.storage.shipping import prepare

HEADER = Header(UUID(int=1), number=1, database=None, chain=0)
BAD_BOOK, BAD_TRADE = b"[[1e400000000,1]]", b"1e400000"


@pytest.fixture
def connection(migrated_url: str) -> Iterator[Connection]:
    """A connection that is ready to ship, to a database with the day of the samples."""
    with connect(migrated_url, application_name="tests") as prepared:
        prepare(prepared)
        ensure_day(prepared, date.fromisoformat(TIME[:10]))
        yield prepared


def segment(book: list[BookRow], trades: list[Trade]) -> Segment:
    """A segment of two appends, as it is read."""
    lines, more = list(map(book_line, book)), list(map(trade_line, trades))
    return Segment(HEADER, [b"".join(lines[:3]), b"".join(lines[3:])], [b"".join(more)], [], 0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad_book=st.sets(st.integers(0, 11)), bad_trades=st.sets(st.integers(0, 11)))
def test_each_rejected_row_is_found(
    bad_book: set[int],
    bad_trades: set[int],
    connection: Connection,
    migrated_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Prevents a good row from being set apart, a bad one from being left, and any from being stored on the way."""
    directory = tmp_path_factory.mktemp("spool")
    book = [book_row(seq, **({"bids": BAD_BOOK} if seq in bad_book else {})) for seq in range(12)]
    trades = [trade(number, **({"price": BAD_TRADE} if number in bad_trades else {})) for number in range(12)]
    whole = segment(book, trades)
    for _ in range(2):  # shipping may be tried again
        good, apart = set_rejected_apart(connection, whole, directory)
    assert b"".join(good.book) == b"".join(book_line(row) for row in book if row.seq not in bad_book)
    assert b"".join(good.trades) == b"".join(trade_line(row) for row in trades if row.trade_id not in bad_trades)
    assert [of.chain for of in apart] == [1] * len(bad_book) + [None] * len(bad_trades)
    files = list((directory / "rejected").iterdir())
    kept = [json.loads(line) for path in files for line in path.read_bytes().splitlines()]
    assert sorted(row["line"].encode() for row in kept) == sorted(
        [book_line(book[seq]) for seq in bad_book] + [trade_line(trades[number]) for number in bad_trades]
    )
    assert all(row["error"] for row in kept)
    assert count(migrated_url, BOOK_COUNT) == count(migrated_url, TRADE_COUNT) == 0
